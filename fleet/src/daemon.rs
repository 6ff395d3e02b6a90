//! The daemon: settings become parts, parts run until a signal.
//!
//! Knows how the parts of a machine fit together, and what each signal means. Refuses to know how any of
//! them works. Invariant: a daemon that comes back at once stops no unit.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

pub mod departure;
pub mod reload;

use std::{
    io,
    net::{IpAddr, UdpSocket},
    os::fd::{FromRawFd, RawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::unistd::Group;
use sd_notify::NotifyState;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    agent::{
        Agent, AgentError, AgentSettings,
        journal::Journal,
        machine_id,
        presence::{Presence, former::LeaseFile},
        systemd::{Systemd, SystemdError},
    },
    api::{
        self, Api,
        access::{Access, UnixGroups},
        listen::{self, TlsError, TlsIdentity, TlsTexts},
    },
    engine::{Engine, EngineSettings},
    metrics::Metrics,
    model::machine::{Machine, MachineId, MachineIdError, Resources},
    plan::converge::Caution,
    settings::{ApiTls, Listen, Options, Reserve, Settings, SettingsError},
    store::{
        etcd::{EtcdSettings, EtcdStore, chain},
        registry::{Health, Registry},
    },
};

use departure::Departure;
use reload::{Running, Source};

/// The largest configuration file or certificate that is read.
const LARGEST_FILE: u64 = 1 << 20;
/// The first descriptor that systemd passes.
const FIRST_PASSED: RawFd = 3;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum DaemonError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot make sense of the configuration")]
    Settings(#[from] SettingsError),
    #[error("cannot tell which machine this is")]
    MachineId(#[from] crate::agent::MachineIdUnreadable),
    #[error("cannot use the machine_id of the configuration")]
    ConfiguredMachineId(#[from] MachineIdError),
    #[error("cannot reach systemd")]
    Systemd(#[from] SystemdError),
    #[error("cannot take up the units of this machine")]
    Agent(#[from] AgentError),
    #[error("cannot serve on {at}")]
    Listen { at: String, source: io::Error },
    #[error("cannot serve TLS")]
    Tls(#[from] TlsError),
    #[error("cannot start the runtime")]
    Runtime { source: io::Error },
}

/// Reads the configuration: the named file must exist, the default one need not.
pub fn options(file: Option<&Path>) -> Result<Options, DaemonError> {
    let path = file.unwrap_or_else(|| Path::new(crate::settings::DEFAULT_FILE));
    let text = match read_small(path) {
        Err(DaemonError::Read { source, .. })
            if file.is_none() && source.kind() == io::ErrorKind::NotFound =>
        {
            Vec::new()
        }
        text => text?,
    };
    let mut options = Options::parse(&String::from_utf8_lossy(&text))?;
    options.override_by(
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    );
    Ok(options)
}

fn read_small(path: &Path) -> Result<Vec<u8>, DaemonError> {
    let failed = |source| DaemonError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LARGEST_FILE {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes"))));
    }
    std::fs::read(path).map_err(failed)
}

/// Runs until a signal says stop.
pub fn run(settings: Settings, source: Source) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Runtime { source })?;
    runtime.block_on(run_parts(settings, source))
}

async fn run_parts(settings: Settings, source: Source) -> Result<(), DaemonError> {
    let me = match &settings.machine_id {
        Some(id) => MachineId::parse(id)?,
        None => machine_id()?,
    };
    let machine = describe(&me, &settings);
    let metrics = Arc::new(Metrics::default());
    let store = Arc::new(EtcdStore::new(etcd_settings(&settings)?));
    let (systemd, news) = Systemd::connect(settings.systemd_user).await?;
    let places = AgentSettings {
        units_directory: settings.units_directory.clone(),
        runtime_directory: settings.runtime_directory.clone(),
    };
    let lease_file = settings.runtime_directory.join("lease");
    if LeaseFile::read(&lease_file).of_another(&me, &store.prefix()).is_some() {
        stop_former_units(&machine, &store, &settings, &metrics).await?;
    }
    let agent = Agent::resume(machine.clone(), store.clone(), systemd, places, metrics.clone()).await?;
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let boot = format!("{boot}/{}", init_start_time());
    let presence = Arc::new(Presence::new(store.clone(), machine, boot, settings.agent_ttl, lease_file));

    let (stop, stopped) = watch::channel(false);
    let (purge, purged) = watch::channel(false);
    let mut parts = JoinSet::new();
    let following = store.clone();
    parts.spawn(async move { following.follow().await });
    let staying = presence.clone();
    let lease = presence.lease();
    parts.spawn(async move { staying.run().await });
    let agent = tokio::spawn(agent.run(news, lease, purged));
    let care = watch::Sender::new(engine_settings(&settings));
    let engine = (!settings.disable_engine).then(|| {
        let engine = Engine::new(me.clone(), store.clone(), care.subscribe(), metrics.clone());
        parts.spawn(Box::pin(async move { engine.run().await }))
    });
    serve(&me, &settings, &store, &metrics, &stopped, &mut parts)?;
    let etcd_warning = settings.etcd_warning();
    if let Some(warning) = &etcd_warning {
        tracing::warn!("{warning}");
    }
    parts.spawn(announce_health(store.clone(), etcd_warning));

    let (units_on_exit, in_user_systemd) = (settings.units_on_exit, settings.systemd_user);
    let journal = Journal::at(&settings.runtime_directory);
    let units_directory = settings.units_directory.clone();
    let mut running = Running {
        source,
        settings,
        describe: Box::new(move |settings| describe(&me, settings)),
        presence: presence.clone(),
        caution: engine_settings,
        engine: care,
    };
    wait_for_stop(&store, &mut running).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let reason = departure::stop_reason(in_user_systemd).await;
    let departure = Departure::of(reason, units_on_exit);
    if let Some(engine) = engine {
        // Another engine leads at once, instead of after the TTL of the leadership.
        engine.abort();
        store.resign().await;
    }
    match departure {
        Departure::KeepUnits => tracing::info!(?reason, "Gracefully shutting down; units of fleet run on"),
        Departure::StopUnits => {
            tracing::info!(
                "Gracefully shutting down; units of fleet are stopped, and this machine leaves the cluster"
            );
            purge.send_replace(true);
            // The agent returns when everything is down; a panic in it has been reported already.
            let _ = agent.await;
            leave_when_empty(&presence, || journal.read(&units_directory).is_empty()).await;
        }
    }
    stop.send_replace(true);
    Ok(())
}

/// Leaves the cluster unless a unit is still on its way down: it must not start elsewhere before that, and
/// as long as the lease lasts it does not.
async fn leave_when_empty(presence: &Presence, is_empty: impl FnOnce() -> bool) {
    if is_empty() {
        presence.leave().await;
    } else {
        tracing::warn!(
            "some units of fleet do not stop; this machine stays in the cluster until its TTL is over"
        );
    }
}

/// Stops what an earlier process ran for another machine ID or prefix, before that registration ends and
/// the units start elsewhere.
async fn stop_former_units(
    machine: &Machine,
    store: &Arc<EtcdStore>,
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<(), DaemonError> {
    tracing::info!("the machine ID or etcd_key_prefix is another one; stopping what ran under the former");
    // The connection is of this agent alone: the next one must not miss what systemd says meanwhile.
    let (systemd, news) = Systemd::connect(settings.systemd_user).await?;
    let places = AgentSettings {
        units_directory: settings.units_directory.clone(),
        runtime_directory: settings.runtime_directory.clone(),
    };
    let agent = Agent::resume(machine.clone(), store.clone(), systemd, places, metrics.clone()).await?;
    let (_none, no_lease) = watch::channel(None);
    let (_all, everything) = watch::channel(true);
    agent.run(news, no_lease, everything).await;
    Ok(())
}

/// What this machine says of itself.
fn describe(me: &MachineId, settings: &Settings) -> Machine {
    Machine {
        public_ip: settings.public_ip.clone().or_else(default_address).unwrap_or_default(),
        metadata: settings.metadata.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity: settings.reserve.map(|(memory, cpu)| Resources {
            memory_mib: amount(memory, total_memory_mib),
            cpu_percent: amount(cpu, || {
                std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u64 * 100
            }),
        }),
        max_units: settings.max_units,
        ..Machine::new(me.clone())
    }
}

fn amount(reserve: Reserve, all: impl FnOnce() -> u64) -> u64 {
    match reserve {
        Reserve::All => all(),
        Reserve::Amount(amount) => amount,
    }
}

fn total_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The address from which packets to the world would leave. Nothing is sent.
fn default_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => {
            Some(address.to_string())
        }
        _ => None,
    }
}

/// When PID 1 started: tells boots apart where containers share the kernel's boot ID.
fn init_start_time() -> String {
    let stat = std::fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(19).unwrap_or_default().to_owned()
}

fn etcd_settings(settings: &Settings) -> Result<EtcdSettings, DaemonError> {
    let identity = match &settings.etcd_identity {
        Some((certificate, key)) => Some((read_small(certificate)?, read_small(key)?)),
        None => None,
    };
    Ok(EtcdSettings {
        endpoints: settings.etcd_servers.clone(),
        prefix: settings.etcd_key_prefix.clone(),
        request_timeout: settings.etcd_request_timeout,
        ca: settings.etcd_cafile.as_deref().map(read_small).transpose()?,
        identity,
        user: settings.etcd_user.clone(),
    })
}

fn engine_settings(settings: &Settings) -> EngineSettings {
    let caution =
        Caution { ttl: settings.agent_ttl, brake_percent: settings.brake_percent, ..Caution::default() };
    EngineSettings { caution, leader_ttl: settings.leader_ttl }
}

/// Opens every socket there is to serve on.
fn serve(
    me: &MachineId,
    settings: &Settings,
    store: &Arc<EtcdStore>,
    metrics: &Arc<Metrics>,
    stopped: &watch::Receiver<bool>,
    parts: &mut JoinSet<()>,
) -> Result<(), DaemonError> {
    let metrics = metrics.clone();
    let api = Api {
        token_limit: settings.token_limit,
        drain_on_lock: settings.drain_on_lock,
        more_metrics: Some(Arc::new(move |text: &mut String| metrics.write(text))),
        warnings: settings.etcd_warning().into_iter().collect(),
        ..Api::new(store.clone(), store.clone())
    };
    let router = api::router(api);
    let groups = UnixGroups {
        admin: settings.admin_group.clone(),
        lock: settings.lock_group.clone().map(|group| (group, me.to_string())),
        read: settings.read_group.clone(),
    };
    let identity = settings.api_tls.as_ref().map(tls_identity).transpose()?;
    for socket in sockets(settings)? {
        let (router, groups, identity, stop) =
            (router.clone(), groups.clone(), identity.clone(), stop_of(stopped));
        let hosts = settings.api_hosts.iter().chain(&settings.public_ip).cloned().collect();
        parts.spawn(async move {
            let outcome = match (socket, &identity) {
                (Socket::Unix(listener), _) => listen::unix(listener, router, groups, stop).await,
                (Socket::Tls(listener), Some(identity)) => {
                    listen::tls(listener, router, identity, stop).await
                }
                (Socket::Tls(listener) | Socket::Tcp(listener), _) => {
                    warn_of_plain_tcp(&listener);
                    listen::tcp(listener, router, Access::Admin, hosts, stop).await
                }
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "a socket of the API is served no longer");
            }
        });
    }
    Ok(())
}

fn warn_of_plain_tcp(listener: &TcpListener) {
    let at = listener.local_addr().map_or_else(|_| "TCP".to_owned(), |at| format!("tcp://{at}"));
    tracing::warn!(
        "{at} is neither encrypted nor protected: whoever can connect there is root on every machine of the \
         cluster; use tls:// or a unix socket"
    );
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // Without a sender the daemon is gone, which is a stop too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn stop_of(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    until_stopped(stopped.clone())
}

fn tls_identity(tls: &ApiTls) -> Result<TlsIdentity, DaemonError> {
    let readonly = tls.readonly_client_ca.as_deref().map(read_small).transpose()?;
    let lock = tls.lock_client_ca.as_deref().map(read_small).transpose()?;
    Ok(TlsIdentity::read(&TlsTexts {
        certificate: &read_small(&tls.certificate)?,
        key: &read_small(&tls.key)?,
        admin_authority: &read_small(&tls.client_ca)?,
        read_authority: readonly.as_deref(),
        lock_authority: lock.as_deref(),
    })?)
}

enum Socket {
    Tcp(TcpListener),
    Tls(TcpListener),
    Unix(UnixListener),
}

fn sockets(settings: &Settings) -> Result<Vec<Socket>, DaemonError> {
    let mut sockets = passed_sockets(settings.api_tls.is_some())?;
    for listen in &settings.listen {
        let failed = |source| DaemonError::Listen { at: format!("{listen:?}"), source };
        sockets.push(match listen {
            Listen::Unix(path) => {
                let socket = bind_unix(path).map_err(failed)?;
                open_to_groups(path, settings).map_err(failed)?;
                Socket::Unix(socket)
            }
            Listen::Tcp(address) => Socket::Tcp(bind_tcp(*address).map_err(failed)?),
            Listen::Tls(address) => Socket::Tls(bind_tcp(*address).map_err(failed)?),
        });
    }
    Ok(sockets)
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A socket left by an earlier process is in nobody's use.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    Ok(listener)
}

/// Lets those open a socket who have a role on it. Root and the group of the socket may as long as there is
/// one group; for several there is no such mode, so anybody may, and who has no role gets 403.
fn open_to_groups(path: &Path, settings: &Settings) -> io::Result<()> {
    let named: Vec<&String> =
        [&settings.admin_group, &settings.read_group, &settings.lock_group].into_iter().flatten().collect();
    let (group, mode) = match (named.as_slice(), &settings.admin_group) {
        ([only], Some(_)) => (Group::from_name(only).map_err(io::Error::from)?, 0o660),
        (_, Some(_)) => (None, 0o666),
        // Without an admin group whoever opens the socket may do everything: root alone.
        (_, None) => (None, 0o660),
    };
    if let ([only], true) = (named.as_slice(), group.is_none() && mode == 0o660) {
        tracing::warn!(group = only.as_str(), "there is no such group; the socket stays root's");
    }
    std::os::unix::fs::chown(path, None, group.map(|group| group.gid.as_raw()))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// The sockets of fleet.socket. One that is not a unix socket speaks TLS if there is a certificate.
fn passed_sockets(tls: bool) -> Result<Vec<Socket>, DaemonError> {
    let mine = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count: RawFd = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut sockets = Vec::new();
    for fd in (FIRST_PASSED..).take(if mine { usize::try_from(count.clamp(0, 64)).unwrap_or(0) } else { 0 }) {
        let failed = |source| DaemonError::Listen { at: format!("the passed socket {fd}"), source };
        sockets.push(passed_socket(fd, tls).map_err(failed)?);
    }
    Ok(sockets)
}

fn passed_socket(fd: RawFd, tls: bool) -> io::Result<Socket> {
    #[expect(unsafe_code, reason = "descriptors passed by systemd have no other way in")]
    // SAFETY: LISTEN_PID says that systemd passed the descriptors from 3 on to this process, LISTEN_FDS
    // says how many, and each is taken here exactly once, before anything else is opened from it.
    let socket = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    if listener.local_addr().is_ok() {
        let listener = TcpListener::from_std(listener)?;
        return Ok(if tls { Socket::Tls(listener) } else { Socket::Tcp(listener) });
    }
    let listener = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(listener));
    Ok(Socket::Unix(UnixListener::from_std(listener)?))
}

/// Tells systemd when this machine has joined, and how it fares.
async fn announce_health(store: Arc<EtcdStore>, warning: Option<String>) {
    let (mut registered, mut hearing, mut excluded) = (store.registered(), store.hearing(), store.excluded());
    loop {
        registered.mark_unchanged();
        hearing.mark_unchanged();
        excluded.mark_unchanged();
        let status = match store.health() {
            Health::Excluded(reason) => reason,
            Health::Registering => "registering".to_owned(),
            Health::Serving => {
                warning.as_ref().map_or_else(|| "serving".to_owned(), |warning| format!("serving; {warning}"))
            }
            Health::StoreLost(reason) => format!("store lost, units keep running: {reason}"),
        };
        // Without systemd nobody listens, which is fine. Ready means that the daemon works, not that the
        // store does: a machine must come up without it.
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        tokio::select! {
            _ = registered.changed() => {}
            _ = hearing.changed() => {}
            _ = excluded.changed() => {}
        }
    }
}

/// Returns on TERM or INT; dumps the picture on USR1, reads the configuration anew on HUP.
async fn wait_for_stop(store: &EtcdStore, running: &mut Running) {
    let kinds =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::user_defined1(), SignalKind::hangup()];
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut dump), Ok(mut reload)] = kinds.map(signal) else {
        tracing::error!("cannot listen to signals");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = dump.recv() => store.look(|picture| tracing::info!(?picture, "Dumping server state")),
            _ = reload.recv() => running.reload(),
        }
    }
}

/// An error as one line for the log.
#[must_use]
pub fn one_line(error: &dyn std::error::Error) -> String {
    chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn who_has_a_role_can_open_the_socket() {
        if !nix::unistd::geteuid().is_root() {
            // Only root may give a socket to a group that it is not in.
            assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.sock");
        std::fs::write(&path, "").unwrap();
        // Debian has group 1 under this name everywhere.
        for (text, group, mode) in [
            ("", 0, 0o660),
            ("admin_group=daemon", 1, 0o660),
            ("admin_group=daemon\nread_group=nogroup", 0, 0o666),
            ("admin_group=daemon\nlock_group=nogroup", 0, 0o666),
            ("read_group=daemon", 0, 0o660),
            ("admin_group=no-such-group", 0, 0o660),
        ] {
            let settings = Settings::of(&Options::parse(text).unwrap()).unwrap();
            std::os::unix::fs::chown(&path, None, Some(0)).unwrap();

            open_to_groups(&path, &settings).unwrap();

            let seen = std::fs::metadata(&path).unwrap();
            assert_eq!((seen.gid(), seen.mode() & 0o777), (group, mode), "{text}");
        }
    }
}
