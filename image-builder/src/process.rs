//! Runs the few programs a build needs, and ends them when the build is interrupted.
//!
//! A program's words are kept and shown only when it fails. Interrupts (Ctrl-C, SIGTERM) set a flag;
//! whoever waits looks at it, so that every path of failure is the same: errors travel up and
//! temporary files go with their owners.
//!
//! Documentation: signal(7), getrusage(2).
#![expect(clippy::disallowed_methods, reason = "effects live here: it runs programs and waits for them")]

use std::fs::File;
use std::io::{self, BufRead as _, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// Whether the user asked to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct InterruptFlag(Arc<AtomicBool>);

impl InterruptFlag {
    /// Watches for SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn watch_signals() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    /// An error once the user asked to stop.
    pub(crate) fn check_interrupted(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}

/// The user asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing half-made was left behind")]
pub(crate) struct Interrupted;

/// Runs a program to its end. Its standard input is what `feed` writes; what it prints on either
/// output is given back, or becomes part of the error.
pub(crate) fn run_to_end(
    mut command: Command,
    interrupt: &InterruptFlag,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> Result<String, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| RunError::Start { program: program.clone(), source };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (status, fed, printed) = thread::scope(|scope| {
        let feeder = scope.spawn(move || input.map_or(Ok(()), |mut input| feed(&mut input)));
        let output = scope.spawn(move || output.map_or_else(String::new, read_tail));
        let errors = scope.spawn(move || errors.map_or_else(String::new, read_tail));
        let status = wait_for_exit(&mut child, interrupt);
        let printed = [output.join(), errors.join()].map(Result::unwrap_or_default).concat();
        (status, feeder.join(), printed)
    });
    let status = status?;
    if !status.success() {
        return Err(RunError::Failed { program, status: status.to_string(), said: last_lines(&printed) });
    }
    match fed {
        Ok(Ok(())) => Ok(printed),
        Ok(Err(source)) => Err(RunError::Feed { program, source }),
        Err(_) => {
            Err(RunError::Feed { program, source: io::Error::other("the writer of its input panicked") })
        }
    }
}

/// Runs a program whose output goes into a file; each line of its complaints is told to `hear`.
pub(crate) fn run_into(
    mut command: Command,
    output: &File,
    interrupt: &InterruptFlag,
    hear: impl FnMut(&str) + Send,
) -> Result<(), RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| RunError::Start { program: program.clone(), source };
    let output = output.try_clone().map_err(failed)?;
    let mut child =
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let stderr = child.stderr.take();
    let (status, said) = thread::scope(|scope| {
        let errors = scope.spawn(move || stderr.map_or_else(String::new, |stderr| read_lines(stderr, hear)));
        (wait_for_exit(&mut child, interrupt), errors.join().unwrap_or_default())
    });
    let status = status?;
    if status.success() {
        return Ok(());
    }
    Err(RunError::Failed { program, status: status.to_string(), said: last_lines(&said) })
}

fn wait_for_exit(child: &mut Child, interrupt: &InterruptFlag) -> Result<std::process::ExitStatus, RunError> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Ok(status);
        }
        if let Err(interrupted) = interrupt.check_interrupted() {
            terminate_child(child);
            return Err(interrupted.into());
        }
        // The standard library has no wait that a flag could end.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks politely first: mmdebstrap removes its chroot when asked.
fn terminate_child(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    // Ten seconds in all.
    for _ in 0..1000 {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What a program printed, its last megabyte.
fn read_tail(mut from: impl Read) -> String {
    const KEPT: usize = 1 << 20;
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        bytes.extend(&buffer[..read]);
        if bytes.len() > 2 * KEPT {
            // The end is what tells why a program failed. Twice as much may gather, so that bytes are seldom
            // moved.
            bytes.drain(..bytes.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As [`read_tail`], line by line.
fn read_lines(from: impl Read, mut hear: impl FnMut(&str)) -> String {
    const KEPT: usize = 64;
    let mut lines = std::collections::VecDeque::new();
    for line in io::BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        hear(&line);
        lines.push_back(line);
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }
    Vec::from(lines).join("\n")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The most memory that this program, or one that it ran, had at once.
pub(crate) fn peak_memory_bytes() -> u64 {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN]
        .into_iter()
        .filter_map(|who| getrusage(who).ok())
        .filter_map(|usage| u64::try_from(usage.max_rss()).ok())
        // getrusage(2): Linux counts `ru_maxrss` in kibibytes.
        .map(|kibibytes| kibibytes << 10)
        .max()
        .unwrap_or_default()
}

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot start {program}")]
    Start { program: String, source: io::Error },
    #[error("{program} failed ({status}); it said last:\n{said}")]
    Failed { program: String, status: String, said: String },
    #[error("cannot write the input of {program}")]
    Feed { program: String, source: io::Error },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it is broken >&2; exit 3"]);

        let error = run_to_end(command, &InterruptFlag::default(), |_| Ok(())).unwrap_err();

        assert!(
            error.to_string().contains("exit status: 3") && error.to_string().contains("it is broken"),
            "{error}"
        );
    }

    #[test]
    fn a_program_is_fed_and_heard() {
        let printed =
            run_to_end(Command::new("cat"), &InterruptFlag::default(), |input| input.write_all(b"hello"))
                .unwrap();

        assert_eq!(printed, "hello");
    }

    #[test]
    fn an_interrupt_ends_the_program() {
        let interrupt = InterruptFlag::default();
        interrupt.0.store(true, Ordering::Relaxed);
        let mut command = Command::new("sleep");
        command.arg("1000");

        let error = run_to_end(command, &interrupt, |_| Ok(())).unwrap_err();

        assert!(matches!(error, RunError::Interrupted(_)));
    }
}
