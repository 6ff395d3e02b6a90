//! Vultr: <https://docs.vultr.com/requirements-for-uploading-an-os-iso-to-vultr>
//!
//! A snapshot is made of a raw image that Vultr fetches; compressed ones are refused.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "vultr",
    title: "Vultr",
    rules: &[
        PlaceRule::Formats(&["raw"]),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["virtio_blk", "virtio_net"]),
        PlaceRule::Agent("the metadata service"),
    ],
    commands: "# Put it where an HTTPS URL reaches it, then:
vultr-cli snapshot create-url --url https://HOST/{FILE} --uefi false
",
    tested: "rules only",
};
