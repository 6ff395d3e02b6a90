//! Leaves the result of a run where people and programs look, and reads it there.
//!
//! Knows two files: of this boot in /run, and of the instance's first boot in /var. Refuses to judge. Invariant: what
//! the first boot did stays to be read after the second.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::time::{Duration, Instant};

use crate::files::{self, FileRights};
use crate::outcome::{self, RunErrors, RunOutcome, Verdict};
use crate::record;
use crate::root::MachineRoot;

const RESULT: &str = "/run/catamaran/first-boot.json";
/// Below the record's folder.
const KEPT_RESULT: &str = "result.json";
/// Says that whoever may log in can: sshd waits for it on a machine that nobody had before.
const LOGINS: &str = "/run/catamaran/logins";
/// How often the file is looked for: a login that waits longer would notice.
const LOGINS_PAUSE: Duration = Duration::from_millis(20);

/// The result of the last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// How it went; `None` if there was no run.
    pub verdict: Option<Verdict>,
    /// For people.
    pub text: String,
    /// The result file.
    pub json: String,
}

/// What the last run left.
#[must_use]
pub fn last_status(root: &MachineRoot) -> RunStatus {
    let kept = format!("{}/{KEPT_RESULT}", record::FOLDER);
    let text =
        [RESULT, kept.as_str()].into_iter().find_map(|path| fs::read_to_string(root.path_of(path)).ok());
    let Some(result) = text.and_then(|text| serde_json::from_str(&text).ok()) else {
        let text = "no first boot has ended yet\n".to_owned();
        return RunStatus { verdict: None, text, json: "null\n".to_owned() };
    };
    RunStatus {
        verdict: outcome::verdict_of(&result),
        text: outcome::describe_result(&result),
        json: format!("{result:#}\n"),
    }
}

/// What the run of this boot left, once it has ended; what an earlier boot left is another's, if the disk is
/// a clone's.
#[must_use]
pub fn ended_status(root: &MachineRoot) -> Option<RunStatus> {
    root.path_of(RESULT).exists().then(|| last_status(root))
}

/// Waits until the run of this boot has done everything that logins need, and says whether it came so far
/// in time.
#[must_use]
pub fn await_logins(root: &MachineRoot, timeout: Duration) -> bool {
    let began = Instant::now();
    while !root.path_of(LOGINS).exists() {
        if began.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(LOGINS_PAUSE);
    }
    true
}

/// Lets sshd start.
pub(super) fn open_logins(root: &MachineRoot) -> RunErrors {
    let written = files::write(&root.path_of(LOGINS), b"", FileRights::PUBLIC);
    RunErrors::from_failure(
        written
            .map(drop)
            .map_err(|error| format!("cannot tell sshd that it may start: {}", error.error_chain())),
    )
}

/// Leaves the result where it is looked for.
pub(super) fn write_result(root: &MachineRoot, mut outcome: RunOutcome) -> RunOutcome {
    let result = outcome.to_json().to_string();
    let kept = if outcome.is_first { record::write(root, KEPT_RESULT, result.as_bytes()) } else { Ok(()) };
    let shown = files::write(&root.path_of(RESULT), result.as_bytes(), FileRights::PUBLIC).map(drop);
    for error in [kept, shown].into_iter().filter_map(Result::err) {
        outcome.errors.failures.push(format!("cannot leave the result: {}", error.error_chain()));
    }
    outcome
}
