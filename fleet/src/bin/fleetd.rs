//! The daemon of a machine of the cluster.
fn main() {}
