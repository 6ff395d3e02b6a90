//! Runs the root's own e2fsck and mke2fs before there is a system.
//!
//! Knows how a program of the new root is started from the initramfs, and what its exit codes mean. Refuses to answer
//! a question of theirs. Invariant: they come from the verified root, so what touches STATE was signed.
//!
//! Documentation: e2fsck(8), mke2fs(8), ld.so(8).
#![expect(clippy::disallowed_methods, reason = "starts programs; effects live here")]

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::state::order::MKE2FS_ARGUMENTS;

/// Longer texts of theirs are cut: they go to the console, and to each login.
const MOST_WORDS: usize = 400;

/// Why the file system was not mended or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileSystemProgramError {
    #[error("e2fsck cannot mend it by itself (exit code {code}): {output}")]
    Repair { code: i32, output: String },
    #[error("mke2fs cannot make it anew (exit code {code}): {output}")]
    Make { code: i32, output: String },
    #[error("cannot start {program} of the root")]
    Start { program: &'static str, source: io::Error },
}

/// The programs of a root that is mounted, but not entered yet.
#[derive(Debug)]
pub(super) struct RootPrograms<'a> {
    root: &'a Path,
}

impl<'a> RootPrograms<'a> {
    pub(super) const fn of_root(root: &'a Path) -> Self {
        Self { root }
    }

    /// Mends what needs no decision, and returns what it said.
    pub(super) fn repair(&self, device: &Path) -> Result<String, FileSystemProgramError> {
        let output = self.run("e2fsck", &["-p"], device)?;
        let (code, said) = (output.status.code().unwrap_or(-1), words_of(&output));
        // 1: mended. 2: mended, and to restart if it is mounted, which it is not. From 4 on something is left.
        if (0..=3).contains(&code) {
            Ok(format!("e2fsck mended {}: {said}", device.display()))
        } else {
            Err(FileSystemProgramError::Repair { code, output: said })
        }
    }

    /// Makes an empty file system.
    pub(super) fn make_anew(&self, device: &Path) -> Result<(), FileSystemProgramError> {
        let output = self.run("mke2fs", &MKE2FS_ARGUMENTS, device)?;
        let code = output.status.code().unwrap_or(-1);
        let failed = || FileSystemProgramError::Make { code, output: words_of(&output) };
        if output.status.success() { Ok(()) } else { Err(failed()) }
    }

    /// By the root's own loader: its programs ask for libraries at places that are below the root still. To enter the
    /// root in a child needs code between fork and exec, which no safe binding offers.
    fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        device: &Path,
    ) -> Result<Output, FileSystemProgramError> {
        let below = |path: &str| self.root.join(path);
        Command::new(below("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(below("usr/lib/x86_64-linux-gnu"))
            .arg(below("usr/sbin").join(program))
            .args(arguments)
            .arg(device)
            .env("MKE2FS_CONFIG", below("etc/mke2fs.conf"))
            .stdin(Stdio::null())
            .output()
            .map_err(|source| FileSystemProgramError::Start { program, source })
    }
}

/// What a program said, in one line.
fn words_of(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::state::content::PartitionContent;

    /// This machine's own programs, as those of a root. Debian and Ubuntu have them at the same places.
    fn own_programs() -> RootPrograms<'static> {
        RootPrograms::of_root(Path::new("/"))
    }

    fn file_system() -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        own_programs().make_anew(image.path()).unwrap();
        image
    }

    #[test]
    fn a_file_system_with_noted_errors_is_mended() {
        let image = file_system();
        // By a program that knows the superblock's checksum. 3: it is clean, and has met errors.
        let noted = Command::new("/usr/sbin/debugfs")
            .args(["-w", "-R", "set_super_value state 3"])
            .arg(image.path())
            .output()
            .unwrap();
        let content = || PartitionContent::read(image.path()).unwrap();
        assert_eq!(content(), PartitionContent::Ext4 { has_errors: true }, "{noted:?}");

        let said = own_programs().repair(image.path()).unwrap();

        assert!(said.starts_with("e2fsck mended "), "{said}");
        assert_eq!(content(), PartitionContent::Ext4 { has_errors: false });
    }

    #[test]
    fn what_e2fsck_would_ask_about_is_not_called_mended() {
        let image = file_system();
        // The group descriptors behind the superblock.
        image.as_file().write_all_at(&[0xff; 4096], 4096).unwrap();

        let error = own_programs().repair(image.path()).unwrap_err();

        assert!(matches!(error, FileSystemProgramError::Repair { code: 4.., .. }), "{error}");
        assert!(error.to_string().starts_with("e2fsck cannot mend it by itself (exit code "), "{error}");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let empty = tempfile::tempdir().unwrap();

        let error = RootPrograms::of_root(empty.path()).repair(Path::new("/dev/null")).unwrap_err();

        assert_eq!(error.to_string(), "cannot start e2fsck of the root");
    }
}
