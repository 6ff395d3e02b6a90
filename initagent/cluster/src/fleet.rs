//! How fleetd and locksmithctl come to etcd.
//!
//! Knows fleet's options. Refuses to change what a person wrote about other machines. Invariant: a plain
//! loopback address, which no longer answers fleet, is replaced; any other stays.

use std::net::SocketAddr;
use std::path::Path;

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
}
