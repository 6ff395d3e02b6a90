//! DigitalOcean: <https://docs.digitalocean.com/products/custom-images/details/limits/>
//!
//! xz and zstd are refused; bzip2 times out for large images. An image belongs to one region.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "digitalocean",
    title: "DigitalOcean",
    rules: &[
        PlaceRule::Formats(&["raw.gz", "qcow2", "vhdx", "vmdk", "raw"]),
        PlaceRule::MaxDisk(100_000_000_000),
        PlaceRule::Boot(BootMode::Bios),
        PlaceRule::Drivers(&["virtio_blk", "virtio_scsi", "virtio_net"]),
        PlaceRule::Agent("the metadata service and a config drive"),
    ],
    commands: "# Put it where an HTTPS URL reaches it, for example into a Space, then:
doctl compute image create catamaran --image-url https://HOST/{FILE} --region REGION
",
    tested: "rules only",
};
