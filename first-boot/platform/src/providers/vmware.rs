//! VMware: variables of the virtual machine called guestinfo, and the OVF environment.
//!
//! Knows cloud-init's, Ignition's and CoreOS's names of the variables. Refuses to need open-vm-tools:
//! the hypervisor is asked directly. Invariant: a value is decoded in bounds.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/datasources/vmware.html>,
//! <https://coreos.github.io/ignition/supported-platforms/>, and for CoreOS's names coreos-cloudinit's
//! `Documentation/vmware-guestinfo.md`.

mod backdoor;
mod guest_rpc;
mod interfaces;

use std::io::Read;

use base64::{Engine, prelude::BASE64_STANDARD};

use self::backdoor::Backdoor;

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Place, Platform, disk,
    evidence::PlatformEvidence,
    host::read_all,
    json::DocumentTree,
    meta_data::add_meta_data,
    ovf::OvfEnvironment,
    web::{MAX_METADATA, MAX_USER_DATA},
};

/// VMware's label, and those that other makers of such discs write.
const OVF_LABELS: [&str; 3] = ["OVF ENV", "OVFENV", "OVF-TRANSPORT"];
const OVF_FILE: &str = "ovf-env.xml";

/// Gives the value of a guestinfo variable, without the `guestinfo.` prefix.
type GuestinfoLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn detect(host: &Host) -> Vec<PlatformEvidence> {
    let discs = disk::find_labelled(host, &OVF_LABELS).into_iter().map(|(device, mut volume)| {
        let text = format!("{} labelled {}", device.path.display(), volume.volume_label());
        let document = volume.read(OVF_FILE, MAX_METADATA).ok().flatten().unwrap_or_default();
        PlatformEvidence::from_machine(text).on_volume(&device.path, &facts(&document), None)
    });
    // systemd-detect-virt compares the same start. The whole text is `VMware, Inc.`.
    let firmware = PlatformEvidence::from_firmware(host, &[("sys_vendor", "VMware*")]).map(|evidence| {
        let lookup = |key: &str| read_guestinfo(host, key);
        if config_address(&lookup).is_some() { evidence } else { evidence.without_network() }
    });
    discs.chain(firmware).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "fetch has one shape on every platform")]
pub(crate) fn fetch(host: &Host, web: &MetadataWeb, place: &Place) -> Result<InstanceMetadata, FetchError> {
    let mut provision = InstanceMetadata::new(Platform::Vmware);
    let environment = read_environment(host, place, &mut provision);
    let lookup = |key: &str| {
        let properties = &environment.properties;
        let property =
            || properties.get(&format!("guestinfo.{key}")).or_else(|| properties.get(key)).cloned();
        // Ignition asks guestinfo first, too, and falls back to the OVF environment.
        read_guestinfo(host, key).or_else(property).filter(|value| !value.is_empty())
    };
    add_facts(&mut provision, &lookup);
    if provision.user_data.is_none()
        && let Some(url) = config_address(&lookup)
    {
        let body = web.get_url(&url, MAX_USER_DATA);
        provision.user_data = provision.value_or_report("user-data", body).and_then(Payload::from_bytes);
    }
    Ok(provision)
}

fn read_guestinfo(host: &Host, key: &str) -> Option<String> {
    let value = guest_rpc::query_guestinfo(&mut Backdoor::below_host(host)?, key)?;
    String::from_utf8(value).ok().filter(|text| !text.is_empty())
}

/// The disc's where that is the place that was found: another disc must not add to what guestinfo says.
fn read_environment(host: &Host, place: &Place, provision: &mut InstanceMetadata) -> OvfEnvironment {
    let on_disk = match place {
        Place::Volume { device, .. } => disk::on_device(device).and_then(|mut volume| {
            let read = volume.read(OVF_FILE, MAX_METADATA);
            provision.value_or_report(OVF_FILE, read)
        }),
        _ => None,
    };
    // vCenter offers the same document as a disc (`iso`) or as a variable (`com.vmware.guestInfo`).
    let xml = on_disk.or_else(|| read_guestinfo(host, "ovfEnv").map(String::into_bytes));
    let parsed = xml.map(|xml| OvfEnvironment::parse_environment(&xml)).transpose();
    provision.value_or_report(OVF_FILE, parsed).unwrap_or_default()
}

