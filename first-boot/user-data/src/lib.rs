//! What a user may hand a machine on its first boot: read, checked and planned.
//!
//! Knows formats and what they mean. Refuses to act: nothing here touches a disk, a network, a clock
//! or another program. Invariants: bytes are bounded before they are parsed; every finding has a
//! place; no value of a content, password or key is ever printed.
//!
//! ```
//! use document::caret::{self, Excerpts};
//! use user_data::container::{self, FetchPolicy};
//! use user_data::cloudconfig::order::PlanFacts;
//! use user_data::plan::text::{self, ContentDisplay};
//! use user_data::reading::{self, UserDataInput};
//!
//! let payload = b"#cloud-config\nhostname: node1\nhostnam: node2\n";
//! let user = container::open_payload("user-data", payload, FetchPolicy::none());
//! let read = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
//!
//! // What will be done, each step with the place that asks for it.
//! let plan = text::render_plan(&read.plan, &read.sources, ContentDisplay::Hidden);
//! assert!(plan.contains("set host name node1  [user-data:2:11 hostname]"), "{plan}");
//!
//! // What is wrong, with what was probably meant.
//! let findings = caret::render_diagnostics(&read.found, &read.sources, Excerpts::Hidden);
//! assert!(findings.contains("--> user-data:3:1"), "{findings}");
//! assert!(findings.contains("did you mean `hostname`?"), "{findings}");
//! ```

pub mod address;
pub mod cloudconfig;
pub mod cluster;
pub mod container;
pub mod ignition;
pub mod image_units;
pub mod json;
pub mod network;
pub mod part;
pub mod payload;
pub mod plan;
pub mod protected;
pub mod reading;
pub mod room;
pub mod secret;
pub mod ssh_key;
pub mod systemd;
pub mod template;
pub mod tokens;
mod unit_text;
pub mod unread;
