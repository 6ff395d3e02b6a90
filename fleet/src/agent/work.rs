//! Carries batches out: units are written, made known, started and stopped.
//!
//! Knows the order of things inside a batch and what a failure of each leaves. Refuses to know how the
//! cluster hears of it. Invariant: what failed stays to be done.

use error_text::error_chain;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    AgentError, FleetAgent,
    systemd::{SystemdError, UnitActivity},
};
use crate::{
    metrics::AgentTask,
    model::{state::JobState, unit_name::UnitName},
    plan::{
        machine_units::ActualUnit,
        ordering::required_units,
        reconcile::{TaskBatch, plan_batch},
    },
    store::{records::StateRecord, registry::Registry, writes},
};

/// How many names one line of the log may hold.
// A batch of a thousand units would be one line of 20 KiB. Eight names say which batch it was.
const NAMES_AT_ONCE: usize = 8;
impl FleetAgent {
    /// Works off the difference between what should be here and what is.
    pub(super) async fn work_off_difference(&mut self) {
        let (duties, machine, held) = (&self.duties, &self.machine, &self.held);
        self.wanted = self.store.read(|cluster| {
            let shown = cluster.machines.get(&machine.id).unwrap_or(machine);
            duties.desired_units(cluster, shown, held)
        });
        self.release_refused();
        let mut tasks = plan_batch(&self.wanted, &self.held);
        let now = Instant::now();
        // What is on its way out is dealt with when it is gone.
        let waits = |unit: &UnitName| {
            self.leaving.contains(unit) || self.retries.is_held_back(unit, &self.wanted, now)
        };
        for list in
            [&mut tasks.unload, &mut tasks.load, &mut tasks.stop, &mut tasks.restart, &mut tasks.start]
        {
            list.retain(|unit| !waits(unit));
        }
        if tasks.is_empty() {
            self.fence.update_timer(&self.systemd, &self.wanted, &self.held).await;
            return;
        }
        self.metrics.count_task(AgentTask::Batch, 1);
        self.carry_out(tasks).await;
        self.write_journal();
    }

    /// Lets units start again that could not before, if what they lacked is here, or comes with this batch.
    fn release_refused(&mut self) {
        let (wanted, held) = (&self.wanted, &self.held);
        let comes = |unit: &UnitName| {
            let wish = wanted.get(unit).map(|wish| wish.file.hash());
            wish.is_some() && wish != held.get(unit).map(|held| held.hash)
        };
        let required = |unit: &UnitName| {
            wanted.get(unit).map(|wish| required_units(unit, &wish.file)).unwrap_or_default()
        };
        // systemd refused the call: the start is still to be done, and only waits.
        for unit in self.retries.failed_units() {
            if required(&unit).iter().any(comes) {
                self.retries.clear_unit(&unit);
            }
        }
        // systemd took the call, and the job failed or will: it may not have said so yet. A start that is under
        // way takes a second call in.
        let may_start = |activity: &UnitActivity| !activity.is_up() || activity.is_activating();
        let appeared = |(unit, missing): &(&UnitName, &BTreeSet<UnitName>)| {
            self.activity.get(*unit).is_none_or(may_start)
                && (required(unit).iter().any(comes) || missing.iter().any(|unit| held.contains_key(unit)))
        };
        let released: Vec<UnitName> =
            self.refused.iter().filter(appeared).map(|(unit, _)| unit.clone()).collect();
        for unit in released {
            self.refused.remove(&unit);
            if let Some(held) = self.held.get_mut(&unit).filter(|held| held.job == JobState::Launched) {
                tracing::info!(%unit, "starting again: what it lacked is here");
                held.job = JobState::Loaded;
            }
        }
    }

