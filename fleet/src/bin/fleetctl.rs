//! Commands a cluster's scheduler, wherever it is.
#![expect(clippy::disallowed_methods, reason = "the environment is read here and handed on")]

use fleet::ctl::{World, run};
use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    // Not locked: fd-forward writes from a thread of its own.
    let (mut out, mut err) = (stdout(), stderr());
    let is_terminal = out.is_terminal();
    let mut world = World { environment: &environment, out: &mut out, err: &mut err, is_terminal };
    ExitCode::from(run(std::env::args_os().collect(), &mut world))
}
