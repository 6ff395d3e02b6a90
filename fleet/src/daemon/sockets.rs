//! Opens the sockets on which the API is served, and says who may come there.
//!
//! Knows the options that name sockets, groups and certificates, and what systemd passes. Refuses to know
//! what is answered. Invariant: a socket that is not asked for is not opened.

use std::{
    io,
    os::fd::{FromRawFd, RawFd},
    path::Path,
    sync::Arc,
};

use nix::unistd::Group;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};

use super::{DaemonError, read_small};
use crate::{
    api::{
        self, ServedApi,
        access::{AccessRole, UnixGroups},
        listen::{self, TlsIdentity, TlsTexts},
    },
    metrics::DaemonMetrics,
    model::machine::MachineId,
    settings::{ApiTls, DaemonSettings, ListenAddress},
    store::etcd::EtcdStore,
};

/// The first descriptor that systemd passes.
const FIRST_PASSED: RawFd = 3;

/// Opens every socket there is to serve on.
pub(super) fn serve_sockets(
    me: &MachineId,
    settings: &DaemonSettings,
    store: &Arc<EtcdStore>,
    metrics: &Arc<DaemonMetrics>,
    stopped: &watch::Receiver<bool>,
    parts: &mut JoinSet<()>,
) -> Result<(), DaemonError> {
    let metrics = metrics.clone();
    let api = ServedApi {
        token_limit: settings.token_limit,
        drain_on_lock: settings.drain_on_lock,
        more_metrics: Some(Arc::new(move |text: &mut String| metrics.write(text))),
        warnings: settings.etcd_warning().into_iter().collect(),
        ..ServedApi::new(store.clone(), store.clone())
    };
    let router = api::api_router(api);
    let groups = UnixGroups {
        admin: settings.admin_group.clone(),
        lock: settings.lock_group.clone().map(|group| (group, me.to_string())),
        read: settings.read_group.clone(),
    };
    let identity = settings.api_tls.as_ref().map(tls_identity).transpose()?;
    for socket in open_sockets(settings)? {
        let (router, groups, identity, stop) =
            (router.clone(), groups.clone(), identity.clone(), stop_of(stopped));
        let hosts = settings.api_hosts.iter().chain(&settings.public_ip).cloned().collect();
        parts.spawn(async move {
            let outcome = match (socket, &identity) {
                (Socket::Unix(listener), _) => listen::serve_unix(listener, router, groups, stop).await,
                (Socket::Tls(listener), Some(identity)) => {
                    listen::serve_tls(listener, router, identity, stop).await
                }
                (Socket::Tls(listener) | Socket::Tcp(listener), _) => {
                    warn_of_plain_tcp(&listener);
                    listen::serve_tcp(listener, router, AccessRole::Admin, hosts, stop).await
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
        "{at} is neither encrypted nor protected: anybody who can connect there is root on every machine of the \
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

fn open_sockets(settings: &DaemonSettings) -> Result<Vec<Socket>, DaemonError> {
    let mut sockets = passed_sockets(if settings.api_tls.is_some() { Socket::Tls } else { Socket::Tcp })?;
    for listen in &settings.listen {
        let failed = |source| DaemonError::Listen { at: format!("{listen:?}"), source };
        sockets.push(match listen {
            ListenAddress::Unix(path) => {
                let socket = bind_unix(path).map_err(failed)?;
                open_to_groups(path, settings).map_err(failed)?;
                Socket::Unix(socket)
            }
            ListenAddress::Tcp(address) => Socket::Tcp(bind_tcp(*address).map_err(failed)?),
            ListenAddress::Tls(address) => Socket::Tls(bind_tcp(*address).map_err(failed)?),
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
    // bind(2) refuses a path that exists, and nobody listens on what an earlier process left.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(
        path,
        std::os::unix::fs::PermissionsExt::from_mode(SocketMode::OWNER_AND_GROUP.0),
    )?;
    Ok(listener)
}

/// Who may open a unix socket: to connect takes the right to write, see unix(7).
#[derive(Clone, Copy, PartialEq, Eq)]
struct SocketMode(u32);

impl SocketMode {
    // For several groups there is no mode. The roles are checked on each connection anyway.
    const EVERYBODY: Self = Self(0o666);
    const OWNER_AND_GROUP: Self = Self(0o660);
}

/// Lets those open a socket who have a role on it. Root and the group of the socket may as long as there is
/// one group; for several there is no such mode, so anybody may, and who has no role gets 403.
fn open_to_groups(path: &Path, settings: &DaemonSettings) -> io::Result<()> {
    let named: Vec<&String> =
        [&settings.admin_group, &settings.read_group, &settings.lock_group].into_iter().flatten().collect();
    let (group, mode) = match (named.as_slice(), &settings.admin_group) {
        ([only], Some(_)) => (Group::from_name(only).map_err(io::Error::from)?, SocketMode::OWNER_AND_GROUP),
        (_, Some(_)) => (None, SocketMode::EVERYBODY),
        // Without an admin group anybody who opens the socket may do everything: root alone.
        (_, None) => (None, SocketMode::OWNER_AND_GROUP),
    };
    if let ([only], true) = (named.as_slice(), group.is_none() && mode == SocketMode::OWNER_AND_GROUP) {
        tracing::warn!(group = only.as_str(), "there is no such group; the socket stays root's");
    }
    std::os::unix::fs::chown(path, None, group.map(|group| group.gid.as_raw()))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode.0))
}

/// The sockets of fleet.socket. One that is not a unix socket speaks TLS if there is a certificate.
fn passed_sockets(of_tcp: fn(TcpListener) -> Socket) -> Result<Vec<Socket>, DaemonError> {
    let mine = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count: RawFd = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut sockets = Vec::new();
    // More than 64 would be a mistake of the environment, and each number is a descriptor that we take for
    // ours.
    for fd in (FIRST_PASSED..).take(if mine { usize::try_from(count.clamp(0, 64)).unwrap_or(0) } else { 0 }) {
        let failed = |source| DaemonError::Listen { at: format!("the passed socket {fd}"), source };
        sockets.push(passed_socket(fd, of_tcp).map_err(failed)?);
    }
    Ok(sockets)
}

fn passed_socket(fd: RawFd, of_tcp: fn(TcpListener) -> Socket) -> io::Result<Socket> {
    #[expect(unsafe_code, reason = "descriptors passed by systemd have no other way in")]
    // SAFETY: LISTEN_PID says that systemd passed the descriptors from 3 on to this process, LISTEN_FDS
    // says how many, and each is taken here exactly once, before anything else is opened from it.
    let socket = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    // systemd does not say of what kind a passed socket is. A TCP socket has an address that std can read,
    // a unix socket has not.
    if listener.local_addr().is_ok() {
        let listener = TcpListener::from_std(listener)?;
        return Ok(of_tcp(listener));
    }
    let listener = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(listener));
    Ok(Socket::Unix(UnixListener::from_std(listener)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Options;
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
            let settings = DaemonSettings::from_options(&Options::parse(text).unwrap()).unwrap();
            std::os::unix::fs::chown(&path, None, Some(0)).unwrap();

            open_to_groups(&path, &settings).unwrap();

            let seen = std::fs::metadata(&path).unwrap();
            assert_eq!((seen.gid(), seen.mode() & 0o777), (group, mode), "{text}");
        }
    }
}
