//! Carries batches out: units are written, made known, started, stopped and forgotten.
//!
//! Knows the order of things inside a batch and what a failure of each leaves. Refuses to know how the
//! cluster hears of it. Invariant: a unit is forgotten only when it is down.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Agent, AgentError,
    systemd::{Activity, News, SystemdError},
};
use crate::{
    metrics::Task,
    model::{state::JobState, unit_name::UnitName},
    plan::reconcile::{Batch, Held, batch},
    store::{etcd::chain, records::StateRecord, registry::Registry, writes},
};

/// How many names one line of the log may hold.
const NAMES_AT_ONCE: usize = 8;
/// How long to wait before a failed task is tried again.
const RETRY: Duration = Duration::from_secs(5);

impl Agent {
    /// Works off the difference between what should be here and what is.
    pub(super) async fn act(&mut self) {
        let (duties, machine, held) = (&self.duties, &self.machine, &self.held);
        self.wanted = self.store.read(|cluster| {
            let shown = cluster.machines.get(&machine.id).unwrap_or(machine);
            duties.wanted(cluster, shown, held)
        });
        let mut tasks = batch(&self.wanted, &self.held);
        // What is on its way out is dealt with when it is gone.
        let leaving = &self.leaving;
        for list in
            [&mut tasks.unload, &mut tasks.load, &mut tasks.stop, &mut tasks.restart, &mut tasks.start]
        {
            list.retain(|unit| !leaving.contains(unit));
        }
        if tasks.is_empty() {
            return;
        }
        self.metrics.did(Task::Batch, 1);
        self.carry_out(tasks).await;
        self.write_journal();
    }

    async fn carry_out(&mut self, mut tasks: Batch) {
        for unit in std::mem::take(&mut tasks.unload) {
            tracing::info!(%unit, "unloading");
            self.unload(&unit).await;
        }
        let leaving = &self.leaving;
        tasks.load.retain(|unit| !leaving.contains(unit));
        tasks.start.retain(|unit| !leaving.contains(unit));
        self.load(&tasks.load).await;
        for unit in &tasks.stop {
            tracing::info!(%unit, "stopping");
            let outcome = self.systemd.stop(unit).await;
            self.note(unit, "stop", JobState::Loaded, outcome, Task::Stop);
        }
        for unit in &tasks.restart {
            tracing::info!(%unit, "restarting");
            let outcome = self.systemd.restart(unit).await;
            self.note(unit, "restart", JobState::Launched, outcome, Task::Start);
        }
        // Whoever runs is guarded before, even if this process ends here.
        self.fence.cover(&self.systemd, &self.wanted, &self.held).await;
        self.start(&tasks.start).await;
        let touched: Vec<UnitName> = [tasks.load, tasks.stop, tasks.restart, tasks.start].concat();
        self.refresh(&touched).await;
    }

    async fn start(&mut self, units: &[UnitName]) {
        let mut ready = Vec::with_capacity(units.len());
        for unit in units {
            if self.held.contains_key(unit) && self.may_start(unit).await {
                ready.push(unit.clone());
            }
        }
        if !ready.is_empty() {
            tracing::info!(units = %names(&ready), "starting");
        }
        let outcomes = self.systemd.start_all(&ready).await;
        for (unit, outcome) in ready.iter().zip(outcomes) {
            self.note(unit, "start", JobState::Launched, outcome, Task::Start);
        }
    }

    /// A fenced unit starts only after the cluster knows that it does.
    async fn may_start(&mut self, unit: &UnitName) -> bool {
        let Some(wish) = self.wanted.get(unit).filter(|wish| wish.fence && !wish.global) else { return true };
        let record = StateRecord {
            hash: wish.file.hash(),
            job: JobState::Launched,
            load: "loaded".to_owned(),
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            restarts: wish.restarts,
            error: String::new(),
        };
        match self.store.commit(&writes::intent(&self.machine.id, unit, &record)).await {
            Ok(committed) if committed.succeeded => {
                self.published.insert(unit.clone(), record);
                true
            }
            _ => {
                tracing::info!(%unit, "not starting a fenced unit that may belong elsewhere by now");
                self.retry.get_or_insert_with(|| Instant::now() + Duration::from_millis(500));
                false
            }
        }
    }

    async fn unload(&mut self, unit: &UnitName) {
        match self.systemd.stop(unit).await {
            Ok(()) if self.activity.get(unit).is_some_and(Activity::is_up) => {
                self.leaving.insert(unit.clone());
                self.metrics.did(Task::Stop, 1);
            }
            Ok(()) => self.forget(unit).await,
            Err(error) if error.is_unknown_unit() => self.forget(unit).await,
            Err(error) => self.complain(unit, "stop", &error),
        }
    }

