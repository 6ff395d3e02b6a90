//! `status`: what `systemctl status` says of units, on the machines that have them.

use super::arguments::StatusArguments;
use super::remote_unit::{self, Place};
use super::session::{Complaint, Outcome, Session, chain, is_global, unit_name};

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &StatusArguments) -> Outcome {
    let mut globals = Vec::new();
    for (index, argument) in arguments.units.iter().enumerate() {
        let name = unit_name(argument);
        let unit = session
            .client
            .unit(&name)
            .map_err(|error| Complaint::new(format_args!("Error retrieving unit: {}", chain(&error))))?
            .ok_or_else(|| Complaint::new(format_args!("Unit {name} does not exist.")))?;
        if is_global(&unit) {
            globals.push(name);
            continue;
        }
        if matches!(unit.current_state.as_str(), "" | "inactive") {
            return Err(Complaint::new(format_args!("Unit {name} does not appear to be loaded.")));
        }
        if index != 0 {
            session.print("\n")?;
        }
        let place = Place { machine: &unit.machine_id, ssh_port: arguments.ssh_port };
        let words = ["systemctl", "status", "-l", "--", &name].map(str::to_owned);
        let exit = remote_unit::run(session, place, &words)?;
        if exit != 0 {
            return Ok(exit);
        }
    }
    for name in globals {
        global(session, &name, arguments.ssh_port)?;
    }
    Ok(0)
}

fn global(session: &mut Session<'_>, name: &str, ssh_port: u16) -> Result<(), Complaint> {
    for state in session.client.states_of(name)? {
        let place = Place { machine: &state.machine_id, ssh_port };
        let words = ["systemctl", "status", "--", name].map(str::to_owned);
        let exit = remote_unit::run(session, place, &words)?;
        if exit != 0 {
            return Err(Complaint::new(format_args!(
                "Error retrieving machine state for global units: Error running systemctl status. machine id={}, \
                 unit name={name}",
                state.machine_id
            )));
        }
    }
    Ok(())
}
