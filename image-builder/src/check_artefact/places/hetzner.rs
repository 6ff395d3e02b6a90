//! Hetzner Cloud: <https://github.com/apricote/hcloud-upload-image>
//!
//! There is no import: a helper writes the image from the rescue system, and makes a snapshot of the disk.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "hetzner",
    title: "Hetzner Cloud",
    rules: &[
        PlaceRule::Formats(&["raw.zst", "raw.xz", "raw.gz", "raw"]),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["virtio_scsi", "virtio_net"]),
        PlaceRule::Agent("the metadata service"),
    ],
    commands: "hcloud-upload-image upload --image-path {FILE} --compression zstd --architecture x86    # or xz; raw without --compression
",
    tested: "rules only",
};
