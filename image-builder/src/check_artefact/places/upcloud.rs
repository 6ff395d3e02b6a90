//! UpCloud: <https://upcloud.com/docs/guides/import-storage/>
//!
//! A storage is made first, then the image is sent into it.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "upcloud",
    title: "UpCloud",
    rules: &[
        PlaceRule::Formats(&["raw.xz", "raw.gz", "raw"]),
        PlaceRule::Boot(BootMode::Bios),
        PlaceRule::Drivers(&["virtio_blk", "virtio_net"]),
        PlaceRule::Agent("the metadata service"),
    ],
    commands: "upctl storage import --title catamaran --zone ZONE --source-location {FILE}
upctl storage templatise STORAGE --title catamaran
",
    tested: "rules only",
};
