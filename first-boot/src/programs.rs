//! Runs the image's own programs.
//!
//! Knows how to hand them input, bound their time and take their complaint. Refuses to know what they
//! do. Invariant: what is secret goes in through stdin, never on the command line, where every user
//! could read it.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use user_data::secret::Secret;

/// Where the image's programs are.
// Debian's for root, /etc/login.defs. The unit that started us may have another one or none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is kept of a complaint.
const COMPLAINT: u64 = 2000;
// As long as systemd gives a service to start, systemd-system.conf(5).
const PATIENCE: Duration = Duration::from_secs(90);

/// A program and what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramCall {
    /// Its name.
    pub program: &'static str,
    /// Its arguments; never a secret.
    pub arguments: Vec<String>,
    /// What it reads from stdin.
    pub input: Option<Secret<Vec<u8>>>,
    /// How long it may take.
    pub patience: Duration,
}

impl ProgramCall {
    /// A program with arguments.
    pub fn new<A: Into<String>>(program: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, input: None, patience: PATIENCE }
    }

    /// Hands the program something to read.
    #[must_use]
    pub fn with_input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(Secret::new(bytes.into()));
        self
    }

    /// Waits so long and no longer.
    #[must_use]
    pub fn with_timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Display for ProgramCall {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.program)?;
        self.arguments.iter().try_for_each(|argument| write!(out, " {argument}"))
    }
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RunError {
    #[error("cannot run {program}")]
    Start { program: &'static str, source: io::Error },
    #[error("{program} did not end within {} s and was stopped", patience.as_secs())]
    Hung { program: &'static str, patience: Duration },
    #[error("{program} failed{}: {complaint}", code.map(|code| format!(" with code {code}")).unwrap_or_default())]
    Failed { program: &'static str, code: Option<i32>, complaint: String },
}

/// The programs of a machine.
pub trait ProgramRunner: fmt::Debug {
    /// Runs one to its end; what it prints to stdout comes back.
    fn run_program(&self, call: &ProgramCall) -> Result<Vec<u8>, RunError>;
}

/// The programs of this machine.
#[derive(Debug, Clone, Copy)]
pub struct HostPrograms;

impl ProgramRunner for HostPrograms {
    fn run_program(&self, call: &ProgramCall) -> Result<Vec<u8>, RunError> {
        let start = |source| RunError::Start { program: call.program, source };
        let mut child = Command::new(call.program)
            .args(&call.arguments)
            // A program must do the same whoever started us, by hand or at boot, and in one language: some
            // answers are read.
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(if call.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        // Each pipe has its own thread, so that a program that fills one cannot block on it.
        let input = child.stdin.take().zip(call.input.clone()).map(|(mut pipe, input)| {
            // A program that does not read its input says so by its exit code.
            thread::spawn(move || drop(pipe.write_all(input.reveal())))
        });
        let output = child.stdout.take().map(|pipe| thread::spawn(move || read_bounded(pipe, 1 << 20)));
        let complaint = child.stderr.take().map(|pipe| thread::spawn(move || read_bounded(pipe, COMPLAINT)));
        let status = wait_or_kill(&mut child, call).map_err(start)?;
        let Some(status) = status else {
            return Err(RunError::Hung { program: call.program, patience: call.patience });
        };
        drop(input.map(thread::JoinHandle::join));
        let joined = |handle: Option<thread::JoinHandle<Vec<u8>>>| {
            handle.and_then(|handle| handle.join().ok()).unwrap_or_default()
        };
        let (output, complaint) = (joined(output), joined(complaint));
        if status.success() {
            return Ok(output);
        }
        let complaint = one_line(&complaint);
        Err(RunError::Failed { program: call.program, code: status.code(), complaint })
    }
}

/// The end of the child, or `None` if it had to be killed.
fn wait_or_kill(child: &mut Child, call: &ProgramCall) -> io::Result<Option<std::process::ExitStatus>> {
    let started = Instant::now();
    // The standard library has no wait with a deadline. The first looks are close together, so that a short
    // program costs no pause.
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > call.patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Reads to the end, keeps the beginning.
fn read_bounded(mut pipe: impl Read, most: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    // What cannot be read is as good as not said.
    let _ = pipe.by_ref().take(most).read_to_end(&mut kept);
    // A program whose pipe is closed dies of SIGPIPE, and one whose pipe is full waits for ever: pipe(7).
    let _ = io::copy(&mut pipe, &mut io::sink());
    kept
}

fn one_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it did not say why".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_output_and_complaint_come_through() {
        let echoed = HostPrograms.run_program(&ProgramCall::new("cat", [""; 0]).with_input("hello")).unwrap();
        let error = HostPrograms
            .run_program(&ProgramCall::new("sh", ["-c", "echo no luck >&2; exit 3"]))
            .unwrap_err();

        assert_eq!(echoed, b"hello");
        assert_eq!(error.to_string(), "sh failed with code 3: no luck");
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let call = ProgramCall::new("sleep", ["60"]).with_timeout(Duration::from_millis(50));

        assert!(matches!(HostPrograms.run_program(&call), Err(RunError::Hung { .. })));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = HostPrograms.run_program(&ProgramCall::new("no-such-program", [""; 0])).unwrap_err();

        assert_eq!(error.to_string(), "cannot run no-such-program");
    }
}
