//! What was typed, and the help that says what can be.
//!
//! Knows words and options. Refuses to do anything. Invariant: what is not understood is refused
//! with the words that would have been.

use std::ffi::OsString;

use image_format::slot::Slot;
use lexopt::prelude::*;

use crate::app::RunError;
use crate::slots::{self, Change, Format};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Mark the running slot good.
    BootComplete,
    /// Say how to use the program.
    Help(&'static str),
    /// Make missing SSH host keys.
    HostKeys,
    /// Show or change the slot table.
    Slots(slots::Request),
    /// Say which version this is.
    Version,
}

/// Why a command line is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no verb given; 'initagent --help' lists them")]
    Missing,
    #[error("'initagent {verb} {change}' needs a slot, A or B")]
    MissingSlot { verb: &'static str, change: String },
    #[error(transparent)]
    Option(#[from] lexopt::Error),
    #[error("there is no verb {given:?}; 'initagent --help' lists them")]
    Verb { given: String },
    #[error("'initagent {verb}' has no {given:?}; 'initagent {verb} --help' says what it has")]
    Word { verb: &'static str, given: String },
}

/// Reads a command line.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Verb, RunError> {
    Ok(verb(&mut parser)?)
}

fn verb(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    match parser.next()?.ok_or(UsageError::Missing)? {
        Short('h') | Long("help") => Ok(Verb::Help(HELP)),
        Short('V') | Long("version") => Ok(Verb::Version),
        Value(word) => match word.to_str() {
            Some("boot-complete") => bare(parser, "boot-complete", Verb::BootComplete, BOOT_COMPLETE_HELP),
            Some("help") => Ok(Verb::Help(HELP)),
            Some("host-keys") => bare(parser, "host-keys", Verb::HostKeys, HOST_KEYS_HELP),
            Some("slots") => slots(parser),
            _ => Err(UsageError::Verb { given: shown(&word) }),
        },
        other => Err(other.unexpected().into()),
    }
}

/// A verb that takes nothing but `--help`.
fn bare(
    parser: &mut lexopt::Parser,
    name: &'static str,
    verb: Verb,
    help: &'static str,
) -> Result<Verb, UsageError> {
    match parser.next()? {
        None => Ok(verb),
        Some(Short('h') | Long("help")) => Ok(Verb::Help(help)),
        Some(Value(word)) => Err(UsageError::Word { verb: name, given: shown(&word) }),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn slots(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut request = slots::Request { abstate: None, change: None, format: Format::Text };
    let mut words: Vec<String> = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("abstate") => request.abstate = Some(parser.value()?.into()),
            Long("json") => request.format = Format::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(SLOTS_HELP)),
            Value(word) => words.push(shown(&word)),
            other => return Err(other.unexpected().into()),
        }
    }
    request.change = change(&words)?;
    Ok(Verb::Slots(request))
}

fn change(words: &[String]) -> Result<Option<Change>, UsageError> {
    let word = |given: &String| UsageError::Word { verb: "slots", given: given.clone() };
    let slot = |given: &String| given.parse::<Slot>().map_err(|_| word(given));
    let words: Vec<&String> = words.iter().collect();
    let (first, rest) = match words.split_first() {
        None => return Ok(None),
        Some((first, rest)) => (*first, rest),
    };
    let make = match first.as_str() {
        "activate" => Change::Activate,
        "disarm" => Change::Disarm,
        "mark-bad" => Change::MarkBad,
        "mark-good" => |slot| Change::MarkGood(Some(slot)),
        _ => return Err(word(first)),
    };
    match rest {
        [] if first == "mark-good" => Ok(Some(Change::MarkGood(None))),
        [] => Err(UsageError::MissingSlot { verb: "slots", change: first.clone() }),
        [given] => Ok(Some(make(slot(given)?))),
        [_, extra, ..] => Err(word(extra)),
    }
}

fn shown(word: &OsString) -> String {
    word.to_string_lossy().chars().take(80).collect()
}

const HELP: &str = "\
initagent: opens the verified root, configures the machine on first boot, and keeps its slots

Usage: initagent VERB [OPTIONS]

