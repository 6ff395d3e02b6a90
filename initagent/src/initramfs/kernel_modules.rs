//! Loads kernel modules: those that every machine needs, and those whose devices are here.
//!
//! Knows the folder that image-builder fills. Refuses to know which modules those are. Invariant: each module
//! is asked for once; one that will not load is logged and no reason to stop, because another may drive the
//! disk.
//!
//! Documentation: `finit_module(2)`, modules.alias in depmod(8).

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::Path;

use image_format::modules::{ModuleIndex, ParseIndexError};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::console;
use crate::devices;

const FOLDER: &str = "/lib/modules";
const INDEX: &str = "/lib/modules/index";

/// Why no module can be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenLoaderError {
    #[error(transparent)]
    Parse(#[from] ParseIndexError),
    #[error("cannot read {INDEX}")]
    Read { source: io::Error },
}

/// Remembers what was loaded and which devices were seen.
#[derive(Debug)]
pub(super) struct ModuleLoader {
    index: ModuleIndex,
    asked: BTreeSet<String>,
    seen: BTreeSet<String>,
    /// Drivers of devices that are here, what is likely first, then in the order of the index.
    waiting: VecDeque<String>,
}

impl ModuleLoader {
    /// Reads the index.
    pub(super) fn open_index() -> Result<Self, OpenLoaderError> {
        let text = fs::read_to_string(INDEX).map_err(|source| OpenLoaderError::Read { source })?;
        Ok(Self::new(ModuleIndex::parse(&text)?))
    }

    const fn new(index: ModuleIndex) -> Self {
        Self { index, asked: BTreeSet::new(), seen: BTreeSet::new(), waiting: VecDeque::new() }
    }

    /// Loads what every machine needs.
    pub(super) fn load_always(&mut self) {
        for name in self.index.always.clone() {
            self.load_module(&name);
        }
    }

    /// Loads one driver of a device that is here, so that the caller can look whether it was the
    /// one that mattered. Says whether there was any.
    pub(super) fn load_driver(&mut self) -> LoadProgress {
        self.find_drivers(Path::new(devices::BUSES));
        match self.waiting.pop_front() {
            Some(name) => {
                self.load_module(&name);
                LoadProgress::Loaded
            }
            None => LoadProgress::Nothing,
        }
    }

    fn find_drivers(&mut self, buses: &Path) {
        let fresh: Vec<String> =
            devices::device_names(buses).filter(|name| self.seen.insert(name.clone())).collect();
        let fits: BTreeSet<&str> = fresh.iter().flat_map(|name| self.index.drivers_of(name)).collect();
        // On a virtual machine the disk is nearly always one of these, and what it does not need waits for
        // udev.
        let (likely, others): (Vec<_>, Vec<_>) =
            self.index.aliases.iter().partition(|(pattern, _)| devices::is_paravirtual(pattern));
        for (_, name) in likely.into_iter().chain(others) {
            let is_new = !self.asked.contains(name) && !self.waiting.contains(name);
            if is_new && fits.contains(name.as_str()) {
                self.waiting.push_back(name.clone());
            }
        }
    }

    fn load_module(&mut self, name: &str) {
        for name in self.index.load_order([name]) {
            if self.asked.insert(name.to_owned()) {
                insert_module(name);
            }
        }
    }
}

/// Whether loading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadProgress {
    /// A driver was loaded; devices may come.
    Loaded,
    /// No device is without its driver.
    Nothing,
}

fn insert_module(name: &str) {
    let path = Path::new(FOLDER).join(name).with_extension("ko");
    let inserted = match File::open(&path) {
        Ok(file) => finit_module(&file, c"", ModuleInitFlags::empty()).map_err(io::Error::from),
        Err(error) => Err(error),
    };
    match inserted {
        // finit_module(2): it is loaded, which is what was wanted.
        Err(error) if error.raw_os_error() != Some(Errno::EEXIST as i32) => {
            console::write_kernel_log(&format!("the module {name} does not load: {error}"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_wait_once_and_the_likely_ones_first() {
        let buses = tempfile::tempdir().unwrap();
        for (device, name) in [("a", "pci:v8086d1"), ("b", "virtio:d2"), ("c", "virtio:d2v1"), ("d", "usb:x")]
        {
            let folder = buses.path().join("bus/devices").join(device);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("modalias"), name).unwrap();
        }
        let text = "catamaran-modules-v1\nmodule ahci\nmodule virtio_blk\nmodule nvme\n\
                    alias pci:v8086* ahci\nalias virtio:d2* virtio_blk\nalias pci:v8086* virtio_blk\n\
                    alias nvme:* nvme\n";
        let mut loader = ModuleLoader::new(ModuleIndex::parse(text).unwrap());

        loader.find_drivers(buses.path());
        loader.find_drivers(buses.path());

        assert_eq!(loader.waiting, ["virtio_blk", "ahci"]);
    }
}
