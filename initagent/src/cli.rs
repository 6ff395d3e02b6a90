//! What was typed.
//!
//! Knows words and options. Refuses to do anything. Invariant: what is not understood is refused
//! with the words that would have been.
//!
//! Documentation: cloud-init's command line, <https://docs.cloud-init.io/en/latest/reference/cli.html>.

use std::ffi::OsString;
use std::path::PathBuf;

use first_boot::{Document, OutputFormat, PlanDetail, Recurrence, Role, RunOptions, Switch};
use image_format::slot::Slot;
use image_format::version::ParseVersionError;
use lexopt::prelude::*;

/// What the program says of itself.
mod help;
/// The words of `install`.
mod install;
/// The verbs of `update`.
mod update;

use crate::cluster_verb::{self, ClusterCall, ClusterWords};
use crate::install::InstallOrder;
use crate::slots::{self, Order, SlotChange};
use crate::update::orders::UpdateRequest;

/// The verb that cloud-init has as a program of its own.
const RECUR: &str = "cloud-init-per";
/// The name by which it stands before Debian's program.
const ETCDCTL: &str = "etcdctl";
const INCOMPLETE_RECUR: UsageError =
    UsageError::Incomplete { verb: RECUR, what: "once, instance or always, a NAME and a COMMAND" };

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Do what a file asks for, now.
    Apply {
        /// The file.
        file: PathBuf,
        /// How to say what came of it.
        format: OutputFormat,
    },
    /// Wait until people can log in.
    AwaitLogins,
    /// Mark the running slot good.
    BootComplete,
    /// The run of the slot has settled.
    BootSettled,
    /// Make the machine a member of its cluster.
    Cluster(ClusterCall),
    /// Speak to etcd with the API and the certificate that the words mean.
    Etcdctl(Vec<OsString>),
    /// Configure the machine as its platform says.
    FirstBoot {
        /// How the run is meant.
        options: RunOptions,
        /// How to say what came of it.
        format: OutputFormat,
    },
    /// Say how to use the program.
    Help(&'static str),
    /// Make missing SSH host keys.
    HostKeys,
    /// Write a system to a disk.
    Install(InstallOrder),
    /// Bring up network cards before other devices.
    NetworkCards,
    /// Say what a file would do.
    Plan {
        /// The file.
        file: PathBuf,
        /// How much of it to print.
        listing: PlanDetail,
    },
    /// Show or set whether the machine may be configured again.
    Provision {
        /// What it is set to.
        to: Option<Switch>,
    },
    /// Run a command as often as its caller says.
    Recur {
        /// How often.
        recurrence: Recurrence,
        /// By what it is known again.
        name: String,
        /// The program and its arguments.
        command: Vec<OsString>,
    },
    /// Show or change the slot table.
    Slots(slots::SlotsRequest),
    /// Say what came of the last first boot.
    Status {
        /// How to print it.
        format: OutputFormat,
        /// Whether to wait for its end.
        wait: bool,
    },
    /// Replace the system of the machine.
    Update(UpdateRequest),
    /// Find the mistakes in files.
    Validate {
        /// The files, and what each is for.
        files: Vec<Document>,
        /// How to print what is found.
        style: OutputFormat,
    },
    /// Say which version this is.
    Version,
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
    #[error("'initagent slots lower-floor' needs a version")]
    Version { source: ParseVersionError },
    #[error("'initagent {verb}' has no {given:?}; 'initagent {verb} --help' says what it has")]
    Word { verb: &'static str, given: String },
}

/// Reads a command line.
pub(crate) fn parse_arguments(mut parser: lexopt::Parser) -> Result<Verb, UsageError> {
    parse_verb(&mut parser)
}

fn parse_verb(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    // Scripts of user-data call this program by cloud-init's name of the verb.
    if parser.bin_name().is_some_and(|path| path.rsplit('/').next() == Some(RECUR)) {
        return parse_recur(parser);
    }
    if parser.bin_name().is_some_and(|path| path.rsplit('/').next() == Some(ETCDCTL)) {
        return Ok(Verb::Etcdctl(parser.raw_args()?.collect()));
    }
    if parser.bin_name().is_some_and(|path| path.rsplit('/').next() == Some(update::ENGINE)) {
        return update::parse_engine(parser);
    }
    match parser.next()?.ok_or(UsageError::Missing)? {
        // As `coreos-cloudinit`, which is this program too, was mostly called.
        Long("from-file") => apply_file(Some(parser.value()?.into()), parser),
        // lexopt and not clap, which costs five seconds of each build for words that are so few.
        Short('h') | Long("help") => Ok(Verb::Help(help::PROGRAM)),
        Short('V') | Long("version") => Ok(Verb::Version),
        Value(word) => match word.to_str() {
            Some("apply") => parse_apply(parser),
            Some(RECUR) => parse_recur(parser),
            Some("await-logins") => parse_bare(parser, "await-logins", Verb::AwaitLogins, help::AWAIT_LOGINS),
            Some("boot-complete") => {
                parse_bare(parser, "boot-complete", Verb::BootComplete, help::BOOT_COMPLETE)
            }
            Some("boot-settled") => parse_bare(parser, "boot-settled", Verb::BootSettled, help::BOOT_SETTLED),
            Some("cluster") => parse_cluster(parser),
            Some("first-boot") => first_boot(parser),
            Some("help") => Ok(Verb::Help(help::PROGRAM)),
            Some("host-keys") => parse_bare(parser, "host-keys", Verb::HostKeys, help::HOST_KEYS),
            Some("install") => install::parse_install(parser),
            Some("network-cards") => {
                parse_bare(parser, "network-cards", Verb::NetworkCards, help::NETWORK_CARDS)
            }
            Some("plan") => parse_plan(parser),
            Some("provision") => parse_provision(parser),
            Some("slots") => parse_slots(parser),
            Some("update") => update::parse_update(parser),
            Some("status") => parse_status(parser),
            Some("validate") => parse_validate(parser),
            _ => Err(UsageError::Verb { given: printable_word(&word) }),
        },
        other => Err(other.unexpected().into()),
    }
}

/// A verb that takes nothing but `--help`.
fn parse_bare(
    parser: &mut lexopt::Parser,
    name: &'static str,
    verb: Verb,
    help: &'static str,
) -> Result<Verb, UsageError> {
    match parser.next()? {
        None => Ok(verb),
        Some(Short('h') | Long("help")) => Ok(Verb::Help(help)),
        Some(Value(word)) => Err(UsageError::Word { verb: name, given: printable_word(&word) }),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn parse_cluster(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    const VERBS: &str = "secret, status, prepare or serve";
    match cluster_verb::parse_cluster(parser)? {
        ClusterWords::Call(call) => Ok(Verb::Cluster(call)),
        ClusterWords::Help(text) => Ok(Verb::Help(text)),
        ClusterWords::Missing => Err(UsageError::Incomplete { verb: "cluster", what: VERBS }),
        ClusterWords::Unknown(given) => Err(UsageError::Word { verb: "cluster", given }),
    }
}

fn parse_apply(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    apply_file(None, parser)
}

fn apply_file(mut file: Option<PathBuf>, parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut format, mut options) = (OutputFormat::Text, RunOptions::default());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("force") => options.force = true,
            Long("from-file") => file = Some(PathBuf::from(parser.value()?)),
            Long("json") => format = OutputFormat::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(help::APPLY)),
            Value(word) => return Err(UsageError::Word { verb: "apply", given: printable_word(&word) }),
            other => return Err(other.unexpected().into()),
        }
    }
    // One of the two and not both: a file is done at once, and `--force` is about the platform's word.
    match (file, options.force) {
        (Some(file), false) => Ok(Verb::Apply { file, format }),
        (None, true) => Ok(Verb::FirstBoot { options, format }),
        _ => Err(UsageError::Incomplete { verb: "apply", what: "either --from-file FILE or --force" }),
    }
}

