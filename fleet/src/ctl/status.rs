//! `status`: what `systemctl status` says of units, on the machines that have them.

use super::arguments::StatusArguments;
use super::remote_unit::{self, RemoteMachine};
use super::session::{CommandError, CommandOutcome, CommandSession, is_global, printable_chain, unit_name};

/// Runs the verb.
pub fn run_status(session: &mut CommandSession<'_>, arguments: &StatusArguments) -> CommandOutcome {
    let mut globals = Vec::new();
    for (index, argument) in arguments.units.iter().enumerate() {
        let name = unit_name(argument);
        let unit = session
            .client
            .find_unit(&name)
            .map_err(|error| {
                CommandError::new(format_args!("Error retrieving unit: {}", printable_chain(&error)))
            })?
            .ok_or_else(|| CommandError::new(format_args!("Unit {name} does not exist.")))?;
        if is_global(&unit) {
            globals.push(name);
            continue;
        }
        if matches!(unit.current_state.as_str(), "" | "inactive") {
            return Err(CommandError::new(format_args!("Unit {name} does not appear to be loaded.")));
        }
        if index != 0 {
            session.print_text("\n")?;
        }
        let place = RemoteMachine { machine: &unit.machine_id, ssh_port: arguments.ssh_port };
        let words = ["systemctl", "status", "-l", "--", &name].map(str::to_owned);
        let exit = remote_unit::run_on_machine(session, place, &words)?;
        if exit != 0 {
            return Ok(exit);
        }
    }
    for name in globals {
        global_status(session, &name, arguments.ssh_port)?;
    }
    Ok(0)
}

fn global_status(session: &mut CommandSession<'_>, name: &str, ssh_port: u16) -> Result<(), CommandError> {
    for state in session.client.states_of(name)? {
        let place = RemoteMachine { machine: &state.machine_id, ssh_port };
        let words = ["systemctl", "status", "--", name].map(str::to_owned);
        let exit = remote_unit::run_on_machine(session, place, &words)?;
        if exit != 0 {
            return Err(CommandError::new(format_args!(
                "Error retrieving machine state for global units: Error running systemctl status. machine id={}, \
                 unit name={name}",
                state.machine_id
            )));
        }
    }
    Ok(())
}
