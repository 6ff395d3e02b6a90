//! Reaches into a guest by OpenSSH's client.
//!
//! Knows the client's options and ssh-keygen; the user's own ssh configuration and agent stay out of it.
//! Scripts share one login, since each costs an emulated guest seconds. Invariant: each machine has its own
//! key pair and its own list of host keys, so a guest whose host key changed between two starts is refused.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::OwnedChild;

/// A socket's path has room for 107 bytes, and ssh binds it under a name 17 bytes longer.
const LONGEST_SOCKET_PATH: usize = 90;

/// How long one login may take. A server that is started anew by the guest drops those that are under way.
const ONE_LOGIN: Duration = Duration::from_secs(90);

/// After so long without an answer there may be a firewall, and only a login can tell.
const SILENCE: Duration = Duration::from_mins(1);

/// How long a guest's kernel may take to refuse a connection.
const ONE_QUESTION: Duration = Duration::from_millis(250);

/// A key pair on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    private: PathBuf,
    public: String,
}

/// Ports of this host's loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedPorts {
    /// Leads to the guest's ssh server
    pub ssh: u16,
    /// Leads to a port of the guest where nothing listens
    pub closed: u16,
}

/// Why a guest could not be reached.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum SshError {
    #[error("cannot run {program}; install it with: apt-get install openssh-client")]
    NoProgram { program: &'static str, source: io::Error },
    #[error("ssh-keygen cannot make a key: {0}")]
    MakeKey(String),
    #[error("cannot read the public key {path}")]
    ReadKey { path: PathBuf, source: io::Error },
    #[error("cannot run {script:?} in the guest")]
    Run { script: String, source: io::Error },
    #[error("{script:?} did not end within {within:?}")]
    Late { script: String, within: Duration },
    #[error("{script:?} failed in the guest: {output}")]
    Failed { script: String, output: CommandOutput },
}

impl SshKey {
    /// Makes a new ed25519 key pair at `private` and `private`.pub.
    pub fn generate_pair(private: &Path) -> Result<Self, SshError> {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "vm", "-f"])
            .arg(private)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| SshError::NoProgram { program: "ssh-keygen", source })?;
        if !output.status.success() {
            return Err(SshError::MakeKey(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let path = private.with_extension("pub");
        let public = fs::read_to_string(&path).map_err(|source| SshError::ReadKey { path, source })?;
        Ok(Self { private: private.into(), public: public.trim().to_owned() })
    }

    /// The line for `authorized_keys`.
    #[must_use]
    pub fn public_line(&self) -> &str {
        &self.public
    }
}

/// What a command in the guest left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its exit code; 255 is ssh's own failure, none a signal
    pub code: Option<i32>,
    /// What it wrote to standard output
    pub stdout: String,
    /// What it wrote to standard error
    pub stderr: String,
}

impl std::fmt::Display for CommandOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit code {code}")?,
            None => f.write_str("killed by a signal")?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// The way into one running guest.
#[derive(Debug, Clone)]
pub struct SshAccess {
    /// The account
    pub user: String,
    /// The ports of this host that lead into the guest
    pub ports: ForwardedPorts,
    /// Proves who we are
    pub key: SshKey,
    /// Remembers who the guest is
    pub known_hosts: PathBuf,
}