fn first_boot(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut format = OutputFormat::Text;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => format = OutputFormat::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(help::FIRST_BOOT)),
            Value(word) => return Err(UsageError::Word { verb: "first-boot", given: printable_word(&word) }),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Verb::FirstBoot { options: RunOptions::default(), format })
}

fn parse_plan(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut files, mut listing) = (Vec::new(), PlanDetail::Short);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("full") => listing = PlanDetail::Full,
            Short('h') | Long("help") => return Ok(Verb::Help(help::PLAN)),
            Value(file) => files.push(PathBuf::from(file)),
            other => return Err(other.unexpected().into()),
        }
    }
    match <[PathBuf; 1]>::try_from(files) {
        Ok([file]) => Ok(Verb::Plan { file, listing }),
        Err(_) => Err(UsageError::Incomplete { verb: "plan", what: "one FILE, or - for standard input" }),
    }
}

fn parse_provision(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Verb::Help(help::PROVISION)),
            Value(word) => words.push(printable_word(&word)),
            other => return Err(other.unexpected().into()),
        }
    }
    let unknown = |given: &String| UsageError::Word { verb: "provision", given: given.clone() };
    let to = match words.first().map(String::as_str) {
        None | Some("show") => None,
        Some(word) => Some(Switch::from_word(word).ok_or_else(|| unknown(&words[0]))?),
    };
    match words.get(1) {
        Some(extra) => Err(unknown(extra)),
        None => Ok(Verb::Provision { to }),
    }
}