    /// Writes files, makes them known, and has systemd read them anew once if it must.
    async fn load(&mut self, units: &[UnitName]) {
        if units.is_empty() {
            return;
        }
        let (mut paths, mut enable, mut loaded) = (Vec::new(), Vec::new(), Vec::new());
        // A name that systemd knows already has a content that must not live on.
        let reload = self.systemd.knows_any(units).await.unwrap_or(true);
        for unit in units {
            let Some(wish) = self.wanted.get(unit) else { continue };
            let path = self.path(unit);
            if let Err(error) = std::fs::write(&path, wish.file.text()) {
                self.complain(unit, "write", &AgentError::Write { path, source: error });
                continue;
            }
            let path = path.display().to_string();
            if wish.file.has_section("Install") {
                enable.push(path.clone());
            }
            paths.push(path);
            loaded.push(unit.clone());
        }
        if let Err(error) = self.systemd.link(&paths, &enable).await {
            for unit in &loaded {
                self.complain(unit, "load", &error);
            }
            return;
        }
        if reload || !enable.is_empty() {
            self.metrics.did(Task::Reload, 1);
            if let Err(error) = self.systemd.reload().await {
                tracing::warn!(reason = %chain(&error), "systemd could not read its configuration anew");
            }
        }
        tracing::info!(units = %names(&loaded), "loaded");
        for unit in loaded {
            let Some(wish) = self.wanted.get(&unit) else { continue };
            tracing::debug!(%unit, hash = %wish.file.hash().short(), "loaded");
            let held = Held { hash: wish.file.hash(), job: JobState::Loaded, restarts: wish.restarts };
            self.held.insert(unit.clone(), held);
            self.errors.remove(&unit);
            self.dirty.insert(unit);
            self.metrics.did(Task::Load, 1);
        }
    }

    /// Remembers how far a unit got, or why it did not.
    fn note(
        &mut self,
        unit: &UnitName,
        verb: &str,
        job: JobState,
        outcome: Result<(), SystemdError>,
        task: Task,
    ) {
        match outcome {
            Ok(()) => {
                let restarts = self.wanted.get(unit).map_or(0, |wish| wish.restarts);
                if let Some(held) = self.held.get_mut(unit) {
                    held.job = job;
                    held.restarts = restarts;
                }
                self.errors.remove(unit);
                self.metrics.did(task, 1);
            }
            Err(error) => self.complain(unit, verb, &error),
        }
        self.dirty.insert(unit.clone());
    }

    fn complain(&mut self, unit: &UnitName, verb: &str, error: &dyn std::error::Error) {
        let error = chain(error);
        tracing::warn!(%unit, %error, "cannot {verb} the unit");
        self.metrics.did(Task::Failure, 1);
        self.errors.insert(unit.clone(), format!("cannot {verb}: {error}"));
        self.dirty.insert(unit.clone());
        self.retry.get_or_insert_with(|| Instant::now() + RETRY);
    }

    /// Ends the departure of a unit that is down.
    pub(super) async fn forget_if_down(&mut self, unit: &UnitName) -> bool {
        if !self.leaving.contains(unit) || self.activity.get(unit).is_some_and(Activity::is_up) {
            return false;
        }
        self.forget(unit).await;
        true
    }

    async fn forget(&mut self, unit: &UnitName) {
        self.leaving.remove(unit);
        if let Err(error) = self.systemd.unlink(unit).await {
            tracing::debug!(%unit, reason = %chain(&error), "systemd did not know the unit any more");
        }
        let path = self.path(unit);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a unit file");
        }
        self.held.remove(unit);
        self.activity.remove(unit);
        self.errors.remove(unit);
        self.dirty.insert(unit.clone());
        self.metrics.did(Task::Unload, 1);
        self.write_journal();
    }

    fn path(&self, unit: &UnitName) -> PathBuf {
        self.settings.units_directory.join(unit.as_str())
    }

    fn write_journal(&self) {
        if let Err(error) = self.journal.write(&self.held) {
            tracing::warn!(reason = %chain(&error), "a restart of fleetd would start units anew that have run to their end");
        }
    }

    /// Stops and forgets everything: the old way of leaving a cluster.
    pub(super) async fn purge(&mut self, news: &mut mpsc::UnboundedReceiver<News>) {
        self.wanted.clear();
        for unit in self.held.keys().cloned().collect::<Vec<_>>() {
            tracing::info!(%unit, "purging");
            self.unload(&unit).await;
        }
        let patience = Instant::now() + Duration::from_mins(1);
        while !self.leaving.is_empty() && Instant::now() < patience {
            match tokio::time::timeout(Duration::from_secs(1), news.recv()).await {
                Ok(Some(news)) => {
                    self.hear(news).await;
                }
                Ok(None) => return,
                Err(_) => {
                    let waiting: Vec<UnitName> = self.leaving.iter().cloned().collect();
                    self.refresh(&waiting).await;
                    for unit in waiting {
                        self.forget_if_down(&unit).await;
                    }
                }
            }
        }
        self.publish().await;
    }
}

/// Units for the log, the first of many.
fn names(units: &[UnitName]) -> String {
    let first: Vec<&str> = units.iter().take(NAMES_AT_ONCE).map(UnitName::as_str).collect();
    let more = units.len() - first.len();
    if more == 0 { first.join(" ") } else { format!("{} and {more} more", first.join(" ")) }
}
