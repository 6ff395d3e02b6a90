//! What a cloud would tell a machine of the cluster: OpenStack's metadata, as plain files that a server hands out.
//!
//! Pure. Knows the documents (<https://docs.openstack.org/nova/latest/user/metadata.html>) and the few items of EC2's
//! tree that go with them. OpenStack's and no other's, since it alone has a network configuration with static
//! addresses, and needs no token: a token takes a server that can do more than hand out files. Invariant: the same
//! machine is always told the same.

use serde_json::json;

use super::plan::ClusterMember;

/// How the document and the ssh key get into the machines of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ClusterSeed {
    /// By a read-only disk (`NoCloud`)
    #[default]
    Disk,
    /// By a metadata service at 169.254.169.254, as in a cloud (`OpenStack`). Needs busybox on this computer
    Metadata,
}

/// What only one machine is told.
#[derive(Debug, Clone)]
pub struct MetadataValues<'a> {
    /// The machine
    pub member: &'a ClusterMember,
    /// What tells it from the machine of the same name before
    pub instance_id: &'a str,
    /// The line for `authorized_keys`
    pub public_key: &'a str,
    /// The user's document
    pub user_data: Option<&'a [u8]>,
}

/// The files, by their path beneath the root of the service.
#[must_use]
pub fn metadata_files(values: &MetadataValues<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let MetadataValues { member, instance_id, public_key, user_data } = values;
    let meta_data = json!({
        "uuid": instance_id,
        "hostname": member.name,
        "name": member.name,
        "availability_zone": "nova",
        "public_keys": {"vm": public_key},
        "meta": {"number": member.number.to_string(), "role": member.role.role_word()},
    });
    let address = member.address.to_string();
    let mut files = vec![
        ("openstack/latest/meta_data.json", meta_data.to_string().into_bytes()),
        ("openstack/latest/network_data.json", network_data(member).to_string().into_bytes()),
        ("latest/meta-data/hostname", member.name.clone().into_bytes()),
        ("latest/meta-data/instance-id", (*instance_id).as_bytes().to_vec()),
        ("latest/meta-data/local-ipv4", address.clone().into_bytes()),
        // The only address by which others reach the machine, so that documents that say $public_ipv4 work here too.
        ("latest/meta-data/public-ipv4", address.into_bytes()),
    ];
    files.extend(user_data.map(|document| ("openstack/latest/user_data", document.to_vec())));
    files
}

fn network_data(member: &ClusterMember) -> serde_json::Value {
    let link = |id: &str, mac: &str| json!({"id": id, "type": "phy", "ethernet_mac_address": mac});
    json!({
        "links": [link("world", &member.world_mac), link("cluster", &member.mac)],
        "networks": [
            {"id": "world", "link": "world", "type": "ipv4_dhcp"},
            {
                "id": "cluster", "link": "cluster", "type": "ipv4",
                "ip_address": member.address.to_string(), "netmask": "255.255.255.0",
            },
        ],
        "services": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::plan_cluster;

    fn file(path: &str, user_data: Option<&[u8]>) -> Option<String> {
        let member = &plan_cluster(2, 0).unwrap()[1];
        let values =
            MetadataValues { member, instance_id: "i-1", public_key: "ssh-ed25519 AAAA vm", user_data };
        let files = metadata_files(&values);
        let found = files.into_iter().find(|(name, _)| *name == path);
        found.map(|(_, content)| String::from_utf8(content).unwrap())
    }

    #[test]
    fn a_machine_is_told_its_name_key_and_address() {
        let meta_data: serde_json::Value =
            serde_json::from_str(&file("openstack/latest/meta_data.json", None).unwrap()).unwrap();

        assert_eq!(meta_data["hostname"], "core-02");
        assert_eq!(meta_data["public_keys"]["vm"], "ssh-ed25519 AAAA vm");
        assert_eq!(file("latest/meta-data/local-ipv4", None).unwrap(), "10.23.0.12");
        let network = file("openstack/latest/network_data.json", None).unwrap();
        assert!(network.contains("52:54:00:c1:00:02") && network.contains("10.23.0.12"), "{network}");
    }

    #[test]
    fn without_a_document_there_is_no_file_for_it() {
        assert_eq!(file("openstack/latest/user_data", None), None);
        assert_eq!(file("openstack/latest/user_data", Some(b"#!/bin/sh\n")).unwrap(), "#!/bin/sh\n");
    }
}
