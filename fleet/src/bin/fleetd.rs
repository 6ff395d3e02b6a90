//! The daemon of every machine of a cluster: engine, agent, API and reboot slots.

use error_text::error_chain;
use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser};
use fleet::{
    daemon::{self, reload::SettingsSource},
    settings::DaemonSettings,
    single_dash::with_double_dashes,
};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Runs units of a cluster on this machine, and helps to decide where the others run.
#[derive(Debug, Parser)]
#[command(name = "fleetd", version, disable_help_subcommand = true)]
struct DaemonArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// "version" prints the version.
    #[arg(value_parser = ["version"])]
    command: Option<String>,
}

fn main() -> ExitCode {
    name_service::use_built_in_services();
    let words = with_double_dashes(std::env::args_os().collect(), &DaemonArguments::command(), None);
    let arguments = DaemonArguments::parse_from(words);
    if arguments.command.is_some() {
        print_error(concat!("fleetd version ", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    match start_daemon(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = %error_chain(&error), "fleetd cannot run");
            ExitCode::FAILURE
        }
    }
}

fn start_daemon(arguments: DaemonArguments) -> Result<(), daemon::DaemonError> {
    let settings = read(&arguments);
    let verbosity = settings.as_ref().map_or(0, |(settings, _)| settings.verbosity);
    let (filter, handle) = reload::Layer::new(log_level(verbosity));
    // The journal adds the time.
    let lines = tracing_subscriber::fmt::layer().without_time().with_target(false).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let (settings, warnings) = settings?;
    print_warnings(warnings);
    let source = SettingsSource {
        read: Box::new(move || {
            let (settings, warnings) = read(&arguments)?;
            print_warnings(warnings);
            Ok(settings)
        }),
        log: Box::new(move |verbosity| {
            // The subscriber lives as long as the program.
            let _ = handle.reload(log_level(verbosity));
        }),
    };
    daemon::run_daemon(settings, source)
}

/// The settings, and what to warn about.
fn read(arguments: &DaemonArguments) -> Result<(DaemonSettings, Vec<String>), daemon::DaemonError> {
    let options = daemon::read_options(arguments.config.as_deref())?;
    Ok((DaemonSettings::from_options(&options)?, options.warnings))
}

fn print_warnings(warnings: Vec<String>) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

const fn log_level(verbosity: i64) -> LevelFilter {
    if verbosity > 0 { LevelFilter::DEBUG } else { LevelFilter::INFO }
}

#[expect(clippy::print_stdout, reason = "the version is the answer")]
fn print_error(text: &str) {
    println!("{text}");
}
