//! Runs programs on the cluster's machines: here if the machine is this one, else by the system's ssh.
//!
//! The commands are values first ([`ssh_command`] is pure), run after. Everything that comes from the cluster is
//! quoted for the shell at the far end, and a host cannot pass for an option of ssh.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use super::askpass;
use super::settings::SshSettings;
use std::ffi::OsString;
use std::io;
use std::process::Command;

/// What ssh is to do at the other end.
#[derive(Debug, Clone, Copy)]
pub enum SshProgram<'a> {
    /// Run this command; its output is ours.
    Command(&'a [String]),
    /// Hand stdin and stdout to `host:port`.
    Forward(&'a str),
    /// Run this text in a shell, with a terminal if we have one.
    Line(&'a str),
    /// Open a shell.
    Shell,
}

/// The ssh command that reaches `host` itself, not through the tunnel.
#[must_use]
pub fn ssh_command(settings: &SshSettings, host: &str, port: u16, program: SshProgram<'_>) -> Vec<OsString> {
    let mut argv = ssh_options(settings, port);
    match program {
        SshProgram::Forward(target) => {
            // The double dash: a host that begins with a dash would be an option.
            argv.extend(["-W".to_owned(), target.to_owned(), "--".into(), host.to_owned()]);
        }
        SshProgram::Command(words) => {
            argv.extend(["-T".into(), "--".into(), host.to_owned(), quote_words(words)]);
        }
        SshProgram::Line(line) => argv.extend(["--".into(), host.to_owned(), line.to_owned()]),
        SshProgram::Shell => argv.extend(["-t".into(), "--".into(), host.to_owned()]),
    }
    argv.into_iter().map(OsString::from).collect()
}

/// Whether a machine may use our keys by asking the agent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentForwarding {
    /// It may not, as ssh has it: root of that machine could use them for anything meanwhile.
    #[default]
    Off,
    /// It may (`-A`).
    On,
}

/// The ssh command that reaches a machine of the cluster, through the tunnel if there is one.
#[must_use]
pub fn ssh_to_machine(
    settings: &SshSettings,
    host: &str,
    port: u16,
    agent: AgentForwarding,
    program: SshProgram<'_>,
) -> Vec<OsString> {
    let mut argv = ssh_command(settings, host, port, program);
    let mut extra = Vec::new();
    if let Some(tunnel) = &settings.tunnel {
        // ProxyJump would not take our options for the machine in between.
        let jump: Vec<String> =
            ssh_command(settings, &tunnel.host, tunnel.port, SshProgram::Forward("%h:%p"))
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
        extra.push("-o".into());
        extra.push(format!("ProxyCommand={}", quote_words(&jump)).into());
    }
    if agent == AgentForwarding::On {
        extra.push("-A".into());
    }
    argv.splice(1..1, extra);
    argv
}

fn ssh_options(settings: &SshSettings, port: u16) -> Vec<String> {
    let seconds = settings.timeout.as_secs_f64().ceil();
    let mut argv = vec!["ssh".to_owned()];
    let mut option = |text: String| argv.extend(["-o".to_owned(), text]);
    option(format!("ConnectTimeout={seconds}"));
    if settings.strict_host_keys {
        option(format!("UserKnownHostsFile={}", settings.known_hosts.display()));
        // `ask` and not `yes`: the original asked about an unknown machine, too, and remembered the answer.
        option("StrictHostKeyChecking=ask".to_owned());
    } else {
        option("UserKnownHostsFile=/dev/null".to_owned());
        option("StrictHostKeyChecking=no".to_owned());
        // Otherwise ssh says of each machine that it was added to /dev/null.
        option("LogLevel=ERROR".to_owned());
    }
    argv.extend(["-l".to_owned(), settings.username.clone(), "-p".to_owned(), port.to_string()]);
    argv
}

/// Joins words into a line that a POSIX shell takes apart again.
#[must_use]
pub fn quote_words(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@%=+,".contains(&byte))
    };
    let quote =
        |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs a program with our own stdin, stdout and stderr, which answer what ssh asks; its exit status, 255 if a signal ended it.
pub fn run_inherited(argv: &[OsString]) -> io::Result<u8> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    askpass::prepare_ssh(command.args(arguments));
    let status = command.status()?;
    // A signal leaves no code. 255 is what ssh says of all that went wrong on its own side.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// Makes the folder of the known machines, so that ssh can write there.
pub fn prepare_known_hosts(settings: &SshSettings) -> io::Result<()> {
    match settings.known_hosts.parent() {
        Some(folder) if settings.strict_host_keys => std::fs::create_dir_all(folder),
        _ => Ok(()),
    }
}

/// The id of the machine we run on, if it has one.
#[must_use]
pub fn local_machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::settings::SshHost;
    use proptest::prelude::*;
    use std::time::Duration;

    fn settings(tunnel: Option<SshHost>, strict: bool) -> SshSettings {
        SshSettings {
            tunnel,
            username: "core".into(),
            timeout: Duration::from_millis(2500),
            known_hosts: "/h/.fleetctl/known_hosts".into(),
            strict_host_keys: strict,
        }
    }

    fn line(argv: &[OsString]) -> String {
        argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_command_on_a_machine_goes_by_ssh() {
        let words = ["systemctl", "status", "-l", "a b.service"].map(str::to_owned);
        let argv = ssh_to_machine(
            &settings(None, true),
            "10.0.0.1",
            22,
            AgentForwarding::Off,
            SshProgram::Command(&words),
        );

        assert_eq!(
            line(&argv),
            "ssh -o ConnectTimeout=3 -o UserKnownHostsFile=/h/.fleetctl/known_hosts -o StrictHostKeyChecking=ask \
             -l core -p 22 -T -- 10.0.0.1 systemctl status -l 'a b.service'"
        );
    }

    #[test]
    fn a_tunnel_is_a_proxy_command_with_the_same_options() {
        let tunnel = Some(SshHost { host: "bastion".into(), port: 2222 });
        let argv =
            ssh_to_machine(&settings(tunnel, false), "10.0.0.1", 22, AgentForwarding::On, SshProgram::Shell);

        assert_eq!(
            line(&argv),
            "ssh -o ProxyCommand=ssh -o ConnectTimeout=3 -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no \
             -o LogLevel=ERROR -l core -p 2222 -W %h:%p -- bastion -A -o ConnectTimeout=3 -o \
             UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR -l core -p 22 -t -- 10.0.0.1"
        );
    }

    proptest! {
        #[test]
        fn a_shell_reads_back_what_was_quoted(words in proptest::collection::vec("[ -~\n]{0,12}", 1..4)) {
            let script = format!("for word in {}; do printf '%s\\0' \"$word\"; done", quote_words(&words));
            let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
            let read: Vec<_> = String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect();
            prop_assert_eq!(read, words);
        }
    }
}
