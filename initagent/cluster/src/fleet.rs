//! How fleetd and locksmithctl come to etcd.
//!
//! Knows fleet's options. Refuses to change what a person wrote about other machines. Invariant: a plain
//! loopback address, which no longer answers fleet, is replaced; any other stays.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::access::FLEET_PORT;
use crate::etcd::Variables;
use crate::exposure::ServedUrl;

/// What fleetd is told besides what it was told: by its unit's environment, and by its file.
#[must_use]
pub fn plan_fleet(given: &Variables, file: &str, members: &[SocketAddr], folder: &Path) -> Variables {
    let setting = |name: &str| {
        let variable = given.get(&format!("FLEET_{}", name.to_uppercase())).cloned();
        variable.or_else(|| file_setting(file, name)).filter(|value| !value.is_empty())
    };
    let is_local = setting("etcd_servers").is_none_or(|servers| {
        let servers = servers.trim_matches(['[', ']']).replace(['"', '\''], "");
        ServedUrl::parse_list(&servers).iter().all(ServedUrl::is_plain_loopback)
    });
    let has_identity = ["etcd_certfile", "etcd_username"].into_iter().any(|name| setting(name).is_some());
    if !is_local || has_identity || members.is_empty() {
        return Variables::new();
    }
    let servers: Vec<String> = members.iter().map(|member| format!("https://{member}")).collect();
    let path = |name: &str| folder.join(name).display().to_string();
    [
        ("FLEET_ETCD_CAFILE", path("client-ca.pem")),
        ("FLEET_ETCD_CERTFILE", path("client.pem")),
        ("FLEET_ETCD_KEYFILE", path("client.key")),
        ("FLEET_ETCD_SERVERS", servers.join(",")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// How fleetd answers people at other computers, at the machine's address in its cluster. A person who wrote anything
/// about TLS, or addresses beside the machine's own socket, has his own way.
#[must_use]
pub fn plan_remote_api(given: &Variables, file: &str, own: Option<IpAddr>, folder: &Path) -> Variables {
    let is_set = |name: &str| {
        given.contains_key(&format!("FLEET_{}", name.to_uppercase())) || file_setting(file, name).is_some()
    };
    let listen = given.get("FLEET_LISTEN").map(String::as_str).unwrap_or_default();
    let is_own_way = ["api_certfile", "api_keyfile", "api_client_cafile"].into_iter().any(is_set)
        || file_setting(file, "listen").is_some()
        || listen.split(',').any(|address| !address.trim().starts_with("unix:"));
    let Some(own) = own.filter(|_| !is_own_way) else { return Variables::new() };
    let path = |name: &str| folder.join(name).display().to_string();
    let listen = [listen.to_owned(), format!("tls://{}", SocketAddr::new(own, FLEET_PORT))];
    [
        ("FLEET_API_CERTFILE", path("fleet/api.pem")),
        ("FLEET_API_CLIENT_CAFILE", path("client-ca.pem")),
        ("FLEET_API_KEYFILE", path("fleet/api.key")),
        ("FLEET_API_READONLY_CLIENT_CAFILE", path("fleet/readers.pem")),
        ("FLEET_LISTEN", listen.join(",")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The value of an option in fleet.conf, in which the last one holds.
fn file_setting(file: &str, name: &str) -> Option<String> {
    let settings = file.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
    let (_, value) =
        settings.filter_map(|line| line.split_once('=')).rfind(|(known, _)| known.trim() == name)?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::LOCAL;

    fn servers(given: &[(&str, &str)], file: &str) -> Option<String> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        plan_fleet(&given, file, &[LOCAL], Path::new("/keys")).remove("FLEET_ETCD_SERVERS")
    }

    #[test]
    fn loopback_becomes_the_way_with_a_certificate() {
        let local = Some("https://127.0.0.1:2378".to_owned());

        assert_eq!(servers(&[], ""), local);
        assert_eq!(servers(&[("FLEET_ETCD_SERVERS", "http://127.0.0.1:4001")], ""), local);
        assert_eq!(
            servers(&[], "# etcd_servers=http://10.0.0.1:2379\netcd_servers=[\"http://localhost:2379\"]\n"),
            local
        );
    }

    #[test]
    fn what_names_other_machines_or_brings_a_name_of_its_own_stays() {
        assert_eq!(servers(&[("FLEET_ETCD_SERVERS", "http://10.0.0.1:2379")], ""), None);
        assert_eq!(servers(&[], "etcd_servers=http://127.0.0.1:2379,http://10.0.0.1:2379"), None);
        assert_eq!(servers(&[("FLEET_ETCD_CERTFILE", "/etc/ssl/fleet.pem")], ""), None);
        assert_eq!(servers(&[], "etcd_username = fleet"), None);
        assert!(plan_fleet(&Variables::new(), "", &[], Path::new("/keys")).is_empty());
    }

    #[test]
    fn people_at_other_computers_are_answered_with_certificates_unless_somebody_said_how() {
        let unit = ("FLEET_LISTEN", "unix:///run/fleet.sock");
        let listen = |given: &[(&str, &str)], file: &str| {
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let own = Some(IpAddr::from([10, 0, 0, 1]));
            plan_remote_api(&given, file, own, Path::new("/keys")).remove("FLEET_LISTEN")
        };

        assert_eq!(listen(&[unit], "").as_deref(), Some("unix:///run/fleet.sock,tls://10.0.0.1:49153"));
        assert_eq!(listen(&[unit], "listen=tcp://0.0.0.0:49153"), None);
        assert_eq!(listen(&[unit, ("FLEET_API_CERTFILE", "/my.pem")], ""), None);
        assert_eq!(listen(&[("FLEET_LISTEN", "tls://0.0.0.0:8443")], ""), None);
        assert_eq!(plan_remote_api(&Variables::new(), "", None, Path::new("/keys")), Variables::new());
    }
}
