//! Vultr: one JSON document, and the user-data beside it.
//!
//! Knows both generations of instance numbers. Refuses to run the start-up script that the
//! document may carry. Invariant: public interfaces keep DHCP beside what is static.
//!
//! Documentation: <https://www.vultr.com/metadata/>.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, ethernets_payload},
    one_document::{self, FieldPaths},
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
const PLACES: FieldPaths = FieldPaths {
    // The second version of Vultr's API counts by UUID. Older machines have the first version's number alone.
    instance_id: &["/instance-v2-id", "/instanceid"],
    hostname: &["/hostname"],
    region: &["/region/regioncode"],
    keys: &["/public-keys"],
    vendor_data: &["/vendor-data"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("sys_vendor", "Vultr")]).or_else(|| {
        let named = host.command_line().iter().any(|word| word == "vultr");
        named.then(|| PlatformEvidence::from_network("kernel command line: vultr"))
    })
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    // cloud-init sends this header, and the service may tell more to who does. The documented items need
    // none.
    let service = web.metadata_service(&BASES).with_header("Metadata-Token", "cloudinit");
    let document = one_document::fetch_document(Platform::Vultr, &service, "/v1.json")?;
    let mut provision = facts(&document);
    provision.take_user_data(service.get_data("/user-data/user-data"));
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::Vultr, document, &PLACES);
    let interfaces = tree.list_at("/interfaces");
    let of = |kind: &str| interfaces.iter().find(|one| one.text_at("/network-type").as_deref() == Some(kind));
    provision.addresses.public_ipv4 = of("public").and_then(|one| one.parse_at("/ipv4/address"));
    provision.addresses.public_ipv6 = of("public").and_then(|one| one.parse_at("/ipv6/address"));
    provision.addresses.private_ipv4 = of("private").and_then(|one| one.parse_at("/ipv4/address"));
    provision.set_attribute("VULTR_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("VULTR_INSTANCE_ID", provision.instance_id.clone());
    provision.set_attribute("VULTR_REGION_CODE", provision.region.clone());
    provision.network_config = render_network(&tree, &interfaces);
    provision
}

/// Newer machines are given their configuration in cloud-init's own words. Otherwise it is made of the
/// interfaces, when one of them has more than DHCP gives.
fn render_network(tree: &DocumentTree, interfaces: &[DocumentTree]) -> Option<Payload> {
    let given = tree.subtree_at("/cloud_interfaces").filter(|part| !part.list_at("/config").is_empty());
    if let Some(given) = given {
        return Payload::from_bytes(given.to_json());
    }
    let needed =
        |interface: &DocumentTree| is_private(interface) || !additional_addresses(interface).is_empty();
    interfaces.iter().any(needed).then(|| ethernets_payload(&interface_links(interfaces))).flatten()
}

fn interface_links(interfaces: &[DocumentTree]) -> Vec<InterfaceLink> {
    let link = |interface: &DocumentTree| {
        let mut link = InterfaceLink::with_mac(&interface.text_at("/mac")?)?;
        // The owner wants to set it up alone.
        if interface.is_true("/unconfigured") {
            return None;
        }
        let text = |pointer: &str| interface.text_at(pointer);
        if is_private(interface) {
            link.add_address(text("/ipv4/address").as_deref(), text("/ipv4/netmask").as_deref());
        } else {
            // Vultr's DHCP gives the first public address and the route. It serves no private network.
            link.dhcp4 = true;
            link.dhcp6 = text("/ipv6/address").is_some();
        }
        for (address, prefix) in additional_addresses(interface) {
            link.add_address(Some(&address), Some(&prefix));
        }
        Some(link)
    };
    interfaces.iter().filter_map(link).collect()
}

fn is_private(interface: &DocumentTree) -> bool {
    interface.text_at("/network-type").as_deref() == Some("private")
}

/// The addresses beyond the first one, which no DHCP server gives, with their prefixes or masks.
fn additional_addresses(interface: &DocumentTree) -> Vec<(String, String)> {
    let of = |family: &str, address: &str, prefix: &str| {
        let entries = interface.list_at(&format!("/{family}/additional"));
        let pair = |entry: &DocumentTree| Some((entry.text_at(address)?, entry.text_at(prefix)?));
        entries.iter().filter_map(pair).collect::<Vec<_>>()
    };
    [of("ipv4", "/address", "/netmask"), of("ipv6", "/network", "/prefix")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = r#"{"mac": "56:00:03:1b:4e:ca", "network-type": "public",
        "ipv4": {"address": "192.0.2.7", "netmask": "255.255.254.0", "gateway": "192.0.2.1", "additional": A4},
        "ipv6": {"address": "2001:db8::7", "network": "2001:db8::", "prefix": "64", "additional": A6}}"#;

    fn network_of(text: &str) -> String {
        let provision = facts(text.as_bytes());
        assert_eq!(provision.problems, []);
        String::from_utf8(
            provision.network_config.map(|config| config.as_bytes().to_vec()).unwrap_or_default(),
        )
        .unwrap()
    }

    #[test]
    fn addresses_beyond_the_first_are_not_lost() {
        let with = |v4: &str, v6: &str| {
            let interface = PUBLIC.replace("A4", v4).replace("A6", v6);
            network_of(&format!("{{\"interfaces\": [{interface}]}}"))
        };

        assert_eq!(with("[]", "[]"), "");
        let both = with(
            r#"[{"address": "192.0.2.9", "netmask": "255.255.254.0"}]"#,
            r#"[{"network": "2001:db8:5::", "prefix": "64"}]"#,
        );
        assert!(both.contains(r#""addresses":["192.0.2.9/23","2001:db8:5::/64"],"dhcp4":true"#), "{both}");
    }

    #[test]
    fn what_is_told_in_cloud_inits_words_is_taken_as_it_is() {
        let given = network_of(
            r#"{"interfaces": [], "user-data": [], "vendor-data": "x",
                "cloud_interfaces": {"version": 1, "config": [{"type": "physical", "mac_address": "56:00:03:1b:4e:ca"}]}}"#,
        );

        assert!(given.starts_with(r#"{"config":[{"mac_address":"56:00:03:1b:4e:ca""#), "{given}");
        assert_eq!(network_of(r#"{"cloud_interfaces": {}}"#), "");
    }

    #[test]
    fn an_interface_that_its_owner_sets_up_is_left_alone() {
        let text = r#"{"interfaces": [{"mac": "5a:00:03:1b:4e:ca", "network-type": "private", "unconfigured": true,
            "ipv4": {"address": "10.1.112.3", "netmask": "255.255.240.0"}}]}"#;

        assert_eq!(network_of(text), "");
    }
}
