//! `locksmithctl`: the reboot slots, for people and scripts, in the words they know.
//!
//! Talks to etcd as its ancestor did, with the slots that [`crate::lock`] keeps there, or to a fleetd's
//! API where etcd should not be reached from. Differs where people were hurt: taking a slot twice is no
//! error, and a refusal says who is in the way.

mod arguments;
mod slots;

use crate::api::schema::LockGroup;
use crate::ctl::remote;
use crate::ctl::session::printable_chain;
use crate::ctl::table::{printable_json, printable_lines, printable_text};
use crate::single_dash::with_double_dashes;
use arguments::{LocksmithArguments, LocksmithVerb};
use clap::{CommandFactory, Parser};
use slots::{RebootSlots, SlotError};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

/// The world as a run of `locksmithctl` sees it.
pub struct LocksmithWorld<'a> {
    /// Variables, by name.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Whether we are root.
    pub is_root: bool,
}

impl std::fmt::Debug for LocksmithWorld<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("World").field("is_root", &self.is_root).finish_non_exhaustive()
    }
}

/// What ends a verb early.
struct LocksmithError {
    text: String,
    exit: u8,
}

impl LocksmithError {
    fn new(text: impl std::fmt::Display) -> Self {
        Self { text: text.to_string(), exit: 1 }
    }
}

