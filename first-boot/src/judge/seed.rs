//! The files of a seed, and what the machine would make of them.
//!
//! Knows that some files refer to others, or hold a document inside another. Refuses to read them its own way: the
//! platform's functions do, so that what is judged here is what the machine gets. Invariant: a seed is never silently
//! less than what is in it.

use std::io;
use std::path::Path;

use platform::seed::{config_drive_metadata, nocloud_metadata};
use platform::{InstanceMetadata, Payload};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// By its name and content.
    Guessed,
    /// What the platform was asked to place.
    Files,
    /// Facts of the instance.
    MetaData,
    /// A network configuration.
    NetworkConfig,
    /// The owner's word.
    UserData,
    /// The platform operator's word.
    VendorData,
}

/// Gives the content of a file of a seed; `None` when there is none.
pub(super) type OpenFile<'o> = &'o mut dyn FnMut(&str) -> io::Result<Option<Vec<u8>>>;

/// A file that was read.
#[derive(Debug)]
pub(super) struct SeedFile {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) bytes: Vec<u8>,
}

/// What a path holds.
#[derive(Debug, Default)]
pub(super) struct Seed {
    pub(super) files: Vec<SeedFile>,
    /// What it refers to and the machine would not get.
    pub(super) problems: Vec<String>,
}

impl Seed {
    /// One document alone.
    pub(super) fn from_file(file: SeedFile) -> Self {
        Self { files: vec![file], problems: Vec::new() }
    }

    /// On a configuration drive: the contents that its facts refer to, and vendor-data without the JSON around it.
    pub(super) fn add_drive_contents(&mut self, drive: &Path, open: OpenFile<'_>) {
        // Sizes are bounded by who opens a file.
        let said = config_drive_metadata(&mut |name, _| open(name));
        self.problems.extend(said.problems.iter().map(ToString::to_string));
        let InstanceMetadata { vendor_data, files, network_config, .. } = said;
        let folder = drive.join("openstack/latest");
        let of_facts = |item: &str| format!("{} {item}", folder.join("meta_data.json").display());
        self.replace_file(
            Role::VendorData,
            folder.join("vendor_data.json").display().to_string(),
            vendor_data,
        );
        self.replace_file(Role::Files, of_facts("files"), files);
        let newer = self.find_file(Role::NetworkConfig).map(|file| file.bytes.as_slice());
        if newer != network_config.as_ref().map(Payload::as_bytes) {
            self.replace_file(Role::NetworkConfig, of_facts("network_config"), network_config);
        }
    }

    /// In a `NoCloud` seed: Debian's description of the network inside `meta-data`, where no file describes it.
    pub(super) fn add_old_network(&mut self) {
        let Some(facts) = self.find_file(Role::MetaData) else { return };
        if self.find_file(Role::NetworkConfig).is_none() {
            let name = format!("{} network-interfaces", facts.name);
            let said = nocloud_metadata(&facts.bytes).network_config;
            self.replace_file(Role::NetworkConfig, name, said);
        }
    }

    fn find_file(&self, role: Role) -> Option<&SeedFile> {
        self.files.iter().find(|file| file.role == role)
    }

    fn replace_file(&mut self, role: Role, name: String, payload: Option<Payload>) {
        self.files.retain(|file| file.role != role);
        self.files.extend(payload.map(|payload| SeedFile { name, role, bytes: payload.as_bytes().to_vec() }));
    }
}
