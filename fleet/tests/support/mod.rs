//! A cluster in memory behind the real API on a real socket: what answers is what answers in a fleetd.
//!
//! Only the engine and the machines are played: a task places units by the real rules, least loaded
//! first, and then says of them what systemd would. Units say in their text how they behave:
//! `ExecStart=/bin/false` fails, `Type=oneshot` runs to its end, `/bin/never` stays activating.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::allow_attributes, reason = "an expectation would be unfulfilled in some of them")]

use fleet::api::access::UnixGroups;
use fleet::api::{ServedApi, api_router, listen};
use fleet::lock::semaphore::{GroupName, GroupSemaphore, LockHolder};
use fleet::lock::{LockError, RebootLocks};
use fleet::model::machine::{Machine, MachineId, parse_metadata};
use fleet::model::state::{JobState, UnitState};
use fleet::model::unit_name::UnitName;
use fleet::plan::explain::explain_unit;
use fleet::store::cluster::{Cluster, SubmittedUnit, UnitAssignment};
use fleet::store::memory::MemoryRegistry;
use fleet::store::registry::{ClusterChange, Registry};
use fleet::store::revision::Revision;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;

/// A running API and what stands behind it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) registry: Arc<MemoryRegistry>,
    pub(crate) locks: Arc<MemoryLocks>,
    pub(crate) folder: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

/// How a server differs from the usual one.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) token_limit: Option<u16>,
    pub(crate) drain_on_lock: bool,
    pub(crate) groups: UnixGroups,
    /// Leave units where they are: no engine, no machines.
    pub(crate) idle: bool,
    /// What to lay over the router, to play a server that knows less.
    pub(crate) old: Option<fn(axum::Router) -> axum::Router>,
}

impl Server {
    /// Three machines, nothing submitted.
    pub(crate) fn start() -> Self {
        Self::with(three_machines(), Options::default())
    }

    pub(crate) fn with(cluster: Cluster, options: Options) -> Self {
        let registry = Arc::new(MemoryRegistry::new(cluster));
        let locks = Arc::new(MemoryLocks::default());
        let folder = tempfile::tempdir().unwrap();
        let mut api = ServedApi::new(registry.clone(), locks.clone());
        api.token_limit = options.token_limit.unwrap_or(api.token_limit);
        api.drain_on_lock = options.drain_on_lock;
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("fleet.sock")).unwrap();
        socket.set_nonblocking(true).unwrap();
        let played = registry.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        on_thread(async move {
            let listener = UnixListener::from_std(socket).unwrap();
            let service =
                options.old.map_or_else(|| api_router(api.clone()), |old| old(api_router(api.clone())));
            tokio::spawn(listen::serve_unix(listener, service, options.groups, std::future::pending()));
            if !options.idle {
                tokio::spawn(play(played));
            }
            let _ = stopped.await;
        });
        Self { registry, locks, folder, stop: Some(stop) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("fleet.sock")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Sends a request, byte by byte as given, and reads the whole answer.
    pub(crate) fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.raw_bytes(method, path, headers, body.as_bytes())
    }

    fn raw_bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(5))).unwrap();
        // In one piece: a server that refuses the head need not wait for the body.
        stream.write_all(&[request.as_bytes(), body].concat()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Answer::read(&text)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.raw("GET", path, &[], "")
    }

    pub(crate) fn put_bytes(&self, path: &str, body: &[u8]) -> Answer {
        self.raw_bytes("PUT", path, &[("Content-Type", "application/json")], body)
    }

    pub(crate) fn put(&self, path: &str, body: &str) -> Answer {
        self.raw("PUT", path, &[("Content-Type", "application/json")], body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread may have ended by itself, by a panic that the test tells of.
        let _ = self.stop.take().map(|stop| stop.send(()));
    }
}

/// Runs a future on a runtime of its own, on a thread of its own.
pub(crate) fn on_thread(future: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future);
        runtime.shutdown_background();
    });
}

