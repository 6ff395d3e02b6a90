//! What was typed, and the help that says what can be.
//!
//! Knows words and options. Refuses to do anything. Invariant: what is not understood is refused
//! with the words that would have been.

use std::ffi::OsString;
use std::path::PathBuf;

use first_boot::{Listing, Options, Style};
use image_format::slot::Slot;
use lexopt::prelude::*;

use crate::app::RunError;
use crate::slots::{self, Change};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Do what a file asks for, now.
    Apply {
        /// The file.
        file: PathBuf,
        /// How to say what came of it.
        format: Format,
    },
    /// Mark the running slot good.
    BootComplete,
    /// The run of the slot has settled.
    BootSettled,
    /// Configure the machine as its platform says.
    FirstBoot {
        /// How the run is meant.
        options: Options,
        /// How to say what came of it.
        format: Format,
    },
    /// Say how to use the program.
    Help(&'static str),
    /// Make missing SSH host keys.
    HostKeys,
    /// Say what a file would do.
    Plan {
        /// The file.
        file: PathBuf,
        /// How much of it to print.
        listing: Listing,
    },
    /// Show or change the slot table.
    Slots(slots::Request),
    /// Say what came of the last first boot.
    Status {
        /// How to print it.
        format: Format,
        /// Whether to wait for its end.
        wait: bool,
    },
    /// Find the mistakes in files.
    Validate {
        /// The files.
        files: Vec<PathBuf>,
        /// How to print what is found.
        style: Style,
    },
    /// Say which version this is.
    Version,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Why a command line is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("'initagent {verb}' needs {what}; 'initagent {verb} --help' says more")]
    Incomplete { verb: &'static str, what: &'static str },
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
        // As `coreos-cloudinit`, which is this program too, was mostly called.
        Long("from-file") => apply_file(Some(parser.value()?.into()), parser),
        Short('h') | Long("help") => Ok(Verb::Help(HELP)),
        Short('V') | Long("version") => Ok(Verb::Version),
        Value(word) => match word.to_str() {
            Some("apply") => apply(parser),
            Some("boot-complete") => bare(parser, "boot-complete", Verb::BootComplete, BOOT_COMPLETE_HELP),
            Some("boot-settled") => bare(parser, "boot-settled", Verb::BootSettled, BOOT_SETTLED_HELP),
            Some("first-boot") => first_boot(parser),
            Some("help") => Ok(Verb::Help(HELP)),
            Some("host-keys") => bare(parser, "host-keys", Verb::HostKeys, HOST_KEYS_HELP),
            Some("plan") => plan(parser),
            Some("slots") => slots(parser),
            Some("status") => status(parser),
            Some("validate") => validate(parser),
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

fn apply(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    apply_file(None, parser)
}

fn apply_file(mut file: Option<PathBuf>, parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut format, mut options) = (Format::Text, Options::default());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("force") => options.force = true,
            Long("from-file") => file = Some(PathBuf::from(parser.value()?)),
            Long("json") => format = Format::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(APPLY_HELP)),
            Value(word) => return Err(UsageError::Word { verb: "apply", given: shown(&word) }),
            other => return Err(other.unexpected().into()),
        }
    }
    match (file, options.force) {
        (Some(file), false) => Ok(Verb::Apply { file, format }),
        (None, true) => Ok(Verb::FirstBoot { options, format }),
        _ => Err(UsageError::Incomplete { verb: "apply", what: "either --from-file FILE or --force" }),
    }
}

fn first_boot(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut format = Format::Text;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => format = Format::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(FIRST_BOOT_HELP)),
            Value(word) => return Err(UsageError::Word { verb: "first-boot", given: shown(&word) }),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Verb::FirstBoot { options: Options::default(), format })
}

fn plan(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut files, mut listing) = (Vec::new(), Listing::Short);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("full") => listing = Listing::Full,
            Short('h') | Long("help") => return Ok(Verb::Help(PLAN_HELP)),
            Value(file) => files.push(PathBuf::from(file)),
            other => return Err(other.unexpected().into()),
        }
    }
    match <[PathBuf; 1]>::try_from(files) {
        Ok([file]) => Ok(Verb::Plan { file, listing }),
        Err(_) => Err(UsageError::Incomplete { verb: "plan", what: "one FILE, or - for standard input" }),
    }
}

fn status(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut format, mut wait) = (Format::Text, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => format = Format::Json,
            Long("wait") => wait = true,
            Short('h') | Long("help") => return Ok(Verb::Help(STATUS_HELP)),
            Value(word) => return Err(UsageError::Word { verb: "status", given: shown(&word) }),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Verb::Status { format, wait })
}

fn validate(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut files, mut style) = (Vec::new(), Style::Text);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => style = Style::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(VALIDATE_HELP)),
            Value(file) => files.push(PathBuf::from(file)),
            other => return Err(other.unexpected().into()),
        }
    }
    if files.is_empty() {
        let what = "at least one FILE, or - for standard input";
        return Err(UsageError::Incomplete { verb: "validate", what });
    }
    Ok(Verb::Validate { files, style })
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

Verbs for people:
  apply           do what a cloud-config asks for, now
  plan            say what a cloud-config would do
  slots           show or change which slot boots
  status          say what came of the first boot
  validate        find the mistakes in a cloud-config

Verbs that systemd runs:
  boot-complete   mark the running slot good, now that the boot is complete
  boot-settled    give the running slot all its tries, now that it has stayed up
  first-boot      find out what this machine is to be, and make it so
  host-keys       make the SSH host keys that are missing

Options:
  -h, --help      this text; after a verb, the verb's
  -V, --version   the version of this program

Exit codes: 0 done, 1 failed, 2 done in part, 64 not understood.

