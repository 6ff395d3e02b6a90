//! OpenStack's configuration drive: a disk labelled `config-2`.
//!
//! Knows where the documents lie on it; `KubeVirt`, Nutanix and IBM have the same drive. Refuses to
//! know what the documents mean: that is [`super::openstack`]. Invariant: needs no network.
//!
//! Documentation: <https://docs.openstack.org/nova/latest/admin/config-drive.html>.

use std::{fs::File, io, path::Path};

use crate::{
    FetchError, Host, InstanceMetadata, Platform,
    disk::{self, ConfigVolume},
    evidence::PlatformEvidence,
    guest,
    providers::openstack::{MetadataDocuments, add_facts, read_documents},
    web::{MAX_METADATA, MAX_USER_DATA},
};

// Nova writes this label since the second version of the drive's layout. The first had other files, and is
// gone.
const LABEL: &str = "config-2";
const ROOT: &str = "openstack";
// Nova keeps the keys of dated folders and only adds to `latest`, so a date would only hide what is newer.
const FOLDER: &str = "openstack/latest";

/// Reads a file of a drive, of at most so many bytes; `None` when there is none.
pub type ReadDriveFile<'r> = &'r mut dyn FnMut(&str, u64) -> io::Result<Option<Vec<u8>>>;

pub(crate) fn detect(host: &Host) -> Vec<PlatformEvidence> {
    disk::find_labelled(host, &[LABEL])
        .into_iter()
        .filter_map(|(device, volume)| volume_evidence(&device.path, volume))
        .collect()
}

fn volume_evidence(device: &Path, mut volume: ConfigVolume<File>) -> Option<PlatformEvidence> {
    // CloudStack labels its drive `config-2`, too. Without this file it is no drive of OpenStack's.
    if matches!(meta_data(&mut |file, limit| volume.read(file, limit)), Ok(None)) {
        return None;
    }
    let text = format!("{} labelled {}", device.display(), volume.volume_label());
    Some(PlatformEvidence::from_machine(text).on_volume(
        device,
        &facts(&mut |file, limit| volume.read(file, limit)),
        None,
    ))
}

pub(crate) fn fetch(host: &Host, device: &Path) -> Result<InstanceMetadata, FetchError> {
    let gone = || FetchError::Gone { place: format!("the disk labelled {LABEL}") };
    let mut volume = disk::on_device(device).ok_or_else(gone)?;
    let mut provision = facts(&mut |file, limit| volume.read(file, limit));
    guest::add_attributes(host, &mut provision);
    Ok(provision)
}

/// What the files of a drive say; pure but for reading them.
pub(crate) fn facts(read: ReadDriveFile<'_>) -> InstanceMetadata {
    let mut provision = InstanceMetadata::new(Platform::ConfigDrive);
    let documents = read_documents(&mut provision, |file, limit| read(&format!("{FOLDER}/{file}"), limit));
    let meta_data = provision.value_or_report("meta-data", meta_data(read));
    // OpenStack's own documents say neither the addresses nor the type of the instance. This one does.
    let ec2_meta_data = read("ec2/latest/meta-data.json", MAX_METADATA).ok().flatten();
    let mut content =
        |path: &str| read(&format!("{ROOT}/{path}"), MAX_USER_DATA).map_err(|error| error.to_string());
    add_facts(&mut provision, MetadataDocuments { meta_data, ec2_meta_data, ..documents }, &mut content);
    provision
}

