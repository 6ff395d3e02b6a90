//! What the cluster remembers, and the few ways to change it.
//!
//! Knows records, their keys and versions, and the picture of the cluster that changes build up; refuses
//! to decide anything about it. Invariant: a [`cluster::Cluster`] shows the store at exactly one revision.

pub mod boot_time;
pub mod cluster;
pub mod etcd;
pub mod keys;
pub mod memory;
pub mod picture;
pub mod records;
pub mod registry;
pub mod revision;
#[cfg(test)]
mod upgrade;
pub mod writes;
