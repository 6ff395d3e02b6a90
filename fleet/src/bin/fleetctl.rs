//! Commands a cluster's scheduler, wherever it is.
#![expect(clippy::disallowed_methods, reason = "the environment is read here and handed on")]

use fleet::ctl::{CommandWorld, run_fleetctl};
use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    name_service::use_built_in_services();
    let environment = |name: &str| std::env::var(name).ok();
    // Not locked: fd-forward writes from a thread of its own.
    let (mut out, mut err) = (stdout(), stderr());
    let is_terminal = out.is_terminal();
    let mut world = CommandWorld { environment: &environment, out: &mut out, err: &mut err, is_terminal };
    ExitCode::from(run_fleetctl(std::env::args_os().collect(), &mut world))
}
