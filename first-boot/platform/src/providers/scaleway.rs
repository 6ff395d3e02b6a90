//! Scaleway: one JSON document, and user-data that is given only to privileged source ports.
//!
//! Knows that the source port proves to Scaleway that root asks. Refuses to ask from any other.
//! Invariant: keys hidden in tags are read the same way as plain ones.
//!
//! Documentation: <https://www.scaleway.com/en/developers/api/instance/user-data>, which has the rule about
//! ports, and <https://www.scaleway.com/en/docs/instances/how-to/use-cloud-init>.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform, WebError,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, ethernets_payload},
    one_document::{self, FieldPaths},
};

const BASES: [&str; 2] = ["http://169.254.42.42", "http://[fd00:42::42]"];
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/id"],
    hostname: &["/hostname"],
    zone: &["/zone", "/location/zone_id"],
    instance_type: &["/commercial_type"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("sys_vendor", "Scaleway")]).or_else(|| {
        // cloud-init's signs, too: older servers had no name in SMBIOS, but Scaleway's own initramfs left
        // these.
        let named = host.command_line().iter().any(|word| word == "scaleway");
        let found = named || host.path_exists("/var/run/scaleway");
        found.then(|| PlatformEvidence::from_network("kernel command line or /var/run: scaleway"))
    })
}

pub(crate) fn fetch(host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let service = web.metadata_service(&BASES);
    let document = one_document::fetch_document(Platform::Scaleway, &service, "/conf?format=json")?;
    let mut provision = facts(&document);
    provision.network_config = render_network(host, &DocumentTree::from_json(&document).unwrap_or_default());
    // Only these two need such a port. It is taken as late as possible, because each request uses up one of
    // 512.
    let privileged = service.with_privileged_port();
    provision.take_user_data(privileged.get_data("/user_data/cloud-init"));
    let vendor_data = privileged.get_data("/vendor_data/cloud-init");
    provision.vendor_data =
        provision.value_or_report("vendor-data", vendor_data).and_then(Payload::from_bytes);
    Ok(provision)
}

/// DHCP gives the first IPv4 address alone, and nothing gives the others: they are written down for the
/// interface that leads out, which the document does not name; it is the first one of the machine.
fn render_network(host: &Host, tree: &DocumentTree) -> Option<Payload> {
    let mut link = InterfaceLink::with_mac(&first_card(host)?)?;
    link.dhcp4 = true;
    let by_dhcp = tree.text_at("/public_ip/address");
    let older = tree.subtree_at("/ipv6").into_iter();
    let mut is_needed = false;
    for entry in older.chain(tree.list_at("/public_ips")) {
        let address = entry.text_at("/address").filter(|address| Some(address) != by_dhcp.as_ref());
        is_needed |= link.add_address(address.as_deref(), entry.text_at("/netmask").as_deref());
        let is_v6 = address.is_some_and(|address| address.contains(':'));
        // IPv4's default route comes by DHCP.
        link.add_gateway(entry.text_at("/gateway").filter(|_| is_v6).as_deref());
    }
    is_needed.then(|| ethernets_payload(&[link])).flatten()
}

/// The hardware address of the card that the kernel found first.
fn first_card(host: &Host) -> Option<String> {
    let entries = host.path_of("/sys/class/net").read_dir().ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // Bridges and tunnels have no device.
    let cards = names.filter(|name| host.path_exists(&format!("/sys/class/net/{name}/device")));
    let number =
        |name: &String| host.read_text(&format!("/sys/class/net/{name}/ifindex")).parse::<u32>().ok();
    let first = cards.filter_map(|name| Some((number(&name)?, name))).min()?;
    Some(host.read_text(&format!("/sys/class/net/{}/address", first.1)))
}

