//! The agent of one machine: makes systemd hold what the cluster assigned, and tells how it goes.
//!
//! Knows the order of things around a batch ([`crate::plan::reconcile`] makes it), and what it held
//! before it was restarted. Refuses to decide what belongs here. Invariant: it touches nothing unless the
//! store is heard and this machine's lease is surely alive, except to stop fenced units when it is not;
//! and stopping or restarting it stops no unit.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod departures;
pub mod fence;
pub mod journal;
pub mod presence;
mod publish;
mod reloads;
mod retries;
pub mod systemd;
mod watching;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast::error::TryRecvError, mpsc, watch};

use crate::{
    metrics::DaemonMetrics,
    model::{
        machine::{Machine, MachineId},
        state::JobState,
        unit_name::UnitName,
    },
    plan::{
        machine_units::{ActualUnit, DesiredUnit},
        reconcile::MachineAssignments,
    },
    store::{
        boot_time::BootTime,
        etcd::{EtcdStore, lease::HeldLease},
        records::StateRecord,
        registry::{ClusterChange, Registry, StoreHealth},
    },
};
use fence::FenceTimers;
use journal::AgentJournal;
use reloads::Reloads;
use retries::Retries;
use systemd::{News, SystemdClient, SystemdError, UnitActivity};

/// How often systemd is asked about units that are on their way up or down, so that a lost signal costs
/// seconds. All others are never asked about: they say when they change.
// The original asked systemd about all units every second, which cost more the more units there were. Only
// transitions are asked about, since their end is what somebody waits for.
const ASK_AGAIN: Duration = Duration::from_secs(5);

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
pub struct FleetAgent {
    machine: Machine,
    store: Arc<EtcdStore>,
    systemd: SystemdClient,
    settings: AgentSettings,
    metrics: Arc<DaemonMetrics>,
    journal: AgentJournal,
    fence: FenceTimers,
    duties: MachineAssignments,
    held: BTreeMap<UnitName, ActualUnit>,
    wanted: BTreeMap<UnitName, DesiredUnit>,
    /// Units whose stop job has to end before they can be forgotten.
    leaving: BTreeSet<UnitName>,
    /// Those of them that are down, to be forgotten together.
    down: BTreeSet<UnitName>,
    /// Units whose last job ended badly, or may end so, with what they require and this machine did not hold.
    refused: BTreeMap<UnitName, BTreeSet<UnitName>>,
    /// Units about which systemd has to be asked.
    unclear: BTreeSet<UnitName>,
    ask_again: Option<Instant>,
    activity: BTreeMap<UnitName, UnitActivity>,
    errors: BTreeMap<UnitName, String>,
    published: BTreeMap<UnitName, StateRecord>,
    /// Units of which the store may say anything.
    unsure: BTreeSet<UnitName>,
    /// Units whose state may differ from what was published.
    dirty: BTreeSet<UnitName>,
    retry: Option<Instant>,
    retries: Retries,
    reloads: Reloads,
    /// Until when states are gathered before they are told.
    gather_until: Instant,
}

impl FleetAgent {
    /// Takes up what an earlier process left.
    pub async fn resume_journal(
        machine: Machine,
        store: Arc<EtcdStore>,
        systemd: SystemdClient,
        settings: AgentSettings,
        metrics: Arc<DaemonMetrics>,
    ) -> Result<Self, AgentError> {
        for directory in [&settings.units_directory, &settings.runtime_directory] {
            std::fs::create_dir_all(directory)
                .map_err(|source| AgentError::Directory { path: directory.clone(), source })?;
        }
        let journal = AgentJournal::in_directory(&settings.runtime_directory);
        let held = journal.read(&settings.units_directory);
        let mut agent = Self {
            duties: MachineAssignments::of_machine(machine.id.clone()),
            // What an earlier process told the cluster is not known, so each unit is told anew, once.
            dirty: held.keys().cloned().collect(),
            fence: FenceTimers::new(settings.runtime_directory.clone()),
            machine,
            store,
            systemd,
            settings,
            metrics,
            journal,
            held,
            wanted: BTreeMap::new(),
            leaving: BTreeSet::new(),
            down: BTreeSet::new(),
            refused: BTreeMap::new(),
            unclear: BTreeSet::new(),
            ask_again: None,
            activity: BTreeMap::new(),
            errors: BTreeMap::new(),
            published: BTreeMap::new(),
            unsure: BTreeSet::new(),
            retry: None,
            retries: Retries::default(),
            reloads: Reloads::default(),
            gather_until: Instant::now(),
        };
        agent.look_at_units().await.map_err(|source| AgentError::Systemd { source })?;
        agent.remove_dangling_links().await;
        Ok(agent)
    }

