//! Makes a machine a member of its cluster.
pub mod authority;
pub mod derive;
pub mod etcd;
pub mod exposure;
pub mod link;
pub mod proxy;
pub mod voters;
