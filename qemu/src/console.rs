//! Reads what a machine says on its serial console.
//!
//! Knows the log file QEMU writes, and which lines on a Linux console mean trouble; takes out the terminal
//! control sequences. Refuses to wait: whoever waits also knows whether the machine still runs. Invariant:
//! a word is found once, and only after the words found before it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The console of one start of a machine.
#[derive(Debug)]
pub struct Console {
    log: PathBuf,
    start: usize,
    read: usize,
}

impl Console {
    /// The console from now on; what the log already holds belongs to earlier starts.
    pub(crate) fn start_reading(log: &Path) -> Self {
        let start = fs::metadata(log).map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0));
        Self { log: log.into(), start, read: 0 }
    }

    /// All that was said since this start, without control sequences.
    pub fn console_text(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read_log()?).into_owned())
    }

    /// The last `lines` lines, for an error message.
    #[must_use]
    pub fn last_lines(&self, lines: usize) -> String {
        let text =
            self.console_text().unwrap_or_else(|error| format!("(the console's log is unreadable: {error})"));
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Looks for the first of `words` in what was not yet read, and reads up to its line's end: which word it
    /// is, and the line.
    pub fn find_words(&mut self, words: &[&str]) -> io::Result<Option<(usize, String)>> {
        let bytes = self.read_log()?;
        let unread = bytes.get(self.read..).unwrap_or_default();
        let found = words
            .iter()
            .enumerate()
            .filter_map(|(index, word)| find_bytes(unread, word.as_bytes()).map(|at| (at, index)))
            .min();
        let Some((at, index)) = found else { return Ok(None) };
        let line_start = unread[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
        let after = at + words[index].len();
        let line_end = find_bytes(&unread[after..], b"\n").map_or(unread.len(), |more| after + more);
        let line = String::from_utf8_lossy(&unread[line_start..line_end]).into_owned();
        // Only up to the word: the rest of the line may hold the next one.
        self.read += after;
        Ok(Some((index, line)))
    }

    /// Lines that no healthy machine says.
    pub fn find_complaints(&self) -> io::Result<Vec<String>> {
        Ok(self.console_text()?.lines().filter(|line| is_complaint(line)).map(str::to_owned).collect())
    }

    /// Begins the log anew when it has grown too long: a guest that talks without end must not fill this host's
    /// disk. QEMU appends to it, so it goes on at the new end.
    pub(crate) fn bound_log(&mut self, longest: u64) -> io::Result<()> {
        if fs::metadata(&self.log)?.len() <= longest {
            return Ok(());
        }
        // QEMU opened it to append, so its next byte is the first of the file and leaves no hole.
        (self.start, self.read) = (0, 0);
        fs::OpenOptions::new().write(true).open(&self.log)?.set_len(0)
    }

    fn read_log(&self) -> io::Result<Vec<u8>> {
        let bytes = fs::read(&self.log)?;
        Ok(without_control_sequences(bytes.get(self.start..).unwrap_or_default()))
    }
}

/// What kola and our own experience look for on the console of a machine that should be well.
const COMPLAINTS: [&str; 17] = [
    "Kernel panic",
    "Oops:",
    "BUG:",
    "WARNING: CPU",
    "I/O error",
    "EXT4-fs error",
    "EXT4-fs warning",
    "Out of memory: Killed",
    "oom-killer",
    "segfault at",
    "dumped core",
    "Found ordering cycle",
    "emergency mode",
    "emergency shell",
    "[FAILED]",
    "Failed to start ",
    "soft lockup",
];

fn is_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|complaint| line.contains(complaint))
}

fn find_bytes(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

/// Drops carriage returns and escape sequences (CSI to its final byte, OSC to its end, else two bytes). An
/// unfinished one at the end is dropped too, so that the text only ever grows at its end.
fn without_control_sequences(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            0x1b => after_sequence(after),
            b'\r' | 0 => after,
            _ => {
                text.push(byte);
                after
            }
        };
    }
    text
}

fn after_sequence(bytes: &[u8]) -> &[u8] {
    let until =
        |found: fn(&u8) -> bool| bytes[1..].iter().position(found).map_or(&[][..], |at| &bytes[at + 2..]);
    match bytes.first() {
        Some(b'[') => until(|byte| (0x40..=0x7e).contains(byte)),
        Some(b']') => until(|byte| *byte == 0x07 || *byte == b'\\'),
        _ => bytes.get(1..).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(said: &[u8]) -> (tempfile::TempDir, Console) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        fs::write(&log, "before ").unwrap();
        let console = Console::start_reading(&log);
        fs::write(&log, [b"before ", said].concat()).unwrap();
        (folder, console)
    }

    #[test]
    fn control_sequences_do_not_hide_words() {
        let (_folder, console) = console(b"\x1b[2J\x1b[01;01Hlo\x1b[0mgin\x1b]0;title\x07:\r\n\x1b[");

        assert_eq!(console.console_text().unwrap(), "login:\n");
    }

    #[test]
    fn a_log_that_grew_too_long_begins_anew() {
        let (folder, mut console) = console(b"one\n");
        let log = folder.path().join("console.log");
        console.bound_log(11).unwrap();
        assert_eq!(console.console_text().unwrap(), "one\n");

        console.bound_log(10).unwrap();
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        fs::write(&log, "two\n").unwrap();

        assert_eq!(console.find_words(&["two"]).unwrap(), Some((0, "two".into())));
    }

    #[test]
    fn words_are_found_once_and_in_order() {
        let (_folder, mut console) = console(b"one two\nthree one\n");

        assert_eq!(console.find_words(&["two"]).unwrap(), Some((0, "one two".into())));
        assert_eq!(console.find_words(&["one"]).unwrap(), Some((0, "three one".into())));
        assert_eq!(console.find_words(&["one"]).unwrap(), None);
    }

    #[test]
    fn the_earliest_of_several_words_wins() {
        let (_folder, mut console) = console(b"slot b\nslot a\n");

        assert_eq!(console.find_words(&["slot a", "slot b"]).unwrap(), Some((1, "slot b".into())));
    }

    #[test]
    fn earlier_starts_are_not_read() {
        let (_folder, mut console) = console(b"now");

        assert_eq!(console.find_words(&["before"]).unwrap(), None);
    }

    #[test]
    fn trouble_is_noticed() {
        let (_folder, console) = console(b"all is well\n[  1.0] Kernel panic - not syncing\n");

        assert_eq!(console.find_complaints().unwrap(), ["[  1.0] Kernel panic - not syncing"]);
    }
}
