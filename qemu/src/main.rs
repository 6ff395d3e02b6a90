//! The program `vm`: arguments in, one verb done, an exit code out.

mod app;
mod cli;
mod list;
mod race;
mod report;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = app::run_verb(cli::Arguments::parse());
    report::finish(outcome)
}