/// An HTTP answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: body.to_owned() }
    }

    /// Status and body, as tests mostly compare them.
    pub(crate) fn both(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

/// Machines a…, b…, c…, with addresses and labels.
pub(crate) fn three_machines() -> Cluster {
    let mut cluster = Cluster::default();
    for (digit, zone) in [("a", "east"), ("b", "west"), ("c", "west")] {
        let mut machine = Machine::new(MachineId::parse(&digit.repeat(32)).unwrap());
        machine.public_ip = format!("10.0.0.{}", 1 + u32::from(digit.as_bytes()[0] - b'a'));
        machine.metadata = parse_metadata(&format!("zone={zone},disk=ssd"));
        cluster.machines.insert(machine.id.clone(), machine);
    }
    cluster.leader = cluster.machines.keys().next().cloned();
    cluster
}

async fn play(registry: Arc<MemoryRegistry>) {
    let mut changes = registry.subscribe_changes();
    loop {
        while let Some((change, next)) = registry.read(step) {
            registry.edit_cluster(&change, |cluster| *cluster = next);
        }
        if let Err(tokio::sync::broadcast::error::RecvError::Closed) = changes.recv().await {
            return;
        }
    }
}

/// The next thing that an engine or a machine would do, if there is any.
fn step(cluster: &Cluster) -> Option<(ClusterChange, Cluster)> {
    let mut next = cluster.clone();
    for name in cluster.assignments.keys() {
        let unit = cluster.units.get(name);
        let machine = &cluster.assignments[name].machine;
        let draining = cluster.machines.get(machine).is_none_or(|machine| machine.draining);
        if unit.is_none_or(|unit| unit.desired == JobState::Inactive) || draining {
            next.assignments.remove(name);
            return Some((ClusterChange::Unit(name.clone()), next));
        }
    }
    for unit in cluster.units.values() {
        let wanted = unit.desired != JobState::Inactive && !unit.is_global() && !unit.name.is_template();
        if wanted && !cluster.assignments.contains_key(&unit.name) {
            let verdicts = explain_unit(cluster, unit.name.as_str()).unwrap();
            let able = verdicts.into_iter().filter(|verdict| verdict.refusal.is_none());
            if let Some(best) = able.min_by_key(|verdict| verdict.load) {
                let assignment = UnitAssignment {
                    machine: best.machine,
                    hash: unit.file.hash(),
                    revision: Revision::NEVER,
                };
                next.assignments.insert(unit.name.clone(), assignment);
                return Some((ClusterChange::Unit(unit.name.clone()), next));
            }
        }
        if let Some(assignment) = next.assignments.get_mut(&unit.name)
            && assignment.hash != unit.file.hash()
        {
            assignment.hash = unit.file.hash();
            return Some((ClusterChange::Unit(unit.name.clone()), next));
        }
    }
    report(cluster).map(|(name, machine, state)| {
        let states = next.states.entry(name.clone()).or_default();
        match state {
            Some(state) => states.insert(machine.clone(), state),
            None => states.remove(&machine),
        };
        if states.is_empty() {
            next.states.remove(&name);
        }
        (ClusterChange::State(name, machine), next)
    })
}

type Report = (UnitName, MachineId, Option<UnitState>);

/// What some machine should say and does not say yet.
fn report(cluster: &Cluster) -> Option<Report> {
    for machine in cluster.machines.keys() {
        for unit in cluster.units.values() {
            let here = cluster.target_of(unit.name.as_str()) == Some(machine)
                || (unit.is_global()
                    && unit.desired != JobState::Inactive
                    && unit.requirements.accepts_metadata(&cluster.machines[machine].metadata));
            let said = cluster.state_on(unit.name.as_str(), machine.as_str());
            let due = here.then(|| says(unit, machine));
            if said != due.as_ref() {
                return Some((unit.name.clone(), machine.clone(), due));
            }
        }
    }
    let gone = cluster.all_states().find(|state| !cluster.units.contains_key(&state.name))?;
    Some((gone.name.clone(), gone.machine.clone(), None))
}

fn says(unit: &SubmittedUnit, machine: &MachineId) -> UnitState {
    let text = unit.file.canonical_text();
    let (active, sub) = match unit.desired {
        JobState::Launched if text.contains("/bin/false") => ("failed", "failed"),
        JobState::Launched if text.contains("/bin/never") => ("activating", "start"),
        JobState::Launched if !text.contains("Type=oneshot") => ("active", "running"),
        _ => ("inactive", "dead"),
    };
    UnitState {
        name: unit.name.clone(),
        machine: machine.clone(),
        hash: unit.file.hash(),
        job: unit.desired,
        restarts: unit.restarts,
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: sub.to_owned(),
        error: String::new(),
    }
}

/// Reboot slots in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryLocks(Mutex<BTreeMap<GroupName, GroupSemaphore>>);

impl MemoryLocks {
    fn change<T>(&self, group: &GroupName, change: impl FnOnce(&mut GroupSemaphore) -> T) -> T {
        change(self.0.lock().unwrap().entry(group.clone()).or_default())
    }
}

impl RebootLocks for MemoryLocks {
    async fn acquire(&self, group: &GroupName, id: &str, reason: &str) -> Result<(), LockError> {
        let holder = LockHolder { id: id.to_owned(), since: 1_700_000_000, reason: reason.to_owned() };
        self.change(group, |semaphore| {
            let held: Vec<_> = semaphore.holders.iter().map(|holder| holder.id.clone()).collect();
            let full = LockError::Full { group: group.clone(), max: semaphore.max, holders: held.join(", ") };
            *semaphore = semaphore.clone().acquire_slot(holder).map_err(|_| full)?;
            Ok(())
        })
    }

    async fn release(&self, group: &GroupName, id: &str) -> Result<bool, LockError> {
        Ok(self.change(group, |semaphore| {
            let before = semaphore.holders.len();
            semaphore.holders.retain(|holder| holder.id != id);
            semaphore.holders.len() < before
        }))
    }

    async fn set_max(&self, group: &GroupName, max: u32) -> Result<u32, LockError> {
        Ok(self.change(group, |semaphore| std::mem::replace(&mut semaphore.max, max)))
    }

    async fn group(&self, group: &GroupName) -> Result<GroupSemaphore, LockError> {
        Ok(self.change(group, |semaphore| semaphore.clone()))
    }

    async fn groups(&self) -> Result<Vec<(GroupName, GroupSemaphore)>, LockError> {
        Ok(self.0.lock().unwrap().clone().into_iter().collect())
    }
}

/// Writes a unit file into a folder.
pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}
