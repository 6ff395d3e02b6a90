//! Finds the firmware a machine starts with: SeaBIOS (inside QEMU), OVMF, or OVMF with Secure Boot.
//!
//! Knows where Debian and Ubuntu put OVMF (<https://github.com/tianocore/tianocore.github.io/wiki/OVMF>, and the
//! README.Debian of the package `ovmf`); refuses to guess beyond that, and names the package instead.
//! Invariant: code and variables always come from the same build of OVMF.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What the machine runs before its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// `SeaBIOS`, as old clouds and old machines have it
    Bios,
    /// UEFI without Secure Boot
    Uefi,
    /// UEFI with Secure Boot on and Microsoft's keys enrolled
    Secure,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
            Self::Secure => "UEFI with Secure Boot",
        })
    }
}

/// Two files of one OVMF build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlashFiles {
    /// The program, mapped read-only
    pub code: PathBuf,
    /// The fresh variable store, to be copied for each machine
    pub variables: PathBuf,
}

/// Why a firmware cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot find the firmware for {firmware}: none of {} is here; install it with: apt-get install ovmf",
    join_paths(tried)
)]
pub struct FindFirmwareError {
    firmware: Firmware,
    tried: Vec<PathBuf>,
}

impl Firmware {
    /// The flash files under `root` (`/` but in tests); none for BIOS, which QEMU brings itself.
    pub fn find_flash(self, root: &Path) -> Result<Option<FlashFiles>, FindFirmwareError> {
        let pairs = self.file_pairs();
        let at = |name: &str| root.join("usr/share/OVMF").join(name);
        if pairs.is_empty() {
            return Ok(None);
        }
        for (code, variables) in pairs {
            let flash = FlashFiles { code: at(code), variables: at(variables) };
            // Both or neither: a store of another build has another layout, and the firmware then hangs or starts
            // with factory settings, without a word.
            if flash.code.is_file() && flash.variables.is_file() {
                return Ok(Some(flash));
            }
        }
        let tried = pairs.iter().map(|(code, _)| at(code)).collect();
        Err(FindFirmwareError { firmware: self, tried })
    }

    /// Code and variables by file name, the best first. Debian and Ubuntu ship the 4 MiB builds; releases
    /// before 2022 only had the 2 MiB ones.
    fn file_pairs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bios => &[],
            Self::Uefi => &[("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd")],
            // The store with Microsoft's keys makes Secure Boot real: with an empty one the firmware is in setup
            // mode and starts anything. `.ms` is the same program as `.secboot` under a name that says what it is
            // for; not every release has both.
            Self::Secure => &[
                ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
                ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
                ("OVMF_CODE.secboot.fd", "OVMF_VARS.ms.fd"),
            ],
        }
    }
}

fn join_paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root_with(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/share/OVMF");
        fs::create_dir_all(&folder).unwrap();
        for file in files {
            fs::write(folder.join(file), "").unwrap();
        }
        root
    }

    #[test]
    fn bios_needs_no_file() {
        let root = root_with(&[]);

        assert_eq!(Firmware::Bios.find_flash(root.path()).unwrap(), None);
    }

    #[test]
    fn code_and_variables_come_as_a_pair() {
        let root = root_with(&["OVMF_CODE_4M.fd", "OVMF_CODE.fd", "OVMF_VARS.fd"]);

        let flash = Firmware::Uefi.find_flash(root.path()).unwrap().unwrap();

        assert!(flash.code.ends_with("OVMF_CODE.fd"));
        assert!(flash.variables.ends_with("OVMF_VARS.fd"));
    }

    #[test]
    fn a_missing_firmware_names_the_package() {
        let root = root_with(&["OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"]);

        let error = Firmware::Secure.find_flash(root.path()).unwrap_err().to_string();

        assert!(error.contains("OVMF_CODE_4M.ms.fd") && error.contains("apt-get install ovmf"), "{error}");
    }
}