Examples:
  initagent validate user-data.yaml
  initagent status
  initagent slots activate B
  coreos-cloudinit --from-file user-data.yaml   # the same program: `apply`
";

const APPLY_HELP: &str = "\
Usage: initagent apply --from-file FILE [--json]
       initagent apply --force [--json]

Does what a file of user-data asks for, at once, or does again what the platform
of this machine asked for at its first boot. What is as it should be already is
left alone.

Options:
      --force            configure this instance again
      --from-file FILE   a cloud-config, script or archive; nothing is asked of the platform
      --json             print for programs
  -h, --help             this text

Exit codes: 0 all done, 1 nothing could be read or fetched, 2 some items failed.

Examples:
  initagent apply --from-file more-users.yaml
  initagent apply --force
";

const BOOT_COMPLETE_HELP: &str = "\
Usage: initagent boot-complete

Marks the slot that runs good and gives it all its tries again, unless its last
run crashed before it had settled. Started by catamaran-boot-complete.service when
systemd reaches boot-complete.target; writes nothing that the slot table says
already.

Example:
  systemctl status catamaran-boot-complete.service
";

const BOOT_SETTLED_HELP: &str = "\
Usage: initagent boot-settled

Gives the slot that runs all its tries, after a boot that was complete. Started
when the machine has been up for ten minutes, or shuts down in order. A slot that
crashes sooner, again and again, uses up its tries and gives way to the other.

Example:
  systemctl list-timers catamaran-boot-settled.timer
";

const FIRST_BOOT_HELP: &str = "\
Usage: initagent first-boot [--json]

Finds the platform that this machine runs on, asks it for user-data, and does
what that says: all of it once per instance, and at each boot what does not last.
Started by catamaran-first-boot.service; nothing waits for it to end.

Options:
      --json   print for programs
  -h, --help   this text

Exit codes: 0 all done, 1 nothing could be read or fetched, 2 some items failed.

Example:
  journalctl -u catamaran-first-boot.service
";

const HOST_KEYS_HELP: &str = "\
Usage: initagent host-keys

Makes the ed25519 and ecdsa host keys of this machine in /etc/ssh if they are
missing or broken. Started by catamaran-host-keys.service before sshd.

Example:
  rm /etc/ssh/ssh_host_*; initagent host-keys   # new keys for a cloned machine
";

const PLAN_HELP: &str = "\
Usage: initagent plan FILE [--full]

Prints what a file of user-data would do, in order, without doing it, and then
what is wrong with it. Works on any machine.

Options:
      --full   with the contents of files, units and scripts
  -h, --help   this text

Exit codes: 0 nothing is wrong, 1 errors, 2 warnings only.

Examples:
  initagent plan user-data.yaml
  curl -s https://example.com/user-data | initagent plan -
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

const STATUS_HELP: &str = "\
Usage: initagent status [--wait] [--json]

Says what came of the first boot: every item with its place in the file and why
it failed, if it did. Never a password, a key or the content of a file.

Options:
      --json   print for programs
      --wait   until that of this boot has ended
  -h, --help   this text

Exit codes: 0 all was done, 1 it failed or has not ended yet, 2 some items failed.

Examples:
  initagent status
  cloud-init status --wait && echo ready   # the same program
";

const VALIDATE_HELP: &str = "\
Usage: initagent validate FILE... [--json]

Finds everything that a run would complain about, with line and column, without
doing anything. Works on any machine, without a network.

Options:
      --json   print for programs
  -h, --help   this text

Exit codes: 0 nothing is wrong, 1 errors, 2 warnings only.

Examples:
  initagent validate user-data.yaml
  initagent validate --json *.yaml
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
        assert_eq!(typed("boot-settled").unwrap(), Verb::BootSettled);
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
    fn verbs_of_the_first_boot_are_understood() {
        let again = Verb::FirstBoot { options: Options { force: true }, format: Format::Text };
        assert_eq!(typed("apply --force").unwrap(), again);
        let file = || PathBuf::from("a.yaml");
        assert_eq!(
            typed("apply --from-file a.yaml --json").unwrap(),
            Verb::Apply { file: file(), format: Format::Json }
        );
        let first = Verb::FirstBoot { options: Options::default(), format: Format::Json };
        assert_eq!(typed("first-boot --json").unwrap(), first);
        assert_eq!(typed("plan --full a.yaml").unwrap(), Verb::Plan { file: file(), listing: Listing::Full });
        assert_eq!(typed("status").unwrap(), Verb::Status { format: Format::Text, wait: false });
        assert_eq!(typed("status --wait").unwrap(), Verb::Status { format: Format::Text, wait: true });
        assert_eq!(typed("--from-file=x.yaml").unwrap(), typed("apply --from-file x.yaml").unwrap());
        assert_eq!(
            typed("validate a.yaml -").unwrap(),
            Verb::Validate { files: vec![file(), "-".into()], style: Style::Text }
        );
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        let verbs = [
            "apply",
            "boot-complete",
            "boot-settled",
            "first-boot",
            "host-keys",
            "plan",
            "slots",
            "status",
            "validate",
        ];
        let lines = verbs.iter().flat_map(|verb| [format!("{verb} --help"), format!("{verb} -h")]);
        for line in lines.chain(["--help".to_owned(), "help".to_owned()]) {
            let line = line.as_str();
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
        assert_eq!(
            said("apply"),
            "'initagent apply' needs either --from-file FILE or --force; 'initagent apply --help' says more"
        );
        assert_eq!(
            said("plan a b"),
            "'initagent plan' needs one FILE, or - for standard input; 'initagent plan --help' says more"
        );
        assert_eq!(
            said("validate"),
            "'initagent validate' needs at least one FILE, or - for standard input; \
             'initagent validate --help' says more"
        );
        assert_eq!(said("slots --jsn"), "invalid option '--jsn'");
    }
}
