//! Serves the API on sockets that somebody else opened: unix, TCP, TLS.
//!
//! In TLS a client must show a certificate; which of two authorities signed it decides what it may do. A
//! handshake that dawdles holds up nobody else and is dropped after ten seconds.

use super::access::{Access, UnixGroups};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

const HANDSHAKE: Duration = Duration::from_secs(10);
const PENDING_HANDSHAKES: usize = 64;

/// Serves on a unix socket until `stop` is ready.
pub async fn unix<S>(listener: UnixListener, router: Router, groups: UnixGroups, stop: S) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let listener =
        WithAccess { listener, access: Arc::new(move |stream: &UnixStream| unix_access(stream, &groups)) };
    serve(listener, router, stop).await
}

/// Serves on TCP in the clear; everybody there has the same rights.
pub async fn tcp<S>(listener: TcpListener, router: Router, access: Access, stop: S) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    serve(WithAccess { listener, access: Arc::new(move |_: &TcpStream| access) }, router, stop).await
}

/// Serves in TLS.
pub async fn tls<S>(listener: TcpListener, router: Router, identity: &TlsIdentity, stop: S) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let admins = identity.admins.clone();
    let access = Arc::new(move |stream: &TlsStream<TcpStream>| tls_access(stream, admins.as_ref()));
    serve(WithAccess { listener: TlsListener::new(listener, &identity.config)?, access }, router, stop).await
}

async fn serve<L, S>(listener: WithAccess<L>, router: Router, stop: S) -> io::Result<()>
where
    L: Listener,
    S: Future<Output = ()> + Send + 'static,
{
    let service = router.into_make_service_with_connect_info::<Access>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await
}

fn unix_access(stream: &UnixStream, groups: &UnixGroups) -> Access {
    stream.peer_cred().map_or(Access::None, |peer| groups.access(peer.uid(), peer.gid()))
}

/// How connections of a listener get their rights.
type Judge<Io> = Arc<dyn Fn(&Io) -> Access + Send + Sync>;

struct WithAccess<L: Listener> {
    listener: L,
    access: Judge<L::Io>,
}

impl<L: Listener> Listener for WithAccess<L> {
    type Io = L::Io;
    type Addr = Access;

    async fn accept(&mut self) -> (L::Io, Access) {
        let (stream, _) = self.listener.accept().await;
        let access = (self.access)(&stream);
        (stream, access)
    }

    fn local_addr(&self) -> io::Result<Access> {
        Ok(Access::None)
    }
}

impl<L: Listener> Connected<IncomingStream<'_, WithAccess<L>>> for Access {
    fn connect_info(stream: IncomingStream<'_, WithAccess<L>>) -> Self {
        *stream.remote_addr()
    }
}

/// A server's certificate and key, and whom it lets in.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    admins: Option<Arc<dyn ClientCertVerifier>>,
}

/// PEM texts that make a [`TlsIdentity`].
#[derive(Clone, Copy, Debug)]
pub struct TlsTexts<'a> {
    /// The server's certificate, and those between it and its authority.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// Who signs certificates of those who may do everything.
    pub admin_authority: &'a [u8],
    /// Who signs certificates of those who may look.
    pub read_authority: Option<&'a [u8]>,
}

/// Why TLS can't be served.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum TlsError {
    #[error("cannot use the {what}: it holds no certificate")]
    Empty { what: &'static str },
    #[error("cannot read the {what} as PEM")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("cannot use the certificate with its key")]
    Pair { source: rustls::Error },
    #[error("cannot use the {what}")]
    Authority { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

impl TlsIdentity {
    /// Reads the texts.
    pub fn read(texts: &TlsTexts<'_>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut all = RootCertStore::empty();
        add(&mut all, "client authority", texts.admin_authority)?;
        let admins = match texts.read_authority {
            None => None,
            Some(readers) => {
                let admins = all.clone();
                add(&mut all, "read-only client authority", readers)?;
                Some(verifier(admins, &provider, "client authority")?)
            }
        };
        let certificates = certificates("server certificate", texts.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(texts.key)
            .map_err(|source| TlsError::Pem { what: "server key", source })?;
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Pair { source })?
            .with_client_cert_verifier(verifier(all, &provider, "client authorities")?)
            .with_single_cert(certificates, key)
            .map_err(|source| TlsError::Pair { source })?;
        Ok(Self { config: Arc::new(config), admins })
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() { Err(TlsError::Empty { what }) } else { Ok(found) }
}

fn add(roots: &mut RootCertStore, what: &'static str, pem: &[u8]) -> Result<(), TlsError> {
    for certificate in certificates(what, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { what, source: source.into() })?;
    }
    Ok(())
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<rustls::crypto::CryptoProvider>,
    what: &'static str,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|source| TlsError::Authority { what, source: source.into() })
}

/// The handshake proved that one of the authorities signed; whose rights are the admins'?
fn tls_access(stream: &TlsStream<TcpStream>, admins: Option<&Arc<dyn ClientCertVerifier>>) -> Access {
    let Some(admins) = admins else { return Access::Admin };
    let Some([first, rest @ ..]) = stream.get_ref().1.peer_certificates() else { return Access::None };
    match admins.verify_client_cert(first, rest, UnixTime::now()) {
        Ok(_) => Access::Admin,
        Err(_) => Access::Read,
    }
}

/// Shakes hands aside, so that a slow client does not keep others waiting.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    fn new(listener: TcpListener, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(PENDING_HANDSHAKES);
        tokio::spawn(shake_hands(listener, TlsAcceptor::from(config.clone()), sender));
        Ok(Self { ready, address })
    }
}

async fn shake_hands(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let slots = Arc::new(tokio::sync::Semaphore::new(PENDING_HANDSHAKES));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, address) = tokio::select! {
            connection = Listener::accept(&mut listener) => connection,
            () = ready.closed() => return,
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // A receiver that is gone means that we are being stopped.
                Ok(Ok(stream)) => drop(ready.send((stream, address)).await),
                Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
            }
            drop(slot);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task lives as long as we do; without it there is nothing to hand out.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
