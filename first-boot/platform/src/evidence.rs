//! What gives a platform away, and what was detected by it.
//!
//! Knows where a word about this machine can come from, which decides whom it is believed. Refuses to know the
//! platforms: each says for itself what its evidence is.

use std::path::{Path, PathBuf};

use crate::{Host, InstanceMetadata, Payload, Platform};

/// The platform this machine runs on, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedPlatform {
    /// Where this machine runs.
    pub platform: Platform,
    /// What gave it away, for a person to read.
    pub evidence: String,
    /// Whether [`DetectedPlatform::fetch_metadata`] needs a working network.
    pub needs_network: bool,
    /// What it speaks from.
    pub place: Place,
}

/// What a platform speaks from, which decides who could have put it there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// The kernel command line, which is part of the image.
    CommandLine,
    /// The firmware, which the hypervisor or the maker of the machine fills.
    #[default]
    Firmware,
    /// A folder on the disk that this machine was started from.
    OwnDisk,
    /// A disk or CD with a label: whoever may attach one.
    Volume {
        /// The device; its name may be another at the next boot.
        device: PathBuf,
        /// Everything on it that would be obeyed, to tell it from others.
        content: Payload,
    },
}

/// Which boot it is in the life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootKind {
    /// The one that configured it.
    First,
    /// Any other.
    Later,
}

/// What a platform's `detect` found.
pub(crate) struct PlatformEvidence {
    pub(crate) text: String,
    pub(crate) needs_network: bool,
    pub(crate) place: Place,
}

impl PlatformEvidence {
    /// Found in the firmware's strings: each field may be a whole text, or a start with `*` behind.
    pub(crate) fn from_firmware(host: &Host, signs: &[(&str, &str)]) -> Option<Self> {
        signs.iter().find_map(|(field, sign)| {
            let value = host.dmi_field(field);
            let found = match sign.strip_suffix('*') {
                Some(start) => value.to_ascii_lowercase().starts_with(&start.to_ascii_lowercase()),
                None => value.eq_ignore_ascii_case(sign),
            };
            found.then(|| Self::from_network(format!("SMBIOS {}: {value}", field.replace('_', " "))))
        })
    }

    /// Found on this machine, where everything else is too.
    pub(crate) fn from_machine(text: impl Into<String>) -> Self {
        Self { text: text.into(), needs_network: false, place: Place::Firmware }
    }

    /// The same, found elsewhere.
    pub(crate) fn found_at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The same, found on a volume that says this, and the rest at an address.
    pub(crate) fn on_volume(self, device: &Path, said: &InstanceMetadata, elsewhere: Option<&str>) -> Self {
        let content = Payload::from_bytes(said.obeyed_content(elsewhere)).unwrap_or_default();
        self.found_at(Place::Volume { device: device.to_owned(), content })
    }

    /// The same, but whatever is to be read is on this machine.
    pub(crate) fn without_network(self) -> Self {
        Self { needs_network: false, ..self }
    }

    /// Found on this machine, but the rest must be asked for.
    pub(crate) fn from_network(text: impl Into<String>) -> Self {
        Self { text: text.into(), needs_network: true, place: Place::Firmware }
    }
}

impl DetectedPlatform {
    /// Whether the firmware names a cloud, which has its own way to say everything. VMware is none: its users
    /// attach volumes as QEMU's do.
    pub(crate) fn is_cloud(&self) -> bool {
        let is_hypervisor = matches!(self.platform, Platform::NoCloud | Platform::Qemu | Platform::Vmware);
        self.place == Place::Firmware && !is_hypervisor
    }
}
