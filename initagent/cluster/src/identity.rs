//! The certificates of this machine.
//!
//! Knows which it needs and who reads each. Refuses to keep them beyond the boot: all but the secret is made
//! anew, so that nothing on the disk grows old. Invariant: no key is used by two programs of different users.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use user_data::cluster::ClusterDefinition;
use user_data::cluster::secret::ClusterSecret;

use crate::authority::{AuthorityRole, CertificateError, CertificateSubject, ClusterAuthority};
use crate::derive::{KeyPurpose, derive_key, encode_hex};
use crate::site::{Readers, Site, SiteError};

/// Why a machine has no certificates.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum IdentityError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(
        "{path} is no definition of a cluster; remove it, or write the key `cluster` of cloud-config again"
    )]
    Definition { path: String },
    #[error("cannot draw random bytes")]
    Random { source: getrandom::Error },
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// What the machine was told of its cluster. One that was told nothing is a cluster of one, whose secret is its
/// own.
pub fn read_definition(site: &Site) -> Result<(ClusterDefinition, DefinitionOrigin), IdentityError> {
    let path = site.foreign_path(user_data::cluster::DEFINITION);
    if let Some(text) = site.read(&path)? {
        let definition = ClusterDefinition::parse(&text);
        let unread = || IdentityError::Definition { path: path.display().to_string() };
        return Ok((definition.ok_or_else(unread)?, DefinitionOrigin::Written));
    }
    let path = site.state_path("secret");
    let known = site.read(&path)?.and_then(|text| ClusterSecret::parse(&text).ok());
    let secret = if let Some(secret) = known {
        secret
    } else {
        // One that cannot be read was cut short by a power cut before anything relied on it.
        let secret = draw_secret()?;
        site.write(&path, &format!("{}\n", secret.reveal()), Readers::Root)?;
        secret
    };
    let definition = ClusterDefinition {
        name: "machine".to_owned(),
        size: 1,
        secret,
        find: user_data::cluster::FindMethod::Alone,
    };
    Ok((definition, DefinitionOrigin::OwnMachine))
}

/// Where a definition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefinitionOrigin {
    /// Nobody wrote one.
    OwnMachine,
    /// A person did.
    Written,
}

/// A new secret.
pub fn draw_secret() -> Result<ClusterSecret, IdentityError> {
    let mut bytes = [0; user_data::cluster::secret::RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|source| IdentityError::Random { source })?;
    Ok(ClusterSecret::from_bytes(&bytes))
}

/// Makes the certificates of etcd on this machine.
pub fn certify_etcd(
    site: &Site,
    definition: &ClusterDefinition,
    own: &[IpAddr],
) -> Result<(), IdentityError> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let subject = CertificateSubject {
        common_name: "etcd".to_owned(),
        addresses: loopback.into_iter().chain(own.iter().copied()).collect(),
        names: vec!["localhost".to_owned()],
        expires_at: None,
    };
    let files = [(AuthorityRole::Client, "client-ca", "server"), (AuthorityRole::Peer, "peer-ca", "peer")];
    for (role, trusted, name) in files {
        let authority = ClusterAuthority::derive_authority(definition, role)?;
        let certified = authority.issue_certificate(&subject)?;
        site.write(&site.runtime_path(&format!("{trusted}.pem")), authority.certificate_pem(), Readers::All)?;
        site.write(&site.runtime_path(&format!("etcd/{name}.pem")), &certified.certificate, Readers::All)?;
        site.write(&site.runtime_path(&format!("etcd/{name}.key")), &certified.private_key, Readers::Etcd)?;
    }
    Ok(())
}