Verbs:
  boot-complete   mark the running slot good (systemd does this when the boot is complete)
  host-keys       make the SSH host keys that are missing
  slots           show or change which slot boots

Options:
  -h, --help      this text; after a verb, the verb's
  -V, --version   the version of this program

Exit codes: 0 done, 1 failed, 2 not understood.

Examples:
  initagent slots
  initagent slots activate B
";

const BOOT_COMPLETE_HELP: &str = "\
Usage: initagent boot-complete

Marks the slot that runs good and gives it all its tries again. Started by
catamaran-boot-complete.service when systemd reaches boot-complete.target; does
nothing if the slot table says so already.

Example:
  systemctl status catamaran-boot-complete.service
";

const HOST_KEYS_HELP: &str = "\
Usage: initagent host-keys

Makes the ed25519 and ecdsa host keys of this machine in /etc/ssh if they are
missing or broken. Started by catamaran-host-keys.service before sshd.

Example:
  rm /etc/ssh/ssh_host_*; initagent host-keys   # new keys for a cloned machine
";

const SLOTS_HELP: &str = "\
Usage: initagent slots [CHANGE [SLOT]] [--json] [--abstate PATH]

Shows which slot boots first, which runs, and how often each may still be tried.

Changes, each one sector in each of the two copies of the table:
  activate SLOT     boot this slot next, with all its tries
  disarm SLOT       never boot this slot: it is about to be overwritten
  mark-bad SLOT     never boot this slot again
  mark-good [SLOT]  the running slot has proven itself

Options:
      --abstate PATH   the partition of the slot table, or an image of it,
                       instead of the one this machine booted with
      --json           print for programs
  -h, --help           this text

A slot is good (proven), unproven (boots while it has tries), demoted (good, but
its boots failed) or empty.

Examples:
  initagent slots
  initagent slots --json
  initagent slots activate B && systemctl reboot
";

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Verb, UsageError> {
        verb(&mut lexopt::Parser::from_args(line.split_whitespace()))
    }

    fn change_of(line: &str) -> Change {
        match typed(line).unwrap() {
            Verb::Slots(slots::Request { change: Some(change), .. }) => change,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn verbs_are_understood() {
        assert_eq!(typed("boot-complete").unwrap(), Verb::BootComplete);
        assert_eq!(typed("host-keys").unwrap(), Verb::HostKeys);
        assert_eq!(typed("--version").unwrap(), Verb::Version);
        assert_eq!(change_of("slots activate B"), Change::Activate(Slot::B));
        assert_eq!(change_of("slots mark-good"), Change::MarkGood(None));
        assert_eq!(change_of("slots mark-good a --json"), Change::MarkGood(Some(Slot::A)));
        assert_eq!(change_of("slots disarm B"), Change::Disarm(Slot::B));
        assert_eq!(change_of("slots mark-bad A"), Change::MarkBad(Slot::A));
        let request =
            slots::Request { abstate: Some("/dev/vdb3".into()), change: None, format: Format::Json };
        assert_eq!(typed("slots --json --abstate=/dev/vdb3").unwrap(), Verb::Slots(request));
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        for line in ["--help", "help", "slots --help", "boot-complete -h", "host-keys --help"] {
            let Verb::Help(text) = typed(line).unwrap() else { panic!("{line} gives no help") };
            assert!(text.contains("Usage: initagent") && text.contains("Example"), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_way_on() {
        let said = |line: &str| typed(line).unwrap_err().to_string();

        assert_eq!(said(""), "no verb given; 'initagent --help' lists them");
        assert_eq!(said("boot"), "there is no verb \"boot\"; 'initagent --help' lists them");
        assert_eq!(said("slots activate"), "'initagent slots activate' needs a slot, A or B");
        assert_eq!(
            said("slots activate C"),
            "'initagent slots' has no \"C\"; 'initagent slots --help' says what it has"
        );
        assert_eq!(
            said("slots mark-good A B"),
            "'initagent slots' has no \"B\"; 'initagent slots --help' says what it has"
        );
        assert_eq!(said("slots --jsn"), "invalid option '--jsn'");
    }
}