fn parse_recur(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut words = Vec::new();
    while words.len() < 2 {
        match parser.next()? {
            Some(Short('h') | Long("help")) => return Ok(Verb::Help(help::CLOUD_INIT_PER)),
            Some(Value(word)) => words.push(word),
            Some(other) => return Err(other.unexpected().into()),
            None => break,
        }
    }
    // What follows is the command's own, options included.
    let command: Vec<OsString> = parser.raw_args()?.collect();
    let [frequency, name] = words.as_slice() else { return Err(INCOMPLETE_RECUR) };
    if command.is_empty() {
        return Err(INCOMPLETE_RECUR);
    }
    let recurrence = frequency.to_str().and_then(Recurrence::from_word);
    let recurrence =
        recurrence.ok_or_else(|| UsageError::Word { verb: RECUR, given: printable_word(frequency) })?;
    let name = name.to_string_lossy().into_owned();
    Ok(Verb::Recur { recurrence, name, command })
}

fn parse_status(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut format, mut wait) = (OutputFormat::Text, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => format = OutputFormat::Json,
            Long("wait") => wait = true,
            Short('h') | Long("help") => return Ok(Verb::Help(help::STATUS)),
            Value(word) => return Err(UsageError::Word { verb: "status", given: printable_word(&word) }),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Verb::Status { format, wait })
}

fn parse_validate(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut files, mut style) = (Vec::new(), OutputFormat::Text);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => style = OutputFormat::Json,
            Long("meta-data") => files.push(parse_document(parser, Role::MetaData)?),
            Long("network-config") => files.push(parse_document(parser, Role::NetworkConfig)?),
            Long("user-data") => files.push(parse_document(parser, Role::UserData)?),
            Long("vendor-data") => files.push(parse_document(parser, Role::VendorData)?),
            Short('h') | Long("help") => return Ok(Verb::Help(help::VALIDATE)),
            Value(file) => files.push(PathBuf::from(file).into()),
            other => return Err(other.unexpected().into()),
        }
    }
    if files.is_empty() {
        let what = "at least one FILE, or - for standard input";
        return Err(UsageError::Incomplete { verb: "validate", what });
    }
    Ok(Verb::Validate { files, style })
}

/// The file behind an option that says what it is for.
fn parse_document(parser: &mut lexopt::Parser, role: Role) -> Result<Document, UsageError> {
    Ok(Document { path: PathBuf::from(parser.value()?), role })
}

