//! Loads kernel modules: those that every machine needs, and those whose devices are here.
//!
//! Knows the folder that image-builder fills and how the kernel names devices. Refuses to know
//! which modules those are. Invariant: each module is asked for once; one that will not load is
//! logged and no reason to stop, because another may drive the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use image_format::modules::{Index, ParseIndexError};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::console;

const FOLDER: &str = "/lib/modules";
const INDEX: &str = "/lib/modules/index";
const BUSES: &str = "/sys/bus";

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
pub(super) struct Loader {
    index: Index,
    asked: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Loader {
    /// Reads the index.
    pub(super) fn open() -> Result<Self, OpenLoaderError> {
        let text = fs::read_to_string(INDEX).map_err(|source| OpenLoaderError::Read { source })?;
        Ok(Self { index: Index::parse(&text)?, asked: BTreeSet::new(), seen: BTreeSet::new() })
    }

    /// Loads what every machine needs.
    pub(super) fn load_always(&mut self) {
        let always = self.index.always.clone();
        self.load(&always);
    }

    /// Loads what drives the devices that came since the last look. Says whether anything was.
    pub(super) fn load_drivers(&mut self) -> bool {
        let fresh: Vec<String> =
            device_names(Path::new(BUSES)).filter(|name| self.seen.insert(name.clone())).collect();
        let drivers: BTreeSet<String> =
            fresh.iter().flat_map(|name| self.index.drivers(name)).map(ToOwned::to_owned).collect();
        self.load(&drivers.into_iter().collect::<Vec<_>>())
    }

    fn load(&mut self, wanted: &[String]) -> bool {
        let order: Vec<String> = self
            .index
            .load_order(wanted.iter().map(String::as_str))
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        let mut any = false;
        for name in order {
            if self.asked.insert(name.clone()) {
                any = true;
                insert(&name);
            }
        }
        any
    }
}

fn insert(name: &str) {
    let path = Path::new(FOLDER).join(name).with_extension("ko");
    let inserted = match File::open(&path) {
        Ok(file) => finit_module(&file, c"", ModuleInitFlags::empty()).map_err(io::Error::from),
        Err(error) => Err(error),
    };
    match inserted {
        Err(error) if error.raw_os_error() != Some(Errno::EEXIST as i32) => {
            console::log(&format!("the module {name} does not load: {error}"));
        }
        _ => {}
    }
}

/// The kernel's names of all devices, by which modules say what they drive.
fn device_names(buses: &Path) -> impl Iterator<Item = String> {
    let devices = entries(buses).flat_map(|bus| entries(&bus.join("devices")));
    devices
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|name| name.trim().to_owned())
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_the_names_their_buses_give_them() {
        let buses = tempfile::tempdir().unwrap();
        for (device, name) in
            [("virtio/devices/virtio0", "virtio:d2\n"), ("pci/devices/0000:00:01.0", "pci:v1\n")]
        {
            let folder = buses.path().join(device);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("modalias"), name).unwrap();
        }
        fs::create_dir_all(buses.path().join("cpu/devices/cpu0")).unwrap();

        let mut names: Vec<String> = device_names(buses.path()).collect();

        names.sort();
        assert_eq!(names, ["pci:v1", "virtio:d2"]);
    }
}
