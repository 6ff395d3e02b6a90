//! Disk controllers for which this kernel has no driver, as a person can read them.
//!
//! An image for clouds has the drivers of virtual machines alone. On another machine its search for a disk ends with
//! nothing, and what is missing is not a disk but a driver: this says which. Knows the classes of PCI and USB. Refuses
//! to load anything. Asked only when the search has failed, so it costs a boot nothing.
//!
//! Documentation: the PCI Code and ID Assignment Specification, chapter 1, and USB's defined class codes,
//! <https://www.usb.org/defined-class-codes>.

use std::fs;
use std::path::{Path, PathBuf};

/// What a class of devices is called. The code is the beginning of what the kernel writes into `class`.
const PCI_CLASSES: [(&str, &str); 9] = [
    ("0x0100", "SCSI controller"),
    ("0x0101", "IDE controller"),
    ("0x0104", "RAID controller"),
    ("0x0106", "SATA controller"),
    ("0x0107", "SAS controller"),
    ("0x0108", "NVMe disk"),
    ("0x01", "disk controller"),
    // Without their driver, no USB disk is even seen.
    ("0x0c03", "USB controller"),
    ("0x0805", "SD card reader"),
];
/// The class of USB sticks and disks (mass storage), as `bInterfaceClass` has it.
const USB_STORAGE: &str = "08";

/// The controllers and disks below `buses` that no driver has taken, in the order of their places.
pub(super) fn undriven_devices(buses: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        bus_devices(buses, "pci").iter().filter_map(|path| describe_pci(path)).collect();
    found.extend(bus_devices(buses, "usb").iter().filter_map(|path| describe_usb(path)));
    found
}

fn bus_devices(buses: &Path, bus: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(buses.join(bus).join("devices")).into_iter().flatten().flatten();
    // What has a driver has a link of that name.
    let mut devices: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| !path.join("driver").exists()).collect();
    devices.sort();
    devices
}

fn describe_pci(device: &Path) -> Option<String> {
    let class = read_attribute(device, "class");
    let (_, name) = PCI_CLASSES.iter().find(|(code, _)| class.starts_with(code))?;
    let [vendor, model] = ["vendor", "device"].map(|file| read_attribute(device, file));
    let short = |text: &str| text.trim_start_matches("0x").to_owned();
    Some(format!("{name} {} (PCI {}:{})", place_of(device), short(&vendor), short(&model)))
}

fn describe_usb(device: &Path) -> Option<String> {
    let is_storage = read_attribute(device, "bInterfaceClass") == USB_STORAGE;
    is_storage.then(|| format!("USB disk {}", place_of(device)))
}

fn place_of(device: &Path) -> String {
    device.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_attribute(device: &Path, name: &str) -> String {
    fs::read_to_string(device.join(name)).unwrap_or_default().trim().to_owned()
}

/// What to say of them and what to do; nothing if each has its driver.
pub(super) fn undriven_sentence(devices: &[String]) -> Option<String> {
    let devices = devices.join(", ");
    (!devices.is_empty()).then(|| {
        format!(
            "this kernel has no driver for: {devices}. An image of bare metal has Debian's drivers for all of them: \
             build one from overlays/metal.yaml"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(buses: &Path, place: &str, attributes: &[(&str, &str)]) -> PathBuf {
        let folder = buses.join(place);
        fs::create_dir_all(&folder).unwrap();
        for (name, value) in attributes {
            fs::write(folder.join(name), format!("{value}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn controllers_and_sticks_without_a_driver_are_named_with_the_image_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let buses = folder.path();
        let raid = [("class", "0x010400"), ("vendor", "0x1000"), ("device", "0x0060")];
        device(buses, "pci/devices/0000:00:05.0", &raid);
        device(buses, "pci/devices/0000:00:02.0", &[("class", "0x020000"), ("vendor", "0x8086")]);
        let driven =
            device(buses, "pci/devices/0000:00:04.0", &[("class", "0x010000"), ("vendor", "0x1af4")]);
        fs::create_dir(driven.join("driver")).unwrap();
        device(buses, "usb/devices/1-1:1.0", &[("bInterfaceClass", "08")]);
        device(buses, "usb/devices/1-2:1.0", &[("bInterfaceClass", "03")]);

        let found = undriven_devices(buses);

        assert_eq!(found, ["RAID controller 0000:00:05.0 (PCI 1000:0060)", "USB disk 1-1:1.0"]);
        let said = undriven_sentence(&found).unwrap();
        assert!(
            said.contains("no driver for: RAID controller") && said.contains("overlays/metal.yaml"),
            "{said}"
        );
    }

    #[test]
    fn a_machine_whose_devices_all_have_drivers_is_told_nothing() {
        assert_eq!(undriven_sentence(&undriven_devices(Path::new("/nonexistent"))), None);
    }
}
