//! Looks at STATE on the running machine, and says what is wrong and what to do about it.
//!
//! Knows what the kernel and the record say of it; `StateFacts::judge` decides from these alone. Refuses to change
//! anything: e2fsck is asked to only look. Invariant: whatever is found wrong comes with what to do next.
//!
//! Documentation: proc_pid_mountinfo(5), statvfs(3), Documentation/ABI/testing/sysfs-fs-ext4 of the kernel.
#![expect(clippy::disallowed_methods, reason = "asks e2fsck; effects live here")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::content::PartitionContent;
use super::{MOUNT_POINT, RESET_MARK, StateCondition, StateRecord};

/// Lines of e2fsck that are worth repeating; the rest is for who runs it.
const MOST_LINES: usize = 8;

/// Whether e2fsck looks at a file system that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeepCheck {
    /// It reads all of its tables, which takes its time.
    Run,
    /// It is not asked.
    Skip,
}

/// What is known of STATE.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StateFacts {
    record: StateRecord,
    /// What the partition holds now, or why it cannot be read.
    content: Result<PartitionContent, String>,
    /// Whether the mounted file system can be written to.
    is_read_only: bool,
    /// Errors that the kernel has met on it since the last e2fsck.
    kernel_errors: u64,
    /// Blocks and inodes that are free for everyone.
    free: Option<(u64, u64)>,
    /// What e2fsck says, if it was asked.
    deep: Option<DeepVerdict>,
    /// Whether the next boot makes it anew.
    is_reset_ordered: bool,
}

/// What e2fsck found without changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeepVerdict {
    Clean,
    Damaged(String),
}

/// What is said of STATE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StateInspection {
    /// The partition.
    pub(crate) device: String,
    /// How this boot found it.
    pub(crate) condition: StateCondition,
    /// Whether something is wrong.
    pub(crate) damaged: bool,
    /// What is wrong, and what is worth knowing.
    pub(crate) findings: Vec<String>,
    /// What to do.
    pub(crate) next: Vec<String>,
}

/// Looks at the STATE of this machine; nothing where no initramfs of ours has left a record.
pub(crate) fn inspect_state(deep: DeepCheck) -> Option<StateInspection> {
    let record = StateRecord::read(Path::new(super::RECORD))?;
    Some(StateFacts::gather(record, deep).judge())
}

impl StateFacts {
    fn gather(record: StateRecord, deep: DeepCheck) -> Self {
        let mounted = Path::new(MOUNT_POINT);
        let is_kept = record.condition != StateCondition::Volatile;
        let content = PartitionContent::read(&record.device).map_err(|error| error.to_string());
        let is_idle_ext4 = !is_kept && matches!(content, Ok(PartitionContent::Ext4 { .. }));
        Self {
            is_read_only: is_kept && is_mounted_read_only(),
            kernel_errors: if is_kept { noted_errors(&record.device) } else { 0 },
            free: free_room(mounted).filter(|_| is_kept),
            // On a file system in use, e2fsck sees halves of changes.
            deep: (is_idle_ext4 && deep == DeepCheck::Run).then(|| ask_e2fsck(&record.device)),
            is_reset_ordered: is_kept && mounted.join(RESET_MARK).exists(),
            content,
            record,
        }
    }

    fn judge(self) -> StateInspection {
        let device = self.record.device.display().to_string();
        let mut said = Said::default();
        if self.record.condition == StateCondition::Volatile {
            self.judge_idle(&device, &mut said);
        } else {
            self.judge_mounted(&device, &mut said);
        }
        let Said { findings, next, damaged } = said;
        StateInspection { device, condition: self.record.condition, damaged, findings, next }
    }

    /// The machine runs in memory, and the partition is free to be mended.
    fn judge_idle(&self, device: &str, said: &mut Said) {
        let reason = self.record.reason.as_deref().unwrap_or("no reason is known");
        said.note(format!("not in use since this boot: {reason}"));
        match (&self.content, &self.deep) {
            (Ok(PartitionContent::Ext4 { .. }), Some(DeepVerdict::Clean)) => {
                said.note(format!("{device} holds a whole ext4 file system now"));
                said.advise("restart the machine: it uses this STATE again");
                return;
            }
            (Ok(PartitionContent::Ext4 { .. }), Some(DeepVerdict::Damaged(words))) => {
                said.damage(format!("e2fsck finds faults: {words}"));
            }
            (Ok(PartitionContent::Ext4 { .. }), None) => {
                said.damage(format!("{device} holds an ext4 file system that was not looked at"));
            }
            (Ok(other), _) => said.damage(format!("{device} holds {}", other.describe())),
            (Err(error), _) => said.damage(format!("cannot read {device}: {error}")),
        }
        said.advise(&format!("to keep what is there: copy it (dd), run 'e2fsck {device}', then restart"));
        said.advise("to begin with an empty STATE: 'initagent state reset', then restart");
    }

