//! The store itself: one connection to etcd, the picture it feeds, and the writes it takes.
//!
//! Knows how to find a member that answers, how to read everything at one revision, how to follow from
//! there and what to do when history was compacted away. Refuses to know what records mean. Invariant:
//! the picture never goes back, and skips no event between two readings.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod batch;
mod follow;
pub mod lease;
pub mod locks;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use batch::WriteBatcher;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Identity, PutOptions, TlsOptions, Txn, TxnOp,
};
use tokio::sync::{broadcast, watch};

use crate::{
    model::{moment::MonotonicTime, url::without_credentials},
    store::{
        keys::KeySpace,
        picture::ClusterView,
        registry::{ClusterChange, CommandError, DrainChange, Registry, RegistryCommand, StoreHealth},
        revision::{LeaseId, Revision},
        writes::{self, KeyLifetime, StoreWrite, WriteCondition, WriteOperation},
    },
};

/// Changes that may wait for a slow listener before it has to look at everything.
// A thousand units that start make some thousand changes at once. A listener that is overtaken all the same
// is told of `Everything` and looks at the whole cluster: slow, never wrong. So the bound costs time and no
// truth.
const BACKLOG: usize = 16 * 1024;
/// How often a write is built anew because others were faster.
// Each attempt is lost only to somebody who succeeded, so a cluster that works ends the race long before.
const ATTEMPTS: usize = 16;

/// How to reach etcd.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// URLs of members; the first that answers is used.
    pub endpoints: Vec<String>,
    /// Where fleet's keys lie.
    pub prefix: String,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// PEM of the authority that signed the members' certificates.
    pub ca: Option<Vec<u8>>,
    /// PEM of the own certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// User and password.
    pub user: Option<(String, String)>,
}

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum StoreError {
    #[error("cannot {action} at {endpoint}")]
    Etcd { action: &'static str, endpoint: String, source: Box<etcd_client::Error> },
    #[error("cannot {action} at {endpoint}: no answer within {} ms", .limit.as_millis())]
    Timeout { action: &'static str, endpoint: String, limit: Duration },
    #[error("{endpoint} ended the watch: {reason}")]
    WatchEnded { endpoint: String, reason: String },
    #[error("the one who asked for the transaction went away with it")]
    Abandoned,
    #[error(transparent)]
    Joint(Arc<Self>),
    #[error("the lease is gone")]
    LeaseGone,
    #[error("the store needs a reader of format {needed}, this fleetd reads up to {known}: update it")]
    TooOld { needed: u32, known: u32 },
}

#[derive(Default)]
struct EtcdConnection {
    client: Option<Client>,
    /// Which endpoint is in use, counted on without end.
    at: usize,
}

impl std::fmt::Debug for EtcdConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("at", &self.at).finish_non_exhaustive()
    }
}

/// What a transaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitResult {
    /// Whether its conditions held.
    pub succeeded: bool,
    /// The revision of the store after it.
    pub revision: Revision,
}

/// Whether the picture follows the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connectivity {
    /// Why not, if not.
    pub lost: Option<String>,
    /// Since when, without a break and under one etcd leader.
    pub steady_since: MonotonicTime,
}

/// The store.
#[derive(Debug)]
pub struct EtcdStore {
    settings: EtcdSettings,
    connection: tokio::sync::Mutex<EtcdConnection>,
    // Commands share transactions; the agent's and the engine's writes do not, since each of theirs is
    // large already.
    gathering: WriteBatcher,
    picture: RwLock<ClusterView>,
    revision: watch::Sender<Revision>,
    changes: broadcast::Sender<ClusterChange>,
    hearing: watch::Sender<Connectivity>,
    registered: watch::Sender<bool>,
    excluded: watch::Sender<Option<String>>,
    machine_lease: AtomicI64,
    leader_lease: AtomicI64,
    term: AtomicI64,
    epoch: Instant,
}

