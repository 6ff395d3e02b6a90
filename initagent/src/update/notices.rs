//! What people and programs are told of an update: at login, on the console, and as events.
//!
//! Knows the places. Refuses to know why. Invariant: a notice is about this boot's truth: what a reboot forgets
//! lies in /run, and what is over is taken away.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use first_boot::{ProgramCall, ProgramRunner};

use super::journal::Journal;
use super::phase::{Phase, TrialKind};

/// Where getty and sshd look for words of greeting.
const BANNERS: [&str; 2] = ["run/issue.d/60-catamaran-update.issue", "run/motd.d/60-catamaran-update"];
const CONSOLE: &str = "dev/console";
/// Lines of what failed that a greeting has room for.
const LINES: usize = 6;

/// Reached when an update came to nothing; other units may be wanted by it.
pub(crate) const FAILED_TARGET: &str = "catamaran-update-failed.target";
/// Reached when a release has proven itself.
pub(crate) const SUCCEEDED_TARGET: &str = "catamaran-update-succeeded.target";

/// The words for people, if there is anything to say.
pub(crate) fn login_notice(journal: &Journal) -> String {
    let failed = journal.last_failure().map(|(entry, failure)| {
        let (version, slot) = (&entry.target.version, entry.target.slot);
        let evidence: Vec<String> =
            failure.details.lines().skip(1).take(LINES).map(|line| format!("  {line}\n")).collect();
        format!(
            "UPDATE FAILED: release {version} came to nothing in slot {slot}, and {} runs.\n{}\n{}\
             'initagent update history' has all of it; the release is not tried again by itself.\n\n",
            entry.running,
            failure.failure_sentence(),
            evidence.concat(),
        )
    });
    let under_way = match &journal.phase {
        // It runs and is well: nobody who logs in has to know or do anything.
        Phase::Armed(armed) if armed.kind == TrialKind::AfterSoft => None,
        Phase::Armed(armed) => {
            let version = &armed.target.version;
            Some(format!("UPDATE READY: release {version} starts at the next restart.\n\n"))
        }
        Phase::Trial(trial) if trial.failure.is_none() => {
            let version = &trial.target.version;
            Some(format!(
                "UPDATE ON TRIAL: release {version} runs, and goes back unless it proves itself.\n\n"
            ))
        }
        _ => None,
    };
    failed.into_iter().chain(under_way).collect()
}

/// Greets whoever logs in from now on.
pub(crate) fn write_login_notice(root: &Path, journal: &Journal) {
    let text = login_notice(journal);
    for place in BANNERS {
        let path = root.join(place);
        // A greeting that cannot be written is missed by a person, and is no reason to stop an update.
        let _ = match text.as_str() {
            "" => fs::remove_file(&path),
            text => path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text)),
        };
    }
}

/// Says a sentence on the console, and in the log of this unit by way of its standard error.
pub(crate) fn print_to_console(root: &Path, sentence: &str) {
    let opened = OpenOptions::new().write(true).open(root.join(CONSOLE));
    // A machine without a console has nobody before it.
    let _ = opened.and_then(|mut console| write!(console, "\r\ncatamaran: {sentence}\r\n"));
}

/// Starts a target for which other units can wait.
pub(crate) fn start_target(programs: &dyn ProgramRunner, target: &'static str) {
    // systemd is away only while the machine ends.
    let _ = programs.run_program(&ProgramCall::new("systemctl", ["start", "--no-block", target]));
}

#[cfg(test)]
mod tests {
    use image_format::version::Version;

    use super::super::phase::{Cause, Failure, Outcome};
    use super::super::tests::target;
    use super::*;

    #[test]
    fn a_failed_update_is_said_at_login_until_another_succeeds() {
        let root = tempfile::tempdir().unwrap();
        let failure = Failure::new(Cause::LostBoots, "3 boots ended without a verdict\nkernel: oops\n");
        let journal =
            Journal::default().end_update(1, Version::new(1, 0, 0), target(b"new"), Outcome::Failed(failure));
        write_login_notice(root.path(), &journal);

        let text = fs::read_to_string(root.path().join(BANNERS[1])).unwrap();
        assert!(
            text.starts_with("UPDATE FAILED: release 1.1.0 came to nothing in slot B, and 1.0.0 runs."),
            "{text}"
        );
        assert!(text.contains("3 boots ended") && text.contains("  kernel: oops"), "{text}");

        write_login_notice(
            root.path(),
            &journal.end_update(2, Version::new(1, 2, 0), target(b"next"), Outcome::Succeeded),
        );
        assert!(BANNERS.iter().all(|place| !root.path().join(place).exists()));
    }
}