/// Tells Scaleway that the machine is up.
pub(crate) fn check_in(web: &MetadataWeb) -> Result<(), WebError> {
    let headers = [("Content-Type", "application/json")];
    let told = web.metadata_service(&BASES).with_privileged_port().send_body(
        "PATCH",
        "/state",
        &headers,
        br#"{"state_detail":"booted"}"#,
    );
    told.map(drop)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::Scaleway, document, &PLACES);
    provision.region = provision.zone.as_deref().and_then(|zone| Some(zone.rsplit_once('-')?.0.to_owned()));
    for key in tree.list_at("/ssh_public_keys").iter().filter_map(|entry| entry.text_at("/key")) {
        provision.add_keys(&key);
    }
    // Tags hold no spaces, so Scaleway's users write `_` for each in a key.
    for key in tree.texts_below("/tags").iter().filter_map(|tag| tag.strip_prefix("AUTHORIZED_KEY=")) {
        provision.add_keys(&key.replace('_', " "));
    }
    let address_of = |family: &str| {
        let of_family = |entry: &&DocumentTree| entry.text_at("/family").as_deref() == Some(family);
        tree.list_at("/public_ips").iter().find(of_family).and_then(|entry| entry.text_at("/address"))
    };
    // `public_ips` is the newer list. Servers that were made before it have the older fields alone.
    let public_ipv4 = tree.text_at("/public_ip/address").or_else(|| address_of("inet"));
    let public_ipv6 = tree.text_at("/ipv6/address").or_else(|| address_of("inet6"));
    provision.addresses.public_ipv4 = public_ipv4.and_then(|text| text.parse().ok());
    provision.addresses.public_ipv6 = public_ipv6.and_then(|text| text.parse().ok());
    provision.addresses.private_ipv4 = tree.parse_at("/private_ip");
    provision.set_attribute("SCALEWAY_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("SCALEWAY_INSTANCE_ID", provision.instance_id.clone());
    provision.set_attribute("SCALEWAY_INSTANCE_TYPE", provision.instance_type.clone());
    provision.set_attribute("SCALEWAY_IPV4_PRIVATE", provision.addresses.private_ipv4);
    provision.set_attribute("SCALEWAY_IPV4_PUBLIC", provision.addresses.public_ipv4);
    provision.set_attribute("SCALEWAY_IPV6_PUBLIC", provision.addresses.public_ipv6);
    provision.set_attribute("SCALEWAY_ZONE_ID", tree.text_at("/location/zone_id"));
    provision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::twin;

    fn config_of(document: &str) -> Option<String> {
        let machine = twin(&[
            ("sys/class/net/lo/ifindex", "1\n"),
            ("sys/class/net/ens6/ifindex", "3\n"),
            ("sys/class/net/ens6/device/uevent", ""),
            ("sys/class/net/ens6/address", "02:00:00:00:00:06\n"),
            ("sys/class/net/ens2/ifindex", "2\n"),
            ("sys/class/net/ens2/device/uevent", ""),
            ("sys/class/net/ens2/address", "de:00:00:00:00:02\n"),
        ]);
        let config = render_network(&machine.host, &DocumentTree::from_json(document.as_bytes()).unwrap())?;
        Some(String::from_utf8_lossy(config.as_bytes()).into_owned())
    }

    #[test]
    fn addresses_that_dhcp_does_not_give_are_not_lost() {
        let config = config_of(
            r#"{"private_ip": null, "public_ip": {"address": "192.0.2.10"}, "public_ips": [
                {"address": "192.0.2.10", "netmask": "32", "gateway": "62.210.0.1", "family": "inet"},
                {"address": "192.0.2.11", "netmask": "32", "gateway": "62.210.0.1", "family": "inet"},
                {"address": "2001:db8::1", "netmask": "64", "gateway": "2001:db8::", "family": "inet6"}]}"#,
        );

        assert_eq!(
            config.unwrap(),
            "{\"ethernets\":{\"nic0\":{\"addresses\":[\"192.0.2.11/32\",\"2001:db8::1/64\"],\"dhcp4\":true,\
             \"dhcp6\":false,\"match\":{\"macaddress\":\"de:00:00:00:00:02\"},\
             \"routes\":[{\"on-link\":true,\"to\":\"::/0\",\"via\":\"2001:db8::\"}]}},\"version\":2}"
        );
    }

    #[test]
    fn the_older_description_of_ipv6_counts_too_and_dhcp_alone_needs_none() {
        let older = r#"{"public_ip": {"address": "192.0.2.10"},
            "ipv6": {"address": "2001:db8::42", "netmask": "127", "gateway": "2001:db8::43"}}"#;

        assert!(config_of(older).unwrap().contains("2001:db8::42/127"));
        assert_eq!(config_of(r#"{"public_ip": {"address": "192.0.2.10"}, "ipv6": null}"#), None);
    }
}
