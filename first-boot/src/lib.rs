//! Carries out what a user asked for, on the running machine.
//!
//! Knows the order of a run: find the platform, fetch, plan, apply, report. Refuses to decide what a
//! document means: plans come from [`user_data`]. Invariants: once per instance; a failed item costs
//! the others nothing; user-data cannot cost the machine its SSH access.

mod accounts;
mod apply;
mod chooser;
mod digits;
mod edit_error;
mod facts;
mod file_rights;
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
mod step_result;
mod switch;
mod systemd;
mod web;

pub use judge::{Document, OfflineReport, OutputFormat, PlanDetail, Role, plan_file, validate_files};
pub use machine::MachineAccess;
pub use outcome::{RunOutcome, Verdict};
pub use programs::{HostPrograms as RealPrograms, ProgramCall, ProgramRunner, RunError};
pub use recurrence::{RecurError, Recurrence, run_recurring};
pub use root::MachineRoot;
pub use run::{RunOptions, RunStatus, apply_file, await_logins, ended_status, last_status, run_first_boot};
pub use source::Switch;
pub use switch::{SwitchError, describe_switch, set_switch};
pub use systemd::{ManagerError, SystemdManager as RealManager, UnitManager, UnitRequest};
pub use web::{HttpClient as RealWeb, WebClient, WebError};
