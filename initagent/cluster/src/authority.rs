//! The authorities of a cluster, and the certificates that they sign.
//!
//! Knows that each machine derives the authorities from the secret, so that none is sent. Refuses to write
//! files. Invariants: an authority is the same bytes on every machine; the key of a certificate is random and
//! never leaves its machine.
//!
//! Ed25519 throughout: its keys come from any 32 bytes, its signatures need no randomness, and both etcd 3.5
//! (Go's crypto/tls) and rustls take it. A P-256 key would have to be drawn until it is below the order.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use user_data::cluster::ClusterDefinition;

use crate::derive::{KEY_BYTES, KeyPurpose, derive_key};

/// What stands before an Ed25519 seed in PKCS #8 (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Before any machine of ours: one without a clock starts in 1970 and reaches its time servers later.
const VALID_FROM: (i32, u8, u8) = (1970, 1, 1);
/// "No well-defined expiration date" (RFC 5280, 4.1.2.5): who has the secret signs anew whenever he likes,
/// so that an end would stop clusters and no thief.
const VALID_UNTIL: (i32, u8, u8) = (9999, 12, 31);

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the certificate of {subject}")]
pub struct CertificateError {
    subject: String,
    source: rcgen::Error,
}

/// Whose certificates an authority signs. etcd trusts one authority for one thing, so that a client's
/// certificate does not make a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityRole {
    /// etcd's clients, fleetd among them, and what they connect to.
    Client,
    /// etcd's members among each other.
    Peer,
    /// People who may look at fleet, and at nothing of etcd's.
    Reader,
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateSubject {
    /// Its common name.
    pub common_name: String,
    /// Addresses that it may be reached at. A mere client has none.
    pub addresses: Vec<IpAddr>,
    /// Names that it may be reached by.
    pub names: Vec<String>,
    /// When it ends, counted from 1970; never, if not told. Only a person's ends.
    pub expires_at: Option<Duration>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct CertifiedKey {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub private_key: String,
}

impl std::fmt::Debug for CertifiedKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CertifiedKey").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// One authority of a cluster.
#[derive(Debug)]
pub struct ClusterAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl AuthorityRole {
    fn key_purpose(self) -> KeyPurpose {
        match self {
            Self::Client => KeyPurpose::ClientAuthority,
            Self::Peer => KeyPurpose::PeerAuthority,
            Self::Reader => KeyPurpose::ReaderAuthority,
        }
    }

    fn role_name(self) -> &'static str {
        match self {
            Self::Client => "clients",
            Self::Peer => "members",
            Self::Reader => "readers",
        }
    }
}

impl ClusterAuthority {
    /// Derives an authority from the cluster's secret.
    pub fn derive_authority(
        definition: &ClusterDefinition,
        role: AuthorityRole,
    ) -> Result<Self, CertificateError> {
        let subject = format!("{} {}", definition.name, role.role_name());
        let failed = |source| CertificateError { subject: subject.clone(), source };
        let seed = derive_key(definition, role.key_purpose());
        let key = ed25519_key(&seed).map_err(failed)?;
        let parameters = authority_parameters(&subject);
        let certificate = parameters.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), certificate })
    }

    /// Its certificate in PEM: what others trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Makes a key and signs its certificate. It serves both ends of a connection, since etcd uses a
    /// member's certificate for both.
    pub fn issue_certificate(&self, subject: &CertificateSubject) -> Result<CertifiedKey, CertificateError> {
        let failed = |source| CertificateError { subject: subject.common_name.clone(), source };
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        let addresses = subject.addresses.iter().map(ToString::to_string);
        let names: Vec<String> = addresses.chain(subject.names.iter().cloned()).collect();
        let mut parameters = CertificateParams::new(names).map_err(failed)?;
        set_validity(&mut parameters);
        parameters.distinguished_name = distinguished_name(&subject.common_name);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(end) = subject.expires_at {
            parameters.not_after = date_time_ymd(1970, 1, 1) + end;
        } else {
            // A person is nobody's server.
            parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(CertifiedKey { certificate: certificate.pem(), private_key: key.serialize_pem() })
    }
}

fn authority_parameters(subject: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    set_validity(&mut parameters);
    parameters.distinguished_name = distinguished_name(subject);
    // One authority of a role and cluster, ever: the number needs to tell it from no other.
    parameters.serial_number = Some(SerialNumber::from(1));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.key_identifier_method = KeyIdMethod::Sha256;
    parameters
}

fn set_validity(parameters: &mut CertificateParams) {
    let date = |(year, month, day)| date_time_ymd(year, month, day);
    parameters.not_before = date(VALID_FROM);
    parameters.not_after = date(VALID_UNTIL);
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn ed25519_key(seed: &[u8; KEY_BYTES]) -> Result<KeyPair, rcgen::Error> {
    let document = [&PKCS8_PREFIX[..], seed].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(document), &PKCS_ED25519)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::tests::definition;

    /// What every machine of the cluster makes, byte by byte.
    const GOLDEN: &str = include_str!("authority/harbour-clients.pem");

    #[test]
    fn an_authority_is_the_same_on_every_machine() {
        let authority =
            ClusterAuthority::derive_authority(&definition("harbour", 0), AuthorityRole::Client).unwrap();

        assert_eq!(authority.certificate_pem(), GOLDEN);
    }

    #[test]
    fn roles_names_and_secrets_have_authorities_of_their_own() {
        let certificate = |name, first, role| {
            ClusterAuthority::derive_authority(&definition(name, first), role)
                .unwrap()
                .certificate_pem()
                .to_owned()
        };
        let own = certificate("harbour", 0, AuthorityRole::Client);

        assert_ne!(own, certificate("harbour", 0, AuthorityRole::Peer));
        assert_ne!(own, certificate("harbour", 1, AuthorityRole::Client));
        assert_ne!(own, certificate("quay", 0, AuthorityRole::Client));
    }

    #[test]
    fn each_certificate_has_a_key_of_its_own_which_debug_hides() {
        let authority =
            ClusterAuthority::derive_authority(&definition("harbour", 0), AuthorityRole::Peer).unwrap();
        let subject = CertificateSubject {
            common_name: "10-0-0-1".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            names: vec!["localhost".to_owned()],
            expires_at: None,
        };

        let (one, other) =
            (authority.issue_certificate(&subject).unwrap(), authority.issue_certificate(&subject).unwrap());

        assert_ne!(one.private_key, other.private_key);
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
