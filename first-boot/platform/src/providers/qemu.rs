//! User-data that QEMU hands over with `-fw_cfg name=opt/com.coreos/config,file=...`.
//!
//! Knows the names that Ignition's users give. Refuses to know anything else in `fw_cfg`.
//! Invariant: a file is read in the fewest reads, because the kernel walks from the start of the
//! device for each of them.
//!
//! Documentation: <https://www.qemu.org/docs/master/specs/fw_cfg.html>, and for the files in /sys the
//! kernel's `Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg`.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform, evidence::PlatformEvidence,
    web::MAX_USER_DATA,
};

const DIRECTORY: &str = "/sys/firmware/qemu_fw_cfg";
// Flatcar's Ignition looks for its own name first, too. QEMU keeps `opt/` with a reversed domain for users.
const NAMES: [&str; 2] = ["opt/org.flatcar-linux/config", "opt/com.coreos/config"];

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    if !host.path_exists(DIRECTORY) {
        // Debian's kernel has the driver as a module, and udev may load it later than this runs. Ignition
        // loads it, too.
        host.load_module("qemu_fw_cfg");
    }
    let name = fw_cfg_name(host)?;
    Some(PlatformEvidence::from_machine(format!("QEMU firmware configuration: {name}")))
}

pub(crate) fn fetch(host: &Host, _: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let name = fw_cfg_name(host).ok_or_else(|| FetchError::Gone { place: DIRECTORY.to_owned() })?;
    // The file in /sys has no size of its own. Growing a buffer would read the device again and again from
    // its start.
    let size = host.read_text(&format!("{DIRECTORY}/by_name/{name}/size")).parse().unwrap_or(MAX_USER_DATA);
    let file = format!("{DIRECTORY}/by_name/{name}/raw");
    let broken = |source| FetchError::Disk { file: name.to_owned(), place: DIRECTORY.to_owned(), source };
    let bytes = host.read_at_once(&file, size, MAX_USER_DATA).map_err(broken)?;
    Ok(InstanceMetadata { user_data: Payload::from_bytes(bytes), ..InstanceMetadata::new(Platform::Qemu) })
}

fn fw_cfg_name(host: &Host) -> Option<&'static str> {
    NAMES.into_iter().find(|name| host.path_exists(&format!("{DIRECTORY}/by_name/{name}/raw")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{WebTiming, detect_platform, host::twin};

    #[test]
    fn the_configuration_is_read_and_flatcars_name_goes_first() {
        let twin = twin(&[
            ("sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/size", "3\n"),
            ("sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw", "{ }"),
        ]);

        let detected = detect_platform(&twin.host).unwrap();
        let provision =
            detected.fetch_metadata(&twin.host, &MetadataWeb::new(WebTiming::default(), 1)).unwrap();

        assert_eq!(detected.platform, Platform::Qemu);
        assert_eq!(provision.user_data.unwrap().as_bytes(), b"{ }");
    }

    #[test]
    fn without_a_configuration_qemu_is_not_a_platform() {
        let twin = twin(&[("sys/firmware/qemu_fw_cfg/by_name/etc/smi/raw", "x")]);

        assert_eq!(detect_platform(&twin.host), None);
    }
}