    fn judge_mounted(&self, device: &str, said: &mut Said) {
        if let Some(reason) = &self.record.reason {
            said.note(format!("at this boot, {reason}"));
        }
        if self.record.condition == StateCondition::Reset {
            said.note("this boot made it anew, as ordered".to_owned());
        }
        if let Err(error) = &self.content {
            said.damage(format!("cannot read {device}: {error}"));
            said.advise("copy what you need: the disk may be about to fail");
        }
        if self.kernel_errors > 0 {
            said.damage(format!(
                "the kernel has met {} errors in the file system since it was last checked",
                self.kernel_errors
            ));
            said.advise("restart the machine: e2fsck looks at it before it is mounted");
        }
        if self.is_read_only {
            said.damage("it is read-only: the kernel stopped writing, or somebody mounted it so".to_owned());
            said.advise("read 'journalctl -k', then restart the machine");
        }
        match self.free {
            Some((0, _)) => said.damage("it is full: no block is free but root's".to_owned()),
            Some((_, 0)) => said.damage("it is full: no further file can be made".to_owned()),
            _ => {}
        }
        if matches!(self.free, Some((0, _) | (_, 0))) {
            said.advise("remove files; 'du -xh --max-depth=3 /var | sort -h' shows where they are");
        }
        if self.is_reset_ordered {
            said.note("the next boot makes it anew, and everything on it is lost".to_owned());
            said.advise(&format!("to keep it after all: 'rm {MOUNT_POINT}/{RESET_MARK}'"));
        }
    }
}

#[derive(Debug, Default)]
struct Said {
    findings: Vec<String>,
    next: Vec<String>,
    damaged: bool,
}

impl Said {
    fn note(&mut self, finding: String) {
        self.findings.push(finding);
    }

    fn damage(&mut self, finding: String) {
        self.damaged = true;
        self.findings.push(finding);
    }

    fn advise(&mut self, next: &str) {
        self.next.push(next.to_owned());
    }
}

impl StateInspection {
    /// Whether the machine keeps what it writes, in a file system without known faults.
    pub(crate) fn is_well(&self) -> bool {
        !self.damaged && self.condition != StateCondition::Volatile
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let word = match (self.condition, self.damaged) {
            (StateCondition::Volatile, _) => "NOT IN USE",
            (_, true) => "DAMAGED",
            (_, false) => "healthy",
        };
        let mut text = format!("state: {word} ({})\n", self.device);
        for finding in &self.findings {
            let _ = writeln!(text, "  {finding}");
        }
        for next in &self.next {
            let _ = writeln!(text, "  -> {next}");
        }
        text
    }
}

/// Whether the kernel writes to the file system: a mount can be read-only by itself, too.
fn is_mounted_read_only() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    is_read_only_in(&mounts)
}

fn is_read_only_in(mounts: &str) -> bool {
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(MOUNT_POINT));
    line.and_then(|line| line.split_once(" - ")).is_some_and(|(mount, file_system)| {
        let options = [mount.split(' ').nth(5), file_system.split(' ').nth(2)];
        options.into_iter().flatten().any(|options| options.split(',').any(|option| option == "ro"))
    })
}

/// `errors_count` of sysfs: what the superblock counts until e2fsck clears it.
fn noted_errors(device: &Path) -> u64 {
    let name = device.file_name().unwrap_or_default();
    let text = fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("errors_count"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn free_room(mounted: &Path) -> Option<(u64, u64)> {
    statvfs(mounted).ok().map(|room| (room.blocks_available(), room.files_available()))
}

fn ask_e2fsck(device: &Path) -> DeepVerdict {
    // -n: opened read-only, and every question answered with no. -f: also when it says that it is clean.
    let output =
        Command::new("/usr/sbin/e2fsck").args(["-n", "-f"]).arg(device).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => DeepVerdict::Clean,
        Ok(output) => {
            let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            DeepVerdict::Damaged(lines.take(MOST_LINES).collect::<Vec<_>>().join("; "))
        }
        Err(error) => DeepVerdict::Damaged(format!("it cannot be started: {error}")),
    }
}

#[cfg(test)]
mod tests;
