//! The rules that places have, and how an artefact is held against them.
//!
//! Pure: facts in, verdicts out.

use super::facts::ArtefactFacts;

/// A rule of a place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PlaceRule {
    /// What comes from the place's metadata service: user-data, keys. The text says by which way.
    Agent(&'static str),
    /// How machines start there.
    Boot(BootMode),
    /// The serial console that the place shows.
    Console(&'static str),
    /// The size of the disk is a multiple of it.
    DiskUnit(u64),
    /// Drivers of the place's disks and network cards.
    Drivers(&'static [&'static str]),
    /// The formats that it takes, best first.
    Formats(&'static [&'static str]),
    /// The disk is no larger.
    MaxDisk(u64),
    /// The file is no larger.
    MaxFile(u64),
    /// The disk is no smaller.
    MinDisk(u64),
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BootMode {
    Bios,
    Either,
    Uefi,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct RuleVerdict {
    pub(crate) rule: String,
    pub(crate) verdict: Verdict,
    /// What was found, and if it is wrong, what to do.
    pub(crate) because: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Fail,
    Ok,
    /// The artefact does not say.
    Unknown,
}

const MIB: u64 = 1 << 20;

/// Bytes as people read them.
fn size_words(bytes: u64) -> String {
    image_format::bytes::Bytes::new(bytes).to_string()
}

impl PlaceRule {
    /// Holds an artefact against the rule.
    pub(crate) fn judge_artefact(&self, facts: &ArtefactFacts) -> RuleVerdict {
        let ArtefactFacts { disk_bytes, file_bytes, .. } = *facts;
        let yes_or_no = |holds: bool| if holds { Verdict::Ok } else { Verdict::Fail };
        let (rule, verdict, because) = match *self {
            Self::Formats(formats) => {
                let holds = formats.contains(&facts.kind) && facts.archive_fault.is_none();
                let because = match (&facts.archive_fault, holds) {
                    (Some(fault), _) => fault.clone(),
                    (None, true) => format!("it is {}", facts.kind),
                    (None, false) => {
                        format!("it is {}: image-builder convert IMAGE --to {}", facts.kind, formats[0])
                    }
                };
                (format!("format: {}", formats.join(", ")), yes_or_no(holds), because)
            }
            Self::DiskUnit(unit) => {
                let holds = disk_bytes.is_multiple_of(unit);
                (
                    format!("disk size: a multiple of {}", size_words(unit)),
                    yes_or_no(holds),
                    size_words(disk_bytes),
                )
            }
            Self::MaxDisk(most) => (
                format!("disk size: at most {}", size_words(most)),
                yes_or_no(disk_bytes <= most),
                size_words(disk_bytes),
            ),
            Self::MinDisk(least) => (
                format!("disk size: at least {}", size_words(least)),
                yes_or_no(disk_bytes >= least),
                size_words(disk_bytes),
            ),
            Self::MaxFile(most) => {
                let mib = file_bytes.div_ceil(MIB);
                (
                    format!("file size: at most {}", size_words(most)),
                    yes_or_no(file_bytes <= most),
                    format!("{mib} MiB"),
                )
            }
            Self::Boot(mode) => judge_boot(mode, facts),
            Self::Agent(way) => judge_agent(way, facts),
            Self::Console(console) => judge_console(console, facts),
            Self::Drivers(drivers) => judge_drivers(drivers, facts),
        };
        RuleVerdict { rule, verdict, because }
    }
}

type Judged = (String, Verdict, String);

fn judge_boot(mode: BootMode, facts: &ArtefactFacts) -> Judged {
    let rule = match mode {
        BootMode::Bios => "boot: BIOS",
        BootMode::Either => "boot: BIOS or UEFI, by the kind of machine",
        BootMode::Uefi => "boot: UEFI",
    };
    let Some(table) = &facts.table else {
        return (rule.to_owned(), Verdict::Fail, "no partition table (GPT) can be read".to_owned());
    };
    let (bios, uefi) = (table.find_label("BIOS").is_some(), table.find_label("ESP").is_some());
    let holds = match mode {
        BootMode::Bios => bios,
        BootMode::Either => bios && uefi,
        BootMode::Uefi => uefi,
    };
    let word = |there: bool| if there { "there" } else { "missing" };
    let because = format!("GPT; GRUB for BIOS {}, EFI partition {}", word(bios), word(uefi));
    (rule.to_owned(), if holds { Verdict::Ok } else { Verdict::Fail }, because)
}

const NO_SYSTEM: &str = "slot A cannot be read: no image of ours?";

fn judge_agent(way: &str, facts: &ArtefactFacts) -> Judged {
    let rule = format!("configuration: {way}");
    match &facts.system {
        Some(system) if system.has_agent => (rule, Verdict::Ok, "initagent reads it".to_owned()),
        Some(_) => (rule, Verdict::Fail, "initagent is not in the image".to_owned()),
        None => (rule, Verdict::Unknown, NO_SYSTEM.to_owned()),
    }
}

fn judge_console(console: &str, facts: &ArtefactFacts) -> Judged {
    let rule = format!("console: {console}");
    let Some(system) = &facts.system else { return (rule, Verdict::Unknown, NO_SYSTEM.to_owned()) };
    let wanted = format!("console={console}");
    let found = system.command_line.split_whitespace().any(|word| word.split(',').next() == Some(&wanted));
    if found {
        (rule, Verdict::Ok, format!("the kernel has {wanted}"))
    } else {
        (rule, Verdict::Fail, format!("add {wanted} to kernel.extra_words of the spec"))
    }
}

fn judge_drivers(drivers: &[&str], facts: &ArtefactFacts) -> Judged {
    let rule = format!("drivers: {}", drivers.join(", "));
    let Some(system) = &facts.system else { return (rule, Verdict::Unknown, NO_SYSTEM.to_owned()) };
    let missing: Vec<&str> = drivers.iter().copied().filter(|driver| !system.has_driver(driver)).collect();
    if missing.is_empty() {
        (rule, Verdict::Ok, "the kernel has all".to_owned())
    } else {
        (
            rule,
            Verdict::Fail,
            format!("the kernel has no {}: choose another kernel.package", missing.join(", ")),
        )
    }
}
