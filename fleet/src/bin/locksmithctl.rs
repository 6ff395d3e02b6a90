//! Shows, takes and gives back the slots in which machines may reboot.
#![expect(clippy::disallowed_methods, reason = "the environment is read here and handed on")]

use fleet::locksmith::{LocksmithWorld, run_locksmithctl};
use std::io::{stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    name_service::use_built_in_services();
    let environment = |name: &str| std::env::var(name).ok();
    let (mut out, mut err) = (stdout(), stderr());
    let is_root = nix::unistd::geteuid().is_root();
    let mut world = LocksmithWorld { environment: &environment, out: &mut out, err: &mut err, is_root };
    ExitCode::from(run_locksmithctl(std::env::args_os().collect(), &mut world))
}