/// Runs `locksmithctl` with these words, the program's name first; the exit status.
pub fn run_locksmithctl(words: Vec<OsString>, world: &mut LocksmithWorld<'_>) -> u8 {
    let words = with_double_dashes(words, &LocksmithArguments::command(), None);
    let arguments = match LocksmithArguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) if error.kind() == clap::error::ErrorKind::InvalidSubcommand => {
            let named = error.get(clap::error::ContextKind::InvalidSubcommand);
            let name = named.map(ToString::to_string).unwrap_or_default();
            // Without a stderr there is nobody to tell.
            let _ = writeln!(
                world.err,
                "locksmithctl: unknown subcommand: {name:?}\nRun 'locksmithctl help' for usage."
            );
            return 2;
        }
        Err(error) if error.use_stderr() => {
            let _ = write!(world.err, "locksmithctl: {}", printable_lines(&error.to_string()));
            return 2;
        }
        Err(shown) => return print_text(world, &shown.to_string()),
    };
    if arguments.version {
        return print_text(world, concat!("locksmithctl version ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let Some(verb) = &arguments.verb else {
        return print_text(world, &LocksmithArguments::command().render_help().to_string());
    };
    match perform_verb(&arguments, verb, world) {
        Ok(text) => print_text(world, &text),
        Err(complaint) => {
            let _ = writeln!(world.err, "{}", printable_lines(&complaint.text));
            complaint.exit
        }
    }
}

/// The reader of our output may have gone.
fn print_text(world: &mut LocksmithWorld<'_>, text: &str) -> u8 {
    u8::from(world.out.write_all(text.as_bytes()).and_then(|()| world.out.flush()).is_err())
}

fn perform_verb(
    arguments: &LocksmithArguments,
    verb: &LocksmithVerb,
    world: &LocksmithWorld<'_>,
) -> Result<String, LocksmithError> {
    let open = || {
        let settings = arguments.locksmith_settings(world.environment).map_err(LocksmithError::new)?;
        RebootSlots::find_slots(&settings).map_err(|error| LocksmithError::new(printable_chain(&error)))
    };
    match verb {
        LocksmithVerb::Lock { id, reason } => {
            let id = own_or(id.as_deref())?;
            open()?.take_slot(&id, reason).map_err(|error| slot_error("locking", &error))?;
            Ok(String::new())
        }
        LocksmithVerb::Reboot { reason } => reboot_machine(world, &open, reason),
        LocksmithVerb::SendNeedReboot => Err(LocksmithError::new(
            "send-need-reboot is gone: it spoke to update_engine, which this system does not have",
        )),
        LocksmithVerb::SetMax { max } => {
            let max = parse_maximum(max.as_deref())?;
            let old = open()?.set_max(max).map_err(|error| slot_error("setting value", &error))?;
            Ok(format!("Old-Max: {old}\nMax: {max}\n"))
        }
        LocksmithVerb::Status { long } => {
            let group = open()?.read_group().map_err(|error| LocksmithError::new(printable_chain(&error)))?;
            Ok(if arguments.json {
                format!("{}\n", printable_json(&crate::api::schema::to_json(&group)))
            } else {
                render_group(&group, *long)
            })
        }
        LocksmithVerb::Unlock { id } => {
            let id = own_or(id.as_deref())?;
            let held = open()?.give_back(&id).map_err(|error| slot_error("unlocking", &error))?;
            if held {
                Ok(String::new())
            } else {
                Err(LocksmithError::new("Error unlocking: holder does not exist"))
            }
        }
    }
}

fn reboot_machine(
    world: &LocksmithWorld<'_>,
    open: &dyn Fn() -> Result<RebootSlots, LocksmithError>,
    reason: &str,
) -> Result<String, LocksmithError> {
    if !world.is_root {
        return Err(LocksmithError::new("Must be root to initiate reboot."));
    }
    let id = own_or(None)?;
    open()?.take_to_reboot(&id, reason).map_err(|error| slot_error("locking", &error))?;
    let words = ["systemctl", "reboot"].map(OsString::from);
    match remote::run_inherited(&words) {
        Ok(0) => Ok(String::new()),
        Ok(exit) => Err(LocksmithError {
            text: "Error rebooting: systemctl reboot failed; the slot is still held".into(),
            exit,
        }),
        Err(error) => {
            Err(LocksmithError::new(format_args!("Error rebooting: {error}; the slot is still held")))
        }
    }
}

/// The given holder, or this machine.
fn own_or(id: Option<&str>) -> Result<String, LocksmithError> {
    match id {
        Some(id) => Ok(id.to_owned()),
        None => remote::local_machine_id().ok_or_else(|| {
            LocksmithError::new("Error reading /etc/machine-id: this machine has no id; name a holder")
        }),
    }
}

fn parse_maximum(text: Option<&str>) -> Result<u32, LocksmithError> {
    let text = text.ok_or_else(|| LocksmithError::new("New maximum value must be set."))?;
    text.parse().map_err(|_| LocksmithError::new(format_args!("Invalid maximum value: {text}")))
}

fn slot_error(doing: &str, error: &SlotError) -> LocksmithError {
    match error {
        SlotError::Full(holders) => {
            let holders = printable_text(holders);
            LocksmithError::new(format_args!("Error {doing}: semaphore is at 0\nHeld by: {holders}"))
        }
        other => LocksmithError::new(format_args!("Error {doing}: {}", printable_chain(other))),
    }
}

/// The state of a group, as it was always shown; with `--long`, since when and why, too.
fn render_group(group: &LockGroup, long: bool) -> String {
    let mut text = format!("Available: {}\nMax: {}\n", group.available, group.max);
    if group.holders.is_empty() {
        return text;
    }
    text.push('\n');
    if !long {
        text.push_str("MACHINE ID\n");
        for holder in &group.holders {
            let _ = writeln!(text, "{}", printable_text(&holder.id));
        }
        return text;
    }
    let mut rows = vec![["MACHINE ID", "SINCE", "REASON"].map(str::to_owned).to_vec()];
    for holder in &group.holders {
        let reason = if holder.reason.is_empty() { "-".to_owned() } else { holder.reason.clone() };
        rows.push(vec![holder.id.clone(), format_time(holder.since), reason]);
    }
    text.push_str(&crate::ctl::table::render_table(&rows));
    text
}

/// Seconds since the epoch as RFC 3339 writes them, in UTC.
fn format_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted in eras of 400 years from 1 March of year 0, so that a leap day ends a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::LockHolder;

    #[test]
    fn a_group_is_shown_as_it_always_was() {
        let holder = LockHolder { id: "m1".into(), reason: String::new(), since: 1_700_000_000 };
        let mut group = LockGroup { available: 1, group: "default".into(), holders: vec![], max: 1 };
        assert_eq!(render_group(&group, false), "Available: 1\nMax: 1\n");

        group.holders.push(holder);
        group.available = 0;
        assert_eq!(render_group(&group, false), "Available: 0\nMax: 1\n\nMACHINE ID\nm1\n");
        assert_eq!(
            render_group(&group, true),
            "Available: 0\nMax: 1\n\nMACHINE ID\tSINCE\t\t\tREASON\nm1\t\t2023-11-14T22:13:20Z\t-\n"
        );
    }

    #[test]
    fn moments_are_written_with_their_leap_days() {
        let moments = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];

        for (seconds, text) in moments {
            assert_eq!(format_time(seconds), text);
        }
    }
}
