//! The names that afterburn has for platforms that speak through a disk.
//!
//! Knows which words of the kernel command line and of the firmware name them. Refuses to tell platforms
//! apart by their disks, which are alike. Invariant: nothing is asked anew; what the disk said gets
//! another name.
//!
//! Documentation: <https://coreos.github.io/afterburn/usage/attributes/>.

use std::net::IpAddr;

use crate::{Host, InstanceMetadata, json::DocumentTree};

/// By what the kernel command line calls the platform, what its attributes begin with, and which is the
/// one of the host name.
const NAMES: [(&str, &str, &str); 6] = [
    ("ibmcloud", "IBMCLOUD", "LOCAL_HOSTNAME"),
    ("ibmcloud-classic", "IBMCLOUD_CLASSIC", "LOCAL_HOSTNAME"),
    ("kubevirt", "KUBEVIRT", "HOSTNAME"),
    ("powervs", "POWERVS", "LOCAL_HOSTNAME"),
    ("proxmoxve", "PROXMOXVE", "HOSTNAME"),
    ("nutanix", "NUTANIX", "HOSTNAME"),
];
// The words of Ignition, Flatcar and coreos-metadata work, so that a command line can be taken over as it is.
const PARAMETERS: [&str; 4] =
    ["catamaran.platform", "ignition.platform.id", "flatcar.oem.id", "coreos.oem.id"];

/// Adds the attributes of the platform whose disk this is.
pub(crate) fn add_attributes(host: &Host, provision: &mut InstanceMetadata) {
    let named = PARAMETERS.iter().find_map(|parameter| host.kernel_parameter(parameter));
    // The firmware of a KubeVirt machine says it, so that no parameter is needed.
    let is_kubevirt = host.dmi_field("sys_vendor").eq_ignore_ascii_case("kubevirt");
    let name = named.unwrap_or_else(|| if is_kubevirt { "kubevirt".to_owned() } else { String::new() });
    let Some((_, prefix, hostname)) = NAMES.iter().find(|(known, ..)| *known == name) else { return };
    provision.set_attribute(&format!("{prefix}_INSTANCE_ID"), provision.instance_id.clone());
    provision.set_attribute(&format!("{prefix}_{hostname}"), provision.hostname.clone());
    provision.set_attribute(&format!("{prefix}_INSTANCE_TYPE"), provision.instance_type.clone());
    if *prefix == "PROXMOXVE" {
        add_proxmox_addresses(provision);
    }
}

/// The static addresses of the first interface; of several of one family the last, as afterburn has it.
fn add_proxmox_addresses(provision: &mut InstanceMetadata) {
    let config =
        provision.network_config.as_ref().and_then(|config| DocumentTree::from_yaml(config.as_bytes()).ok());
    let interfaces = config.map(|config| config.list_at("/config")).unwrap_or_default();
    let is_interface = |item: &&DocumentTree| item.text_at("/type").as_deref() == Some("physical");
    let subnets =
        interfaces.iter().find(is_interface).map(|item| item.list_at("/subnets")).unwrap_or_default();
    for address in subnets.iter().filter_map(|subnet| subnet.text_at("/address")) {
        match address.split('/').next().and_then(|address| address.parse().ok()) {
            Some(IpAddr::V4(address)) => provision.set_attribute("PROXMOXVE_IPV4", Some(address)),
            Some(IpAddr::V6(address)) => provision.set_attribute("PROXMOXVE_IPV6", Some(address)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Payload, Platform, host::twin};

    fn named(files: &[(&str, &str)]) -> Vec<String> {
        let mut provision = InstanceMetadata {
            instance_id: Some("i-7".to_owned()),
            hostname: Some("node7".to_owned()),
            network_config: Payload::from_bytes(
                b"version: 1\nconfig:\n- type: physical\n  name: eth0\n  subnets:\n  - {type: static, address: \
                  192.0.2.7, netmask: 255.255.255.0}\n  - {type: static6, address: '2001:db8::7/64'}\n"
                    .to_vec(),
            ),
            ..InstanceMetadata::new(Platform::NoCloud)
        };
        add_attributes(&twin(files).host, &mut provision);
        provision.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_named_platform_gives_its_own_names() {
        assert_eq!(
            named(&[("proc/cmdline", "ignition.platform.id=proxmoxve")]),
            [
                "PROXMOXVE_HOSTNAME=node7",
                "PROXMOXVE_INSTANCE_ID=i-7",
                "PROXMOXVE_IPV4=192.0.2.7",
                "PROXMOXVE_IPV6=2001:db8::7"
            ]
        );
        assert_eq!(
            named(&[("proc/cmdline", "ignition.platform.id=ibmcloud")]),
            ["IBMCLOUD_INSTANCE_ID=i-7", "IBMCLOUD_LOCAL_HOSTNAME=node7"]
        );
    }

    #[test]
    fn the_firmware_of_kubevirt_is_enough() {
        assert_eq!(
            named(&[("sys/class/dmi/id/sys_vendor", "KubeVirt\n")]),
            ["KUBEVIRT_HOSTNAME=node7", "KUBEVIRT_INSTANCE_ID=i-7"]
        );
        assert_eq!(named(&[]), Vec::<String>::new());
    }
}
