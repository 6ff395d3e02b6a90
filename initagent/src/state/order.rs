//! `initagent state`: shows what is wrong with STATE, and makes it anew on a person's word.
//!
//! Knows which of the two ways leads to an empty STATE: now if it is not in use, at the next boot if it is. Refuses to
//! do either without a yes. Invariant: a file system in use is never written over.
//!
//! Documentation: mke2fs(8).
#![expect(clippy::disallowed_methods, reason = "runs mke2fs; effects live here")]

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use first_boot::OutputFormat;

use super::inspection::{DeepCheck, StateInspection, inspect_state};
use super::{MOUNT_POINT, RECORD, RESET_MARK, StateCondition, StateRecord};

/// How a STATE is made anew: as the image's was (`image-builder`, `apply/boot.rs`), but for the journal, which may
/// have the size that suits the disk.
// -F: it may hold something already, which is what the person wants to lose. mke2fs still refuses what is mounted.
pub(crate) const MKE2FS_ARGUMENTS: [&str; 11] =
    ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-L", "STATE", "-Ometadata_csum_seed"];

/// The exit code when something is wrong, after a reset too.
const DAMAGED: u8 = 1;

/// What to do with STATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateRequest {
    pub(crate) order: StateOrder,
    pub(crate) format: OutputFormat,
}

/// What a person may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateOrder {
    /// Look, and change nothing.
    Check,
    /// Lose everything on it.
    Reset(Confirmation),
}

/// Whether the person has said yes already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// Ask at the terminal.
    Ask,
    /// `--yes`.
    Given,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateAnswer {
    pub(crate) text: String,
    pub(crate) exit_code: u8,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("cannot read the answer")]
    Answer { source: io::Error },
    #[error("STATE is left as it is: to lose everything on it, say --yes, or 'reset' when asked")]
    Declined,
    #[error("cannot make {device} anew: mke2fs ended with {status}: {output}")]
    Make { device: PathBuf, status: String, output: String },
    #[error("cannot leave the order for the next boot in {path}")]
    Mark { path: PathBuf, source: io::Error },
    #[error("this boot found no partition STATE on the disk; 'lsblk -o NAME,PARTLABEL' shows what it has")]
    NoPartition,
    #[error("there is no record of STATE in {RECORD}, which the initramfs of a Catamaran machine writes")]
    NoRecord,
    #[error("cannot start mke2fs")]
    Start { source: io::Error },
}

/// Carries an order out; what is asked of the person goes to `ask` first.
pub(crate) fn run_request(
    request: StateRequest,
    ask: &mut dyn FnMut(&str),
) -> Result<StateAnswer, StateError> {
    if let StateOrder::Reset(confirmation) = request.order {
        let record = StateRecord::read(Path::new(RECORD)).ok_or(StateError::NoRecord)?;
        confirm(confirmation, &record, ask)?;
        reset(&record)?;
    }
    let inspection = inspect_state(DeepCheck::Run).ok_or(StateError::NoRecord)?;
    let exit_code = if inspection.damaged { DAMAGED } else { 0 };
    Ok(StateAnswer { text: render(&inspection, request.format), exit_code })
}

fn render(inspection: &StateInspection, format: OutputFormat) -> String {
    match format {
        // Strings and flags only.
        OutputFormat::Json => serde_json::to_string_pretty(inspection).unwrap_or_default(),
        OutputFormat::Text => inspection.to_text(),
    }
}

fn confirm(
    confirmation: Confirmation,
    record: &StateRecord,
    ask: &mut dyn FnMut(&str),
) -> Result<(), StateError> {
    if confirmation == Confirmation::Given {
        return Ok(());
    }
    let stdin = io::stdin();
    // A script that nobody watches has not said yes by having no terminal.
    if !stdin.is_terminal() {
        return Err(StateError::Declined);
    }
    ask(&format!(
        "everything on {} will be lost: /var, /home, /root, /opt, /srv and the changes in /etc; type 'reset' to go on",
        record.device.display()
    ));
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|source| StateError::Answer { source })?;
    is_yes(&answer).then_some(()).ok_or(StateError::Declined)
}

/// The word, and not a letter: it is typed by who has read the question.
fn is_yes(answer: &str) -> bool {
    answer.trim() == "reset"
}

fn reset(record: &StateRecord) -> Result<(), StateError> {
    match record.condition {
        StateCondition::Volatile => make_anew(&record.device),
        _ => leave_mark(Path::new(MOUNT_POINT)),
    }
}

/// The next boot makes it anew before it is mounted.
fn leave_mark(state: &Path) -> Result<(), StateError> {
    let path = state.join(RESET_MARK);
    let marked = File::create(&path)
        .and_then(|file| file.sync_all())
        // The name must be there after a power cut, too.
        .and_then(|()| File::open(state)?.sync_all());
    marked.map_err(|source| StateError::Mark { path, source })
}

fn make_anew(device: &Path) -> Result<(), StateError> {
    if device.as_os_str().is_empty() {
        return Err(StateError::NoPartition);
    }
    let output = Command::new("/usr/sbin/mke2fs")
        .args(MKE2FS_ARGUMENTS)
        .arg(device)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| StateError::Start { source })?;
    if output.status.success() {
        return Ok(());
    }
    let output_text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(StateError::Make {
        device: device.to_owned(),
        status: output.status.to_string(),
        output: output_text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::content::PartitionContent;

    #[test]
    fn only_the_word_is_a_yes() {
        for (answer, yes) in
            [("reset\n", true), (" reset ", true), ("y\n", false), ("", false), ("RESET", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }

    #[test]
    fn a_state_in_use_is_marked_for_the_next_boot() {
        let state = tempfile::tempdir().unwrap();

        leave_mark(state.path()).unwrap();

        assert!(state.path().join(RESET_MARK).exists());
        let error = leave_mark(&state.path().join("gone")).unwrap_err();
        assert!(error.to_string().starts_with("cannot leave the order for the next boot in "), "{error}");
    }

    #[test]
    fn a_state_that_is_not_in_use_is_made_anew() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();

        make_anew(image.path()).unwrap();

        let content = PartitionContent::read(image.path()).unwrap();
        assert_eq!(content, PartitionContent::Ext4 { has_errors: false });
    }

    #[test]
    fn a_disk_without_the_partition_and_a_device_too_small_are_named() {
        assert!(matches!(make_anew(Path::new("")), Err(StateError::NoPartition)));

        let small = tempfile::NamedTempFile::new().unwrap();
        let error = make_anew(small.path()).unwrap_err();

        assert!(error.to_string().starts_with("cannot make "), "{error}");
    }
}
