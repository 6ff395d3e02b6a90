//! What the API serves: the cluster, the reboot slots, and how they are shown. Every answer gets it.
//!
//! Refuses to know paths and answers. Invariant: a clone serves the same.

use super::page;
use super::requests::RequestCounts;
use std::sync::Arc;

/// Writes more metrics, in Prometheus' text format.
pub type MoreMetrics = Arc<dyn Fn(&mut String) + Send + Sync>;

/// What the API serves.
pub struct ServedApi<R, L> {
    /// The cluster.
    pub registry: Arc<R>,
    /// The reboot slots.
    pub locks: Arc<L>,
    /// Entries on a page.
    pub token_limit: u16,
    /// Whether a machine that takes a reboot slot is emptied before it is told that it has it.
    pub drain_on_lock: bool,
    /// Metrics of the engine and the agent, if somebody keeps them.
    pub more_metrics: Option<MoreMetrics>,
    /// What a person should mend although everything works; shown with the health.
    pub warnings: Vec<String>,
    /// Requests so far, for the metrics.
    pub requests: Arc<RequestCounts>,
}

impl<R, L> ServedApi<R, L> {
    /// An API with the usual page size.
    pub fn new(registry: Arc<R>, locks: Arc<L>) -> Self {
        Self {
            registry,
            locks,
            token_limit: page::DEFAULT_LIMIT,
            drain_on_lock: false,
            more_metrics: None,
            warnings: Vec::new(),
            requests: Arc::default(),
        }
    }
}

impl<R, L> Clone for ServedApi<R, L> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            locks: self.locks.clone(),
            token_limit: self.token_limit,
            drain_on_lock: self.drain_on_lock,
            more_metrics: self.more_metrics.clone(),
            warnings: self.warnings.clone(),
            requests: self.requests.clone(),
        }
    }
}

impl<R, L> std::fmt::Debug for ServedApi<R, L> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Api").field("token_limit", &self.token_limit).finish_non_exhaustive()
    }
}
