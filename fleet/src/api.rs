//! The HTTP API: what clients ask, answered from the cluster's picture; what they order, handed on.
//!
//! Version 1 of the original, path by path and byte by byte, under `/fleet/v1` and `/v1-alpha`; beside it
//! what is ours: `/fleet/v1/watch`, `explain`, `drain`, `rebalance`, `brake`, `restart`, `locks`, `health`,
//! and the FleetLock protocol under `/v1`. Knows HTTP and the wire; refuses to know how the store keeps
//! things ([`crate::store::registry::Registry`] is all it sees) and what placement means. Invariants: a
//! body is bounded before it is parsed and valid before it is handed on; who may only read changes nothing.

pub mod access;
pub mod listen;
pub mod page;
pub mod schema;

mod answer;
mod bodies;
mod commands;
mod discovery;
mod explain;
mod fleet_lock;
mod forgery;
pub(crate) mod locks;
mod machines;
mod metrics;
mod requests;
mod router;
mod served;
mod state;
mod units;
mod watch;

pub use requests::RequestCounts;
pub use router::api_router;
pub use served::{MoreMetrics, ServedApi};
