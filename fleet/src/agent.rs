//! The agent of one machine: makes systemd hold what the cluster assigned, and tells how it goes.
//!
//! Knows the order of things around a batch ([`crate::plan::reconcile`] makes it), and what it held
//! before it was restarted. Refuses to decide what belongs here. Invariant: it touches nothing unless the
//! store is heard and this machine's lease is surely alive, except to stop fenced units when it is not;
//! and stopping or restarting it stops no unit.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

pub mod fence;
pub mod journal;
pub mod presence;
pub mod systemd;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast::error::TryRecvError, mpsc, watch};

use crate::{
    metrics::{Metrics, Task},
    model::{
        machine::{Machine, MachineId},
        state::JobState,
        unit_name::UnitName,
    },
    plan::reconcile::{Batch, Duties, Held, Wanted, batch},
    store::{
        boot_time::BootTime,
        etcd::{EtcdStore, chain, lease::Lease},
        records::StateRecord,
        registry::{Change, Health, Registry},
        writes::{self, Write},
    },
};
use fence::Fence;
use journal::Journal;
use systemd::{Activity, News, Systemd, SystemdError};

/// States written with one transaction.
const STATES_AT_ONCE: usize = 100;
/// How long further states are gathered after so many were told, so that one is told at once and a flood
/// of them with few transactions.
const GATHER_EACH: Duration = Duration::from_millis(1);
const GATHER_MOST: Duration = Duration::from_millis(100);
/// How many names one line of the log may hold.
const NAMES_AT_ONCE: usize = 8;
/// How long to wait before a failed task is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Where an agent keeps its things.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Unit files.
    pub units_directory: PathBuf,
    /// What must survive a restart of the daemon, but not of the machine.
    pub runtime_directory: PathBuf,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    machine: Machine,
    store: Arc<EtcdStore>,
    systemd: Systemd,
    settings: AgentSettings,
    metrics: Arc<Metrics>,
    journal: Journal,
    fence: Fence,
    duties: Duties,
    held: BTreeMap<UnitName, Held>,
    wanted: BTreeMap<UnitName, Wanted>,
    /// Units whose stop job has to end before they can be forgotten.
    leaving: BTreeSet<UnitName>,
    activity: BTreeMap<UnitName, Activity>,
    errors: BTreeMap<UnitName, String>,
    published: BTreeMap<UnitName, StateRecord>,
    /// Units of which the store may say anything.
    unsure: BTreeSet<UnitName>,
    /// Units whose state may differ from what was published.
    dirty: BTreeSet<UnitName>,
    retry: Option<Instant>,
    /// Until when states are gathered before they are told.
    gather_until: Instant,
}

