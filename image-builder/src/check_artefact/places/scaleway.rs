//! Scaleway: <https://www.scaleway.com/en/docs/instances/how-to/snapshot-import-export-feature/>
//!
//! The object's name must end in .qcow2.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "scaleway",
    title: "Scaleway",
    rules: &[
        PlaceRule::Formats(&["qcow2"]),
        PlaceRule::Boot(BootMode::Uefi),
        PlaceRule::Drivers(&["virtio_scsi", "virtio_net"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the metadata service"),
    ],
    commands: "aws s3 cp {FILE} s3://BUCKET/catamaran.qcow2 --endpoint-url https://s3.REGION.scw.cloud
scw block snapshot import-from-object-storage name=catamaran bucket=BUCKET key=catamaran.qcow2 size=20GB
scw instance image create name=catamaran arch=x86_64 snapshot-id=SNAPSHOT
",
    tested: "the file by qemu-img; rules",
};
