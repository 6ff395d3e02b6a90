//! Hetzner Cloud: one YAML document, the private networks and the user-data.
//!
//! Knows the document. Refuses to decode user-data: whether it is base64 shows in its content.
//! Invariant: a document that cannot be read costs no user-data.
//!
//! Documentation: <https://docs.hetzner.cloud/reference/cloud#server-metadata>.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform, evidence::PlatformEvidence,
    json::DocumentTree, meta_data::add_meta_data, one_document, web::link_local_bases,
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
const ROOT: &str = "/hetzner/v1";

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("sys_vendor", "Hetzner")])
}

pub(crate) fn fetch(host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    // Servers may be ordered without IPv4. Then the service is at the link-local address only.
    let service = web.metadata_service(&BASES).or_at(link_local_bases(host));
    let document = one_document::fetch_document(Platform::Hetzner, &service, &format!("{ROOT}/metadata"))?;
    let mut provision = facts(&document);
    // The large document does not say private networks, because they come and go while the server runs.
    let networks = service.get_item(&format!("{ROOT}/metadata/private-networks"));
    if let Some(networks) = provision.value_or_report("private networks", networks) {
        add_private_networks(&mut provision, &networks);
    }
    provision.take_user_data(service.get_data(&format!("{ROOT}/userdata")));
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let mut provision = InstanceMetadata::new(Platform::Hetzner);
    let tree = add_meta_data(&mut provision, document);
    provision.vendor_data = tree.content_at("/vendor_data").and_then(Payload::from_bytes);
    let network = tree.subtree_at("/network-config").map(|part| part.to_json());
    provision.network_config = network.and_then(Payload::from_bytes);
    provision.addresses.public_ipv4 = tree.parse_at("/public-ipv4");
    provision.addresses.private_ipv4 = tree.parse_at("/local-ipv4");
    // afterburn has a name for the IPv6 address, though the service has no item for it.
    provision.addresses.public_ipv6 = static_ipv6(&tree);
    provision.set_attribute("HETZNER_AVAILABILITY_ZONE", provision.zone.clone());
    provision.set_attribute("HETZNER_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("HETZNER_INSTANCE_ID", provision.instance_id.clone());
    provision.set_attribute("HETZNER_PUBLIC_IPV4", provision.addresses.public_ipv4);
    provision.set_attribute("HETZNER_PUBLIC_IPV6", provision.addresses.public_ipv6);
    provision.set_attribute("HETZNER_REGION", provision.region.clone());
    provision
}

/// The IPv6 address stands only in the network configuration.
fn static_ipv6(tree: &DocumentTree) -> Option<std::net::Ipv6Addr> {
    let subnets =
        tree.list_at("/network-config/config").into_iter().flat_map(|item| item.list_at("/subnets"));
    let mut addresses = subnets.filter_map(|subnet| subnet.text_at("/address"));
    addresses.find_map(|address| address.split('/').next()?.parse().ok())
}

fn add_private_networks(provision: &mut InstanceMetadata, document: &[u8]) {
    let parsed = match DocumentTree::from_yaml(document) {
        Ok(tree) => tree,
        Err(cause) => return provision.report_problem("private networks", &cause),
    };
    for (index, network) in parsed.list_at("").iter().enumerate() {
        provision.set_attribute(&format!("HETZNER_PRIVATE_IPV4_{index}"), network.text_at("/ip"));
        if index == 0 && provision.addresses.private_ipv4.is_none() {
            provision.addresses.private_ipv4 = network.parse_at("/ip");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order and the shape of a whole reply: what follows a text that YAML forbids is there, too.
    #[test]
    fn a_quoted_text_whose_lines_are_not_indented_costs_nothing() {
        let document = b"availability-zone: fsn1-dc14\nhostname: node7\ninstance-id: 123456\n\
            public-ipv4: 192.0.2.7\n\
            network-config:\n  config:\n  - mac_address: 96:00:00:08:19:da\n    name: eth0\n    subnets:\n    \
            - dns_nameservers:\n      - 192.0.2.53\n      ipv4: true\n      type: dhcp\n    \
            - address: 2001:db8::1/64\n      gateway: fe80::1\n      ipv6: true\n    type: physical\n  version: 1\n\
            vendor_data: \"#cloud-config\\nwrite_files:\\n- path: /srv/note\\n  content: first words\n\
            and the rest\\n\\\n\
            - path: /srv/more\\n  content: x\\n\"\n\
            public-keys:\n- ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTsz9TWGBkQYVQGOCzYqzkUXyX9DdGe0CQp9Jkz a@b\n\
            local-ipv4: 10.0.0.7\nregion: eu-central\n";

        let provision = facts(document);

        assert_eq!(provision.problems, []);
        let vendor = String::from_utf8_lossy(provision.vendor_data.unwrap().as_bytes()).into_owned();
        assert_eq!(
            vendor,
            "#cloud-config\nwrite_files:\n- path: /srv/note\n  content: first words and the rest\n\
             - path: /srv/more\n  content: x\n"
        );
        assert_eq!(provision.instance_id.as_deref(), Some("123456"));
        assert_eq!(provision.ssh_keys.len(), 1);
        assert_eq!(provision.addresses.private_ipv4, Some("10.0.0.7".parse().unwrap()));
        assert_eq!(provision.addresses.public_ipv6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(provision.region.as_deref(), Some("eu-central"));
        let network = provision.network_config.unwrap();
        let network = String::from_utf8_lossy(network.as_bytes());
        assert!(network.contains("192.0.2.53") && network.contains("fe80::1"), "{network}");
    }

    #[test]
    fn a_subnet_without_a_type_and_an_empty_address_are_no_problem() {
        let document = b"hostname: node7\ninstance-id: 123456\nlocal-ipv4: ''\npublic-ipv4: 192.0.2.7\n\
            network-config:\n  version: 1\n  config:\n  - mac_address: 96:00:00:08:19:da\n    name: eth0\n    \
            subnets:\n    - {ipv4: true, type: dhcp}\n    - address: 2001:db8::1/64\n      gateway: fe80::1\n      \
            ipv6: true\n    type: physical\n\
            network-sysconfig: \"DEVICE='eth0'\\n\\\n  ONBOOT='yes'\\n\"\n\
            public-keys:\n- ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTsz9TWGBkQYVQGOCzYqzkUXyX9DdGe0CQp9Jkz a@b\n\
            vendor_data: \"test\"\n";

        let provision = facts(document);

        assert_eq!(provision.problems, []);
        assert_eq!(provision.addresses.public_ipv6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(provision.vendor_data.unwrap().as_bytes(), b"test");
        assert!(String::from_utf8_lossy(provision.network_config.unwrap().as_bytes()).contains("fe80::1"));
    }
}
