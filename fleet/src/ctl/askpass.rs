//! Answers ssh's question about an unknown machine from our standard input, where that is no terminal.
//!
//! OpenSSH reads answers from the terminal only, so that `yes | fleetctl ssh` would hang or fail. It runs
//! the program in `SSH_ASKPASS` instead if `SSH_ASKPASS_REQUIRE` is `force` (ssh(1), "ENVIRONMENT"); that
//! program is this one. Refuses to take anything but the answer: what follows it belongs to the command.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::AsFd as _;
use std::process::Command;

use super::table::printable_lines;

/// Where the answer is read: ssh's own input is not ours when it carries a connection.
const INPUT: &str = "FLEETCTL_ASKPASS_INPUT";
/// The words of ssh's question, in every version since 2000.
const QUESTION: &str = "continue connecting";
/// The longest answer that is read: a fingerprint may be typed in place of yes.
// Answers are `yes`, `no` or a fingerprint (some fifty characters).
const LONGEST: usize = 256;

/// Has ssh ask us, if our standard input is no terminal.
pub fn prepare_ssh(command: &mut Command) {
    if io::stdin().is_terminal() {
        return;
    }
    // Without knowing ourselves ssh asks the terminal, as it would anyway.
    let Ok(ourselves) = std::env::current_exe() else { return };
    command
        .env("SSH_ASKPASS", ourselves)
        .env("SSH_ASKPASS_REQUIRE", "force")
        // By path and not by descriptor: ssh closes all but the first three before it runs the program.
        .env(INPUT, format!("/proc/{}/fd/0", std::process::id()));
}

/// The prompt, if this process was started by ssh to ask. No verb contains a space, and every prompt does.
#[must_use]
pub fn ssh_prompt(
    words: &[OsString],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<(String, String)> {
    let [_, prompt] = words else { return None };
    let prompt = prompt.to_str().filter(|prompt| prompt.contains(' '))?;
    Some((prompt.to_owned(), environment(INPUT)?))
}

/// Asks, and prints the answer for ssh; the exit status.
pub fn run_askpass(prompt: &str, input: &str, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let _ = write!(err, "{}", printable_lines(prompt));
    let answer = if prompt.contains(QUESTION) { read_answer(input) } else { read_secret() };
    match answer {
        Ok(Some(answer)) => u8::from(writeln!(out, "{answer}").and_then(|()| out.flush()).is_err()),
        Ok(None) => 1,
        Err(error) => {
            let _ = writeln!(err, "\nfleetctl: cannot read an answer: {error}");
            1
        }
    }
}

/// The line that stands next in our standard input; nothing at its end.
fn read_answer(input: &str) -> io::Result<Option<String>> {
    // What ssh hands on is the same pipe or file at the same place; only a tunnel's ssh has another.
    let own = std::fs::read_link("/proc/self/fd/0").ok();
    let line = if own.is_some() && own == std::fs::read_link(input).ok() {
        // Not by `stdin()`, which would read ahead.
        read_line(&mut File::from(io::stdin().as_fd().try_clone_to_owned()?))?
    } else {
        read_line(&mut File::open(input)?)?
    };
    Ok(line.map(in_ssh_s_words))
}

/// ssh takes `yes` in small letters only; the original took any, and `y`.
fn in_ssh_s_words(answer: String) -> String {
    let agrees = ["y", "yes"].iter().any(|yes| answer.eq_ignore_ascii_case(yes));
    if agrees { "yes".to_owned() } else { answer }
}

/// Reads byte by byte, so that nothing after the line is taken.
fn read_line(input: &mut dyn Read) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LONGEST {
        match input.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()))
}

/// A passphrase or password, from the terminal as ever, and never from what is piped to a command.
fn read_secret() -> io::Result<Option<String>> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
    let line = read_line(&mut terminal);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &before)?;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_read_and_no_byte_more() {
        let mut input = io::Cursor::new(b"Yes\r\nrest".to_vec());

        assert_eq!(read_line(&mut input).unwrap().as_deref(), Some("Yes"));
        assert_eq!(input.position(), 5);
        assert_eq!(read_line(&mut io::Cursor::new(b"yes")).unwrap().as_deref(), Some("yes"));
        assert_eq!(read_line(&mut io::Cursor::new(b"")).unwrap(), None);
    }

    #[test]
    fn only_ssh_s_question_is_one() {
        let with = |name: &str| (name == INPUT).then(|| "/x".to_owned());
        let words = |line: &[&str]| line.iter().map(OsString::from).collect::<Vec<_>>();
        let question = "Are you sure you want to continue connecting (yes/no)? ";

        assert_eq!(ssh_prompt(&words(&["fleetctl", question]), &with), Some((question.into(), "/x".into())));
        assert_eq!(ssh_prompt(&words(&["fleetctl", question]), &|_| None), None);
        assert_eq!(ssh_prompt(&words(&["fleetctl", "list-machines"]), &with), None);
        assert_eq!(ssh_prompt(&words(&["fleetctl", "a b", "c"]), &with), None);
    }
}
