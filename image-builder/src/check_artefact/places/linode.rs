//! Akamai Cloud (Linode): <https://techdocs.akamai.com/cloud-computing/docs/upload-an-image>
//!
//! Choose the kernel "Direct Disk", since the image brings its own.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "linode",
    title: "Akamai Cloud (Linode)",
    rules: &[
        PlaceRule::Formats(&["raw.gz"]),
        PlaceRule::MaxFile(6 << 30),
        PlaceRule::Boot(BootMode::Bios),
        PlaceRule::Drivers(&["virtio_scsi", "virtio_net"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the metadata service"),
    ],
    commands: "linode-cli image-upload --label catamaran --region REGION --cloud-init true {FILE}
",
    tested: "rules only",
};
