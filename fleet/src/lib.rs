//! Schedules systemd units over a cluster, on etcd v3.
//!
//! Values flow one way: [`model`] gives the words, [`store`] keeps them and tells of changes, [`plan`]
//! decides without acting, [`engine`] and [`agent`] act on decisions, [`lock`] counts reboot slots, [`api`] answers
//! and takes orders over HTTP, [`ctl`] is the other end of that.
//! Files that plan import nothing that acts.

pub mod agent;
pub mod api;
pub mod ctl;
pub mod daemon;
pub mod engine;
pub mod lock;
pub mod locksmith;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod settings;
pub mod single_dash;
pub mod store;
