//! `cloud-init-per`: a command that runs once, once an instance, or always.
//!
//! Knows the marks of what ran. Refuses to know the commands. Invariant: a mark is on the disk before we say that
//! the command ended, so that no power cut makes a disk empty twice that was filled since.
//!
//! Documentation: `cloud-init-per` without arguments, and cloud-init's example of `bootcmd`.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use sha2::{Digest, Sha256};

use crate::digits::to_hex;
use crate::files::{self, FileRights};
use crate::record;
use crate::root::MachineRoot;

/// A name of a file has 255 bytes, and ours has some of its own.
const LONGEST_NAME: usize = 200;
/// By which scripts of user-data know their instance, which is remembered only after they were started.
const INSTANCE_ID: &str = "INSTANCE_ID";

/// How often a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrence {
    /// At each call, which is each boot from `bootcmd`.
    Always,
    /// Once an instance.
    Instance,
    /// Once, whatever instance the machine is.
    Once,
}

/// Why a command did not run, or will run again.
#[derive(Debug, thiserror::Error)]
pub enum RecurError {
    /// Nothing by which it could be known again.
    #[error("{name:?} cannot name a mark: write up to {LONGEST_NAME} letters, without a slash")]
    Name {
        /// As it was written.
        name: String,
    },
    /// It was not started, so it is not done.
    #[error("cannot run {program:?}")]
    Run {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It was done, and nobody will know.
    #[error("the command ended, but that cannot be remembered, so it runs again: {reason}")]
    Remember {
        /// Why not.
        reason: String,
    },
}

impl Recurrence {
    /// By cloud-init's word, or by that of its folders of scripts.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "always" | "boot" => Some(Self::Always),
            "instance" => Some(Self::Instance),
            "once" => Some(Self::Once),
            _ => None,
        }
    }
}

/// Runs a command, unless it ran as often as it may, and gives its exit code.
///
/// As with cloud-init, one that failed counts as done; unlike there, one that could not be started does not.
pub fn run_recurring(
    root: &MachineRoot,
    recurrence: Recurrence,
    name: &str,
    command: &[OsString],
) -> Result<u8, RecurError> {
    let instance = std::env::var(INSTANCE_ID).ok().or_else(|| record::configured_instance(root));
    let mark = mark_path(recurrence, name, &instance.unwrap_or_default())?;
    if mark.as_ref().is_some_and(|mark| root.path_of(mark).exists()) {
        return Ok(0);
    }
    let Some((program, arguments)) = command.split_first() else { return Ok(0) };
    // Without a time limit: cloud-init's has none, and the script that calls it has one.
    let status = Command::new(program).args(arguments).status();
    let status =
        status.map_err(|source| RecurError::Run { program: program.to_string_lossy().into(), source })?;
    if let Some(mark) = mark {
        let written = record::prepare_folder(root).and_then(|()| {
            let text = format!("{}\n", exit_code(status));
            // The exit code is for people. That the file is there is what counts.
            files::write_durably(&root.path_of(&mark), text.as_bytes(), FileRights::PRIVATE)
        });
        written.map_err(|error| RecurError::Remember { reason: error.error_chain() })?;
    }
    Ok(exit_code(status))
}

/// The file that says that a command ran; `None` for what always runs.
fn mark_path(recurrence: Recurrence, name: &str, instance: &str) -> Result<Option<String>, RecurError> {
    let is_name = !name.is_empty() && name.len() <= LONGEST_NAME && !name.contains(['/', '\0']);
    if !is_name {
        return Err(RecurError::Name { name: name.chars().take(LONGEST_NAME).collect() });
    }
    let folder = match recurrence {
        Recurrence::Always => return Ok(None),
        // Platforms choose the letters of an instance's name.
        Recurrence::Instance => format!("instance-{}", to_hex(&Sha256::digest(instance)[..8])),
        Recurrence::Once => "once".to_owned(),
    };
    // So that no name is `.` or `..`.
    Ok(Some(format!("{}/ran/{folder}/ran.{name}", record::FOLDER)))
}

/// As a shell gives it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Adds a line to a file at each run, and ends with a code of its own.
    fn count(root: &MachineRoot, recurrence: Recurrence, name: &str) -> u8 {
        let line = format!("echo >> {}; exit 7", root.path_of("/count").display());
        let command = ["/bin/sh", "-c", &line].map(OsString::from);
        run_recurring(root, recurrence, name, &command).unwrap()
    }

    fn lines(root: &MachineRoot) -> usize {
        fs::read_to_string(root.path_of("/count")).unwrap_or_default().lines().count()
    }

    #[test]
    fn a_command_runs_as_often_as_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        for (recurrence, expected) in
            [(Recurrence::Once, 2), (Recurrence::Instance, 3), (Recurrence::Always, 4)]
        {
            record::mark_configured(&root, "i-1").unwrap();
            fs::remove_file(root.path_of("/count")).ok();

            let codes =
                [count(&root, recurrence, "a"), count(&root, recurrence, "a"), count(&root, recurrence, "b")];
            record::mark_configured(&root, "i-2").unwrap();
            count(&root, recurrence, "a");

            let second = if recurrence == Recurrence::Always { 7 } else { 0 };
            assert_eq!(codes, [7, second, 7], "{recurrence:?}");
            assert_eq!(lines(&root), expected, "{recurrence:?}");
        }
    }

    #[test]
    fn a_command_that_is_not_there_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let missing = [OsString::from("/no/such/program")];

        for _ in 0..2 {
            let error = run_recurring(&root, Recurrence::Once, "a", &missing).unwrap_err();
            assert_eq!(error.to_string(), "cannot run \"/no/such/program\"");
        }
    }

    #[test]
    fn a_mark_stays_in_its_folder() {
        for name in ["", "a/b", "../a", &"a".repeat(LONGEST_NAME + 1)] {
            assert!(mark_path(Recurrence::Once, name, "").is_err(), "{name}");
        }
        let mark = mark_path(Recurrence::Once, "..", "").unwrap().unwrap();
        assert_eq!(mark, "/var/lib/catamaran/first-boot/ran/once/ran...");
    }
}
