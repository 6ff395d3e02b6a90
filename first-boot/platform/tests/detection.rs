//! What gives each platform away, on machines that are directories.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{fs, path::Path};

use platform::{Host, Platform, detect_platform};

/// A machine with these files.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

fn platform_of(root: &Path) -> Option<Platform> {
    detect_platform(&Host::at_directory(root)).map(|detected| detected.platform)
}

#[test]
fn the_firmware_names_every_cloud() {
    for (field, value, platform) in [
        ("sys_vendor", "Akamai", Platform::Akamai),
        ("sys_vendor", "Linode", Platform::Akamai),
        ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", Platform::Azure),
        ("sys_vendor", "DigitalOcean", Platform::DigitalOcean),
        ("sys_vendor", "Amazon EC2", Platform::Ec2),
        ("sys_vendor", "3DS Outscale", Platform::Ec2),
        ("product_name", "3DS Outscale VM", Platform::Ec2),
        ("sys_vendor", "Tilaa", Platform::Ec2),
        ("product_uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF", Platform::Ec2),
        ("product_uuid", "45E12AEC-DCD1-B213-94ED-012345ABCDEF", Platform::Ec2),
        ("product_name", "Exoscale Compute Platform", Platform::Exoscale),
        ("product_name", "Google Compute Engine", Platform::Gce),
        ("product_serial", "GoogleCloud-0123456789ABCDEF", Platform::Gce),
        ("sys_vendor", "Hetzner", Platform::Hetzner),
        ("product_name", "OpenStack Nova", Platform::OpenStack),
        ("product_name", "OpenStack Compute", Platform::OpenStack),
        ("chassis_asset_tag", "OpenStack Nova", Platform::OpenStack),
        ("chassis_asset_tag", "OpenStack Compute", Platform::OpenStack),
        ("chassis_asset_tag", "OpenTelekomCloud", Platform::OpenStack),
        ("chassis_asset_tag", "HUAWEICLOUD", Platform::OpenStack),
        ("chassis_asset_tag", "OracleCloud.com", Platform::Oracle),
        ("sys_vendor", "Scaleway", Platform::Scaleway),
        ("sys_vendor", "UpCloud", Platform::UpCloud),
        ("sys_vendor", "VMware, Inc.", Platform::Vmware),
        ("sys_vendor", "Vultr", Platform::Vultr),
    ] {
        let root = machine(&[(&format!("sys/class/dmi/id/{field}"), &format!("{value}\n"))]);

        assert_eq!(platform_of(root.path()), Some(platform), "{field}: {value}");
    }
}

#[test]
fn the_command_line_names_a_platform_in_four_dialects() {
    for (command_line, platform) in [
        ("catamaran.platform=equinix", Platform::Equinix),
        ("quiet ignition.platform.id=aws ro", Platform::Ec2),
        ("flatcar.oem.id=packet", Platform::Equinix),
        ("coreos.oem.id=gce", Platform::Gce),
        ("cloud-config-url=http://10.0.0.1/x", Platform::CloudConfigUrl),
        ("ignition.platform.id=metal ignition.config.url=http://10.0.0.1/x", Platform::CloudConfigUrl),
        ("cloud_config_url=http://10.0.0.1/x", Platform::CloudConfigUrl),
        ("ds=nocloud", Platform::NoCloud),
        ("ci.ds=NoCloud;i=7", Platform::NoCloud),
    ] {
        let root = machine(&[("proc/cmdline", command_line)]);

        assert_eq!(platform_of(root.path()), Some(platform), "{command_line}");
    }
}

#[test]
fn what_a_person_named_goes_before_what_the_firmware_says() {
    let root = machine(&[
        ("proc/cmdline", "cloud-config-url=http://10.0.0.1/x"),
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2"),
    ]);

    assert_eq!(platform_of(root.path()), Some(Platform::CloudConfigUrl));
}

#[test]
fn names_of_platforms_that_speak_through_a_disk_do_not_hide_the_disk() {
    let root = machine(&[
        ("proc/cmdline", "ignition.platform.id=qemu"),
        ("sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw", "{}"),
    ]);

    assert_eq!(platform_of(root.path()), Some(Platform::Qemu));
}

#[test]
fn an_unknown_machine_runs_nowhere_in_particular() {
    let root = machine(&[
        ("proc/cmdline", "ro quiet ignition.platform.id=metal"),
        ("sys/class/dmi/id/sys_vendor", "LENOVO"),
        ("sys/class/dmi/id/product_serial", "R90ABCDE"),
    ]);

    assert_eq!(platform_of(root.path()), None);
    assert_eq!(platform_of(Path::new("/nonexistent")), None);
}
