//! Serves the API on sockets that somebody else opened: unix, TCP, TLS.
//!
//! In TLS a client must show a certificate; which of the authorities signed it decides what it may do.
//! Nobody can wear the server out by being slow or many: a request's head has ten seconds, connections are
//! counted (`connections`), and handshakes give way to newer ones (`handshakes`).

mod connections;
mod handshakes;
mod identity;

use super::access::{AccessRole, Caller, UnixGroups};
use super::forgery::{self, Hosts};
use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::serve::Listener;
use connections::{Connections, Counted, Peer};
use handshakes::TlsListener;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
pub use identity::{TlsError, TlsIdentity, TlsTexts};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

/// How long the head of a request may take; an idle connection is closed after it, too.
// Long enough for a head over a bad line, and for a person who types one. Without a limit a few slow
// clients hold every connection; axum's own server sets none, which is why hyper is used directly.
const HEAD: Duration = Duration::from_secs(10);
/// The largest head of a request: page tokens are the longest that is sent, and they have some 100 bytes.
// hyper's own bound is 400 KiB for each connection. Thirty-two are far above any head of ours.
const LARGEST_HEAD: usize = 32 * 1024;

/// Serves on a unix socket until `stop` is ready.
pub async fn serve_unix<S>(
    listener: UnixListener,
    router: Router,
    groups: UnixGroups,
    stop: S,
) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let judge = move |stream: &UnixStream| {
        let peer = stream.peer_cred();
        let uid = peer.as_ref().ok().map(tokio::net::unix::UCred::uid);
        let caller = peer
            .map_or(Caller::with_role(AccessRole::None), |peer| groups.identify_peer(peer.uid(), peer.gid()));
        Guest { caller, peer: Peer::of_user(uid), local: None }
    };
    serve_listener(listener, router, judge, stop).await;
    Ok(())
}

/// Serves on TCP in the clear; everybody there has the same rights. `hosts` are names that clients may use
/// for this server, beside its address and localhost.
pub async fn serve_tcp<S>(
    listener: TcpListener,
    router: Router,
    access: AccessRole,
    hosts: Vec<String>,
    stop: S,
) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let judge =
        move |stream: &TcpStream| Guest { caller: Caller::with_role(access), ..Guest::of_tcp(stream) };
    let router = router
        .layer(from_fn(forgery::refuse_forged))
        .layer(from_fn_with_state(Hosts::new(hosts), forgery::refuse_foreign_host));
    serve_listener(listener, router, judge, stop).await;
    Ok(())
}

/// Serves in TLS.
pub async fn serve_tls<S>(
    listener: TcpListener,
    router: Router,
    identity: &TlsIdentity,
    stop: S,
) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TlsListener::new(listener, &identity.config)?;
    let identity = identity.clone();
    let judge = move |stream: &TlsStream<TcpStream>| {
        let (tcp, tls) = stream.get_ref();
        Guest { caller: identity.identify_caller(tls.peer_certificates()), ..Guest::of_tcp(tcp) }
    };
    serve_listener(listener, router.layer(from_fn(forgery::refuse_forged)), judge, stop).await;
    Ok(())
}

/// Who came in.
#[derive(Debug, Clone)]
struct Guest {
    caller: Caller,
    peer: Peer,
    /// The address of ours that was dialled.
    local: Option<IpAddr>,
}

impl Guest {
    /// Somebody without rights, who came by TCP.
    fn of_tcp(stream: &TcpStream) -> Self {
        let peer = stream.peer_addr().map_or(Peer::User(None), |peer| Peer::of_address(peer.ip()));
        let local = stream.local_addr().ok().map(|local| local.ip());
        Self { caller: Caller::with_role(AccessRole::None), peer, local }
    }
}

/// Accepts connections until `stop` is ready, then waits for the requests under way.
async fn serve_listener<L, S>(mut listener: L, router: Router, judge: impl Fn(&L::Io) -> Guest, stop: S)
where
    L: Listener,
    S: Future<Output = ()> + Send + 'static,
{
    let connections = Connections::new();
    let (stopping, stopped) = watch::channel(false);
    let accept = async {
        loop {
            // A place first and the connection second: who finds no place waits in the kernel's queue,
            // where he costs us nothing.
            let place = connections.reserve_place().await;
            let (stream, _) = listener.accept().await;
            let guest = judge(&stream);
            let peer = guest.peer;
            if let Some(counted) = connections.admit_peer(place, peer) {
                tokio::spawn(serve_one(stream, router.clone(), guest, counted, stopped.clone()));
            } else {
                tracing::debug!(?peer, "a connection too many of one peer is closed");
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
    // No new requests while the old ones end: clients get a refusal at once and go to another machine.
    drop(listener);
    drop(stopped);
    stopping.send_replace(true);
    stopping.closed().await;
}

async fn serve_one<Io>(
    stream: Io,
    router: Router,
    guest: Guest,
    _counted: Counted,
    mut stopped: watch::Receiver<bool>,
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(guest.caller.clone()));
        request.extensions_mut().insert(forgery::Dialled(guest.local));
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // What is waited for must not be kept while the connection is closed: the value is locked meanwhile.
    let told = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
