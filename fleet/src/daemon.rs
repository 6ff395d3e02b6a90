//! The daemon: settings become parts, parts run until a signal.
//!
//! Knows how the parts of a machine fit together, and what each signal means. Refuses to know how any of
//! them works. Invariant: a daemon that comes back at once stops no unit.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

pub mod departure;
pub mod reload;
mod sockets;

use std::{
    io,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    agent::{
        AgentError, AgentSettings, FleetAgent,
        journal::AgentJournal,
        machine_id,
        presence::{MachinePresence, former::LeaseFile},
        systemd::{SystemdClient, SystemdError},
    },
    api::listen::TlsError,
    engine::{EngineSettings, FleetEngine},
    metrics::DaemonMetrics,
    model::machine::{Machine, MachineId, MachineIdError, Resources},
    plan::converge::SafetyLimits,
    settings::{DaemonSettings, Options, ResourceReserve, SettingsError},
    store::{
        etcd::{EtcdSettings, EtcdStore},
        registry::{Registry, StoreHealth},
    },
};

use departure::Departure;
use reload::{RunningDaemon, SettingsSource};

/// The largest configuration file or certificate that is read.
// A certificate with its chain has some ten KiB. A path that leads to a device must not fill the memory.
const LARGEST_FILE: u64 = 1 << 20;

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
pub fn read_options(file: Option<&Path>) -> Result<Options, DaemonError> {
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
pub fn run_daemon(settings: DaemonSettings, source: SettingsSource) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Runtime { source })?;
    runtime.block_on(run_parts(settings, source))
}

