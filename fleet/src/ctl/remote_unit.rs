//! Runs a command on the machine that has a unit: here if it is this one, else by ssh.

use super::remote::{self, AgentForwarding, SshProgram};
use super::session::{CommandError, CommandSession, printable_chain};
use crate::api::schema::ApiMachine;
use std::ffi::OsString;

/// A machine of the cluster, and the port of its sshd.
#[derive(Debug, Clone, Copy)]
pub struct RemoteMachine<'a> {
    /// The machine's id.
    pub machine: &'a str,
    /// The port.
    pub ssh_port: u16,
}

/// Runs the command there; its exit status.
pub fn run_on_machine(
    session: &mut CommandSession<'_>,
    place: RemoteMachine<'_>,
    words: &[String],
) -> Result<u8, CommandError> {
    if remote::local_machine_id().as_deref() == Some(place.machine) {
        let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
        return remote::run_inherited(&argv).map_err(|error| {
            CommandError::new(format_args!("Error running local command: {}: {error}", words.join(" ")))
        });
    }
    let address = machine_address(session, place.machine)?;
    over_ssh(session, &address, place.ssh_port, AgentForwarding::Off, SshProgram::Command(words))
}

/// Runs something on a host by ssh; its exit status, which is ssh's 255 if that could not connect.
pub fn over_ssh(
    session: &mut CommandSession<'_>,
    address: &str,
    port: u16,
    agent: AgentForwarding,
    program: SshProgram<'_>,
) -> Result<u8, CommandError> {
    let settings = &session.settings.ssh;
    let failed = |error| CommandError { text: format!("Unable to SSH to remote host: {error}"), exit: 255 };
    remote::prepare_known_hosts(settings).map_err(failed)?;
    let argv = remote::ssh_to_machine(settings, address, port, agent, program);
    session.print_trace(format_args!("running {argv:?}"));
    remote::run_inherited(&argv).map_err(failed)
}

/// The address of the machine with this id.
pub fn machine_address(session: &mut CommandSession<'_>, id: &str) -> Result<String, CommandError> {
    let machines = session.client.list_machines().map_err(|error| {
        CommandError::new(format_args!("Error getting machine IP: {}", printable_chain(&error)))
    })?;
    let machine = machines.into_iter().find(|machine| machine.id == id);
    let address = machine.map(|machine| machine.primary_ip).filter(|address| is_host(address));
    address.ok_or_else(|| {
        CommandError::new(format_args!("Error getting machine IP: machine {id} is gone or has none"))
    })
}

/// The machine whose id starts with these characters.
pub fn by_prefix(machines: &[ApiMachine], prefix: &str) -> Result<ApiMachine, CommandError> {
    let mut matching = machines.iter().filter(|machine| machine.id.starts_with(prefix));
    match (matching.next(), matching.next()) {
        (Some(machine), None) => Ok(machine.clone()),
        (Some(_), Some(_)) => Err(CommandError::new("found more than one machine")),
        _ => Err(CommandError::new("machine does not exist")),
    }
}

/// Whether ssh would take this for a host and nothing else: not for an option, not for two words, and not
/// for a piece of the command line into which it puts the host of a `ProxyCommand` (CVE-2023-51385).
#[must_use]
pub fn is_host(address: &str) -> bool {
    !address.is_empty()
        && !address.starts_with('-')
        && address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:%_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_holds_nothing_that_a_shell_or_ssh_would_read() {
        for host in ["10.0.0.1", "fe80::1%eth0", "core-01.example", "a_b"] {
            assert!(is_host(host), "{host}");
        }
        let hosts = [
            "",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "$(id)",
            "`id`",
            "a|b",
            "a&b",
            "a'b",
            "a\"b",
            "a\\b",
            "a\nb",
            "a/b",
            "é",
            "a@b",
        ];
        for host in hosts {
            assert!(!is_host(host), "{host}");
        }
    }
}
