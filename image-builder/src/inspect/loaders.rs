//! The boot loaders of an image: what is on its ESP, who signed it, and how recent it is to firmware.
//!
//! Knows where the programs are. Refuses to judge the image by them: an image without Secure Boot is one, too.

use std::fmt;
use std::io::{self, Cursor, Read as _};

use fatfs::{FileSystem, FsOptions};
use image_format::gpt::PartitionTable;
use image_format::layout::{Partition, PartitionRole};
use serde::Serialize;

use crate::boot::esp::PROGRAMS;
use crate::disk::DiskImage;
use error_text::printable::printable_text;
use image_format::efi_program::EfiProgram;

/// Longer files are no boot loaders: shim has 1 MB, GRUB less than 3.
const MOST_BYTES: u64 = 16 << 20;

/// One program of the ESP.
#[derive(Debug, Serialize)]
pub(super) struct LoaderReport {
    path: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    program: Option<EfiProgram>,
    /// What firmware of some machines misses: a signature of Microsoft's by this key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_signatures: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

/// Looks at each program of the ESP; an image without an ESP has none.
pub(super) fn report_loaders(disk: &DiskImage, table: &PartitionTable) -> Vec<LoaderReport> {
    let Some(entry) = table.find_label(Partition::of_role(PartitionRole::Esp).label) else {
        return Vec::new();
    };
    let mut volume = disk.read(entry.byte_offset(), entry.byte_size());
    let mut read = |path: &str| {
        let volume = volume.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        read_file(volume, path)
    };
    PROGRAMS.into_iter().map(|path| LoaderReport::of_program(path, parse_program(read(path)))).collect()
}

/// Reads from a volume in memory, since fatfs wants to write what it counts.
fn read_file(volume: &mut [u8], path: &str) -> io::Result<Vec<u8>> {
    let system = FileSystem::new(Cursor::new(volume), FsOptions::new())?;
    let mut bytes = Vec::new();
    system.root_dir().open_file(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse_program(bytes: io::Result<Vec<u8>>) -> Result<EfiProgram, String> {
    let bytes = bytes.map_err(|error| error.to_string())?;
    EfiProgram::parse(&bytes).map_err(|error| error.to_string())
}

impl LoaderReport {
    fn of_program(path: &str, read: Result<EfiProgram, String>) -> Self {
        let path = path.to_owned();
        match read {
            Ok(program) => {
                // shim alone is started by firmware; shim starts the others, by Debian's key.
                let is_first = path.to_lowercase().ends_with("bootx64.efi") || path.contains("shim");
                let missing = if is_first { program.missing_by_firmware() } else { Vec::new() };
                Self { path, program: Some(program), missing_signatures: missing, damage: None }
            }
            Err(damage) => Self { path, program: None, missing_signatures: Vec::new(), damage: Some(damage) },
        }
    }
}

impl fmt::Display for LoaderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match (&self.program, &self.damage) {
            (Some(program), _) => program.to_string(),
            (None, damage) => format!("damaged: {}", damage.as_deref().unwrap_or("?")),
        };
        write!(f, "     {:<22} {}", self.path, printable_text(&said))?;
        for issuer in &self.missing_signatures {
            write!(f, "\n     {:<22} MISSING: a signature by {issuer:?}, which some firmware asks for", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use image_format::efi_program::{MICROSOFT_2011, MICROSOFT_2023, ProgramSignature, SbatLevel};

    use super::*;

    /// How a program is read, the image tests see with Debian's own; here it is read already.
    fn report(path: &str, issuers: &[&str]) -> LoaderReport {
        let signature = |issuer: &&str| ProgramSignature { issuer: (*issuer).to_owned(), fits: true };
        let program = EfiProgram {
            signatures: issuers.iter().map(signature).collect(),
            sbat: vec![SbatLevel { component: "shim".to_owned(), level: 4 }],
        };
        LoaderReport::of_program(path, Ok(program))
    }

    #[test]
    fn a_shim_of_one_signature_is_shown_with_what_is_missing() {
        let report = report("EFI/BOOT/BOOTX64.EFI", &[MICROSOFT_2011]);

        let text = report.to_string();

        assert!(text.contains("shim 4"), "{text}");
        assert!(text.contains("MISSING: a signature by \"Microsoft UEFI CA 2023\""), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["missing_signatures"][0], MICROSOFT_2023);
        assert_eq!(json["sbat"][0]["level"], 4);
    }

    #[test]
    fn what_shim_starts_needs_no_signature_of_microsofts() {
        let report = report("EFI/BOOT/grubx64.efi", &["Debian Secure Boot CA"]);

        assert!(!report.to_string().contains("MISSING"), "{report}");
    }

    #[test]
    fn a_program_that_is_gone_or_garbage_is_damage() {
        for bytes in [Ok(b"garbage".to_vec()), Err(io::ErrorKind::NotFound.into())] {
            let report = LoaderReport::of_program("EFI/BOOT/mmx64.efi", parse_program(bytes));
            assert!(report.to_string().contains("damaged: "), "{report}");
        }
    }
}
