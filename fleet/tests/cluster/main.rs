//! Stories on real nodes: Debian 13 in containers, its systemd, its etcd, and the programs of this crate.

mod failures;
mod nodes;
mod scheduling;
mod security;
