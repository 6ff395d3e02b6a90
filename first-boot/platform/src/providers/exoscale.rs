//! Exoscale: a tree of small texts.
//!
//! Knows the items afterburn reads. Refuses to ask for the password.
//! Invariant: each item that fails costs itself only.
//!
//! Documentation: <https://community.exoscale.com/documentation/compute/cloud-init/>.

use crate::{FetchError, Host, InstanceMetadata, MetadataWeb, Platform, evidence::PlatformEvidence};

const BASES: [&str; 1] = ["http://169.254.169.254"];
/// Attribute names of afterburn and where their values are.
// The tree has `password` on a server of its own, at port 8080. It is for logins that this image does not
// have.
const ITEMS: [(&str, &str); 8] = [
    ("EXOSCALE_AVAILABILITY_ZONE", "availability-zone"),
    ("EXOSCALE_CLOUD_IDENTIFIER", "cloud-identifier"),
    ("EXOSCALE_LOCAL_HOSTNAME", "local-hostname"),
    ("EXOSCALE_LOCAL_IPV4", "local-ipv4"),
    ("EXOSCALE_PUBLIC_HOSTNAME", "public-hostname"),
    ("EXOSCALE_PUBLIC_IPV4", "public-ipv4"),
    ("EXOSCALE_SERVICE_OFFERING", "service-offering"),
    ("EXOSCALE_VM_ID", "vm-id"),
];

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("product_name", "Exoscale*")])
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let platform = Platform::Exoscale;
    let service = web.metadata_service(&BASES);
    let mut provision = InstanceMetadata::new(platform);
    provision.instance_id =
        service.get_text("/1.0/meta-data/instance-id").map_err(platform.fetch_failed())?;
    let keys = service.get_text("/1.0/meta-data/public-keys");
    if let Some(keys) = provision.value_or_report("ssh keys", keys) {
        provision.add_keys(&keys);
    }
    provision.take_user_data(service.get_data("/1.0/user-data"));
    for (name, path) in ITEMS {
        let value = service.get_text(&format!("/1.0/meta-data/{path}"));
        let value = provision.value_or_report(path, value);
        provision.set_attribute(name, value);
    }
    Ok(facts(provision))
}

/// Derives the general facts from the attributes; pure.
fn facts(mut provision: InstanceMetadata) -> InstanceMetadata {
    let value = |name: &str| provision.attributes.get(name).cloned();
    let address = |name: &str| value(name).and_then(|text| text.parse().ok());
    let (zone, kind) = (value("EXOSCALE_AVAILABILITY_ZONE"), value("EXOSCALE_SERVICE_OFFERING"));
    let hostname = value("EXOSCALE_LOCAL_HOSTNAME");
    provision.addresses.private_ipv4 = address("EXOSCALE_LOCAL_IPV4");
    provision.addresses.public_ipv4 = address("EXOSCALE_PUBLIC_IPV4");
    provision.set_hostname(hostname);
    provision.set_attribute("EXOSCALE_INSTANCE_ID", provision.instance_id.clone());
    InstanceMetadata { zone, instance_type: kind, ..provision }
}
