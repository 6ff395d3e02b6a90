//! `fleetctl`: what a person types, carried to a fleet API, and its answer in the words people know.
//!
//! A file per verb. Knows the wire ([`crate::api::schema`]) and the words of units ([`crate::model`]);
//! refuses to know how units are stored, placed or run, and has no runtime of its own: every call blocks.
//! Invariant: for what the original could do, streams, words and exit statuses are the original's, but for
//! the repairs that the documentation lists.

pub mod arguments;
pub mod askpass;
pub mod cat;
pub mod client;
pub mod columns;
pub mod creation;
pub mod destroy;
pub mod dial;
pub mod drain;
pub mod endpoint;
pub mod explain;
pub mod fd_forward;
pub mod import;
pub mod journal;
pub mod launch;
pub mod list_machines;
pub mod list_unit_files;
pub mod list_units;
pub mod manual;
pub mod parallel;
pub mod rebalance;
pub mod remote;
pub mod remote_unit;
pub mod restart;
pub mod session;
pub mod settings;
pub mod ssh;
pub mod status;
pub mod stop;
pub mod submit;
pub mod table;
pub mod top;
pub mod waiting;

use crate::single_dash::with_double_dashes;
use arguments::{Arguments, Verb};
use clap::{CommandFactory, Parser};
use client::ApiClient;
use session::{CommandError, CommandOutcome, CommandSession, OutputKind, printable_chain};
use settings::ClientSettings;
use std::ffi::OsString;
use std::io::Write;
use table::printable_lines;

/// The world as a run of `fleetctl` sees it.
pub struct CommandWorld<'a> {
    /// Variables, by name.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
}

impl std::fmt::Debug for CommandWorld<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("World").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}

/// Runs `fleetctl` with these words, the program's name first; the exit status.
pub fn run_fleetctl(words: Vec<OsString>, world: &mut CommandWorld<'_>) -> u8 {
    if words.len() <= 1 {
        return finish_command(print_help(world.out), world.err);
    }
    if let Some((prompt, input)) = askpass::ssh_prompt(&words, world.environment) {
        return askpass::run_askpass(&prompt, &input, world.out, world.err);
    }
    let words = with_double_dashes(words, &Arguments::command(), Some("ssh"));
    if words[1] == "--version" || words[1] == "-v" {
        return finish_command(print_version(world.out), world.err);
    }
    let arguments = match Arguments::try_parse_from(arguments::without_switch_values(words)) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            // The words of a usage error come with their own line end.
            let _ = write!(world.err, "fleetctl: {}", printable_lines(&error.to_string()));
            return 2;
        }
        Err(shown) => {
            return finish_command(
                write!(world.out, "{shown}").map(|()| 0).map_err(CommandError::from),
                world.err,
            );
        }
    };
    let outcome = dispatch_verb(&arguments, world);
    finish_command(outcome, world.err)
}

fn finish_command(outcome: CommandOutcome, err: &mut dyn Write) -> u8 {
    outcome.unwrap_or_else(|complaint| {
        if !complaint.text.is_empty() {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(err, "{}", printable_lines(&complaint.text));
        }
        complaint.exit
    })
}

fn dispatch_verb(arguments: &Arguments, world: &mut CommandWorld<'_>) -> CommandOutcome {
    if arguments.global.version {
        return print_version(world.out);
    }
    let Some(verb) = &arguments.verb else { return print_help(world.out) };
    match verb {
        Verb::Completions(arguments) => manual::print_completions(arguments.shell, world.out),
        Verb::FdForward(arguments) => fd_forward::run_fd_forward(arguments),
        Verb::Man => manual::print_man_page(world.out),
        Verb::Verify(_) => signed_units(),
        Verb::Version => print_version(world.out),
        Verb::Load(arguments) | Verb::Start(arguments) if arguments.create.sign => signed_units(),
        Verb::Submit(arguments) if arguments.create.sign => signed_units(),
        _ => {
            let output = if world.is_terminal { OutputKind::Terminal } else { OutputKind::File };
            let mut session = open_session(arguments, world)
                .map_err(|words| CommandError::new(format_args!("Unable to initialize client: {words}")))?;
            run_verb(&mut session, verb, output)
        }
    }
}

fn open_session<'a>(
    arguments: &Arguments,
    world: &'a mut CommandWorld<'_>,
) -> Result<CommandSession<'a>, String> {
    let settings = ClientSettings::from_arguments(&arguments.global, world.environment)
        .map_err(|error| printable_chain(&error))?;
    let agent = dial::http_agent(&settings.endpoint, &settings).map_err(|error| printable_chain(&error))?;
    let client = ApiClient::new(agent, &settings.endpoint);
    let endpoint = settings.endpoint.to_string();
    let spare = settings.spare_endpoints;
    let mut session = CommandSession::new(client, settings, world.out, world.err);
    if spare > 0 {
        session.print_warning(format_args!(
            "multiple endpoints provided but only the first ({endpoint}) is used"
        ));
    }
    Ok(session)
}

fn run_verb(session: &mut CommandSession<'_>, verb: &Verb, output: OutputKind) -> CommandOutcome {
    match verb {
        Verb::Cat(arguments) => cat::run_cat(session, arguments, output),
        Verb::Destroy(arguments) => destroy::run_destroy(session, arguments),
        Verb::Drain(arguments) => drain::run_drain(session, arguments),
        Verb::Explain(arguments) => explain::run_explain(session, arguments),
        Verb::Import(arguments) => import::run_import(session, arguments),
        Verb::Journal(arguments) => journal::run_journal(session, arguments),
        Verb::ListMachines(arguments) => list_machines::run_list_machines(session, arguments),
        Verb::ListUnitFiles(arguments) => list_unit_files::run_list_unit_files(session, arguments),
        Verb::ListUnits(arguments) => list_units::run_list_units(session, arguments),
        Verb::Load(arguments) => launch::run_launch(session, launch::LaunchVerb::Load, arguments),
        Verb::Rebalance(arguments) => rebalance::run_rebalance(session, arguments),
        Verb::ReleaseBrake => rebalance::release_brake(session),
        Verb::Restart(arguments) => restart::run_restart(session, arguments),
        Verb::Ssh(arguments) => ssh::run_ssh(session, arguments),
        Verb::Start(arguments) => launch::run_launch(session, launch::LaunchVerb::Start, arguments),
        Verb::Status(arguments) => status::run_status(session, arguments),
        Verb::Stop(arguments) => stop::run_stop(session, stop::StopVerb::Stop, arguments),
        Verb::Submit(arguments) => submit::run_submit(session, arguments),
        Verb::Top(arguments) => top::run_top(session, arguments, output),
        Verb::Undrain(arguments) => drain::run_undrain(session, arguments),
        Verb::Unload(arguments) => stop::run_stop(session, stop::StopVerb::Unload, arguments),
        Verb::Completions(_) | Verb::FdForward(_) | Verb::Man | Verb::Verify(_) | Verb::Version => Ok(0),
    }
}

fn print_help(out: &mut dyn Write) -> CommandOutcome {
    write!(out, "{}", Arguments::command().render_long_help())?;
    Ok(0)
}

fn print_version(out: &mut dyn Write) -> CommandOutcome {
    writeln!(out, "fleetctl version {}", env!("CARGO_PKG_VERSION"))?;
    Ok(0)
}

fn signed_units() -> CommandOutcome {
    let text = "WARNING: The signed/verified units feature is DEPRECATED and cannot be used.".to_owned();
    Err(CommandError { text, exit: 2 })
}