/// Makes the certificate with which root's programs come to etcd, unless this boot has one of this cluster.
pub fn certify_client(site: &Site, definition: &ClusterDefinition) -> Result<(), IdentityError> {
    let authority = ClusterAuthority::derive_authority(definition, AuthorityRole::Client)?;
    let trusted = site.runtime_path("client-ca.pem");
    let (certificate, key) = (site.runtime_path("client.pem"), site.runtime_path("client.key"));
    let is_current = site.read(&trusted)?.as_deref() == Some(authority.certificate_pem());
    if is_current && certificate.exists() && key.exists() {
        return Ok(());
    }
    let subject = CertificateSubject { common_name: "root".to_owned(), ..CertificateSubject::default() };
    let certified = authority.issue_certificate(&subject)?;
    let link = encode_hex(&derive_key(definition, KeyPurpose::LinkMessages));
    // The key before its certificate: who finds both finds a pair.
    site.write(&key, &certified.private_key, Readers::Root)?;
    site.write(&certificate, &certified.certificate, Readers::All)?;
    site.write(&site.runtime_path("link.key"), &link, Readers::Root)?;
    Ok(site.write(&trusted, authority.certificate_pem(), Readers::All)?)
}

/// Makes the certificate with which fleetd answers people at other computers, and what it trusts of them.
pub fn certify_fleet(
    site: &Site,
    definition: &ClusterDefinition,
    own: &[IpAddr],
) -> Result<(), IdentityError> {
    let subject = CertificateSubject {
        common_name: "fleetd".to_owned(),
        addresses: own.to_vec(),
        names: Vec::new(),
        expires_at: None,
    };
    let certified =
        ClusterAuthority::derive_authority(definition, AuthorityRole::Client)?.issue_certificate(&subject)?;
    let readers = ClusterAuthority::derive_authority(definition, AuthorityRole::Reader)?;
    site.write(&site.runtime_path("fleet/api.key"), &certified.private_key, Readers::Root)?;
    site.write(&site.runtime_path("fleet/api.pem"), &certified.certificate, Readers::All)?;
    Ok(site.write(&site.runtime_path("fleet/readers.pem"), readers.certificate_pem(), Readers::All)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_machine_that_was_told_nothing_draws_a_secret_once() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());

        let (one, origin) = read_definition(&site).unwrap();

        assert_eq!(origin, DefinitionOrigin::OwnMachine);
        assert_eq!(read_definition(&site).unwrap().0, one);
        let mode = fs::metadata(site.state_path("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(site.state_path("secret"), "catamaran-clus").unwrap();
        assert_ne!(read_definition(&site).unwrap().0, one);
    }

    #[test]
    fn only_keys_are_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());
        let (definition, _) = read_definition(&site).unwrap();

        certify_client(&site, &definition).unwrap();
        certify_etcd(&site, &definition, &["10.0.0.1".parse().unwrap()]).unwrap();

        let mode = |name| fs::metadata(site.runtime_path(name)).unwrap().permissions().mode() & 0o777;
        for key in ["client.key", "etcd/peer.key", "etcd/server.key", "link.key"] {
            assert_eq!(mode(key), 0o600, "{key}");
        }
        for public in ["client.pem", "client-ca.pem", "etcd/peer.pem", "peer-ca.pem"] {
            assert_eq!(mode(public), 0o644, "{public}");
        }
    }

    #[test]
    fn a_client_that_was_certified_keeps_its_key_until_the_cluster_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());
        let key = || fs::read(site.runtime_path("client.key")).unwrap();
        certify_client(&site, &crate::derive::tests::definition("harbour", 0)).unwrap();
        let first = key();

        certify_client(&site, &crate::derive::tests::definition("harbour", 0)).unwrap();
        assert_eq!(key(), first);
        certify_client(&site, &crate::derive::tests::definition("harbour", 1)).unwrap();
        assert_ne!(key(), first);
    }

    #[test]
    fn a_definition_that_cannot_be_read_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());
        let path = site.foreign_path(user_data::cluster::DEFINITION);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"secret\": \"hunter2\"").unwrap();

        let error = read_definition(&site).unwrap_err().to_string();

        assert!(error.contains("cluster.json") && !error.contains("hunter2"), "{error}");
        assert!(!site.state_path("secret").exists());
    }
}
