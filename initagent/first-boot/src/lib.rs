//! Carries out what a user asked for, on the running machine.
//!
//! Knows the order of a run: find the platform, fetch, plan, apply, report. Refuses to decide what a
//! document means: plans come from [`user_data`]. Invariants: once per instance; a failed item costs
//! the others nothing; user-data can't cost the machine its SSH access.

mod accounts;
mod apply;
mod chooser;
mod digits;
mod edit_error;
mod facts;
mod files;
mod folder;
mod home;
mod instance_data;
mod judge;
mod machine;
mod outcome;
mod programs;
mod record;
mod recurrence;
mod root;
mod run;
mod source;
mod step_error;
mod switch;
mod systemd;
mod web;

pub use judge::{Document, Judgement, Listing, Role, Style, plan, validate};
pub use machine::Machine;
pub use outcome::{Outcome, Verdict};
pub use programs::{Call, Programs, Real as RealPrograms, RunError};
pub use recurrence::{RecurError, Recurrence, run_recurring};
pub use root::Root;
pub use run::{Options, Status, apply_file, await_logins, ended, run, status};
pub use source::Switch;
pub use switch::{SwitchError, describe as describe_switch, set as set_switch};
pub use systemd::{Manager, ManagerError, Real as RealManager, Request};
pub use web::{Real as RealWeb, Web, WebError};
