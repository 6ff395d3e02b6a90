//! `ssh`: a shell, or a command, on a machine, or on the machine that has a unit.

use super::arguments::SshArguments;
use super::remote::{AgentForwarding, SshProgram};
use super::remote_unit::{by_prefix, is_host, over_ssh};
use super::session::{CommandError, CommandOutcome, CommandSession, is_global, printable_chain, unit_name};

/// Runs the verb.
pub fn run_ssh(session: &mut CommandSession<'_>, arguments: &SshArguments) -> CommandOutcome {
    let mut words = arguments.words.as_slice();
    let address = match (&arguments.machine, &arguments.unit) {
        (Some(_), Some(_)) => {
            return Err(CommandError::new("Both machine and unit flags provided, please specify only one."));
        }
        (Some(machine), None) => of_machine(session, machine),
        (None, Some(unit)) => of_unit(session, unit),
        (None, None) => {
            let (lookup, rest) =
                words.split_first().map_or((None, words), |(first, rest)| (Some(first), rest));
            words = rest;
            of_either(session, lookup)
        }
    };
    let address = address
        .map_err(|complaint| CommandError::new(format_args!("Unable to proceed: {}", complaint.text)))?;
    if !is_host(&address) {
        return Err(CommandError::new("Could not determine address of machine."));
    }
    let (late, words) = late_flags(words)?;
    let line = after_dashes(words).join(" ");
    let program = if line.is_empty() { SshProgram::Shell } else { SshProgram::Line(&line) };
    let port = late.ssh_port.unwrap_or(arguments.ssh_port);
    let forwards = arguments.forward_agent || late.forward_agent;
    let agent = if forwards { AgentForwarding::On } else { AgentForwarding::Off };
    over_ssh(session, &address, port, agent, program)
}

/// Flags typed after the machine.
#[derive(Debug, PartialEq, Eq, Default)]
struct LateFlags {
    forward_agent: bool,
    ssh_port: Option<u16>,
}

/// Takes our own flags from the front of the command, where the original took them too: no command is
/// called so.
fn late_flags(mut words: &[String]) -> Result<(LateFlags, &[String]), CommandError> {
    let mut flags = LateFlags::default();
    while let Some((first, rest)) = words.split_first() {
        match (first.as_str(), first.strip_prefix("--ssh-port=")) {
            ("-A" | "--A" | "--forward-agent", _) => flags.forward_agent = true,
            (_, Some(port)) => {
                let refuse = |_| CommandError::new(format_args!("Unable to proceed: {port:?} is no port"));
                flags.ssh_port = Some(port.parse().map_err(refuse)?);
            }
            _ => break,
        }
        words = rest;
    }
    Ok((flags, words))
}

/// What follows the first `--`, or everything if there is none.
fn after_dashes(words: &[String]) -> &[String] {
    words.iter().position(|word| word == "--").map_or(words, |at| &words[at + 1..])
}

fn of_machine(session: &CommandSession<'_>, prefix: &str) -> Result<String, CommandError> {
    Ok(by_prefix(&session.client.list_machines()?, prefix)?.primary_ip)
}

fn of_unit(session: &CommandSession<'_>, argument: &str) -> Result<String, CommandError> {
    let unit = session
        .client
        .find_unit(&unit_name(argument))
        .map_err(|error| CommandError::new(printable_chain(&error)))?;
    let unit = unit.ok_or_else(|| CommandError::new("unit does not exist"))?;
    if is_global(&unit) {
        return Err(CommandError::new("global units unsupported"));
    }
    let machines = session.client.list_machines()?;
    let machine = machines.into_iter().find(|machine| machine.id == unit.machine_id);
    Ok(machine.map(|machine| machine.primary_ip).unwrap_or_default())
}

fn of_either(session: &CommandSession<'_>, lookup: Option<&String>) -> Result<String, CommandError> {
    let lookup = lookup.ok_or_else(|| CommandError::new("one machine or unit must be provided"))?;
    let found = |answer: Result<String, CommandError>| answer.ok().filter(|address| !address.is_empty());
    match (found(of_machine(session, lookup)), found(of_unit(session, lookup))) {
        (Some(_), Some(_)) => Err(CommandError::new(format_args!(
            "ambiguous argument, both machine and unit found for `{lookup}`.\nPlease use flag `-m` or `-u` to refine \
             the search"
        ))),
        (Some(address), None) | (None, Some(address)) => Ok(address),
        (None, None) => Err(CommandError::new("could not find matching unit or machine")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_after_the_machine_are_ours_until_the_command_begins() {
        let words = ["--ssh-port=2222", "-A", "ls", "-A"].map(str::to_owned);
        let (flags, rest) = late_flags(&words).unwrap();

        assert_eq!(flags, LateFlags { forward_agent: true, ssh_port: Some(2222) });
        assert_eq!(rest, ["ls", "-A"]);
        assert!(late_flags(&["--ssh-port=x".to_owned()]).is_err());
    }

    #[test]
    fn words_up_to_the_first_dashes_are_dropped() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();

        assert_eq!(after_dashes(&words("ls -l")), words("ls -l"));
        assert_eq!(after_dashes(&words("x -- ls -- -l")), words("ls -- -l"));
    }
}
