//! What a lost boot left behind: the end of its journal, and what firmware kept of a panic.
//!
//! Knows where systemd and the kernel leave such things. Refuses to judge them.
//! Invariant: bounded, and never an error: a rollback is not held up by what cannot be found.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use first_boot::{ProgramCall, ProgramRunner};

use super::phase::Phase;

/// Where panics are kept: by systemd-pstore, and by the firmware itself (pstore in the kernel's documentation).
const PANICS: [&str; 2] = ["var/lib/systemd/pstore", "sys/fs/pstore"];
const MAX_PANIC: u64 = 2 << 10;
const LINES: &str = "--lines=15";

/// Looks for what is left of the boots of a phase.
pub(crate) fn find_evidence(root: &Path, programs: &dyn ProgramRunner, phase: &Phase) -> String {
    let journal = match phase {
        Phase::Trial(trial) => trial.boots.last().map(|last| last.boot.clone()),
        // Whether the new slot came as far as its journal nobody noted; if it did, it is the boot before this one.
        Phase::Armed(armed) => boot_before(programs).filter(|boot| *boot != armed.boot.replace('-', "")),
        Phase::Fetching(_) | Phase::Steady(_) | Phase::Written(_) => None,
    };
    let journal = journal.map(|boot| journal_tail(programs, &boot)).unwrap_or_default();
    let panics: String = PANICS.iter().map(|folder| read_panics(&root.join(folder))).collect();
    [journal, panics].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The boot before this one, of which journald knows.
fn boot_before(programs: &dyn ProgramRunner) -> Option<String> {
    let call = ProgramCall::new("journalctl", ["--list-boots", "--no-pager", "--quiet"]);
    let text = programs.run_program(&call).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.split_whitespace().next() == Some("-1"))?;
    line.split_whitespace().nth(1).map(ToOwned::to_owned)
}

fn journal_tail(programs: &dyn ProgramRunner, boot: &str) -> String {
    let boot = format!("--boot={}", boot.replace('-', ""));
    let call = ProgramCall::new(
        "journalctl",
        [boot.as_str(), LINES, "--output=short-monotonic", "--no-pager", "--quiet"],
    );
    let text = programs.run_program(&call).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    if text.is_empty() { text } else { format!("the end of its journal:\n{text}") }
}

fn read_panics(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut text = String::new();
    for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()).take(2) {
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_PANIC).read_to_end(&mut bytes));
        if read.is_ok() {
            let said = String::from_utf8_lossy(&bytes);
            text.extend(["what the firmware kept (", &path.to_string_lossy(), "):\n", said.trim_end(), "\n"]);
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use first_boot::RunError;

    use super::super::phase::{Armed, Baseline, TrialKind};
    use super::super::tests::target;
    use super::*;

    /// A journal that knows of three boots.
    #[derive(Debug)]
    struct Journalctl;

    impl ProgramRunner for Journalctl {
        fn run_program(&self, call: &ProgramCall) -> Result<Vec<u8>, RunError> {
            assert_eq!(call.program, "journalctl");
            Ok(match call.arguments[0].as_str() {
                "--list-boots" => b"-2 aa11 Mon\n-1 bb22 Mon\n 0 cc33 Mon\n".to_vec(),
                "--boot=bb22" => b"[    9.1] app: out of memory\n".to_vec(),
                other => panic!("{other}"),
            })
        }
    }

    #[test]
    fn a_lost_boot_is_asked_for_its_last_words() {
        let root = tempfile::tempdir().unwrap();
        let panics = root.path().join("sys/fs/pstore");
        std::fs::create_dir_all(&panics).unwrap();
        std::fs::write(panics.join("dmesg-efi-1"), "Kernel panic - not syncing: VFS").unwrap();
        let armed = Armed {
            target: target(b"new"),
            baseline: Baseline::default(),
            boot: "aa-11".into(),
            kind: TrialKind::Restart,
        };

        let found = find_evidence(root.path(), &Journalctl, &Phase::Armed(armed.clone()));

        assert!(found.contains("app: out of memory") && found.contains("VFS"), "{found}");
        let same_boot = Armed { boot: "bb-22".into(), ..armed };
        let found = find_evidence(root.path(), &Journalctl, &Phase::Armed(same_boot));
        assert!(!found.contains("app:"), "{found}");
    }
}