fn parse_slots(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let mut request = slots::SlotsRequest { abstate: None, order: None, format: OutputFormat::Text };
    let mut words: Vec<String> = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("abstate") => request.abstate = Some(parser.value()?.into()),
            Long("json") => request.format = OutputFormat::Json,
            Short('h') | Long("help") => return Ok(Verb::Help(help::SLOTS)),
            Value(word) => words.push(printable_word(&word)),
            other => return Err(other.unexpected().into()),
        }
    }
    request.order = parse_order(&words)?;
    Ok(Verb::Slots(request))
}

fn parse_order(words: &[String]) -> Result<Option<Order>, UsageError> {
    let [first, rest @ ..] = words else { return Ok(None) };
    if first != "lower-floor" {
        return Ok(parse_change(words)?.map(Order::Change));
    }
    match rest {
        [given] => {
            let version = given.parse().map_err(|source| UsageError::Version { source })?;
            Ok(Some(Order::LowerFloor(version)))
        }
        [] => Err(UsageError::Incomplete { verb: "slots", what: "a VERSION after 'lower-floor'" }),
        [_, extra, ..] => Err(UsageError::Word { verb: "slots", given: extra.clone() }),
    }
}

fn parse_change(words: &[String]) -> Result<Option<SlotChange>, UsageError> {
    let word = |given: &String| UsageError::Word { verb: "slots", given: given.clone() };
    let slot = |given: &String| given.parse::<Slot>().map_err(|_| word(given));
    let words: Vec<&String> = words.iter().collect();
    let (first, rest) = match words.split_first() {
        None => return Ok(None),
        Some((first, rest)) => (*first, rest),
    };
    let make = match first.as_str() {
        "activate" => SlotChange::Activate,
        "disarm" => SlotChange::Disarm,
        "mark-bad" => SlotChange::MarkBad,
        "mark-good" => |slot| SlotChange::MarkGood(Some(slot)),
        _ => return Err(word(first)),
    };
    match rest {
        [] if first == "mark-good" => Ok(Some(SlotChange::MarkGood(None))),
        [] => Err(UsageError::MissingSlot { verb: "slots", change: first.clone() }),
        [given] => Ok(Some(make(slot(given)?))),
        [_, extra, ..] => Err(word(extra)),
    }
}

