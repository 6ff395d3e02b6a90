//! Makes a machine a member of its cluster: keys, etcd, and the way to the others.
//!
//! One machine and many are the same design: a machine that nobody told of a cluster is a cluster of one, with
//! a secret of its own. Knows etcd 3.5, certificates, and how machines find each other. Refuses to know
//! cloud-config, which `user-data` reads, and fleet's API. Invariant: nothing of a cluster answers anybody
//! without a certificate, unless a person wrote so, and then it is said.

pub mod access;
pub mod authority;
pub mod backup;
pub mod condition;
pub mod derive;
pub mod discovery_service;
pub mod etcd;
pub mod etcd_client;
pub mod etcdctl;
pub mod exposure;
pub mod finding;
pub mod fleet;
pub mod identity;
pub mod interfaces;
pub mod joining;
pub mod link;
pub mod maintenance;
pub mod membership;
pub mod membership_change;
pub mod prepare;
pub mod promotion;
pub mod proxy;
pub mod request;
pub mod restart;
pub mod restore;
pub mod serve;
pub mod site;
pub mod voters;
