//! What each command does: gathers, decides, acts, and says how it ended.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the results are printed here")]

use error_text::error_chain;
use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use disk_install::install::KeptData;
use image_format::layout::{Partition, PartitionRole};
use image_format::slot::Slot;

use crate::apply::{self, BuiltImage};
use crate::check_artefact;
use crate::cli::{self, Cli, CliCommand, KeepArgument, SlotArgument};
use crate::convert::{self, ConvertRequest, MadeArtefact};
use crate::disk::DiskImage;
use crate::facts;
use crate::flash::{self, Consent, FlashRequest};
use crate::inspect::files::RootReader;
use crate::inspect::{self, InspectDepth, InspectQuestion, table};
use crate::keys;
use crate::plan::{self, BuildPlan};
use crate::process::InterruptFlag;
use crate::progress::{BuildProgress, OutputFormat, print_event};
use crate::release;
use crate::seed;
use crate::spec;
use error_text::printable::printable_lines;

type AppError = Box<dyn Error>;

/// Runs a command.
pub(crate) fn run_command(cli: Cli) -> Result<ExitCode, AppError> {
    match cli.command {
        CliCommand::Build(arguments) => build_image(&arguments),
        CliCommand::Check(arguments) => check_artefact(&arguments),
        CliCommand::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "image-builder", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        CliCommand::Convert(arguments) => convert_image(&arguments),
        CliCommand::Flash(arguments) => flash_image(&arguments),
        CliCommand::Inspect(arguments) => inspect_image(&arguments),
        CliCommand::Keys(command) => release::run_keys(&command),
        CliCommand::Release(command) => release::run_release(&command),
        CliCommand::Seed(arguments) => {
            let written = seed::write(&arguments)?;
            println!(
                "wrote {} into the seed folder of {}, which only its owner can read now",
                written.join(", "),
                arguments.image.display()
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints what went wrong, once, with its causes.
pub(crate) fn finish_command(outcome: Result<ExitCode, AppError>) -> ExitCode {
    let error = match outcome {
        Ok(code) => return code,
        Err(error) => error,
    };
    eprintln!("image-builder: {}", printable_lines(&error_chain(error.as_ref())));
    ExitCode::FAILURE
}

fn build_image(arguments: &cli::BuildArguments) -> Result<ExitCode, AppError> {
    let spec = spec::read(&arguments.spec)?;
    let plan = plan::plan_build(spec, facts::gather_facts(arguments)?)?;
    if arguments.dry_run {
        print!("{plan}");
        return Ok(ExitCode::SUCCESS);
    }
    let audience = if arguments.json { OutputFormat::Machines } else { OutputFormat::People };
    // Only from here on: a plan and its facts leave nothing behind, and Ctrl-C ends them at once.
    let interrupt = InterruptFlag::watch_signals()?;
    let mut progress = BuildProgress::new(audience);
    let built = apply::build_image(&plan, &interrupt, &mut progress)?;
    match audience {
        OutputFormat::Machines => print_event(&serde_json::json!({ "event": "built", "image": built })),
        OutputFormat::People => print_summary(&plan, &built, progress.elapsed().as_secs_f64()),
    }
    if !plan.spec.formats.is_empty() {
        let request = ConvertRequest {
            image: &built.disk,
            kinds: &plan.spec.formats,
            folder: &plan.facts.output,
            hardware_version: convert::HARDWARE_VERSION,
            box_url: None,
            threads: convert::all_threads(),
            output: audience,
        };
        print_artefacts(&convert::convert_image(&request, &interrupt)?, audience);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_summary(plan: &BuildPlan, built: &BuiltImage, seconds: f64) {
    println!("{}", built.describe_image(&plan.spec.name, seconds));
    if built.development {
        eprintln!(
            "\nWARNING: signed with a DEVELOPMENT key of this computer's cache. Machines will say so at login.\n\
             For machines that matter: image-builder keys new keys, then build with --key keys/release.key"
        );
    }
}

fn check_artefact(arguments: &cli::CheckArguments) -> Result<ExitCode, AppError> {
    let report = check_artefact::check_artefact(&arguments.artefact, arguments.place.0)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", printable_lines(&report.to_string()));
    }
    Ok(if report.all_hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn flash_image(arguments: &cli::FlashArguments) -> Result<ExitCode, AppError> {
    let output = if arguments.json { OutputFormat::Machines } else { OutputFormat::People };
    let request = FlashRequest {
        image: &arguments.image,
        device: &arguments.device,
        keys: arguments.keys.iter().map(|path| keys::read_public(path)).collect::<Result<_, _>>()?,
        sha256: arguments.sha256.as_deref(),
        user_data: arguments.user_data.as_deref(),
        erase: arguments.wipe,
        keep: arguments.keep.map_or(KeptData::Nothing, |KeepArgument::State| KeptData::State),
        consent: match (arguments.dry_run, arguments.yes) {
            (true, _) => Consent::ShowOnly,
            (false, true) => Consent::Given,
            (false, false) => Consent::Ask,
        },
        output,
    };
    let Some(flashed) = flash::flash_image(&request, &InterruptFlag::watch_signals()?)? else {
        // Shown, or refused by whoever was asked: that is no failure of ours.
        return Ok(ExitCode::SUCCESS);
    };
    match output {
        OutputFormat::Machines => print_event(&serde_json::json!({ "event": "flashed", "disk": flashed })),
        OutputFormat::People => {
            println!("wrote {}, and read it back; signed: {}", flashed.disk.display(), flashed.signed);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn convert_image(arguments: &cli::ConvertArguments) -> Result<ExitCode, AppError> {
    let output = if arguments.json { OutputFormat::Machines } else { OutputFormat::People };
    // The folder of a bare file name is this one.
    let beside = arguments.image.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = arguments.out.as_deref().or(beside).unwrap_or_else(|| Path::new("."));
    let mut kinds = arguments.to.clone();
    kinds.sort_by_key(|kind| kind.kind_name());
    kinds.dedup();
    let made = convert::convert_image(
        &ConvertRequest {
            image: &arguments.image,
            kinds: &kinds,
            folder,
            hardware_version: arguments.hardware_version,
            box_url: arguments.box_url.as_deref(),
            threads: arguments.threads.map_or_else(convert::all_threads, usize::from),
            output,
        },
        &InterruptFlag::watch_signals()?,
    )?;
    print_artefacts(&made, output);
    if output == OutputFormat::Machines {
        let peak = crate::process::peak_memory_bytes();
        print_event(&serde_json::json!({ "event": "converted", "peak_memory_bytes": peak }));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_artefacts(made: &[MadeArtefact], output: OutputFormat) {
    for artefact in made {
        match output {
            OutputFormat::Machines => {
                print_event(&serde_json::json!({ "event": "artefact", "artefact": artefact }));
            }
            OutputFormat::People => {
                let MadeArtefact { kind, path, bytes } = artefact;
                println!("{kind:<18} {:>8} MB  {}", bytes / 1_000_000, path.display());
            }
        }
    }
}

fn inspect_image(arguments: &cli::InspectArguments) -> Result<ExitCode, AppError> {
    if let Some(path) = &arguments.path {
        return show_path(&arguments.image, path, arguments);
    }
    let keys = arguments.keys.iter().map(|path| keys::read_public(path)).collect::<Result<_, _>>()?;
    let depth = if arguments.verify { InspectDepth::Blocks } else { InspectDepth::Manifest };
    let threads = convert::all_threads();
    let report = inspect::inspect_image(&arguments.image, &InspectQuestion { keys, depth, threads })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", printable_lines(&report.to_string()));
    }
    // For scripts: an image that was refused must not look like success.
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a file or lists a folder of a root.
fn show_path(image: &Path, path: &str, arguments: &cli::InspectArguments) -> Result<ExitCode, AppError> {
    let slot = match arguments.slot {
        SlotArgument::A => Slot::A,
        SlotArgument::B => Slot::B,
    };
    let disk = DiskImage::open_read_only(image)?;
    let label = Partition::of_role(PartitionRole::Root(slot)).label;
    let table = table::read(&disk)?;
    let entry =
        table.find_label(label).ok_or_else(|| format!("{} has no partition {label}", image.display()))?;
    let root = RootReader::open_root(&disk, entry.byte_offset(), entry.byte_size())
        .map_err(|error| format!("cannot open the root of slot {slot}: {error}"))?;
    let failed = |error: ext4_view::Ext4Error| format!("cannot read {path} of slot {slot}: {error}");
    if !root.is_folder(path).map_err(failed)? {
        return print_file(&root.read(path).map_err(failed)?);
    }
    let items = root.list_folder(path).map_err(failed)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
    } else {
        for item in &items {
            println!("{item}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives a file's bytes to a program, and its text to a terminal.
fn print_file(bytes: &[u8]) -> Result<ExitCode, AppError> {
    let mut output = io::stdout().lock();
    // A file of an image may hold the orders of another terminal. A pipe gets the bytes, since programs want
    // them.
    if output.is_terminal() {
        output.write_all(printable_lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
    } else {
        output.write_all(bytes)?;
    }
    Ok(ExitCode::SUCCESS)
}