    /// Does its duty for ever, or until told to let everything go.
    pub async fn run_agent(
        mut self,
        mut news: mpsc::UnboundedReceiver<News>,
        mut lease: watch::Receiver<Option<HeldLease>>,
        mut purge: watch::Receiver<bool>,
    ) {
        let mut changes = self.store.subscribe_changes();
        let mut registered = self.store.watch_registration();
        let mut hearing = self.store.watch_connectivity();
        self.observe_change(&ClusterChange::Everything);
        // The first pass brings in line what happened while no fleetd ran.
        let mut due = true;
        loop {
            // First of all: a machine that is being shut down must not start what the cluster still assigns
            // to it.
            if *purge.borrow_and_update() {
                self.purge_units(&mut news).await;
                return;
            }
            if registered.has_changed().unwrap_or(false) {
                registered.mark_unchanged();
                self.join_anew();
                due = true;
            }
            let held_lease = *lease.borrow_and_update();
            // Before everything that may be skipped: the fence counts most when the store is away.
            self.mind_the_fence(held_lease).await;
            let mut tell = None;
            // Without a lease or without the store nothing is stopped or started. A store that is away says
            // nothing of the units, and the original, which stopped them then, turned each hiccup of etcd
            // into an outage.
            if self.may_act(held_lease) {
                if std::mem::take(&mut due) {
                    self.work_off_difference().await;
                }
                if Instant::now() >= self.gather_until {
                    self.publish_states().await;
                }
                tell = (!self.dirty.is_empty()).then_some(self.gather_until);
            }
            let (wake, again) = self.next_wake(tell);
            tokio::select! {
                change = changes.recv() => due |= self.observe_change(&change.unwrap_or(ClusterChange::Everything)),
                Some(news) = news.recv() => due |= self.receive_news(news),
                _ = registered.changed() => {
                    self.join_anew();
                    due = true;
                }
                _ = hearing.changed() => due = true,
                _ = lease.changed() => {}
                _ = purge.changed() => {}
                () = sleep_until_reached(self.fence.next_wakeup(held_lease)) => {}
                () = sleep_until(wake) => due |= self.is_retry_due(again),
            }
            loop {
                match changes.try_recv() {
                    Ok(change) => due |= self.observe_change(&change),
                    Err(TryRecvError::Lagged(_)) => due |= self.observe_change(&ClusterChange::Everything),
                    Err(_) => break,
                }
            }
            while let Ok(news) = news.try_recv() {
                due |= self.receive_news(news);
            }
            due |= self.catch_up().await;
        }
    }

    /// When to wake up although nothing happens; and when the next failed task is due.
    fn next_wake(&self, tell: Option<Instant>) -> (Option<Instant>, Option<Instant>) {
        let again = self.retries.next_due(Instant::now());
        let has_work = !self.down.is_empty() || self.reloads.is_owed();
        let reload = has_work.then(|| self.reloads.next().unwrap_or_else(Instant::now));
        let wakes = [self.retry, tell, again, reload, self.ask_again];
        (wakes.into_iter().flatten().min(), again)
    }

    /// Whether a batch is to be made although nothing happened.
    fn is_retry_due(&mut self, again: Option<Instant>) -> bool {
        let now = Instant::now();
        let retry = self.retry.is_some_and(|retry| retry <= now);
        if retry {
            self.retry = None;
        }
        retry || again.is_some_and(|again| again <= now)
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
        // The states of the former registration ended with its lease. Whatever this machine holds has to be
        // told again.
        self.unsure.extend(self.held.keys().cloned());
        self.dirty.extend(self.unsure.iter().cloned());
        for (unit, _) in self.wanted.iter().filter(|(_, wish)| wish.fence && wish.job == JobState::Launched) {
            // Fenced units were stopped while the cluster was out of reach. Noted as loaded, they are
            // started again like any other.
            if let Some(held) = self.held.get_mut(unit)
                && !self.activity.get(unit).is_some_and(UnitActivity::is_up)
            {
                held.job = JobState::Loaded;
            }
        }
    }

    fn observe_change(&mut self, change: &ClusterChange) -> bool {
        let duties = &mut self.duties;
        self.store.read(|cluster| duties.observe_change(cluster, change))
    }

    /// Whether what the picture shows may be acted upon.
    fn may_act(&self, lease: Option<HeldLease>) -> bool {
        self.store.health() == StoreHealth::Serving
            && lease.is_some_and(|lease| BootTime::now() < lease.deadline())
    }

    /// Stops fenced units while the lease is still surely alive, if nobody can renew it.
    async fn mind_the_fence(&mut self, lease: Option<HeldLease>) {
        let stopped = self.fence.enforce_lease(&self.systemd, lease, &self.wanted, &self.held).await;
        for unit in stopped {
            if let Some(held) = self.held.get_mut(&unit) {
                held.job = JobState::Loaded;
            }
            self.dirty.insert(unit);
        }
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

async fn sleep_until_reached(moment: Option<BootTime>) {
    match moment {
        Some(moment) => moment.sleep_until().await,
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
    // No fsync: all that is kept so lies under /run, which a power cut empties anyway.
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
