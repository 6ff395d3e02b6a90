//! OpenStack: <https://docs.openstack.org/glance/latest/admin/useful-image-properties.html>
//!
//! Some clouds take raw only, for Ceph.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "openstack",
    title: "OpenStack",
    rules: &[
        PlaceRule::Formats(&["qcow2", "raw"]),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["virtio_blk", "virtio_scsi", "virtio_net"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the metadata service and the config drive"),
    ],
    commands: r"openstack image create catamaran --file {FILE} --disk-format qcow2 --container-format bare \
  --property hw_firmware_type=uefi --property hw_machine_type=q35 --property os_secure_boot=optional \
  --property hw_disk_bus=scsi --property hw_scsi_model=virtio-scsi --property hw_vif_multiqueue_enabled=true \
  --property hw_rng_model=virtio --property hw_watchdog_action=reset --property os_type=linux
",
    tested: "the file by qemu-img; rules",
};
