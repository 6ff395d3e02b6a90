//! The one table of platforms, and the way from detection to facts.
//!
//! Knows which platform is looked for before which. Refuses to know how any of them works.
//! Invariant: detection reads files of this machine only, so it takes no time worth measuring.

use std::path::Path;

use crate::evidence::{BootKind, DetectedPlatform, Place, PlatformEvidence};
use crate::providers::{
    akamai, azure, command_line, config_drive, digitalocean, ec2, equinix, exoscale, gce, hetzner, nocloud,
    openstack, oracle, qemu, scaleway, upcloud, vmware, vultr,
};
use crate::{FetchError, Host, InstanceMetadata, MetadataWeb, Platform, WebError, provision};

/// What the table knows of a platform.
struct PlatformEntry {
    platform: Platform,
    /// What gives it away on this machine; asked in the table's order.
    detect: Detect,
    fetch: Fetch,
    /// Reads a document of its metadata. Where they are single lines, the keys of users are all that a document
    /// can hold.
    read_facts: fn(&[u8]) -> InstanceMetadata,
    check_in: CheckIn,
}

enum Detect {
    /// Every volume that it may speak from is found by itself.
    Each(fn(&Host) -> Vec<PlatformEvidence>),
    One(fn(&Host) -> Option<PlatformEvidence>),
}

/// Whether the platform wants to be told that the machine is up.
#[derive(Clone, Copy)]
enum CheckIn {
    Never,
    EachBoot(fn(&MetadataWeb) -> Result<(), WebError>),
    FirstBoot(fn(&MetadataWeb) -> Result<(), WebError>),
}

enum Fetch {
    /// From the place that was found.
    At(fn(&Host, &MetadataWeb, &Place) -> Result<InstanceMetadata, FetchError>),
    Drive(fn(&Host, &Path) -> Result<InstanceMetadata, FetchError>),
    Service(fn(&Host, &MetadataWeb) -> Result<InstanceMetadata, FetchError>),
}

/// In this order where no cloud names itself; [`offer_rank`] says what is different where one does.
// What a person named goes first, then volumes that somebody attached, then what the firmware says. The
// firmware names one cloud at most, so these stand by name.
const TABLE: [PlatformEntry; 18] = [
    PlatformEntry::new(
        Platform::CloudConfigUrl,
        Detect::One(command_line::detect),
        Fetch::Service(command_line::fetch),
    ),
    PlatformEntry::new(Platform::NoCloud, Detect::Each(nocloud::detect), Fetch::At(nocloud::fetch))
        .with_facts(nocloud::meta_data_facts),
    // Before the configuration drive: DigitalOcean attaches one as well, and tells less on it.
    PlatformEntry::new(
        Platform::DigitalOcean,
        Detect::One(digitalocean::detect),
        Fetch::Service(digitalocean::fetch),
    )
    .with_facts(digitalocean::facts),
    PlatformEntry::new(
        Platform::ConfigDrive,
        Detect::Each(config_drive::detect),
        Fetch::Drive(config_drive::fetch),
    )
    .with_facts(openstack::facts),
    // After the volumes, so that its driver is loaded only where none of them was found.
    PlatformEntry::new(Platform::Qemu, Detect::One(qemu::detect), Fetch::Service(qemu::fetch)),
    PlatformEntry::new(Platform::Akamai, Detect::One(akamai::detect), Fetch::Service(akamai::fetch))
        .with_facts(akamai::facts),
    PlatformEntry::new(Platform::Azure, Detect::One(azure::detect), Fetch::Service(azure::fetch))
        .with_facts(azure::facts)
        .with_check_in(CheckIn::EachBoot(azure::check_in)),
    PlatformEntry::new(Platform::Ec2, Detect::One(ec2::detect), Fetch::Service(ec2::fetch)),
    PlatformEntry::new(Platform::Equinix, Detect::One(equinix::detect), Fetch::Service(equinix::fetch))
        .with_facts(equinix::facts)
        .with_check_in(CheckIn::FirstBoot(equinix::check_in)),
    PlatformEntry::new(Platform::Exoscale, Detect::One(exoscale::detect), Fetch::Service(exoscale::fetch)),
    PlatformEntry::new(Platform::Gce, Detect::One(gce::detect), Fetch::Service(gce::fetch))
        .with_facts(gce::facts),
    PlatformEntry::new(Platform::Hetzner, Detect::One(hetzner::detect), Fetch::Service(hetzner::fetch))
        .with_facts(hetzner::facts),
    PlatformEntry::new(Platform::OpenStack, Detect::One(openstack::detect), Fetch::Service(openstack::fetch))
        .with_facts(openstack::facts),
    PlatformEntry::new(Platform::Oracle, Detect::One(oracle::detect), Fetch::Service(oracle::fetch))
        .with_facts(oracle::facts),
    PlatformEntry::new(Platform::Scaleway, Detect::One(scaleway::detect), Fetch::Service(scaleway::fetch))
        .with_facts(scaleway::facts)
        .with_check_in(CheckIn::EachBoot(scaleway::check_in)),
    PlatformEntry::new(Platform::UpCloud, Detect::One(upcloud::detect), Fetch::Service(upcloud::fetch))
        .with_facts(upcloud::facts),
    PlatformEntry::new(Platform::Vmware, Detect::Each(vmware::detect), Fetch::At(vmware::fetch))
        .with_facts(vmware::facts),
    PlatformEntry::new(Platform::Vultr, Detect::One(vultr::detect), Fetch::Service(vultr::fetch))
        .with_facts(vultr::facts),
];

