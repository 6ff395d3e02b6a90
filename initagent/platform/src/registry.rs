//! The one table of platforms, and the way from detection to facts.
//!
//! Knows which platform is looked for before which. Refuses to know how any of them works.
//! Invariant: detection reads files of this machine only, so it takes no time worth measuring.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    Host, InstanceMetadata, MetadataWeb, Payload, WebError, akamai, azure, command_line, config_drive,
    digitalocean, ec2, equinix, exoscale, gce, hetzner, nocloud, openstack, oracle, provision, qemu,
    scaleway, upcloud, vmware, vultr,
};

/// A place that machines run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// Akamai, formerly Linode.
    Akamai,
    /// Microsoft Azure.
    Azure,
    /// The address in `cloud-config-url=` on the kernel command line.
    CloudConfigUrl,
    /// OpenStack's disk labelled `config-2`; `KubeVirt`, Nutanix and others have it too.
    ConfigDrive,
    /// `DigitalOcean`.
    DigitalOcean,
    /// Amazon EC2.
    Ec2,
    /// Equinix Metal, formerly Packet.
    Equinix,
    /// Exoscale.
    Exoscale,
    /// Google Compute Engine.
    Gce,
    /// Hetzner Cloud.
    Hetzner,
    /// No place that says anything.
    #[default]
    Metal,
    /// A seed directory, a disk labelled `cidata` or a web server named at start.
    NoCloud,
    /// OpenStack's metadata service.
    OpenStack,
    /// Oracle Cloud.
    Oracle,
    /// QEMU's `-fw_cfg`.
    Qemu,
    /// Scaleway.
    Scaleway,
    /// `UpCloud`.
    UpCloud,
    /// VMware's guestinfo and OVF environment.
    Vmware,
    /// Vultr.
    Vultr,
}

/// The platform this machine runs on, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectedPlatform {
    /// Where this machine runs.
    pub platform: Platform,
    /// What gave it away, for a person to read.
    pub evidence: String,
    /// Whether [`Detected::fetch_metadata`] needs a working network.
    pub needs_network: bool,
    /// What it speaks from.
    pub place: Place,
}

/// What a platform speaks from, which decides who could have put it there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootKind {
    /// The one that configured it.
    First,
    /// Any other.
    Later,
}

