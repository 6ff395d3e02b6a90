//! Lets units go: stopped first, then forgotten, with all that systemd has of them.
//!
//! Knows what a unit leaves in systemd and on the disk. Refuses to decide which units go. Invariant: a unit
//! is forgotten only when it is down, and then nothing of it is left.

use error_text::error_chain;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{
    ASK_AGAIN, FleetAgent,
    systemd::{News, UnitActivity},
    work::join_names,
};
use crate::{metrics::AgentTask, model::unit_name::UnitName};

// A unit leaves in two steps: it is stopped, and its file and links go when it is down. A unit of the
// vendor with the same name must not count again while ours still runs.
impl FleetAgent {
    /// Stops a unit that is to go, and notes whether it is down.
    pub(super) async fn unload_unit(&mut self, unit: &UnitName) {
        match self.systemd.stop_unit(unit).await {
            Ok(()) => {
                if self.activity.get(unit).is_some_and(UnitActivity::is_up) {
                    self.metrics.count_task(AgentTask::Stop, 1);
                    self.ask_again.get_or_insert_with(|| Instant::now() + ASK_AGAIN);
                } else {
                    self.down.insert(unit.clone());
                }
                self.leaving.insert(unit.clone());
            }
            Err(error) if error.is_unknown_unit() => {
                self.leaving.insert(unit.clone());
                self.down.insert(unit.clone());
            }
            Err(error) => self.report_failure(unit, "stop", &error),
        }
    }

    /// Ends the departure of the units that are down, all with one reload.
    pub(super) async fn forget_all(&mut self) {
        let units: Vec<UnitName> = std::mem::take(&mut self.down).into_iter().collect();
        if units.is_empty() {
            return;
        }
        self.remove_files(&units).await;
        for unit in units {
            self.leaving.remove(&unit);
            self.held.remove(&unit);
            self.activity.remove(&unit);
            self.refused.remove(&unit);
            self.errors.remove(&unit);
            self.retries.clear_unit(&unit);
            self.dirty.insert(unit);
            self.metrics.count_task(AgentTask::Unload, 1);
        }
        self.write_journal();
    }

    /// Makes units unknown to systemd: links first, while their files still say which there are; then the
    /// files; then what systemd has in memory of them.
    async fn remove_files(&mut self, units: &[UnitName]) {
        if let Err(error) = self.systemd.disable_units(units).await {
            tracing::warn!(units = %join_names(units), reason = %error_chain(&error), "links to these units may be left");
        }
        for unit in units {
            let path = self.unit_path(unit);
            let removed = self.systemd.unlink_unit(&path).and_then(|()| std::fs::remove_file(&path));
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a unit file");
            }
        }
        self.reload_systemd().await;
        if let Err(error) = self.systemd.reset_failed(units).await {
            tracing::warn!(units = %join_names(units), reason = %error_chain(&error), "systemd still calls these units failed");
        }
    }

    /// Removes what a fleetd left that could not disable units: until version 0.1 none could.
    pub(super) async fn remove_dangling_links(&mut self) {
        let mut units = self.systemd.dangling_units(&self.settings.units_directory);
        units.retain(|unit| !self.held.contains_key(unit));
        if !units.is_empty() {
            tracing::info!(units = %join_names(&units), "removing links to units that are gone");
            self.remove_files(&units).await;
        }
    }

    /// Stops and forgets everything: the old way of leaving a cluster.
    pub(super) async fn purge_units(&mut self, news: &mut mpsc::UnboundedReceiver<News>) {
        self.wanted.clear();
        for unit in self.held.keys().cloned().collect::<Vec<_>>() {
            tracing::info!(%unit, "purging");
            self.unload_unit(&unit).await;
        }
        self.forget_all().await;
        let patience = Instant::now() + Duration::from_mins(1);
        while !self.leaving.is_empty() && Instant::now() < patience {
            match tokio::time::timeout(Duration::from_secs(1), news.recv()).await {
                Ok(Some(told)) => {
                    self.receive_news(told);
                    while let Ok(told) = news.try_recv() {
                        self.receive_news(told);
                    }
                }
                Ok(None) => return,
                Err(_) => self.unclear.extend(self.leaving.iter().cloned()),
            }
            self.catch_up().await;
        }
        self.publish_states().await;
    }
}
