//! What the daemon counts, in Prometheus' text format and under the original's names.
//!
//! Knows numbers only. Invariant: counters never fall while the process lives.

#![expect(clippy::disallowed_methods, reason = "effects live here: the leader's start is wall-clock time")]

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::plan::place::{DecisionReason, PlacementDecision};

/// The counters of one daemon.
#[derive(Debug, Default)]
pub struct DaemonMetrics {
    leader_since: AtomicU64,
    reconciles: AtomicU64,
    reconcile_micros: AtomicU64,
    scheduled: AtomicU64,
    unscheduled: AtomicU64,
    machines_away: AtomicU64,
    unable: AtomicU64,
    batches: AtomicU64,
    loaded: AtomicU64,
    unloaded: AtomicU64,
    started: AtomicU64,
    stopped: AtomicU64,
    failed: AtomicU64,
    reloads: AtomicU64,
    states_published: AtomicU64,
}

/// What an agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentTask {
    /// A batch was carried out.
    Batch,
    /// A task of a batch failed.
    Failure,
    /// Units were loaded.
    Load,
    /// systemd read its configuration anew.
    Reload,
    /// Units were started.
    Start,
    /// States were published.
    State,
    /// Units were stopped.
    Stop,
    /// Units were unloaded.
    Unload,
}

// Plain atomics and no metrics crate: a dozen counters are written in one place and printed in one other.
impl DaemonMetrics {
    /// The engine leads now, or does no longer.
    pub fn set_leading(&self, leads: bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.leader_since.store(if leads { now } else { 0 }, Relaxed);
    }

    /// The engine thought for so long.
    pub fn count_plan(&self, time: Duration) {
        self.reconciles.fetch_add(1, Relaxed);
        self.reconcile_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The engine decided.
    pub fn count_decision(&self, decision: &PlacementDecision) {
        match decision.reason {
            DecisionReason::MachineAway(_) => self.machines_away.fetch_add(1, Relaxed),
            DecisionReason::Unable(..) => self.unable.fetch_add(1, Relaxed),
            DecisionReason::Wanted | DecisionReason::Inactive | DecisionReason::Rebalanced(_) => 0,
        };
        let counter = if decision.to.is_some() { &self.scheduled } else { &self.unscheduled };
        counter.fetch_add(1, Relaxed);
    }

    /// The agent did something so often.
    pub fn count_task(&self, task: AgentTask, count: usize) {
        let counter = match task {
            AgentTask::Batch => &self.batches,
            AgentTask::Failure => &self.failed,
            AgentTask::Load => &self.loaded,
            AgentTask::Reload => &self.reloads,
            AgentTask::Start => &self.started,
            AgentTask::State => &self.states_published,
            AgentTask::Stop => &self.stopped,
            AgentTask::Unload => &self.unloaded,
        };
        counter.fetch_add(count as u64, Relaxed);
    }

    /// Appends all metrics.
    pub fn write(&self, text: &mut String) {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let lines = [
            ("fleet_engine_leader_start_time", "gauge", read(&self.leader_since)),
            ("fleet_engine_reconcile_count_total", "counter", read(&self.reconciles)),
            ("fleet_engine_reconcile_microseconds_total", "counter", read(&self.reconcile_micros)),
            ("fleet_engine_task_count_total{type=\"AttemptScheduleUnit\"}", "counter", read(&self.scheduled)),
            ("fleet_engine_task_count_total{type=\"UnscheduleUnit\"}", "counter", read(&self.unscheduled)),
            (
                "fleet_engine_reconcile_failure_count_total{type=\"machine_away\"}",
                "counter",
                read(&self.machines_away),
            ),
            ("fleet_engine_reconcile_failure_count_total{type=\"run\"}", "counter", read(&self.unable)),
            ("fleet_agent_batch_count_total", "counter", read(&self.batches)),
            ("fleet_agent_task_count_total{type=\"LoadUnit\"}", "counter", read(&self.loaded)),
            ("fleet_agent_task_count_total{type=\"ReloadUnitFiles\"}", "counter", read(&self.reloads)),
            ("fleet_agent_task_count_total{type=\"StartUnit\"}", "counter", read(&self.started)),
            ("fleet_agent_task_count_total{type=\"StopUnit\"}", "counter", read(&self.stopped)),
            ("fleet_agent_task_count_total{type=\"UnloadUnit\"}", "counter", read(&self.unloaded)),
            ("fleet_agent_task_failure_count_total", "counter", read(&self.failed)),
            ("fleet_agent_states_published_total", "counter", read(&self.states_published)),
        ];
        let mut family = "";
        for (name, kind, value) in lines {
            let this = name.split('{').next().unwrap_or(name);
            if this != family {
                let _ = writeln!(text, "# TYPE {this} {kind}");
                family = this;
            }
            let _ = writeln!(text, "{name} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_announced_once() {
        let metrics = DaemonMetrics::default();
        metrics.count_task(AgentTask::Start, 3);
        let mut text = String::new();

        metrics.write(&mut text);

        assert_eq!(text.matches("# TYPE fleet_agent_task_count_total ").count(), 1);
        assert!(text.contains("fleet_agent_task_count_total{type=\"StartUnit\"} 3\n"));
    }
}
