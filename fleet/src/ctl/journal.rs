//! `journal`: a unit's journal, from the machine that has the unit.

use super::arguments::JournalArguments;
use super::remote_unit::{self, RemoteMachine};
use super::session::{CommandError, CommandOutcome, CommandSession, is_global, printable_chain, unit_name};

/// Runs the verb.
pub fn run_journal(session: &mut CommandSession<'_>, arguments: &JournalArguments) -> CommandOutcome {
    let [argument] = arguments.units.as_slice() else {
        return Err(CommandError::new("One unit file must be provided."));
    };
    let name = unit_name(argument);
    let unit = session
        .client
        .find_unit(&name)
        .map_err(|error| {
            CommandError::new(format_args!("Error retrieving unit {name}: {}", printable_chain(&error)))
        })?
        .ok_or_else(|| CommandError::new(format_args!("Unit {name} does not exist.")))?;
    if is_global(&unit) {
        return Err(CommandError::new(format_args!("Unable to retrieve journal of global unit {name}.")));
    }
    if matches!(unit.current_state.as_str(), "" | "inactive") {
        return Err(CommandError::new(format_args!("Unit {name} does not appear to be running.")));
    }
    let place = RemoteMachine { machine: &unit.machine_id, ssh_port: arguments.ssh_port };
    remote_unit::run_on_machine(session, place, &journal_command(&name, arguments))
}

/// The command whose output is the journal.
fn journal_command(name: &str, arguments: &JournalArguments) -> Vec<String> {
    let lines = arguments.lines.to_string();
    let words = ["journalctl", "--unit", name, "--no-pager", "-n", &lines, "--output", &arguments.output];
    let sudo = arguments.sudo.then_some("sudo");
    let follow = arguments.follow.then_some("-f");
    sudo.into_iter().chain(words).chain(follow).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_known_one() {
        let arguments = JournalArguments {
            follow: true,
            lines: 10,
            output: "short".into(),
            ssh_port: 22,
            sudo: true,
            units: vec![],
        };

        assert_eq!(
            journal_command("a.service", &arguments).join(" "),
            "sudo journalctl --unit a.service --no-pager -n 10 --output short -f"
        );
    }
}