impl Agent {
    /// Takes up what an earlier process left.
    pub async fn resume(
        machine: Machine,
        store: Arc<EtcdStore>,
        systemd: Systemd,
        settings: AgentSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AgentError> {
        for directory in [&settings.units_directory, &settings.runtime_directory] {
            std::fs::create_dir_all(directory)
                .map_err(|source| AgentError::Directory { path: directory.clone(), source })?;
        }
        let journal = Journal::at(&settings.runtime_directory);
        let held = journal.read(&settings.units_directory);
        let mut agent = Self {
            duties: Duties::of(machine.id.clone()),
            dirty: held.keys().cloned().collect(),
            fence: Fence::new(settings.runtime_directory.clone()),
            machine,
            store,
            systemd,
            settings,
            metrics,
            journal,
            held,
            wanted: BTreeMap::new(),
            leaving: BTreeSet::new(),
            activity: BTreeMap::new(),
            errors: BTreeMap::new(),
            published: BTreeMap::new(),
            unsure: BTreeSet::new(),
            retry: None,
            gather_until: Instant::now(),
        };
        agent.look_at_units().await.map_err(|source| AgentError::Systemd { source })?;
        Ok(agent)
    }

    /// Does its duty for ever, or until told to let everything go.
    pub async fn run(
        mut self,
        mut news: mpsc::UnboundedReceiver<News>,
        mut lease: watch::Receiver<Option<Lease>>,
        mut purge: watch::Receiver<bool>,
    ) {
        let mut changes = self.store.changes();
        let mut registered = self.store.registered();
        let mut hearing = self.store.hearing();
        self.observe(&Change::Everything);
        let mut due = true;
        loop {
            if *purge.borrow_and_update() {
                self.purge(&mut news).await;
                return;
            }
            if registered.has_changed().unwrap_or(false) {
                registered.mark_unchanged();
                self.join_anew();
                due = true;
            }
            let held_lease = *lease.borrow_and_update();
            self.mind_the_fence(held_lease).await;
            let mut tell = None;
            if self.may_act(held_lease) {
                if std::mem::take(&mut due) {
                    self.act().await;
                }
                if Instant::now() >= self.gather_until {
                    self.publish().await;
                }
                tell = (!self.dirty.is_empty()).then_some(self.gather_until);
            }
            let wake = [self.retry, tell].into_iter().flatten().min();
            tokio::select! {
                change = changes.recv() => due |= self.observe(&change.unwrap_or(Change::Everything)),
                Some(news) = news.recv() => due |= self.hear(news).await,
                _ = registered.changed() => {
                    self.join_anew();
                    due = true;
                }
                _ = hearing.changed() => due = true,
                _ = lease.changed() => {}
                _ = purge.changed() => {}
                () = reached(self.fence.wake(held_lease)) => {}
                () = sleep_until(wake) => {
                    if self.retry.is_some_and(|retry| retry <= Instant::now()) {
                        self.retry = None;
                        due = true;
                    }
                }
            }
            loop {
                match changes.try_recv() {
                    Ok(change) => due |= self.observe(&change),
                    Err(TryRecvError::Lagged(_)) => due |= self.observe(&Change::Everything),
                    Err(_) => break,
                }
            }
            while let Ok(news) = news.try_recv() {
                due |= self.hear(news).await;
            }
        }
    }

    /// The registration is another one: states lived by the old lease, and the guards may have stopped
    /// fenced units behind this process's back.
    fn join_anew(&mut self) {
        let me = &self.machine.id;
        self.unsure = self.store.read(|cluster| {
            // An earlier process may have died between forgetting a unit and saying so.
            let spoken = cluster.states.iter().filter(|(_, states)| states.contains_key(me));
            spoken.map(|(unit, _)| unit.clone()).collect()
        });
        self.unsure.extend(self.held.keys().cloned());
        self.dirty.extend(self.unsure.iter().cloned());
        for (unit, _) in self.wanted.iter().filter(|(_, wish)| wish.fence && wish.job == JobState::Launched) {
            if let Some(held) = self.held.get_mut(unit)
                && !self.activity.get(unit).is_some_and(Activity::is_up)
            {
                held.job = JobState::Loaded;
            }
        }
    }

    fn observe(&mut self, change: &Change) -> bool {
        let duties = &mut self.duties;
        self.store.read(|cluster| duties.observe(cluster, change))
    }

    /// Whether what the picture shows may be acted upon.
    fn may_act(&self, lease: Option<Lease>) -> bool {
        self.store.health() == Health::Serving
            && lease.is_some_and(|lease| BootTime::now() < lease.deadline())
    }

    /// Takes in what systemd says; returns whether a batch is due.
    async fn hear(&mut self, news: News) -> bool {
        match news {
            News::Anew => {
                self.look_anew().await;
                true
            }
            News::Changed { unit, active, sub } => {
                if let Some(activity) = self.activity.get_mut(&unit) {
                    activity.active = active.unwrap_or_else(|| std::mem::take(&mut activity.active));
                    activity.sub = sub.unwrap_or_else(|| std::mem::take(&mut activity.sub));
                    self.dirty.insert(unit.clone());
                }
                self.forget_if_down(&unit).await
            }
            News::JobDone { unit, trouble } => {
                self.note_job(&unit, trouble.as_deref());
                // A start that was skipped changes nothing else.
                let waits = self.activity.get(&unit).is_some_and(Activity::is_activating);
                if self.leaving.contains(&unit) || waits {
                    self.refresh(std::slice::from_ref(&unit)).await;
                }
                self.forget_if_down(&unit).await
            }
        }
    }

    /// How all units are, since what they did meanwhile was not heard.
    async fn look_anew(&mut self) {
        let units: Vec<UnitName> = self.held.keys().chain(&self.leaving).cloned().collect();
        self.refresh(&units).await;
        for unit in units {
            self.forget_if_down(&unit).await;
        }
    }

    /// A job that could not be done shows nowhere else: the unit is as inactive as before.
    fn note_job(&mut self, unit: &UnitName, trouble: Option<&str>) {
        if !self.held.contains_key(unit) {
            return;
        }
        let before = match trouble {
            Some(trouble) => self.errors.insert(unit.clone(), format!("systemd's job ended: {trouble}")),
            None => self.errors.remove(unit),
        };
        if before.is_some() || trouble.is_some() {
            self.dirty.insert(unit.clone());
        }
    }

    /// Ends the departure of a unit that is down.
    async fn forget_if_down(&mut self, unit: &UnitName) -> bool {
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

    /// Works off the difference between what should be here and what is.
    async fn act(&mut self) {
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

    async fn look_at_units(&mut self) -> Result<(), SystemdError> {
        let units: Vec<UnitName> = self.held.keys().cloned().collect();
        for (unit, activity) in self.systemd.activities(&units).await? {
            self.activity.insert(unit, activity);
        }
        Ok(())
    }

    async fn refresh(&mut self, units: &[UnitName]) {
        if units.is_empty() {
            return;
        }
        match self.systemd.activities(units).await {
            Ok(activities) => {
                for (unit, activity) in activities {
                    self.activity.insert(unit.clone(), activity);
                    self.dirty.insert(unit);
                }
            }
            Err(error) => tracing::warn!(reason = %chain(&error), "systemd does not tell how units are"),
        }
    }

    /// Tells the cluster how units are, where that changed.
    async fn publish(&mut self) {
        let me = self.machine.id.clone();
        let mut news: Vec<(UnitName, Option<StateRecord>)> = Vec::new();
        for unit in std::mem::take(&mut self.dirty) {
            let record = self.state_of(&unit);
            if self.published.get(&unit) != record.as_ref() || self.unsure.contains(&unit) {
                news.push((unit, record));
            }
        }
        self.gather_until = Instant::now()
            + GATHER_EACH.saturating_mul(u32::try_from(news.len()).unwrap_or(u32::MAX)).min(GATHER_MOST);
        for chunk in news.chunks(STATES_AT_ONCE) {
            let then = chunk.iter().map(|(unit, record)| writes::state(&me, unit, record.as_ref())).collect();
            if let Err(error) = self.store.commit(&Write { when: Vec::new(), then }).await {
                tracing::debug!(reason = %chain(&error), "cannot tell how units are yet");
                self.dirty.extend(chunk.iter().map(|(unit, _)| unit.clone()));
                self.retry.get_or_insert_with(|| Instant::now() + Duration::from_millis(500));
                continue;
            }
            self.metrics.did(Task::State, chunk.len());
            for (unit, record) in chunk {
                self.unsure.remove(unit);
                match record {
                    Some(record) => self.published.insert(unit.clone(), record.clone()),
                    None => self.published.remove(unit),
                };
            }
        }
    }

    fn state_of(&self, unit: &UnitName) -> Option<StateRecord> {
        let error = self.errors.get(unit).cloned().unwrap_or_default();
        let Some(held) = self.held.get(unit) else {
            // What could not even be loaded is told all the same.
            let wish = self.wanted.get(unit).filter(|_| !error.is_empty())?;
            return Some(StateRecord {
                hash: wish.file.hash(),
                job: JobState::Inactive,
                load: "error".to_owned(),
                active: "inactive".to_owned(),
                sub: "dead".to_owned(),
                restarts: 0,
                error,
            });
        };
        let activity = self.activity.get(unit).cloned().unwrap_or_default();
        Some(StateRecord {
            hash: held.hash,
            job: held.job,
            load: activity.load,
            active: activity.active,
            sub: activity.sub,
            restarts: held.restarts,
            error,
        })
    }

    /// Stops fenced units while the lease is still surely alive, if nobody can renew it.
    async fn mind_the_fence(&mut self, lease: Option<Lease>) {
        let stopped = self.fence.enforce(&self.systemd, lease, &self.wanted, &self.held).await;
        for unit in stopped {
            if let Some(held) = self.held.get_mut(&unit) {
                held.job = JobState::Loaded;
            }
            self.dirty.insert(unit);
        }
    }

    /// Stops and forgets everything: the old way of leaving a cluster.
    async fn purge(&mut self, news: &mut mpsc::UnboundedReceiver<News>) {
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

/// Why an agent cannot work.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum AgentError {
    #[error("cannot create the directory {path}")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot ask systemd for the units of fleet")]
    Systemd { source: SystemdError },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// Units for the log, the first of many.
fn names(units: &[UnitName]) -> String {
    let first: Vec<&str> = units.iter().take(NAMES_AT_ONCE).map(UnitName::as_str).collect();
    let more = units.len() - first.len();
    if more == 0 { first.join(" ") } else { format!("{} and {more} more", first.join(" ")) }
}

async fn reached(moment: Option<BootTime>) {
    match moment {
        Some(moment) => moment.reached().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Writes a file so that a reader sees the old or the new content, never a part.
fn replace_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path)
}

/// The machine ID that systemd gave this machine.
pub fn machine_id() -> Result<MachineId, MachineIdUnreadable> {
    let path = Path::new("/etc/machine-id");
    let unreadable = |reason: String| MachineIdUnreadable { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    MachineId::parse(text.trim()).map_err(|error| unreadable(error.to_string()))
}

/// This machine has no ID.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the machine ID from {path}: {reason}")]
pub struct MachineIdUnreadable {
    path: PathBuf,
    reason: String,
}