/// Why a platform that was detected told nothing.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FetchError {
    #[error("{platform} does not say anything about this machine")]
    Web { platform: &'static str, source: WebError },
    #[error("cannot read {file} of {place}")]
    Disk { file: String, place: String, source: io::Error },
    #[error("{place} is gone since it was detected")]
    Gone { place: String },
    #[error("{platform} answered, but knows nothing of this machine")]
    Unknown { platform: &'static str },
}

/// What the table knows of a platform.
struct PlatformEntry {
    platform: Platform,
    /// What gives it away on this machine; asked in the table's order.
    detect: Detect,
    fetch: Fetch,
}

enum Detect {
    /// Every volume that it may speak from is found by itself.
    Each(fn(&Host) -> Vec<PlatformEvidence>),
    One(fn(&Host) -> Option<PlatformEvidence>),
}

enum Fetch {
    /// From the place that was found.
    At(fn(&Host, &MetadataWeb, &Place) -> Result<InstanceMetadata, FetchError>),
    Drive(fn(&Host, &Path) -> Result<InstanceMetadata, FetchError>),
    Service(fn(&Host, &MetadataWeb) -> Result<InstanceMetadata, FetchError>),
}

/// What a platform's `detect` found.
pub(crate) struct PlatformEvidence {
    text: String,
    needs_network: bool,
    place: Place,
}

/// In this order where no cloud names itself; [`rank`] says what is different where one does.
const TABLE: [PlatformEntry; 18] = [
    PlatformEntry {
        platform: Platform::CloudConfigUrl,
        detect: Detect::One(command_line::detect),
        fetch: Fetch::Service(command_line::fetch),
    },
    PlatformEntry {
        platform: Platform::NoCloud,
        detect: Detect::Each(nocloud::detect),
        fetch: Fetch::At(nocloud::fetch),
    },
    PlatformEntry {
        platform: Platform::DigitalOcean,
        detect: Detect::One(digitalocean::detect),
        fetch: Fetch::Service(digitalocean::fetch),
    },
    PlatformEntry {
        platform: Platform::ConfigDrive,
        detect: Detect::Each(config_drive::detect),
        fetch: Fetch::Drive(config_drive::fetch),
    },
    PlatformEntry {
        platform: Platform::Qemu,
        detect: Detect::One(qemu::detect),
        fetch: Fetch::Service(qemu::fetch),
    },
    PlatformEntry {
        platform: Platform::Akamai,
        detect: Detect::One(akamai::detect),
        fetch: Fetch::Service(akamai::fetch),
    },
    PlatformEntry {
        platform: Platform::Azure,
        detect: Detect::One(azure::detect),
        fetch: Fetch::Service(azure::fetch),
    },
    PlatformEntry {
        platform: Platform::Ec2,
        detect: Detect::One(ec2::detect),
        fetch: Fetch::Service(ec2::fetch),
    },
    PlatformEntry {
        platform: Platform::Equinix,
        detect: Detect::One(equinix::detect),
        fetch: Fetch::Service(equinix::fetch),
    },
    PlatformEntry {
        platform: Platform::Exoscale,
        detect: Detect::One(exoscale::detect),
        fetch: Fetch::Service(exoscale::fetch),
    },
    PlatformEntry {
        platform: Platform::Gce,
        detect: Detect::One(gce::detect),
        fetch: Fetch::Service(gce::fetch),
    },
    PlatformEntry {
        platform: Platform::Hetzner,
        detect: Detect::One(hetzner::detect),
        fetch: Fetch::Service(hetzner::fetch),
    },
    PlatformEntry {
        platform: Platform::OpenStack,
        detect: Detect::One(openstack::detect),
        fetch: Fetch::Service(openstack::fetch),
    },
    PlatformEntry {
        platform: Platform::Oracle,
        detect: Detect::One(oracle::detect),
        fetch: Fetch::Service(oracle::fetch),
    },
    PlatformEntry {
        platform: Platform::Scaleway,
        detect: Detect::One(scaleway::detect),
        fetch: Fetch::Service(scaleway::fetch),
    },
    PlatformEntry {
        platform: Platform::UpCloud,
        detect: Detect::One(upcloud::detect),
        fetch: Fetch::Service(upcloud::fetch),
    },
    PlatformEntry {
        platform: Platform::Vmware,
        detect: Detect::Each(vmware::detect),
        fetch: Fetch::At(vmware::fetch),
    },
    PlatformEntry {
        platform: Platform::Vultr,
        detect: Detect::One(vultr::detect),
        fetch: Fetch::Service(vultr::fetch),
    },
];

/// Finds out where this machine runs, without asking any network; `None` when nothing says so.
#[must_use]
pub fn detect_platform(host: &Host) -> Option<DetectedPlatform> {
    let at_once = offers(host, None).into_iter().next();
    if at_once.as_ref().is_some_and(|detected| !detected.needs_network) {
        return at_once;
    }
    // A disk goes before a cloud, and may be slower to appear.
    host.settle_devices();
    offers(host, None).into_iter().next()
}

/// Everything that would say what this machine is to be, the first of which goes before the others; `wanted`
/// names a platform that is looked for in any case.
#[must_use]
pub fn offers(host: &Host, wanted: Option<&str>) -> Vec<DetectedPlatform> {
    let mut offers: Vec<DetectedPlatform> = detect_by_name(host).into_iter().collect();
    for entry in &TABLE {
        // To load its driver takes longer than everything else, and nobody can attach it later.
        let is_slow = entry.platform == Platform::Qemu && wanted != Some(entry.platform.name());
        if !is_slow || offers.iter().all(|offer| offer.needs_network) {
            offers.extend(entry.detect_by_table(host));
        }
    }
    let cloud = offers.iter().find(|offer| offer.is_cloud()).map(|offer| offer.platform);
    // Who names it means its volumes, too, wherever the machine is.
    let cloud = cloud.filter(|_| !nocloud::is_named(host));
    // It attaches a drive, too, and tells less on it.
    let is_less = |offer: &DetectedPlatform| {
        cloud == Some(Platform::DigitalOcean) && offer.platform == Platform::ConfigDrive
    };
    offers.retain(|offer| !is_less(offer));
    // Of equal ranks the table's order stays.
    offers.sort_by_key(|offer| rank(offer, cloud));
    offers
}

/// What goes before what, where a cloud names itself in the firmware: what a person named, what the image
/// brings along, the cloud, and last a volume that anybody may have attached. `OpenStack`'s own volume is the
/// cloud's word, and needs no network.
fn rank(offer: &DetectedPlatform, cloud: Option<Platform>) -> u8 {
    let Some(cloud) = cloud else { return u8::from(offer.place != Place::CommandLine) };
    match offer.place {
        Place::CommandLine => 0,
        Place::OwnDisk => 1,
        Place::Volume { .. } if (cloud, offer.platform) == (Platform::OpenStack, Platform::ConfigDrive) => 2,
        Place::Firmware => 3,
        Place::Volume { .. } => 4,
    }
}

/// The platform that the kernel command line names.
fn detect_by_name(host: &Host) -> Option<DetectedPlatform> {
    PLATFORM_PARAMETERS.iter().find_map(|parameter| {
        let name = host.kernel_parameter(parameter)?;
        let platform = Platform::from_name(&name)?;
        let entry = TABLE.iter().find(|entry| entry.platform == platform)?;
        let evidence = PlatformEvidence::from_network(format!("kernel command line: {parameter}={name}"));
        Some(entry.detected(evidence.at(Place::CommandLine)))
    })
}

/// Kernel parameters that name the platform; those of other systems work too.
const PLATFORM_PARAMETERS: [&str; 4] =
    ["catamaran.platform", "ignition.platform.id", "flatcar.oem.id", "coreos.oem.id"];

impl PlatformEntry {
    fn detect_by_table(&self, host: &Host) -> Vec<DetectedPlatform> {
        let evidence = match self.detect {
            Detect::Each(detect) => detect(host),
            Detect::One(detect) => detect(host).into_iter().collect(),
        };
        evidence.into_iter().map(|evidence| self.detected(evidence)).collect()
    }

    fn detected(&self, evidence: PlatformEvidence) -> DetectedPlatform {
        let PlatformEvidence { text, needs_network, place } = evidence;
        DetectedPlatform { platform: self.platform, evidence: text, needs_network, place }
    }
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
    pub(crate) fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The same, found on a volume that says this, and the rest at an address.
    pub(crate) fn on_volume(self, device: &Path, said: &InstanceMetadata, elsewhere: Option<&str>) -> Self {
        let content = Payload::from_bytes(said.obeyed(elsewhere)).unwrap_or_default();
        self.at(Place::Volume { device: device.to_owned(), content })
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
    /// Asks the platform what it knows. `Err` means that it told nothing at all; what is missing
    /// or broken in an answer is among [`Provision::problems`].
    pub fn fetch_metadata(&self, host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
        let Some(entry) = TABLE.iter().find(|entry| entry.platform == self.platform) else {
            return Ok(InstanceMetadata::new(self.platform));
        };
        match (&entry.fetch, &self.place) {
            (Fetch::At(fetch), place) => fetch(host, web, place),
            (Fetch::Drive(fetch), Place::Volume { device, .. }) => fetch(host, device),
            (Fetch::Drive(_), _) => Err(FetchError::Gone { place: self.evidence.clone() }),
            (Fetch::Service(fetch), _) => fetch(host, web),
        }
    }

    /// Whether the firmware names a cloud, which has its own way to say everything. VMware is none: its users
    /// attach volumes as QEMU's do.
    fn is_cloud(&self) -> bool {
        let is_hypervisor = matches!(self.platform, Platform::NoCloud | Platform::Qemu | Platform::Vmware);
        self.place == Place::Firmware && !is_hypervisor
    }
}

impl DetectedPlatform {
    /// Tells the platform that this machine is up, where a platform wants to know.
    pub fn check_in(&self, boot: BootKind, web: &MetadataWeb) -> Result<(), FetchError> {
        let told = match self.platform {
            Platform::Azure => azure::check_in(web),
            Platform::Equinix if boot == BootKind::First => equinix::check_in(web),
            Platform::Scaleway => scaleway::check_in(web),
            _ => Ok(()),
        };
        told.map_err(self.platform.fetch_failed())
    }
}

impl Platform {
    /// Reads a document as this platform's metadata, without asking anyone; what is wrong with it is
    /// among [`Provision::problems`]. Platforms whose metadata are single lines take it as keys.
    #[must_use]
    pub fn read_document(self, document: &[u8]) -> InstanceMetadata {
        let facts = match self {
            Self::Akamai => akamai::facts,
            Self::Azure => azure::facts,
            Self::ConfigDrive | Self::OpenStack => openstack::facts,
            Self::DigitalOcean => digitalocean::facts,
            Self::Equinix => equinix::facts,
            Self::Gce => gce::facts,
            Self::Hetzner => hetzner::facts,
            Self::NoCloud => nocloud::meta_data_facts,
            Self::Oracle => oracle::facts,
            Self::Scaleway => scaleway::facts,
            Self::UpCloud => upcloud::facts,
            Self::Vmware => vmware::facts,
            Self::Vultr => vultr::facts,
            Self::CloudConfigUrl | Self::Ec2 | Self::Exoscale | Self::Metal | Self::Qemu => {
                provision::keys_only
            }
        };
        InstanceMetadata { platform: self, ..facts(document) }
    }

    /// Says that this platform's web service was no help.
    pub(crate) fn fetch_failed(self) -> impl Fn(WebError) -> FetchError {
        move |source| FetchError::Web { platform: self.name(), source }
    }

    /// Says that this platform has no document on this machine.
    pub(crate) fn no_metadata(self) -> FetchError {
        FetchError::Unknown { platform: self.name() }
    }

    /// The name in reports and in `catamaran.platform=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Akamai => "akamai",
            Self::Azure => "azure",
            Self::CloudConfigUrl => "cloud-config-url",
            Self::ConfigDrive => "config-drive",
            Self::DigitalOcean => "digitalocean",
            Self::Ec2 => "ec2",
            Self::Equinix => "equinix",
            Self::Exoscale => "exoscale",
            Self::Gce => "gce",
            Self::Hetzner => "hetzner",
            Self::Metal => "metal",
            Self::NoCloud => "nocloud",
            Self::OpenStack => "openstack",
            Self::Oracle => "oracle",
            Self::Qemu => "qemu",
            Self::Scaleway => "scaleway",
            Self::UpCloud => "upcloud",
            Self::Vmware => "vmware",
            Self::Vultr => "vultr",
        }
    }

    /// By our name, or by the one Ignition, afterburn or Flatcar has for it.
    ///
    /// Platforms that speak through a disk are not in here: their disk is found by its label.
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "akamai" => Some(Self::Akamai),
            "azure" | "azurestack" => Some(Self::Azure),
            "digitalocean" => Some(Self::DigitalOcean),
            "aws" | "ec2" => Some(Self::Ec2),
            "equinix" | "packet" => Some(Self::Equinix),
            "exoscale" => Some(Self::Exoscale),
            "gce" | "gcp" => Some(Self::Gce),
            "hetzner" => Some(Self::Hetzner),
            "openstack" => Some(Self::OpenStack),
            "oracle" | "oraclecloud" => Some(Self::Oracle),
            "scaleway" => Some(Self::Scaleway),
            "upcloud" => Some(Self::UpCloud),
            "vmware" => Some(Self::Vmware),
            "vultr" => Some(Self::Vultr),
            _ => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
