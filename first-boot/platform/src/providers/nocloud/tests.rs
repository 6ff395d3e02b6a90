use super::*;
use crate::{
    DetectedPlatform, WebTiming, detect_platform,
    disk::tests::{fat_image, iso_image},
    host::{Twin, twin},
};

const META_DATA: &[u8] = br"instance-id: 12345e67
local-hostname: node1.example.com
public-keys:
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA core
";

fn fetched(machine: &Twin) -> (DetectedPlatform, InstanceMetadata) {
    let detected = detect_platform(&machine.host).unwrap();
    let provision =
        detected.fetch_metadata(&machine.host, &MetadataWeb::new(WebTiming::default(), 1)).unwrap();
    (detected, provision)
}

#[test]
fn a_disk_labelled_cidata_tells_everything() {
    for image in [
        fat_image(
            "CIDATA",
            &[("meta-data", META_DATA), ("user-data", b"#cloud-config\n"), ("vendor-data", b"v")],
        ),
        iso_image(
            "cidata",
            &[("meta-data", META_DATA), ("user-data", b"#cloud-config\n"), ("vendor-data", b"v")],
        ),
    ] {
        let machine = twin(&[]);
        machine.attach("vdb", &image, "");

        let (detected, provision) = fetched(&machine);

        assert_eq!((detected.platform, detected.needs_network), (Platform::NoCloud, false));
        assert_eq!(provision.instance_id.as_deref(), Some("12345e67"));
        assert_eq!(provision.hostname.as_deref(), Some("node1.example.com"));
        assert_eq!(provision.ssh_keys, ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA core"]);
        assert_eq!(provision.user_data.unwrap().as_bytes(), b"#cloud-config\n");
        assert_eq!(provision.vendor_data.unwrap().as_bytes(), b"v");
        assert_eq!(provision.problems, []);
    }
}

#[test]
fn the_seed_folder_of_the_esp_counts_when_it_has_a_file() {
    let machine = twin(&[]);
    machine.runs_from("/dev/vda", "/dev/vda2");
    machine.attach("vda2", &fat_image("ESP", &[("seed/user-data", b"#!/bin/sh\n")]), "PARTNAME=ESP\n");
    let empty = twin(&[]);
    empty.runs_from("/dev/vda", "/dev/vda2");
    empty.attach("vda2", &fat_image("ESP", &[("seed/README", b"put files here")]), "PARTNAME=ESP\n");

    assert_eq!(fetched(&machine).1.user_data.unwrap().as_bytes(), b"#!/bin/sh\n");
    assert_eq!(detect_platform(&empty.host), None);
}

#[test]
fn an_attached_disk_goes_before_the_seed_of_the_image() {
    let machine = twin(&[]);
    machine.runs_from("/dev/vda", "/dev/vda2");
    machine.attach("vda2", &fat_image("ESP", &[("seed/user-data", b"image")]), "PARTNAME=ESP\n");
    machine.attach("vdb", &iso_image("cidata", &[("user-data", b"disk")]), "");

    assert_eq!(fetched(&machine).1.user_data.unwrap().as_bytes(), b"disk");
}

#[test]
fn the_serial_number_names_server_host_and_instance() {
    let machine = twin(&[(
        "sys/class/dmi/id/product_serial",
        "ds=nocloud;s=http://user:secret@10.0.0.2/;i=i-7;h=host7\n",
    )]);

    let detected = detect_platform(&machine.host).unwrap();
    let told = seed_parameters(&machine.host).unwrap();

    assert_eq!(detected.evidence, "SMBIOS serial number: ds=nocloud, seed from http://10.0.0.2/");
    assert!(detected.needs_network);
    assert_eq!((told.hostname.as_deref(), told.instance_id.as_deref()), (Some("host7"), Some("i-7")));
}

#[test]
fn the_command_line_names_a_folder() {
    let machine = twin(&[
        ("proc/cmdline", "ro ds=\"nocloud;s=file:///srv/seed;h=named\" quiet"),
        ("srv/seed/meta-data", "local-hostname: other\ninstance-id: 7\n"),
        ("srv/seed/user-data", "x"),
    ]);

    let (detected, provision) = fetched(&machine);

    assert!(!detected.needs_network);
    assert_eq!(provision.hostname.as_deref(), Some("named"));
    assert_eq!(provision.instance_id.as_deref(), Some("7"));
}

#[test]
fn the_word_alone_is_a_platform_that_has_nothing_to_say() {
    let machine = twin(&[("proc/cmdline", "ds=nocloud;i=abc")]);

    let (_, provision) = fetched(&machine);

    assert_eq!(provision.instance_id.as_deref(), Some("abc"));
    assert_eq!(provision.user_data, None);
}

#[test]
fn broken_meta_data_costs_itself_only() {
    let machine = twin(&[]);
    machine.attach("sr0", &iso_image("CIDATA", &[("meta-data", b"a: [\n"), ("user-data", b"kept")]), "");

    let (_, provision) = fetched(&machine);

    assert_eq!(provision.user_data.as_ref().unwrap().as_bytes(), b"kept");
    assert!(provision.lacks_item("meta-data"));
}

#[test]
fn debians_interfaces_in_the_meta_data_count_when_there_is_no_network_config() {
    let meta_data: &[u8] = b"instance-id: i\nnetwork-interfaces: |\n  auto eth0\n  iface eth0 inet dhcp\n";
    let machine = twin(&[]);
    machine.attach(
        "vdb",
        &iso_image("cidata", &[("meta-data", meta_data), ("network-config", b"newer")]),
        "",
    );

    let alone = meta_data_facts(meta_data);

    assert_eq!(alone.network_config.unwrap().as_bytes(), b"auto eth0\niface eth0 inet dhcp\n");
    assert_eq!(alone.problems, []);
    assert_eq!(fetched(&machine).1.network_config.unwrap().as_bytes(), b"newer");
}

#[test]
fn one_wrong_field_of_the_meta_data_leaves_the_keys() {
    let bytes = b"instance-id: [1, 2]\npublic-keys: {a: ssh-rsa AAAAB3Nza a}\nhostname: h\n";
    let mut provision = InstanceMetadata::new(Platform::NoCloud);

    add_meta_data(&mut provision, bytes);

    assert_eq!(provision.ssh_keys, ["ssh-rsa AAAAB3Nza a"]);
    assert_eq!(provision.hostname.as_deref(), Some("h"));
}

#[test]
fn firmware_strings_are_put_into_the_address() {
    let machine = twin(&[("sys/class/dmi/id/chassis_serial", "S7")]);

    let url = expand_dmi(&machine.host, "http://10.0.0.2/__dmi.chassis-serial-number__/");

    assert_eq!(url, "http://10.0.0.2/S7/");
}