/// Finds out where this machine runs, without asking any network; `None` when nothing says so.
#[must_use]
pub fn detect_platform(host: &Host) -> Option<DetectedPlatform> {
    let at_once = detect_platforms(host, None).into_iter().next();
    if at_once.as_ref().is_some_and(|detected| !detected.needs_network) {
        return at_once;
    }
    // A disk goes before a cloud, and may be slower to appear.
    host.settle_devices();
    detect_platforms(host, None).into_iter().next()
}

/// Everything that would say what this machine is to be, the first of which goes before the others; `wanted`
/// names a platform that is looked for in any case.
#[must_use]
pub fn detect_platforms(host: &Host, wanted: Option<&str>) -> Vec<DetectedPlatform> {
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
    offers.sort_by_key(|offer| offer_rank(offer, cloud));
    offers
}

/// What goes before what, where a cloud names itself in the firmware: what a person named, what the image
/// brings along, the cloud, and last a volume that anybody may have attached. `OpenStack`'s own volume is the
/// cloud's word, and needs no network.
fn offer_rank(offer: &DetectedPlatform, cloud: Option<Platform>) -> u8 {
    // Without a cloud's name a volume is the usual way to be configured, so all places but the command line
    // are equal.
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
        let entry = PlatformEntry::of_platform(platform)?;
        let evidence = PlatformEvidence::from_network(format!("kernel command line: {parameter}={name}"));
        Some(entry.with_evidence(evidence.found_at(Place::CommandLine)))
    })
}

/// Kernel parameters that name the platform; those of other systems work too.
const PLATFORM_PARAMETERS: [&str; 4] =
    ["catamaran.platform", "ignition.platform.id", "flatcar.oem.id", "coreos.oem.id"];

impl PlatformEntry {
    const fn new(platform: Platform, detect: Detect, fetch: Fetch) -> Self {
        Self { platform, detect, fetch, read_facts: provision::keys_only, check_in: CheckIn::Never }
    }

    const fn with_facts(self, read_facts: fn(&[u8]) -> InstanceMetadata) -> Self {
        Self { read_facts, ..self }
    }

    const fn with_check_in(self, check_in: CheckIn) -> Self {
        Self { check_in, ..self }
    }

    fn of_platform(platform: Platform) -> Option<&'static Self> {
        TABLE.iter().find(|entry| entry.platform == platform)
    }

    fn detect_by_table(&self, host: &Host) -> Vec<DetectedPlatform> {
        let evidence = match self.detect {
            Detect::Each(detect) => detect(host),
            Detect::One(detect) => detect(host).into_iter().collect(),
        };
        evidence.into_iter().map(|evidence| self.with_evidence(evidence)).collect()
    }

    fn with_evidence(&self, evidence: PlatformEvidence) -> DetectedPlatform {
        let PlatformEvidence { text, needs_network, place } = evidence;
        DetectedPlatform { platform: self.platform, evidence: text, needs_network, place }
    }
}

impl DetectedPlatform {
    /// Asks the platform what it knows. `Err` means that it told nothing at all; what is missing
    /// or broken in an answer is among [`InstanceMetadata::problems`].
    pub fn fetch_metadata(&self, host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
        let Some(entry) = PlatformEntry::of_platform(self.platform) else {
            return Ok(InstanceMetadata::new(self.platform));
        };
        match (&entry.fetch, &self.place) {
            (Fetch::At(fetch), place) => fetch(host, web, place),
            (Fetch::Drive(fetch), Place::Volume { device, .. }) => fetch(host, device),
            (Fetch::Drive(_), _) => Err(FetchError::Gone { place: self.evidence.clone() }),
            (Fetch::Service(fetch), _) => fetch(host, web),
        }
    }

    /// Tells the platform that this machine is up, where a platform wants to know.
    pub fn check_in(&self, boot: BootKind, web: &MetadataWeb) -> Result<(), FetchError> {
        let Some(entry) = PlatformEntry::of_platform(self.platform) else { return Ok(()) };
        let told = match (entry.check_in, boot) {
            // Azure's goal state and Scaleway's state are of this boot, so both are answered at each. Equinix
            // waits for one call after the installation, as afterburn does it.
            (CheckIn::EachBoot(check_in), _) | (CheckIn::FirstBoot(check_in), BootKind::First) => {
                check_in(web)
            }
            (CheckIn::FirstBoot(_), BootKind::Later) | (CheckIn::Never, _) => Ok(()),
        };
        told.map_err(self.platform.fetch_failed())
    }
}

impl Platform {
    /// Reads a document as this platform's metadata, without asking anyone; what is wrong with it is
    /// among [`InstanceMetadata::problems`]. Platforms whose metadata are single lines take it as keys.
    #[must_use]
    pub fn read_document(self, document: &[u8]) -> InstanceMetadata {
        let read_facts = PlatformEntry::of_platform(self)
            .map_or(provision::keys_only as fn(&[u8]) -> _, |entry| entry.read_facts);
        InstanceMetadata { platform: self, ..read_facts(document) }
    }
}