/// Where Ignition's and CoreOS's users say their configuration is.
fn config_address(lookup: GuestinfoLookup<'_>) -> Option<String> {
    // The same order as for the data.
    lookup("ignition.config.url").or_else(|| lookup("coreos.config.url"))
}

/// The facts of an OVF environment; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let mut provision = InstanceMetadata::new(Platform::Vmware);
    let parsed = OvfEnvironment::parse_environment(document).map(Some);
    let properties = provision.value_or_report(OVF_FILE, parsed).unwrap_or_default().properties;
    add_facts(&mut provision, &|key| {
        properties.get(&format!("guestinfo.{key}")).or_else(|| properties.get(key)).cloned()
    });
    provision
}

/// Turns the variables into facts; pure.
fn add_facts(provision: &mut InstanceMetadata, lookup: GuestinfoLookup<'_>) {
    let mut data = |key: &str| {
        let decoded =
            lookup(key).map(|text| decode_value(&text, lookup(&format!("{key}.encoding")).as_deref()));
        provision.value_or_report(key, decoded.transpose())
    };
    let meta_data = data("metadata");
    let vendor_data = data("vendordata");
    let user_data =
        // cloud-init's name, the name in OVF templates, then Ignition's before CoreOS's, as coreos-cloudinit
        // asks them.
        ["userdata", "user-data", "ignition.config.data", "coreos.config.data"].into_iter().find_map(data);
    provision.vendor_data = vendor_data.and_then(Payload::from_bytes);
    provision.user_data =
        user_data.map(|bytes| decode_user_data(bytes, lookup)).and_then(Payload::from_bytes);
    if let Some(document) = meta_data {
        let tree = add_meta_data(provision, &document);
        provision.network_config = network_of(provision, &tree).and_then(Payload::from_bytes);
    }
    let or = |known: &Option<String>, key: &str| known.clone().or_else(|| lookup(key));
    provision.instance_id = or(&provision.instance_id, "instance-id");
    let hostname = or(&provision.hostname, "hostname").or_else(|| lookup("local-hostname"));
    provision.set_hostname(hostname);
    if let Some(keys) = lookup("public-keys") {
        provision.add_keys(&keys);
    }
    interfaces::add_interfaces(provision, lookup);
    provision.set_attribute("VMWARE_HOSTNAME", provision.hostname.clone());
}

/// The OVF property `user-data` is always base64 and has no `.encoding` beside it.
fn decode_user_data(bytes: Vec<u8>, lookup: GuestinfoLookup<'_>) -> Vec<u8> {
    if lookup("user-data").is_none() {
        return bytes;
    }
    BASE64_STANDARD.decode(bytes.trim_ascii()).unwrap_or(bytes)
}

/// `network` in the metadata is a map, or text that is encoded as `network.encoding` says.
fn network_of(provision: &mut InstanceMetadata, tree: &DocumentTree) -> Option<Vec<u8>> {
    match tree.text_at("/network") {
        Some(text) => {
            let decoded = decode_value(&text, tree.text_at("/network.encoding").as_deref()).map(Some);
            provision.value_or_report("network-config", decoded)
        }
        None => tree.subtree_at("/network").map(|part| part.to_json()),
    }
}

/// Undoes the encodings that VMware's users know.
fn decode_value(text: &str, encoding: Option<&str>) -> Result<Vec<u8>, String> {
    let base64 = || {
        let packed: String = text.split_whitespace().collect();
        BASE64_STANDARD.decode(packed).map_err(|_| "it is not base64, but says so".to_owned())
    };
    match encoding.map(|name| name.trim().to_ascii_lowercase()).as_deref() {
        None | Some("") => Ok(text.as_bytes().to_vec()),
        Some("base64" | "b64") => base64(),
        Some("gzip" | "gz") => unpack_gzip(text.as_bytes()),
        // cloud-init and CoreOS write the same encoding in four ways.
        Some("gzip+base64" | "gzip+b64" | "gz+base64" | "gz+b64") => unpack_gzip(&base64()?),
        Some(_) => Err("its encoding is none of base64, gzip and gzip+base64".to_owned()),
    }
}

