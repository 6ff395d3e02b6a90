//! The one table of platforms, and the way from detection to facts.
//!
//! Knows which platform is looked for before which. Refuses to know how any of them works.
//! Invariant: detection reads files of this machine only, so it takes no time worth measuring.

use std::io;

use crate::{
    Host, Provision, Web, WebError, akamai, azure, command_line, config_drive, digitalocean, ec2, equinix,
    exoscale, gce, hetzner, nocloud, openstack, oracle, provision, qemu, scaleway, upcloud, vmware, vultr,
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
pub struct Detected {
    /// Where this machine runs.
    pub platform: Platform,
    /// What gave it away, for a person to read.
    pub evidence: String,
    /// Whether [`Detected::fetch`] needs a working network.
    pub needs_network: bool,
}

/// Which boot it is in the life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
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
struct Entry {
    platform: Platform,
    /// What gives it away on this machine; asked in the table's order.
    detect: fn(&Host) -> Option<Evidence>,
    fetch: fn(&Host, &Web) -> Result<Provision, FetchError>,
}

/// What a platform's `detect` found.
pub(crate) struct Evidence {
    text: String,
    needs_network: bool,
}

/// First what a person asked for by name, then disks that somebody attached, then the clouds.
/// `DigitalOcean` goes before the config drive, which it attaches too but tells less on.
const TABLE: [Entry; 18] = [
    Entry { platform: Platform::CloudConfigUrl, detect: command_line::detect, fetch: command_line::fetch },
    Entry { platform: Platform::NoCloud, detect: nocloud::detect, fetch: nocloud::fetch },
    Entry { platform: Platform::DigitalOcean, detect: digitalocean::detect, fetch: digitalocean::fetch },
    Entry { platform: Platform::ConfigDrive, detect: config_drive::detect, fetch: config_drive::fetch },
    Entry { platform: Platform::Qemu, detect: qemu::detect, fetch: qemu::fetch },
    Entry { platform: Platform::Akamai, detect: akamai::detect, fetch: akamai::fetch },
    Entry { platform: Platform::Azure, detect: azure::detect, fetch: azure::fetch },
    Entry { platform: Platform::Ec2, detect: ec2::detect, fetch: ec2::fetch },
    Entry { platform: Platform::Equinix, detect: equinix::detect, fetch: equinix::fetch },
    Entry { platform: Platform::Exoscale, detect: exoscale::detect, fetch: exoscale::fetch },
    Entry { platform: Platform::Gce, detect: gce::detect, fetch: gce::fetch },
    Entry { platform: Platform::Hetzner, detect: hetzner::detect, fetch: hetzner::fetch },
    Entry { platform: Platform::OpenStack, detect: openstack::detect, fetch: openstack::fetch },
    Entry { platform: Platform::Oracle, detect: oracle::detect, fetch: oracle::fetch },
    Entry { platform: Platform::Scaleway, detect: scaleway::detect, fetch: scaleway::fetch },
    Entry { platform: Platform::UpCloud, detect: upcloud::detect, fetch: upcloud::fetch },
    Entry { platform: Platform::Vmware, detect: vmware::detect, fetch: vmware::fetch },
    Entry { platform: Platform::Vultr, detect: vultr::detect, fetch: vultr::fetch },
];

/// Finds out where this machine runs, without asking any network; `None` when nothing says so.
#[must_use]
pub fn detect(host: &Host) -> Option<Detected> {
    let at_once = found(host);
    if at_once.as_ref().is_some_and(|detected| !detected.needs_network) {
        return at_once;
    }
    // A disk goes before a cloud, and may be slower to appear.
    host.settle_devices();
    found(host)
}

fn found(host: &Host) -> Option<Detected> {
    named(host).or_else(|| TABLE.iter().find_map(|entry| Some(entry.detected((entry.detect)(host)?))))
}

/// The platform that the kernel command line names.
fn named(host: &Host) -> Option<Detected> {
    PLATFORM_PARAMETERS.iter().find_map(|parameter| {
        let name = host.parameter(parameter)?;
        let platform = Platform::from_name(&name)?;
        let entry = TABLE.iter().find(|entry| entry.platform == platform)?;
        Some(entry.detected(Evidence::network(format!("kernel command line: {parameter}={name}"))))
    })
}

/// Kernel parameters that name the platform; those of other systems work too.
const PLATFORM_PARAMETERS: [&str; 4] =
    ["catamaran.platform", "ignition.platform.id", "flatcar.oem.id", "coreos.oem.id"];

impl Entry {
    fn detected(&self, evidence: Evidence) -> Detected {
        Detected { platform: self.platform, evidence: evidence.text, needs_network: evidence.needs_network }
    }
}

impl Evidence {
    /// Found in the firmware's strings: each field may be a whole text, or a start with `*` behind.
    pub(crate) fn firmware(host: &Host, signs: &[(&str, &str)]) -> Option<Self> {
        signs.iter().find_map(|(field, sign)| {
            let value = host.dmi(field);
            let found = match sign.strip_suffix('*') {
                Some(start) => value.to_ascii_lowercase().starts_with(&start.to_ascii_lowercase()),
                None => value.eq_ignore_ascii_case(sign),
            };
            found.then(|| Self::network(format!("SMBIOS {}: {value}", field.replace('_', " "))))
        })
    }

    /// Found on this machine, where everything else is too.
    pub(crate) fn local(text: impl Into<String>) -> Self {
        Self { text: text.into(), needs_network: false }
    }

    /// The same, but whatever is to be read is on this machine.
    pub(crate) fn without_network(self) -> Self {
        Self { needs_network: false, ..self }
    }

    /// Found on this machine, but the rest must be asked for.
    pub(crate) fn network(text: impl Into<String>) -> Self {
        Self { text: text.into(), needs_network: true }
    }
}

impl Detected {
    /// Asks the platform what it knows. `Err` means that it told nothing at all; what is missing
    /// or broken in an answer is among [`Provision::problems`].
    pub fn fetch(&self, host: &Host, web: &Web) -> Result<Provision, FetchError> {
        match TABLE.iter().find(|entry| entry.platform == self.platform) {
            Some(entry) => (entry.fetch)(host, web),
            None => Ok(Provision::new(self.platform)),
        }
    }
}

impl Detected {
    /// Tells the platform that this machine is up, where a platform wants to know.
    pub fn check_in(&self, boot: Boot, web: &Web) -> Result<(), FetchError> {
        let told = match self.platform {
            Platform::Azure => azure::check_in(web),
            Platform::Equinix if boot == Boot::First => equinix::check_in(web),
            Platform::Scaleway => scaleway::check_in(web),
            _ => Ok(()),
        };
        told.map_err(self.platform.silent())
    }
}

impl Platform {
    /// Reads a document as this platform's metadata, without asking anyone; what is wrong with it is
    /// among [`Provision::problems`]. Platforms whose metadata are single lines take it as keys.
    #[must_use]
    pub fn facts(self, document: &[u8]) -> Provision {
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
        Provision { platform: self, ..facts(document) }
    }

    /// Says that this platform's web service was no help.
    pub(crate) fn silent(self) -> impl Fn(WebError) -> FetchError {
        move |source| FetchError::Web { platform: self.name(), source }
    }

    /// Says that this platform has no document on this machine.
    pub(crate) fn unknown(self) -> FetchError {
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