impl EtcdStore {
    /// A store that is not followed yet: [`EtcdStore::follow_store`] does.
    #[must_use]
    pub fn new(settings: EtcdSettings) -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        // Not heard until the first reading: an agent that acted on an empty view would stop every unit.
        let hearing =
            Connectivity { lost: Some("not read yet".to_owned()), steady_since: MonotonicTime::START };
        Self {
            picture: RwLock::new(ClusterView::of_keys(KeySpace::with_prefix(&settings.prefix))),
            settings,
            connection: tokio::sync::Mutex::default(),
            gathering: WriteBatcher::default(),
            revision: watch::Sender::new(Revision::NEVER),
            changes,
            hearing: watch::Sender::new(hearing),
            registered: watch::Sender::new(false),
            excluded: watch::Sender::new(None),
            machine_lease: AtomicI64::new(0),
            leader_lease: AtomicI64::new(0),
            term: AtomicI64::new(0),
            epoch: Instant::now(),
        }
    }

    /// The time on the clock of this process.
    #[must_use]
    pub fn now(&self) -> MonotonicTime {
        self.monotonic_time(Instant::now())
    }

    /// An instant on the clock of this process.
    #[must_use]
    pub fn monotonic_time(&self, instant: Instant) -> MonotonicTime {
        let elapsed = instant.saturating_duration_since(self.epoch);
        MonotonicTime::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// The instant of a moment, to sleep until it.
    #[must_use]
    pub fn instant_of(&self, moment: MonotonicTime) -> Instant {
        self.epoch + moment.duration_since(MonotonicTime::START)
    }

    /// How long one request may take.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// Reads the picture and its pieces.
    pub fn with_view<T>(&self, read: impl FnOnce(&ClusterView) -> T) -> T {
        read(&self.picture.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the store answers, to wait for changes of that.
    #[must_use]
    pub fn watch_connectivity(&self) -> watch::Receiver<Connectivity> {
        self.hearing.subscribe()
    }

    /// Says whether this machine is registered.
    pub fn set_registered(&self, registered: bool) {
        self.registered.send_replace(registered);
    }

    /// Whether this machine is registered, to wait for changes of that.
    #[must_use]
    pub fn watch_registration(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    /// Says why this machine may not register, if it may not.
    pub fn set_excluded(&self, reason: Option<String>) {
        self.excluded.send_replace(reason);
    }

    /// Why this machine may not register, to wait for changes of that.
    #[must_use]
    pub fn watch_exclusion(&self) -> watch::Receiver<Option<String>> {
        self.excluded.subscribe()
    }

    /// What all keys of this tree begin with.
    #[must_use]
    pub fn key_prefix(&self) -> String {
        self.with_view(|picture| picture.key_space().key_prefix().to_owned())
    }

    /// Which lease keys of this machine live by from now on.
    pub fn set_machine_lease(&self, id: LeaseId) {
        self.machine_lease.store(id.0, Ordering::Relaxed);
    }

    /// Which lease keys of the leading engine live by from now on.
    pub fn set_leader_lease(&self, id: LeaseId) {
        self.leader_lease.store(id.0, Ordering::Relaxed);
    }

    /// The revision of the picture, to wait for any change of it.
    #[must_use]
    pub fn watch_revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Waits until the picture shows a revision; `false` when that takes too long.
    pub async fn wait_for_revision(&self, revision: Revision) -> bool {
        let mut current = self.revision.subscribe();
        let wait = current.wait_for(|current| *current >= revision);
        // Several requests long, since a member that fails over reads the store anew before it shows the
        // revision.
        matches!(tokio::time::timeout(self.settings.request_timeout * 5, wait).await, Ok(Ok(_)))
    }

    /// Carries out a transaction at the member in use; another one is tried next time if this fails.
    pub async fn commit_write(&self, write: &StoreWrite) -> Result<CommitResult, StoreError> {
        let txn = self.with_view(|picture| self.to_txn(picture.key_space(), write));
        let response = self.call_member("write", async |mut client| client.txn(txn).await).await?;
        Ok(self.commit_result(&response))
    }

    fn to_txn(&self, keys: &KeySpace, write: &StoreWrite) -> Txn {
        let when: Vec<Compare> = write.when.iter().map(|condition| to_compare(keys, condition)).collect();
        let then: Vec<TxnOp> =
            write.then.iter().map(|operation| self.to_operation(keys, operation)).collect();
        Txn::new().when(when).and_then(then)
    }

    fn to_operation(&self, keys: &KeySpace, operation: &WriteOperation) -> TxnOp {
        match operation {
            WriteOperation::Delete(key) => TxnOp::delete(keys.key_path(key), None),
            WriteOperation::Put(key, value, life) => {
                let lease = match life {
                    KeyLifetime::Unlimited => 0,
                    KeyLifetime::OfMachine => self.machine_lease.load(Ordering::Relaxed),
                    KeyLifetime::OfLeader => self.leader_lease.load(Ordering::Relaxed),
                };
                TxnOp::put(keys.key_path(key), value.clone(), Some(PutOptions::new().with_lease(lease)))
            }
        }
    }

    /// Asks the member in use, within the time one request may take.
    async fn call_member<T>(
        &self,
        action: &'static str,
        ask: impl AsyncFnOnce(Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, StoreError> {
        let limit = self.settings.request_timeout;
        let (client, at) = self.current_client().await?;
        // The connect timeout bounds the connection and not the answer, so the limit of a request stands
        // here.
        let result = match tokio::time::timeout(limit, ask(client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(source)) => {
                StoreError::Etcd { action, endpoint: self.shown_endpoint(at), source: Box::new(source) }
            }
            Err(_) => StoreError::Timeout { action, endpoint: self.shown_endpoint(at), limit },
        };
        self.fail_over(at).await;
        Err(result)
    }

    /// The URL of a member as it may be shown.
    fn shown_endpoint(&self, at: usize) -> String {
        without_credentials(&self.member_url(at))
    }

    fn member_url(&self, at: usize) -> String {
        self.settings.endpoints.get(at % self.settings.endpoints.len().max(1)).cloned().unwrap_or_default()
    }

    /// A client of the member in use, and which one that is.
    async fn current_client(&self) -> Result<(Client, usize), StoreError> {
        let mut connection = self.connection.lock().await;
        let at = connection.at;
        if let Some(client) = &connection.client {
            return Ok((client.clone(), at));
        }
        let (endpoint, action, limit) = (self.shown_endpoint(at), "connect", self.settings.request_timeout);
        let url = self.member_url(at);
        let connect = Client::connect([&url], Some(self.connect_options()));
        match tokio::time::timeout(limit, connect).await {
            Ok(Ok(client)) => {
                connection.client = Some(client.clone());
                Ok((client, at))
            }
            Ok(Err(source)) => {
                // Round and round, the first again after the last: no member is better than another for
                // long, and a list of one is simply tried again.
                connection.at += 1;
                Err(StoreError::Etcd { action, endpoint, source: Box::new(source) })
            }
            Err(_) => {
                connection.at += 1;
                Err(StoreError::Timeout { action, endpoint, limit })
            }
        }
    }

    /// Leaves a member that failed, unless somebody did already.
    async fn fail_over(&self, at: usize) {
        let mut connection = self.connection.lock().await;
        if connection.at == at {
            connection.at += 1;
            connection.client = None;
        }
    }

    fn connect_options(&self) -> ConnectOptions {
        let timeout = self.settings.request_timeout;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(timeout)
            // A member whose machine was cut off sends no reset: without pings the watch would wait for
            // ever.
            .with_keep_alive(timeout.max(Duration::from_secs(1)), timeout.max(Duration::from_secs(1)) * 2)
            .with_keep_alive_while_idle(true)
            // A member that is cut off from its leader would go on answering with what it knew last. With
            // this it ends the watch, and we go to another one.
            .with_require_leader(true);
        if let Some((name, password)) = &self.settings.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        if self.settings.ca.is_some() || self.settings.identity.is_some() {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &self.settings.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &self.settings.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        options
    }

    /// A new etcd leader gave every lease a full term anew: silence means nothing yet.
    fn heard_term(&self, term: u64) {
        let term = i64::try_from(term).unwrap_or(i64::MAX);
        // Raft terms only grow, and each election brings a new one; the leader's own ID may come back.
        let before = self.term.fetch_max(term, Ordering::Relaxed);
        if term > before && before != 0 {
            tracing::info!(term, "etcd has a new leader");
            self.hearing.send_modify(|hearing| hearing.steady_since = self.now());
        }
    }

    fn send_change(&self, change: ClusterChange) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }

    async fn carry_out(&self, command: &RegistryCommand) -> Result<(), CommandError> {
        let action = describe_command(command);
        let failed =
            |source: StoreError| CommandError::Store { action: action.clone(), source: Box::new(source) };
        // A write whose answer was lost may have happened.
        let mut uncertain = false;
        for _ in 0..ATTEMPTS {
            let write = match self.with_view(|picture| writes::command_write(picture, command.clone())) {
                // The first attempt may have been carried out and only its answer lost. Then the unit is
                // there because of us, and an error would tell the caller of a conflict with himself.
                Err(CommandError::Exists(_)) if uncertain && self.already_holds(command) => return Ok(()),
                Err(CommandError::NotFound(_)) if uncertain => return Ok(()),
                write => write?,
            };
            match self.commit_among_others(write).await {
                Ok(committed) => {
                    // Late is no failure: the write happened.
                    self.wait_for_revision(committed.revision).await;
                    if committed.succeeded {
                        return Ok(());
                    }
                }
                // One loss of an answer is a member that failed over. Two in a row are a store that is
                // away, and the caller should know.
                Err(error) if uncertain => return Err(failed(error)),
                Err(_) => uncertain = true,
            }
        }
        Err(CommandError::Contended { action })
    }

    fn already_holds(&self, command: &RegistryCommand) -> bool {
        let RegistryCommand::Create { name, file, desired } = command else { return false };
        self.with_view(|picture| {
            picture
                .unit_record(name)
                .is_some_and(|(unit, _)| unit.hash == file.hash() && unit.desired == *desired)
        })
    }
}

fn to_compare(keys: &KeySpace, condition: &WriteCondition) -> Compare {
    match condition {
        WriteCondition::Absent(key) => Compare::create_revision(keys.key_path(key), CompareOp::Equal, 0),
        WriteCondition::Present(key) => Compare::create_revision(keys.key_path(key), CompareOp::Greater, 0),
        WriteCondition::Unchanged(key, revision) => {
            Compare::mod_revision(keys.key_path(key), CompareOp::Equal, revision.0)
        }
        WriteCondition::SameLife(key, created) => {
            Compare::create_revision(keys.key_path(key), CompareOp::Equal, created.0)
        }
        WriteCondition::LivesBy(key, lease) => Compare::lease(keys.key_path(key), CompareOp::Equal, lease.0),
    }
}

fn describe_command(command: &RegistryCommand) -> String {
    match command {
        RegistryCommand::Create { name, .. } => format!("create unit {name}"),
        RegistryCommand::Destroy { name } => format!("destroy unit {name}"),
        RegistryCommand::Drain { machine, drain: DrainChange::Begin } => format!("drain machine {machine}"),
        RegistryCommand::Drain { machine, drain: DrainChange::End } => {
            format!("end the drain of machine {machine}")
        }
        RegistryCommand::Rebalance { .. } => "order a rebalance".to_owned(),
        RegistryCommand::ReleaseBrake => "release the brake".to_owned(),
        RegistryCommand::Replace { name, .. } => format!("replace unit {name}"),
        RegistryCommand::Restart { name } => format!("restart unit {name}"),
        RegistryCommand::SetDesired { name, desired } => format!("set unit {name} to {desired}"),
        RegistryCommand::SetMetadata { machine, key, .. } => {
            format!("set metadata {key} of machine {machine}")
        }
    }
}

impl Registry for EtcdStore {
    fn read<T>(&self, read: impl FnOnce(&crate::store::cluster::Cluster) -> T) -> T {
        self.with_view(|picture| read(picture.cluster()))
    }

    async fn execute_command(&self, command: RegistryCommand) -> Result<(), CommandError> {
        self.carry_out(&command).await
    }

    fn subscribe_changes(&self) -> broadcast::Receiver<ClusterChange> {
        self.changes.subscribe()
    }

    fn health(&self) -> StoreHealth {
        if let Some(reason) = self.hearing.borrow().lost.clone() {
            return StoreHealth::StoreLost(reason);
        }
        if *self.registered.borrow() {
            return StoreHealth::Serving;
        }
        self.excluded.borrow().clone().map_or(StoreHealth::Registering, StoreHealth::Excluded)
    }
}