async fn run_parts(settings: DaemonSettings, source: SettingsSource) -> Result<(), DaemonError> {
    let me = match &settings.machine_id {
        Some(id) => MachineId::parse(id)?,
        None => machine_id()?,
    };
    let machine = describe_machine(&me, &settings);
    let metrics = Arc::new(DaemonMetrics::default());
    let store = Arc::new(EtcdStore::new(etcd_settings(&settings)?));
    let (systemd, news) = SystemdClient::connect(settings.systemd).await?;
    let places = AgentSettings {
        units_directory: settings.units_directory.clone(),
        runtime_directory: settings.runtime_directory.clone(),
    };
    let lease_file = settings.runtime_directory.join("lease");
    if LeaseFile::read(&lease_file).of_another(&me, &store.key_prefix()).is_some() {
        stop_former_units(&machine, &store, &settings, &metrics).await?;
    }
    let agent =
        FleetAgent::resume_journal(machine.clone(), store.clone(), systemd, places, metrics.clone()).await?;
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let boot = format!("{boot}/{}", init_start_time());
    let presence =
        Arc::new(MachinePresence::new(store.clone(), machine, boot, settings.agent_ttl, lease_file));

    let (stop, stopped) = watch::channel(false);
    let (purge, purged) = watch::channel(false);
    let mut parts = JoinSet::new();
    let following = store.clone();
    parts.spawn(async move { following.follow_store().await });
    let staying = presence.clone();
    let lease = presence.watch_lease();
    parts.spawn(async move { staying.stay_registered().await });
    let agent = tokio::spawn(agent.run_agent(news, lease, purged));
    let care = watch::Sender::new(engine_settings(&settings));
    let engine = (!settings.disable_engine).then(|| {
        let engine = FleetEngine::new(me.clone(), store.clone(), care.subscribe(), metrics.clone());
        parts.spawn(Box::pin(async move { engine.run_elections().await }))
    });
    sockets::serve_sockets(&me, &settings, &store, &metrics, &stopped, &mut parts)?;
    let etcd_warning = settings.etcd_warning();
    if let Some(warning) = &etcd_warning {
        tracing::warn!("{warning}");
    }
    parts.spawn(announce_health(store.clone(), etcd_warning));

    let (units_on_exit, systemd) = (settings.units_on_exit, settings.systemd);
    let journal = AgentJournal::in_directory(&settings.runtime_directory);
    let units_directory = settings.units_directory.clone();
    let mut running = RunningDaemon {
        source,
        settings,
        describe: Box::new(move |settings| describe_machine(&me, settings)),
        presence: presence.clone(),
        caution: engine_settings,
        engine: care,
    };
    wait_for_stop(&store, &mut running).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let reason = departure::stop_reason(systemd).await;
    let departure = Departure::for_reason(reason, units_on_exit);
    if let Some(engine) = engine {
        // Another engine leads at once, instead of after the TTL of the leadership.
        engine.abort();
        store.resign_leadership().await;
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
async fn leave_when_empty(presence: &MachinePresence, is_empty: impl FnOnce() -> bool) {
    if is_empty() {
        presence.leave_cluster().await;
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
    settings: &DaemonSettings,
    metrics: &Arc<DaemonMetrics>,
) -> Result<(), DaemonError> {
    tracing::info!("the machine ID or etcd_key_prefix is another one; stopping what ran under the former");
    // The connection is of this agent alone: the next one must not miss what systemd says meanwhile.
    let (systemd, news) = SystemdClient::connect(settings.systemd).await?;
    let places = AgentSettings {
        units_directory: settings.units_directory.clone(),
        runtime_directory: settings.runtime_directory.clone(),
    };
    let agent =
        FleetAgent::resume_journal(machine.clone(), store.clone(), systemd, places, metrics.clone()).await?;
    let (_none, no_lease) = watch::channel(None);
    let (_all, everything) = watch::channel(true);
    agent.run_agent(news, no_lease, everything).await;
    Ok(())
}

/// What this machine says of itself.
fn describe_machine(me: &MachineId, settings: &DaemonSettings) -> Machine {
    Machine {
        public_ip: settings.public_ip.clone().or_else(default_address).unwrap_or_default(),
        metadata: settings.metadata.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity: settings.reserve.map(|(memory, cpu)| Resources {
            memory_mib: reserved_amount(memory, total_memory_mib),
            cpu_percent: reserved_amount(cpu, || {
                std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u64 * 100
            }),
        }),
        max_units: settings.max_units,
        ..Machine::new(me.clone())
    }
}

fn reserved_amount(reserve: ResourceReserve, all: impl FnOnce() -> u64) -> u64 {
    match reserve {
        ResourceReserve::All => all(),
        ResourceReserve::Amount(amount) => amount,
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

fn etcd_settings(settings: &DaemonSettings) -> Result<EtcdSettings, DaemonError> {
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

fn engine_settings(settings: &DaemonSettings) -> EngineSettings {
    let caution = SafetyLimits {
        ttl: settings.agent_ttl,
        brake_percent: settings.brake_percent,
        ..SafetyLimits::default()
    };
    EngineSettings { caution, leader_ttl: settings.leader_ttl }
}

/// Tells systemd when this machine has joined, and how it fares.
async fn announce_health(store: Arc<EtcdStore>, warning: Option<String>) {
    let (mut registered, mut hearing, mut excluded) =
        (store.watch_registration(), store.watch_connectivity(), store.watch_exclusion());
    loop {
        registered.mark_unchanged();
        hearing.mark_unchanged();
        excluded.mark_unchanged();
        let status = match store.health() {
            StoreHealth::Excluded(reason) => reason,
            StoreHealth::Registering => "registering".to_owned(),
            StoreHealth::Serving => {
                warning.as_ref().map_or_else(|| "serving".to_owned(), |warning| format!("serving; {warning}"))
            }
            StoreHealth::StoreLost(reason) => format!("store lost, units keep running: {reason}"),
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
async fn wait_for_stop(store: &EtcdStore, running: &mut RunningDaemon) {
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
            _ = dump.recv() => store.with_view(|picture| tracing::info!(?picture, "Dumping server state")),
            _ = reload.recv() => running.reload_settings(),
        }
    }
}