fn meta_data(read: ReadDriveFile<'_>) -> io::Result<Option<Vec<u8>>> {
    read(&format!("{FOLDER}/meta_data.json"), MAX_METADATA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MetadataWeb, WebTiming, detect_platform,
        disk::tests::fat_image,
        host::{Twin, twin},
    };

    fn drive(files: &[(&str, &[u8])]) -> Twin {
        let machine = twin(&[]);
        machine.attach("sr0", &fat_image("CONFIG-2", files), "");
        machine
    }

    #[test]
    fn the_drive_tells_what_the_service_would() {
        let machine = drive(&[
            ("openstack/latest/meta_data.json", include_bytes!("../../tests/data/openstack/meta_data.json")),
            ("openstack/latest/user_data", b"#!/bin/sh\n"),
            ("openstack/content/0000", b"welcome"),
            ("openstack/latest/network_data.json", b"{\"links\": []}"),
            ("openstack/latest/vendor_data.json", b"\"#cloud-config\\n\""),
            ("ec2/latest/meta-data.json", b"{\"local-ipv4\": \"10.0.0.9\", \"instance-type\": \"m1\"}"),
        ]);

        let detected = detect_platform(&machine.host).unwrap();
        let provision =
            detected.fetch_metadata(&machine.host, &MetadataWeb::new(WebTiming::default(), 1)).unwrap();

        assert_eq!((detected.platform, detected.needs_network), (Platform::ConfigDrive, false));
        assert_eq!(provision.instance_id.as_deref(), Some("83679162-1378-4288-a2d4-70e13ec132aa"));
        assert_eq!(provision.ssh_keys.len(), 2);
        assert_eq!(provision.user_data.unwrap().as_bytes(), b"#!/bin/sh\n");
        assert_eq!(provision.vendor_data.unwrap().as_bytes(), b"#cloud-config\n");
        assert_eq!(provision.addresses.private_ipv4, Some([10, 0, 0, 9].into()));
        assert_eq!(provision.problems, []);
    }

    #[test]
    fn broken_metadata_on_the_drive_costs_no_user_data() {
        let machine = drive(&[
            ("openstack/latest/meta_data.json", b"{\"uuid\": "),
            ("openstack/latest/user_data", b"kept"),
        ]);

        let provision = detect_platform(&machine.host)
            .unwrap()
            .fetch_metadata(&machine.host, &MetadataWeb::new(WebTiming::default(), 1))
            .unwrap();

        assert_eq!(provision.user_data.as_ref().unwrap().as_bytes(), b"kept");
        assert!(provision.lacks_item("meta-data"));
    }

    #[test]
    fn debians_description_of_the_network_is_read_from_the_drive() {
        let machine = drive(&[
            (
                "openstack/latest/meta_data.json",
                include_bytes!("../../tests/data/debian-drive/meta_data.json"),
            ),
            ("openstack/latest/user_data", include_bytes!("../../tests/data/debian-drive/user_data")),
            ("openstack/content/0000", include_bytes!("../../tests/data/debian-drive/0000")),
        ]);

        let provision = detect_platform(&machine.host)
            .unwrap()
            .fetch_metadata(&machine.host, &MetadataWeb::new(WebTiming::default(), 1))
            .unwrap();

        assert!(provision.network_config.unwrap().as_bytes().starts_with(b"auto eth0\n"));
        assert_eq!(provision.hostname.as_deref(), Some("edge1"));
        assert_eq!(provision.problems, []);
    }

    #[test]
    fn what_the_metadata_refer_to_is_read_from_the_drive() {
        let machine = drive(&[
            (
                "openstack/latest/meta_data.json",
                br#"{"uuid": "i", "network_config": {"name": "network_config", "content_path": "/content/0000"},
                    "files": [{"path": "/etc/one", "content_path": "/content/0001"}]}"#,
            ),
            ("openstack/content/0000", b"auto eth0\niface eth0 inet dhcp\n"),
            ("openstack/content/0001", b"one"),
        ]);

        let provision = detect_platform(&machine.host)
            .unwrap()
            .fetch_metadata(&machine.host, &MetadataWeb::new(WebTiming::default(), 1))
            .unwrap();

        assert_eq!(provision.network_config.unwrap().as_bytes(), b"auto eth0\niface eth0 inet dhcp\n");
        assert!(String::from_utf8_lossy(provision.files.unwrap().as_bytes()).contains("/etc/one"));
        assert_eq!(provision.problems, []);
    }

    #[test]
    fn a_drive_without_openstacks_folder_is_none() {
        assert_eq!(detect_platform(&drive(&[("cloudstack/x", b"")]).host), None);
    }
}