fn printable_word(word: &OsString) -> String {
    // What is repeated in a complaint should stay one line.
    word.to_string_lossy().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Verb, UsageError> {
        parse_verb(&mut lexopt::Parser::from_args(line.split_whitespace()))
    }

    fn change_of(line: &str) -> SlotChange {
        match typed(line).unwrap() {
            Verb::Slots(slots::SlotsRequest { order: Some(Order::Change(change)), .. }) => change,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn verbs_are_understood() {
        assert_eq!(typed("boot-complete").unwrap(), Verb::BootComplete);
        assert_eq!(typed("boot-settled").unwrap(), Verb::BootSettled);
        assert_eq!(typed("host-keys").unwrap(), Verb::HostKeys);
        assert_eq!(typed("network-cards").unwrap(), Verb::NetworkCards);
        assert_eq!(typed("await-logins").unwrap(), Verb::AwaitLogins);
        assert_eq!(typed("--version").unwrap(), Verb::Version);
        assert_eq!(change_of("slots activate B"), SlotChange::Activate(Slot::B));
        assert_eq!(change_of("slots mark-good"), SlotChange::MarkGood(None));
        assert_eq!(change_of("slots mark-good a --json"), SlotChange::MarkGood(Some(Slot::A)));
        assert_eq!(change_of("slots disarm B"), SlotChange::Disarm(Slot::B));
        assert_eq!(change_of("slots mark-bad A"), SlotChange::MarkBad(Slot::A));
        let request = slots::SlotsRequest {
            abstate: Some("/dev/vdb3".into()),
            order: None,
            format: OutputFormat::Json,
        };
        assert_eq!(typed("slots --json --abstate=/dev/vdb3").unwrap(), Verb::Slots(request));
    }

    #[test]
    fn a_command_that_recurs_keeps_its_own_options() {
        let verb = Verb::Recur {
            recurrence: Recurrence::Once,
            name: "data".to_owned(),
            command: ["mkfs.ext4", "-L", "data", "--help"].map(OsString::from).to_vec(),
        };

        let called = |words: &str| parse_verb(&mut lexopt::Parser::from_iter(words.split_whitespace()));

        assert_eq!(typed("cloud-init-per once data mkfs.ext4 -L data --help").unwrap(), verb);
        assert_eq!(called("/usr/bin/cloud-init-per once data mkfs.ext4 -L data --help").unwrap(), verb);
        assert_eq!(called("cloud-init-per --help").unwrap(), Verb::Help(help::CLOUD_INIT_PER));
        assert!(called("cloud-init-per sometimes a b").unwrap_err().to_string().contains("\"sometimes\""));
        for line in ["", "once", "once data"] {
            let error = called(&format!("cloud-init-per {line}")).unwrap_err();
            assert!(error.to_string().contains("needs once, instance or always"), "{error}");
        }
    }

    #[test]
    fn a_floor_is_lowered_to_a_version() {
        let Verb::Slots(request) = typed("slots lower-floor 1.2.3").unwrap() else { panic!("another verb") };
        assert_eq!(request.order, Some(Order::LowerFloor(image_format::version::Version::new(1, 2, 3))));

        let said = |line: &str| typed(line).unwrap_err().to_string();
        assert_eq!(
            said("slots lower-floor"),
            "'initagent slots' needs a VERSION after 'lower-floor'; 'initagent slots --help' says more"
        );
        assert_eq!(said("slots lower-floor new"), "'initagent slots lower-floor' needs a version");
        assert!(said("slots lower-floor 1.0.0 A").contains("has no \"A\""));
    }

    #[test]
    fn verbs_of_the_first_boot_are_understood() {
        let again = Verb::FirstBoot { options: RunOptions { force: true }, format: OutputFormat::Text };
        assert_eq!(typed("apply --force").unwrap(), again);
        let file = || PathBuf::from("a.yaml");
        assert_eq!(
            typed("apply --from-file a.yaml --json").unwrap(),
            Verb::Apply { file: file(), format: OutputFormat::Json }
        );
        let first = Verb::FirstBoot { options: RunOptions::default(), format: OutputFormat::Json };
        assert_eq!(typed("first-boot --json").unwrap(), first);
        assert_eq!(
            typed("plan --full a.yaml").unwrap(),
            Verb::Plan { file: file(), listing: PlanDetail::Full }
        );
        assert_eq!(typed("status").unwrap(), Verb::Status { format: OutputFormat::Text, wait: false });
        assert_eq!(typed("status --wait").unwrap(), Verb::Status { format: OutputFormat::Text, wait: true });
        assert_eq!(typed("provision").unwrap(), Verb::Provision { to: None });
        assert_eq!(typed("provision show").unwrap(), Verb::Provision { to: None });
        assert_eq!(typed("provision locked").unwrap(), Verb::Provision { to: Some(Switch::Locked) });
        assert_eq!(typed("--from-file=x.yaml").unwrap(), typed("apply --from-file x.yaml").unwrap());
        assert_eq!(
            typed("validate a.yaml -").unwrap(),
            Verb::Validate {
                files: vec![file().into(), PathBuf::from("-").into()],
                style: OutputFormat::Text
            }
        );
        let told = Document { path: file(), role: Role::NetworkConfig };
        assert_eq!(
            typed("validate --network-config a.yaml --json").unwrap(),
            Verb::Validate { files: vec![told], style: OutputFormat::Json }
        );
        assert!(typed("validate --meta-data").is_err());
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        let verbs = [
            "apply",
            "boot-complete",
            "await-logins",
            "boot-settled",
            "first-boot",
            "host-keys",
            "network-cards",
            "plan",
            "provision",
            "slots",
            "status",
            "update",
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
        assert_eq!(
            said("provision never"),
            "'initagent provision' has no \"never\"; 'initagent provision --help' says what it has"
        );
        assert!(said("provision once twice").contains("\"twice\""));
        assert_eq!(said("slots --jsn"), "invalid option '--jsn'");
    }
}
