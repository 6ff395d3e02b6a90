//! Decisions, and only decisions: which machine, when, and what an agent does next.
//!
//! Knows the rules; refuses to know clocks, networks and stores: time is an argument, a decision is a
//! value. Invariant: the same cluster and the same time give the same decisions.

pub mod converge;
pub mod explain;
pub mod global_rollout;
pub mod globals;
pub mod machine_units;
pub mod ordering;
pub mod patterns;
pub mod place;
pub mod reconcile;
pub mod rollout;
pub mod rules;
