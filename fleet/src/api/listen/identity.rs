//! A server's certificate, and which authorities' clients may do what.

use std::sync::Arc;

use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::api::access::{AccessRole, Caller};

/// A server's certificate and key, and whom it lets in.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    pub(super) config: Arc<ServerConfig>,
    /// Who signed for which rights, the widest rights first.
    authorities: Vec<(AccessRole, Arc<dyn ClientCertVerifier>)>,
}

/// PEM texts that make a [`TlsIdentity`].
#[derive(Debug, Clone, Copy)]
pub struct TlsTexts<'a> {
    /// The server's certificate, and those between it and its authority.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// Who signs certificates of those who may do everything.
    pub admin_authority: &'a [u8],
    /// Who signs certificates of those who may look.
    pub read_authority: Option<&'a [u8]>,
    /// Who signs certificates of machines that take reboot slots.
    pub lock_authority: Option<&'a [u8]>,
}

/// Why TLS cannot be served.
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
        let given = [
            (AccessRole::Admin, "client authority", Some(texts.admin_authority)),
            (AccessRole::Read, "read-only client authority", texts.read_authority),
            (AccessRole::Lock, "lock client authority", texts.lock_authority),
        ];
        let (mut all, mut authorities) = (RootCertStore::empty(), Vec::new());
        for (access, what, pem) in given {
            let Some(pem) = pem else { continue };
            let mut roots = RootCertStore::empty();
            add(&mut roots, what, pem)?;
            all.extend(roots.roots.iter().cloned());
            authorities.push((access, build_verifier(roots, &provider, what)?));
        }
        let certificates = parse_certificates("server certificate", texts.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(texts.key)
            .map_err(|source| TlsError::Pem { what: "server key", source })?;
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Pair { source })?
            .with_client_cert_verifier(build_verifier(all, &provider, "client authorities")?)
            .with_single_cert(certificates, key)
            .map_err(|source| TlsError::Pair { source })?;
        Ok(Self { config: Arc::new(config), authorities })
    }

    /// The rights of who showed these certificates; the handshake proved that one of the authorities signed.
    pub(super) fn identify_caller(&self, shown: Option<&[CertificateDer<'_>]>) -> Caller {
        let Some([first, rest @ ..]) = shown else { return Caller::with_role(AccessRole::None) };
        let signed = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(first, rest, UnixTime::now()).is_ok()
        };
        match self.authorities.iter().find(|(_, verifier)| signed(verifier)) {
            Some((AccessRole::Lock, _)) => Caller::with_certificate(first.clone().into_owned()),
            Some((access, _)) => Caller::with_role(*access),
            None => Caller::with_role(AccessRole::None),
        }
    }
}

fn parse_certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() { Err(TlsError::Empty { what }) } else { Ok(found) }
}

fn add(roots: &mut RootCertStore, what: &'static str, pem: &[u8]) -> Result<(), TlsError> {
    for certificate in parse_certificates(what, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { what, source: source.into() })?;
    }
    Ok(())
}

fn build_verifier(
    roots: RootCertStore,
    provider: &Arc<rustls::crypto::CryptoProvider>,
    what: &'static str,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|source| TlsError::Authority { what, source: source.into() })
}