impl SshAccess {
    /// The client's command line, which uses the shared login; the caller adds options, or the words to run.
    #[must_use]
    pub fn client_command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &self.ports.ssh.to_string(), "-l", &self.user, "-i"]);
        command.arg(&self.key.private);
        for option in [
            // Where tests run nobody answers a question.
            "BatchMode=yes",
            "ConnectTimeout=20",
            // An agent with many keys would use up the guest's few tries before ours is offered.
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            // The newer ones are dear in emulation, and nobody listens between a host and its guest.
            "KexAlgorithms=curve25519-sha256",
            // Else the warning about a new host key stands in the output of each first command.
            "LogLevel=ERROR",
            // A guest that was reset or cut off leaves a connection that TCP keeps for minutes.
            "ServerAliveInterval=15",
            "StrictHostKeyChecking=accept-new",
            // Rotation would write the guest's further keys one login later, for nothing.
            "UpdateHostKeys=no",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("UserKnownHostsFile=\"{}\"", self.known_hosts.display()));
        if let Some(socket) = self.shared_login() {
            // A login costs an emulated guest two seconds or more, and a story makes three to ten of them.
            command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-S"]).arg(socket);
        }
        command.arg("127.0.0.1");
        command
    }

    /// Ends the shared login, so that the next one must log in again.
    pub fn log_out(&self) {
        // Without the socket nobody finds the old connection; it ends with the guest or after its idle minute.
        if let Some(socket) = self.shared_login() {
            let _ = fs::remove_file(socket);
        }
    }

    /// The socket of the shared login; none where its path would be too long for a socket.
    fn shared_login(&self) -> Option<PathBuf> {
        let socket = self.known_hosts.with_file_name(format!("{}.ssh", self.user));
        (socket.as_os_str().len() <= LONGEST_SOCKET_PATH).then_some(socket)
    }

    /// Runs a shell script in the guest, whatever its exit code.
    pub fn run_script(&self, script: &str, within: Duration) -> Result<CommandOutput, SshError> {
        self.run_on(script, Stdio::null(), within)
    }

    /// The same, with `input` as the script's standard input.
    pub fn run_with(&self, script: &str, input: &[u8], within: Duration) -> Result<CommandOutput, SshError> {
        let failed = |source| SshError::Run { script: script.to_owned(), source };
        let mut file = tempfile::tempfile().map_err(failed)?;
        file.write_all(input).and_then(|()| file.rewind()).map_err(failed)?;
        self.run_on(script, file.into(), within)
    }

    fn run_on(&self, script: &str, input: Stdio, within: Duration) -> Result<CommandOutput, SshError> {
        let failed = |source| SshError::Run { script: script.to_owned(), source };
        let (stdout, stderr) = (tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?);
        let mut command = self.client_command();
        command.arg("--").arg(script).stdin(input);
        command.stdout(stdout.try_clone().map_err(failed)?);
        command.stderr(stderr.try_clone().map_err(failed)?);
        let mut child = OwnedChild::start_command(command)
            .map_err(|source| SshError::NoProgram { program: "ssh", source })?;
        match child.wait_within(within).map_err(failed)? {
            None => Err(SshError::Late { script: script.to_owned(), within }),
            Some(status) => Ok(CommandOutput {
                code: status.code(),
                stdout: text_of(stdout).map_err(failed)?,
                stderr: text_of(stderr).map_err(failed)?,
            }),
        }
    }

    /// Runs a shell script that must succeed, and returns what it printed.
    pub fn run_checked(&self, script: &str, within: Duration) -> Result<String, SshError> {
        let output = self.run_script(script, within)?;
        if output.code == Some(0) {
            return Ok(output.stdout);
        }
        Err(SshError::Failed { script: script.to_owned(), output })
    }

    /// Whether a login works now, after having `waited` for it so long. Asks little of a guest that is not
    /// there yet, so that it can be asked often.
    #[must_use]
    pub fn lets_in(&self, waited: Duration) -> bool {
        (waited > SILENCE || self.has_network())
            && self.run_script("true", ONE_LOGIN).is_ok_and(|output| output.code == Some(0))
    }

    /// Whether the guest's kernel answers, by refusing a connection to its closed port. QEMU accepts
    /// connections long before the guest does, and repeats a first packet that got lost only seconds later;
    /// so each question is short, and a new one.
    fn has_network(&self) -> bool {
        let refusal = || -> io::Result<usize> {
            let address = SocketAddr::from(([127, 0, 0, 1], self.ports.closed));
            let mut stream = TcpStream::connect_timeout(&address, ONE_QUESTION)?;
            stream.set_read_timeout(Some(ONE_QUESTION))?;
            // QEMU has accepted already; what the guest says comes as an end or a reset.
            stream.read(&mut [0])
        };
        match refusal() {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn text_of(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_overwritten() {
        if !crate::process::tests::can_run("ssh-keygen") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");

        let key = SshKey::generate_pair(&path).unwrap();

        assert!(key.public_line().starts_with("ssh-ed25519 "));
        assert!(matches!(SshKey::generate_pair(&path), Err(SshError::MakeKey(_))));
    }

    #[test]
    fn output_shows_what_there_is() {
        let output = CommandOutput { code: Some(3), stdout: String::new(), stderr: "no such unit\n".into() };

        assert_eq!(output.to_string(), "exit code 3\n--- stderr\nno such unit");
    }
}
