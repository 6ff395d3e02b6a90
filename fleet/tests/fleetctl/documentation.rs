//! The documentation has a row for everything that can be typed, and no row for what can't.

use clap::CommandFactory;
use fleet::ctl::arguments::Arguments;
use std::collections::BTreeSet;

const TEXT: &str = include_str!("../../../docs/fleet.md");

/// What stands between backticks in tables, taken apart at spaces and commas.
fn documented() -> BTreeSet<String> {
    let part = TEXT.split_once("### Command line").unwrap().1.split_once("### Units").unwrap().0;
    part.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(|code| code.split([' ', ',', '=']))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_verb_and_flag_stands_in_the_table() {
    let documented = documented();
    let command = Arguments::command();
    let mut missing = Vec::new();

    for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
        missing.extend(Some(format!("--{flag}")).filter(|flag| !documented.contains(flag)));
    }
    for verb in command.get_subcommands() {
        missing.extend(Some(verb.get_name().to_owned()).filter(|name| !documented.contains(name)));
        let row = TEXT
            .lines()
            .filter(|line| line.contains(&format!("`{}`", verb.get_name())))
            .collect::<Vec<_>>()
            .join("\n");
        for flag in verb.get_arguments().filter_map(clap::Arg::get_long) {
            let flag = format!("--{flag}");
            let shared = ["--fields", "--full", "--no-legend"].contains(&flag.as_str());
            let found = row.contains(&flag) || (shared && documented.contains(&flag));
            if !found {
                missing.push(format!("{} {flag}", verb.get_name()));
            }
        }
    }

    assert_eq!(missing, Vec::<String>::new(), "not in docs/fleet.md");
}

#[test]
fn what_the_table_names_can_be_typed() {
    let command = Arguments::command();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for part in std::iter::once(&command).chain(command.get_subcommands()) {
        for argument in part.get_arguments() {
            let names = argument.get_long_and_visible_aliases().unwrap_or_default();
            let hidden = argument.get_all_aliases().unwrap_or_default();
            known.extend(names.iter().chain(&hidden).map(|name| format!("--{name}")));
        }
    }

    let flags =
        documented().into_iter().filter(|word| word.starts_with("--") && word.len() > 2 && word != "--flag");
    let unknown: Vec<_> = flags.filter(|flag| !known.contains(flag)).collect();

    assert_eq!(unknown, Vec::<String>::new(), "docs/fleet.md names what nobody can type");
}

#[test]
fn every_column_path_and_key_stands_there() {
    let keys = [
        "MachineID",
        "MachineMetadata",
        "MachineOf",
        "Conflicts",
        "Replaces",
        "Global",
        "ReserveMemory",
        "ReserveCPU",
        "SpreadBy",
        "Prefer",
        "Fence",
        "MaxParallel",
        "HealthyAfter",
        "HealthDeadline",
        "AutoRevert",
    ];
    let columns = [
        "active", "hash", "load", "machine", "sub", "unit", "desc", "dstate", "global", "note", "reason",
        "state", "target", "tmachine", "drain", "ip", "metadata",
    ];
    let paths = [
        "/units",
        "/state",
        "/machines",
        "/discovery",
        "/metrics",
        "/watch",
        "/explain/NAME",
        "/brake",
        "/rebalance",
        "/locks",
        "/health",
        "/v1/pre-reboot",
        "/v1/steady-state",
    ];

    for word in keys.iter().chain(&columns).chain(&paths) {
        let found = TEXT.split('`').skip(1).step_by(2).any(|code| code.contains(word));
        assert!(found, "{word} is not in docs/fleet.md");
    }
}