    async fn carry_out(&mut self, mut tasks: TaskBatch) {
        // Unload before load: a unit whose content changed is in both lists.
        for unit in std::mem::take(&mut tasks.unload) {
            tracing::info!(%unit, "unloading");
            self.unload_unit(&unit).await;
        }
        // Another content must not wait for the next reload that may come.
        if tasks.load.iter().any(|unit| self.down.contains(unit)) {
            self.forget_all().await;
        }
        let leaving = &self.leaving;
        tasks.load.retain(|unit| !leaving.contains(unit));
        tasks.start.retain(|unit| !leaving.contains(unit));
        // All are written before one is started: what a unit requires may be in the same batch, and systemd
        // refuses a start whose requirement it does not know.
        self.load_units(&tasks.load).await;
        // Stops before starts, since what stops may hold the port that what starts wants.
        for unit in &tasks.stop {
            tracing::info!(%unit, "stopping");
            let outcome = self.systemd.stop_unit(unit).await;
            self.note_outcome(unit, "stop", JobState::Loaded, outcome, AgentTask::Stop);
        }
        for unit in &tasks.restart {
            tracing::info!(%unit, "restarting");
            let outcome = self.systemd.restart_unit(unit).await;
            self.note_outcome(unit, "restart", JobState::Launched, outcome, AgentTask::Start);
        }
        // The timer knows each unit before it runs, even if this process ends here.
        self.fence.update_timer(&self.systemd, &self.wanted, &self.held).await;
        self.start_units(&tasks.start).await;
        let touched: Vec<UnitName> = [tasks.load, tasks.stop, tasks.restart, tasks.start].concat();
        self.refresh_units(&touched).await;
    }

    async fn start_units(&mut self, units: &[UnitName]) {
        let mut ready = Vec::with_capacity(units.len());
        for unit in units {
            if self.held.contains_key(unit) && self.may_start(unit).await {
                ready.push(unit.clone());
            }
        }
        if !ready.is_empty() {
            tracing::info!(units = %join_names(&ready), "starting");
        }
        let lacking: Vec<(UnitName, BTreeSet<UnitName>)> =
            ready.iter().map(|unit| (unit.clone(), self.missing_units(unit))).collect();
        // Without waiting for each: under load a thousand answers each took their turn on the processor.
        let outcomes = self.systemd.start_all(&ready).await;
        let (unknown, known): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .zip(outcomes)
            .partition(|(_, outcome)| outcome.as_ref().is_err_and(SystemdError::is_unknown_unit));
        for (unit, outcome) in known {
            self.note_outcome(&unit, "start", JobState::Launched, outcome, AgentTask::Start);
        }
        // systemd may not have seen that its directory changed. One reload for all of them, and a second
        // try.
        self.start_unknown(unknown.into_iter().map(|(unit, _)| unit).collect()).await;
        // What a unit lacks may be here before systemd says that the job failed for it.
        self.refused.extend(lacking.into_iter().filter(|(_, missing)| !missing.is_empty()));
    }

