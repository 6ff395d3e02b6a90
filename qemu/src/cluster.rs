//! Machines that are one cluster: who they are, what they are told, and the folder that says that they belong
//! together.
//!
//! [`plan`], [`template`] and [`metadata`] are pure; [`folder`] keeps the record. Refuses to run anything: the machines are the
//! registry's, their network is [`crate::switch`]'s. One cluster for each folder of machines, so that a number is
//! enough to name a machine; `--state` makes room for another.

pub mod folder;
pub mod metadata;
pub mod plan;
pub mod template;
