//! The daemon of every machine of a cluster: engine, agent, API and reboot slots.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use fleet::{daemon, settings::Settings};

/// Runs units of a cluster on this machine, and helps to decide where the others run.
#[derive(Debug, Parser)]
#[command(name = "fleetd", version, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// "version" prints the version.
    #[arg(value_parser = ["version"])]
    command: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.command.is_some() {
        report(concat!("fleetd version ", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = %daemon::one_line(&error), "fleetd cannot run");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), daemon::DaemonError> {
    let options = daemon::options(arguments.config.as_deref());
    let settings = options.and_then(|options| Ok((Settings::of(&options)?, options.warnings)));
    let verbosity = settings.as_ref().map_or(0, |(settings, _)| settings.verbosity);
    let level = if verbosity > 0 { tracing::Level::DEBUG } else { tracing::Level::INFO };
    // The journal adds the time.
    tracing_subscriber::fmt().with_max_level(level).without_time().with_target(false).with_ansi(false).init();
    let (settings, warnings) = settings?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    daemon::run(settings)
}

#[expect(clippy::print_stdout, reason = "the version is the answer")]
fn report(text: &str) {
    println!("{text}");
}
