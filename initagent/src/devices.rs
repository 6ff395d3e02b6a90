//! What the kernel calls the devices of this machine, by which modules say what they drive.
//!
//! Knows where the names lie and what a few of them mean. Refuses to load anything.
//!
//! Documentation: <https://docs.kernel.org/admin-guide/sysfs-rules.html>, and `file2alias.c` of Linux for the
//! names.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel lists its buses.
pub(crate) const BUSES: &str = "/sys/bus";

/// The names of all devices on these buses.
pub(crate) fn device_names(buses: &Path) -> impl Iterator<Item = String> {
    let devices = folder_entries(buses).flat_map(|bus| folder_entries(&bus.join("devices")));
    devices
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|name| name.trim().to_owned())
}

/// Whether a device is one that only a virtual machine has. If there is one, its disk and its network card
/// are such devices too.
pub(crate) fn is_paravirtual(name: &str) -> bool {
    // KVM's, Hyper-V's and Xen's buses. VMware's devices are on PCI as real ones are.
    ["virtio:", "vmbus:", "xen:"].iter().any(|bus| name.starts_with(bus))
}

/// Whether a device is a network card of the PCI bus: its base class is 2 (`pci:v…d…sv…sd…bc02sc…i…`).
pub(crate) fn is_network_card(name: &str) -> bool {
    // Base class 02 of the PCI code and ID assignment specification.
    name.strip_prefix("pci:").is_some_and(|rest| rest.contains("bc02sc"))
}

fn folder_entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_card_is_known_by_its_class() {
        assert!(is_network_card("pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00"));
        assert!(!is_network_card("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"));
        assert!(!is_network_card("usb:v0525pA4A2d0000dcbc02sc06"));
    }

    #[test]
    fn devices_are_found_by_the_names_their_buses_give_them() {
        let buses = tempfile::tempdir().unwrap();
        for (device, name) in
            [("virtio/devices/virtio0", "virtio:d2\n"), ("pci/devices/0000:00:01.0", "pci:v1\n")]
        {
            let folder = buses.path().join(device);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("modalias"), name).unwrap();
        }
        fs::create_dir_all(buses.path().join("cpu/devices/cpu0")).unwrap();

        let mut found: Vec<String> = device_names(buses.path()).collect();

        found.sort();
        assert_eq!(found, ["pci:v1", "virtio:d2"]);
    }
}