    /// systemd looks for a new file only if its directories changed since it last looked, by a clock that
    /// ticks every few milliseconds: within one tick it needs to be told.
    async fn start_unknown(&mut self, units: Vec<UnitName>) {
        if units.is_empty() {
            return;
        }
        self.reload_systemd().await;
        let outcomes = self.systemd.start_all(&units).await;
        for (unit, outcome) in units.iter().zip(outcomes) {
            self.note_outcome(unit, "start", JobState::Launched, outcome, AgentTask::Start);
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
        match self.store.commit_write(&writes::intent_write(&self.machine.id, unit, &record)).await {
            // Noted as published, so that the real state, which follows at once, is compared with what the
            // store holds.
            Ok(committed) if committed.succeeded => {
                self.published.insert(unit.clone(), record);
                true
            }
            _ => {
                tracing::info!(%unit, "not starting a fenced unit that may belong elsewhere by now");
                // Soon: mostly the assignment was taken back, and the change that says so is on its way.
                self.retry.get_or_insert_with(|| Instant::now() + Duration::from_millis(500));
                false
            }
        }
    }

    /// Writes files, makes them known, and has systemd read them anew once if it must.
    async fn load_units(&mut self, units: &[UnitName]) {
        if units.is_empty() {
            return;
        }
        // A name that systemd knows already has a content that must not live on.
        let mut reload = self.systemd.knows_any(units).await.unwrap_or_else(|error| {
            tracing::warn!(reason = %error_chain(&error), "systemd does not say which units it knows");
            true
        });
        let mut loaded: Vec<UnitName> = units.iter().filter(|unit| self.write_file(unit)).cloned().collect();
        let enabled = self.enable_units(&mut loaded).await;
        // EnableUnitFiles makes links that systemd notices only when it reads its configuration anew.
        reload |= enabled;
        if reload {
            self.reload_systemd().await;
        }
        if loaded.is_empty() {
            return;
        }
        tracing::info!(units = %join_names(&loaded), "loaded");
        for unit in loaded {
            let Some(wish) = self.wanted.get(&unit) else { continue };
            tracing::debug!(%unit, hash = %wish.file.hash().short_hash(), "loaded");
            let held = ActualUnit { hash: wish.file.hash(), job: JobState::Loaded, restarts: wish.restarts };
            self.held.insert(unit.clone(), held);
            self.refused.remove(&unit);
            self.errors.remove(&unit);
            self.retries.clear_unit(&unit);
            self.dirty.insert(unit);
            self.metrics.count_task(AgentTask::Load, 1);
        }
    }

    /// Writes a unit's file and links it; returns whether that worked.
    fn write_file(&mut self, unit: &UnitName) -> bool {
        let Some(wish) = self.wanted.get(unit) else { return false };
        let path = self.unit_path(unit);
        let written =
            std::fs::write(&path, wish.file.canonical_text()).and_then(|()| self.systemd.link_units(&path));
        if let Err(source) = written {
            self.report_failure(unit, "load", &AgentError::Write { path, source });
            return false;
        }
        true
    }

    /// Makes those of the units part of their targets that want to be; drops those for which that failed.
    /// Returns whether systemd has to read its configuration anew.
    async fn enable_units(&mut self, units: &mut Vec<UnitName>) -> bool {
        let mut asked = false;
        for unit in units.clone() {
            if !self.wanted.get(&unit).is_some_and(|wish| wish.file.has_section("Install")) {
                continue;
            }
            asked = true;
            // One by one: systemd refuses all of a call for one bad unit.
            let path = self.unit_path(&unit).display().to_string();
            if let Err(error) = self.systemd.enable_units(&[&path]).await {
                self.report_failure(&unit, "load", &error);
                units.retain(|each| *each != unit);
            }
        }
        asked
    }

    /// Has systemd read its configuration anew; if it cannot now, later.
    pub(super) async fn reload_systemd(&mut self) {
        self.metrics.count_task(AgentTask::Reload, 1);
        let began = Instant::now();
        match self.systemd.reload_manager().await {
            Ok(()) => self.reloads.note_success(began, Instant::now()),
            Err(error) => {
                tracing::warn!(reason = %error_chain(&error), "systemd could not read its configuration anew");
                self.reloads.note_failure(Instant::now());
            }
        }
    }

    /// Remembers how far a unit got, or why it did not.
    fn note_outcome(
        &mut self,
        unit: &UnitName,
        verb: &str,
        job: JobState,
        outcome: Result<(), SystemdError>,
        task: AgentTask,
    ) {
        match outcome {
            Ok(()) => {
                let restarts = self.wanted.get(unit).map_or(0, |wish| wish.restarts);
                if let Some(held) = self.held.get_mut(unit) {
                    held.job = job;
                    // Together with the job, so that a restart order which came during the start is not
                    // obeyed twice.
                    held.restarts = restarts;
                }
                self.refused.remove(unit);
                self.errors.remove(unit);
                self.retries.clear_unit(unit);
                self.metrics.count_task(task, 1);
            }
            Err(error) => self.report_failure(unit, verb, &error),
        }
        self.dirty.insert(unit.clone());
    }

    /// Says why a task failed, once for each reason, and lets it be tried again.
    pub(super) fn report_failure(&mut self, unit: &UnitName, verb: &str, error: &dyn std::error::Error) {
        let reason = format!("cannot {verb}: {}", error_chain(error));
        if self.retries.note_failure(unit, &self.wanted, &reason, Instant::now()) {
            tracing::warn!(%unit, %reason, "the unit is not as wanted; trying again, less and less often");
        }
        self.metrics.count_task(AgentTask::Failure, 1);
        self.errors.insert(unit.clone(), reason);
        self.dirty.insert(unit.clone());
    }

    pub(super) fn unit_path(&self, unit: &UnitName) -> PathBuf {
        self.settings.units_directory.join(unit.as_str())
    }

    pub(super) fn write_journal(&self) {
        let mut held = self.held.clone();
        for unit in &self.leaving {
            // A process that takes over would not start what is wanted again by then.
            if let Some(held) = held.get_mut(unit) {
                held.job = JobState::Loaded;
            }
        }
        if let Err(error) = self.journal.write(&held) {
            tracing::warn!(reason = %error_chain(&error), "a restart of fleetd would start units anew that have run to their end");
        }
    }
}

/// Units for the log, the first of many.
pub(super) fn join_names(units: &[UnitName]) -> String {
    let first: Vec<&str> = units.iter().take(NAMES_AT_ONCE).map(UnitName::as_str).collect();
    let more = units.len() - first.len();
    if more == 0 { first.join(" ") } else { format!("{} and {more} more", first.join(" ")) }
}
