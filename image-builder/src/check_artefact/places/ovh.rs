//! OVHcloud Public Cloud: <https://help.ovhcloud.com/csm/en-public-cloud-compute-upload-own-image>
//!
//! It is an OpenStack; `image_original_user` is what its pages say of the login.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "ovh",
    title: "OVHcloud Public Cloud",
    rules: &[
        PlaceRule::Formats(&["qcow2", "raw"]),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["virtio_blk", "virtio_scsi", "virtio_net"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the metadata service and the config drive"),
    ],
    commands: r"openstack image create catamaran --file {FILE} --disk-format qcow2 --container-format bare \
  --property hw_firmware_type=uefi --property hw_disk_bus=scsi --property hw_scsi_model=virtio-scsi \
  --property hw_qemu_guest_agent=yes --property image_original_user=core
",
    tested: "the file by qemu-img; rules",
};
