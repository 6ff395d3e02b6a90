//! The names of the platforms, and why one of them told nothing.
//!
//! Knows each platform by its name in reports and by the names that other systems have for it. Refuses to know
//! how any of them works: [`crate::registry`] does, on top of the providers.
//! Invariant: imports no provider, so that a provider may import it.

use std::io;

use crate::WebError;

/// A place that machines run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

impl Platform {
    const ALL: [Self; 19] = [
        Self::Akamai,
        Self::Azure,
        Self::CloudConfigUrl,
        Self::ConfigDrive,
        Self::DigitalOcean,
        Self::Ec2,
        Self::Equinix,
        Self::Exoscale,
        Self::Gce,
        Self::Hetzner,
        Self::Metal,
        Self::NoCloud,
        Self::OpenStack,
        Self::Oracle,
        Self::Qemu,
        Self::Scaleway,
        Self::UpCloud,
        Self::Vmware,
        Self::Vultr,
    ];

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

    /// The platform of that [`Platform::name`].
    #[must_use]
    pub fn from_report_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.name() == name)
    }

    /// By our name, or by the one Ignition, afterburn or Flatcar has for it.
    ///
    /// Platforms that speak through a disk are not in here: their disk is found by its label.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "akamai" => Some(Self::Akamai),
            // Ignition and afterburn have names of their own for some. A command line written for them works here.
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
