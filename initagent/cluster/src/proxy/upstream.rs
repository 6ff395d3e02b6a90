//! Connects to a member of etcd with the machine's certificate.
//!
//! Knows the members' addresses and which of them answered last. Refuses to know what is said. Invariant: a
//! member that the cluster's authority did not sign is not spoken to.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A member in another room answers in a few milliseconds; one that is cut off should not hold a client up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at whether the client is still there.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no way to etcd.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum UpstreamError {
    #[error("cannot read the certificates of this machine")]
    Pem { source: rustls::pki_types::pem::Error },
    #[error("cannot use the certificates of this machine")]
    Tls { source: rustls::Error },
    #[error("no member of etcd answers at {tried}")]
    Unreachable { tried: String, source: io::Error },
}

/// The members of etcd.
#[derive(Debug)]
pub struct Upstream {
    members: Vec<SocketAddr>,
    config: Arc<ClientConfig>,
    /// The one that answered last, counted on from the first.
    preferred: AtomicUsize,
}

impl Upstream {
    /// The way to these members, by the authority's certificate and one's own, in PEM.
    pub fn new(
        members: Vec<SocketAddr>,
        authority: &str,
        certificate: &str,
        private_key: &str,
    ) -> Result<Self, UpstreamError> {
        let pem = |source| UpstreamError::Pem { source };
        let tls = |source| UpstreamError::Tls { source };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).map_err(pem)?).map_err(tls)?;
        let own = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(pem)?;
        let key = PrivateKeyDer::from_pem_slice(private_key.as_bytes()).map_err(pem)?;
        // By name: with two providers in one program, rustls would ask which one is meant, and panic.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .map_err(tls)?;
        Ok(Self { members, config: Arc::new(config), preferred: AtomicUsize::new(0) })
    }

    /// A connection to the first member that answers.
    pub fn connect_member(&self) -> Result<StreamOwned<ClientConnection, TcpStream>, UpstreamError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for number in first..first + self.members.len() {
            let Some(member) = self.members.get(number % self.members.len()) else { continue };
            match self.connect_to(*member) {
                Ok(stream) => {
                    self.preferred.store(number % self.members.len(), Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        let tried: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        Err(UpstreamError::Unreachable { tried: tried.join(", "), source: failure })
    }

    fn connect_to(&self, member: SocketAddr) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut stream = TcpStream::connect_timeout(&member, CONNECT_PATIENCE)?;
        stream.set_read_timeout(Some(CONNECT_PATIENCE))?;
        stream.set_write_timeout(Some(CONNECT_PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(member.ip());
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        // Now, so that a member that refuses gives way to the next before a request is spent on it.
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        stream.set_read_timeout(Some(READ_PATIENCE))?;
        Ok(StreamOwned::new(tls, stream))
    }
}
