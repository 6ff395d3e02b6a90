//! The steps of a build.
//!
//! Knows their names and their order, which stands here only: the plan lists it and the progress follows it.

/// The steps of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildStep {
    Resolve,
    Download,
    Bootstrap,
    Compose,
    Initramfs,
    RootFileSystem,
    Verity,
    BootLoaders,
    State,
    Reports,
    Publish,
}

impl BuildStep {
    pub(crate) const ALL: [Self; 11] = [
        Self::Resolve,
        Self::Download,
        Self::Bootstrap,
        Self::Compose,
        Self::Initramfs,
        Self::RootFileSystem,
        Self::Verity,
        Self::BootLoaders,
        Self::State,
        Self::Reports,
        Self::Publish,
    ];

    /// A short name, stable for machines.
    pub(crate) fn step_name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Download => "download",
            Self::Bootstrap => "bootstrap",
            Self::Compose => "compose",
            Self::Initramfs => "initramfs",
            Self::RootFileSystem => "root",
            Self::Verity => "verity",
            Self::BootLoaders => "boot",
            Self::State => "state",
            Self::Reports => "reports",
            Self::Publish => "publish",
        }
    }

    /// What it does, for people.
    pub(crate) fn step_sentence(self) -> &'static str {
        match self {
            Self::Resolve => "choose the version of every package",
            Self::Download => "fetch packages that are not in the cache",
            Self::Bootstrap => {
                "unpack and configure the packages into a root tree, and the programs that write disks"
            }
            Self::Compose => "leave out what no listed package needs, lay the overlays over it",
            Self::Initramfs => "pack initagent, kernel modules and release keys",
            Self::RootFileSystem => "write the root as ext4 into slot A",
            Self::Verity => "hash slot A, sign its manifest",
            Self::BootLoaders => "write GRUB, the ESP and the slot table",
            Self::State => "make the file system of STATE",
            Self::Reports => "write lock, SBOM and sizes",
            Self::Publish => "put the finished files in their place",
        }
    }
}
