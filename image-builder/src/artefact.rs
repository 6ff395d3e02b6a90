//! What an image can be converted to, by the names that people type.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use disk_formats::format::Format;

/// A kind of artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArtefactKind {
    Disk(Format),
    Gce,
    Ova,
    VagrantLibvirt,
    VagrantQemu,
    VagrantVirtualbox,
}

impl ArtefactKind {
    pub(crate) const ALL: [Self; 17] = [
        Self::Disk(Format::Bmap),
        Self::Gce,
        Self::Ova,
        Self::Disk(Format::Qcow2),
        Self::Disk(Format::Qcow2Zstd),
        Self::Disk(Format::Raw),
        Self::Disk(Format::RawGz),
        Self::Disk(Format::RawXz),
        Self::Disk(Format::RawZst),
        Self::VagrantLibvirt,
        Self::VagrantQemu,
        Self::VagrantVirtualbox,
        Self::Disk(Format::Vhd),
        Self::Disk(Format::VhdFixed),
        Self::Disk(Format::Vhdx),
        Self::Disk(Format::Vmdk),
        Self::Disk(Format::VmdkSparse),
    ];

    pub(crate) const fn kind_name(self) -> &'static str {
        match self {
            Self::Disk(format) => format.option_name(),
            Self::Gce => "gce",
            Self::Ova => "ova",
            Self::VagrantLibvirt => "vagrant-libvirt",
            Self::VagrantQemu => "vagrant-qemu",
            Self::VagrantVirtualbox => "vagrant-virtualbox",
        }
    }

    /// What is put behind an image's name.
    pub(crate) const fn file_suffix(self) -> &'static str {
        match self {
            Self::Disk(format) => format.file_suffix(),
            Self::Gce => ".gce.tar.gz",
            Self::Ova => ".ova",
            Self::VagrantLibvirt => "-libvirt.box",
            Self::VagrantQemu => "-qemu.box",
            Self::VagrantVirtualbox => "-virtualbox.box",
        }
    }

    /// The format that it is, or that its disk has.
    pub(crate) const fn disk_format(self) -> Format {
        match self {
            Self::Disk(format) => format,
            Self::Gce => Format::RawGz,
            Self::Ova | Self::VagrantVirtualbox => Format::Vmdk,
            Self::VagrantLibvirt | Self::VagrantQemu => Format::Qcow2,
        }
    }

    pub(crate) const fn is_disk(self) -> bool {
        matches!(self, Self::Disk(_))
    }

    pub(crate) const fn is_box(self) -> bool {
        matches!(self, Self::VagrantLibvirt | Self::VagrantQemu | Self::VagrantVirtualbox)
    }

    /// The kind with that name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.kind_name() == name)
    }

    const fn kind_help(self) -> &'static str {
        match self {
            Self::Disk(Format::Bmap) => "block map: what a flasher must write",
            Self::Disk(Format::Qcow2) => "qcow2, deflate: OpenStack, Proxmox, Scaleway",
            Self::Disk(Format::Qcow2Zstd) => "qcow2, zstd: QEMU since 5.1",
            Self::Disk(Format::Raw) => "the disk itself, with a block map",
            Self::Disk(Format::RawGz) => "gzip: DigitalOcean, Linode",
            Self::Disk(Format::RawXz) => "xz: UpCloud; small and slow",
            Self::Disk(Format::RawZst) => "zstd: flash, Hetzner; fast",
            Self::Disk(Format::Vhd) => "VHD, dynamic: Hyper-V generation 1, AWS",
            Self::Disk(Format::VhdFixed) => "VHD, fixed: Azure",
            Self::Disk(Format::Vhdx) => "VHDX: Hyper-V",
            Self::Disk(Format::Vmdk) => "VMDK, streamOptimized: Oracle, imports",
            Self::Disk(Format::VmdkSparse) => "VMDK, monolithicSparse: VMware Workstation",
            Self::Gce => "tar.gz with disk.raw: Google Cloud",
            Self::Ova => "OVF and VMDK: VMware vSphere and ESXi",
            Self::VagrantLibvirt => "box with qcow2",
            Self::VagrantQemu => "box with qcow2, for the plugin vagrant-qemu",
            Self::VagrantVirtualbox => "box with OVF and VMDK",
        }
    }
}

impl ValueEnum for ArtefactKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.kind_name()).help(self.kind_help()))
    }
}