fn unpack_gzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    // gzip grows up to a thousand times, so the limit is on what comes out.
    let source = flate2::read::GzDecoder::new(bytes);
    read_all(source.take(MAX_USER_DATA + 1), MAX_USER_DATA)
        .map_err(|error| format!("it cannot be unzipped: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{WebTiming, detect_platform, disk::tests::iso_image, host::twin};

    fn told(variables: &[(&str, &str)]) -> InstanceMetadata {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut provision = InstanceMetadata::new(Platform::Vmware);
        add_facts(&mut provision, &|key| variables.get(key).cloned());
        provision
    }

    #[test]
    fn cloud_inits_variables_are_decoded() {
        let provision = told(&[
            ("metadata", "instance-id: vm-7\nlocal-hostname: n7\nnetwork: {version: 2}\n"),
            ("userdata", "H4sIAAAAAAAAA1NOzskvTdFNzs9Ly0znAgAFVrO4DgAAAA=="),
            ("userdata.encoding", "gzip+base64"),
        ]);

        assert_eq!(provision.problems, []);
        assert_eq!(provision.instance_id.as_deref(), Some("vm-7"));
        assert_eq!(provision.user_data.unwrap().as_bytes(), b"#cloud-config\n");
        assert_eq!(provision.network_config.unwrap().as_bytes(), b"{\"version\":2}");
    }

    #[test]
    fn coreos_variables_describe_name_network_and_configuration() {
        let provision = told(&[
            ("hostname", "n8"),
            ("coreos.config.data", "eyB9"),
            ("coreos.config.data.encoding", "base64"),
            ("interface.0.mac", "00:50:56:00:00:01"),
            ("interface.0.dhcp", "no"),
            ("interface.0.role", "private"),
            ("interface.0.ip.0.address", "10.0.0.8/24"),
            ("interface.0.route.0.gateway", "10.0.0.1"),
            ("interface.0.route.0.destination", "0.0.0.0/0"),
            ("dns.server.0", "9.9.9.9"),
        ]);

        assert_eq!(provision.hostname.as_deref(), Some("n8"));
        assert_eq!(provision.user_data.unwrap().as_bytes(), b"{ }");
        assert_eq!(provision.addresses.private_ipv4, Some([10, 0, 0, 8].into()));
        let network = String::from_utf8(provision.network_config.unwrap().as_bytes().to_vec()).unwrap();
        assert!(network.contains("\"via\":\"10.0.0.1\"") && network.contains("9.9.9.9"), "{network}");
    }

    #[test]
    fn what_cannot_be_decoded_is_reported_by_its_name() {
        let provision = told(&[("userdata", "***"), ("userdata.encoding", "b64"), ("hostname", "kept")]);

        assert!(provision.lacks_item("userdata"));
        assert_eq!(provision.hostname.as_deref(), Some("kept"));
    }

    #[test]
    fn the_ovf_disk_is_read_without_any_tool() {
        let xml: &[u8] = br#"<Environment xmlns:oe="urn:oe"><PropertySection>
            <Property oe:key="hostname" oe:value="n9"/><Property oe:key="user-data" oe:value="I2Nsb3VkLWNvbmZpZwo="/>
            </PropertySection></Environment>"#;
        for label in ["OVF ENV", "OVFENV", "OVF-TRANSPORT", "ovf-transport"] {
            let machine = twin(&[]);
            machine.attach("sr0", &iso_image(label, &[("ovf-env.xml", xml)]), "");

            let detected = detect_platform(&machine.host).unwrap();
            let provision =
                detected.fetch_metadata(&machine.host, &MetadataWeb::new(WebTiming::default(), 1)).unwrap();

            assert_eq!(detected.platform, Platform::Vmware, "{label}");
            assert_eq!(provision.hostname.as_deref(), Some("n9"), "{label}");
            assert_eq!(provision.user_data.unwrap().as_bytes(), b"#cloud-config\n", "{label}");
        }
    }
}
