//! The program `vm`: arguments in, one verb done, an exit code out.

mod app;
mod cable;
mod cli;
mod failure;
mod list;
mod network;
mod race;
mod report;
mod start;
mod stop;
mod up;
mod user_file;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = app::run_verb(cli::Arguments::parse());
    report::finish_command(outcome)
}
