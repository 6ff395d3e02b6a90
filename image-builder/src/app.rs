//! What each command does: gathers, decides, acts, and says how it ended.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the results are printed here")]

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use image_format::layout::{Partition, PartitionRole};
use image_format::slot::Slot;

use crate::apply::{self, Built};
use crate::cli::{self, Cli, Command, SlotArgument};
use crate::disk::Disk;
use crate::facts;
use crate::inspect::files::Root;
use crate::inspect::{self, Depth, Question, table};
use crate::keys;
use crate::plan::{self, Plan};
use crate::printable::printable_lines;
use crate::process::Interrupt;
use crate::progress::{Audience, Progress, event};
use crate::seed;
use crate::spec;

type Failure = Box<dyn Error>;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Build(arguments) => build(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "image-builder", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Inspect(arguments) => inspect(&arguments),
        Command::Keys(cli::Keys::New { directory, comment, json }) => new_keys(&directory, &comment, json),
        Command::Seed(arguments) => {
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
pub(crate) fn finish(outcome: Result<ExitCode, Failure>) -> ExitCode {
    let error = match outcome {
        Ok(code) => return code,
        Err(error) => error,
    };
    let causes = std::iter::successors(Some(error.as_ref() as &dyn Error), |error| (*error).source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    eprintln!("image-builder: {}", printable_lines(&causes.join(": ")));
    ExitCode::FAILURE
}

fn build(arguments: &cli::Build) -> Result<ExitCode, Failure> {
    let spec = spec::read(&arguments.spec)?;
    let plan = plan::plan(spec, facts::gather(arguments)?)?;
    if arguments.dry_run {
        print!("{plan}");
        return Ok(ExitCode::SUCCESS);
    }
    let audience = if arguments.json { Audience::Machines } else { Audience::People };
    let interrupt = Interrupt::watch()?;
    let mut progress = Progress::new(audience);
    let built = apply::build(&plan, &interrupt, &mut progress)?;
    match audience {
        Audience::Machines => event(&serde_json::json!({ "event": "built", "image": built })),
        Audience::People => summary(&plan, &built, progress.elapsed().as_secs_f64()),
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(plan: &Plan, built: &Built, seconds: f64) {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let Built {
        disk,
        version,
        development,
        root_bytes,
        slot_bytes,
        initrd_bytes,
        packages,
        peak_memory_bytes,
        ..
    } = built;
    println!("{} {version} in {seconds:.1} s: {}", plan.spec.name, disk.display());
    println!("  packages   {packages}; peak memory of the build {} MB", megabytes(*peak_memory_bytes));
    println!(
        "  root       {} MB in slots of {} MB; initramfs {} kB",
        megabytes(*root_bytes),
        megabytes(*slot_bytes),
        initrd_bytes / 1000
    );
    println!("  beside it  manifest, packages.lock, sbom.spdx.json, sizes.txt");
    if *development {
        eprintln!(
            "\nWARNING: signed with a DEVELOPMENT key of this computer's cache. Machines will say so at login.\n\
             For machines that matter: image-builder keys new keys, then build with --key keys/release.key"
        );
    }
}

fn inspect(arguments: &cli::Inspect) -> Result<ExitCode, Failure> {
    if let Some(path) = &arguments.path {
        return show(&arguments.image, path, arguments);
    }
    let keys = arguments.keys.iter().map(|path| keys::read_public(path)).collect::<Result<_, _>>()?;
    let depth = if arguments.verify { Depth::Blocks } else { Depth::Manifest };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = inspect::inspect(&arguments.image, &Question { keys, depth, threads })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", printable_lines(&report.to_string()));
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a file or lists a folder of a root.
fn show(image: &Path, path: &str, arguments: &cli::Inspect) -> Result<ExitCode, Failure> {
    let slot = match arguments.slot {
        SlotArgument::A => Slot::A,
        SlotArgument::B => Slot::B,
    };
    let disk = Disk::open_read_only(image)
        .map_err(|error| format!("cannot read the image {}: {error}", image.display()))?;
    let label = Partition::of_role(PartitionRole::Root(slot)).label;
    let table = table::read(&disk)?;
    let entry =
        table.find_label(label).ok_or_else(|| format!("{} has no partition {label}", image.display()))?;
    let root = Root::open(&disk, entry.offset(), entry.size())
        .map_err(|error| format!("cannot open the root of slot {slot}: {error}"))?;
    let failed = |error: ext4_view::Ext4Error| format!("cannot read {path} of slot {slot}: {error}");
    if !root.is_folder(path).map_err(failed)? {
        return print_file(&root.read(path).map_err(failed)?);
    }
    let items = root.list(path).map_err(failed)?;
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
fn print_file(bytes: &[u8]) -> Result<ExitCode, Failure> {
    let mut output = io::stdout().lock();
    if output.is_terminal() {
        output.write_all(printable_lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
    } else {
        output.write_all(bytes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn new_keys(directory: &Path, comment: &str, json: bool) -> Result<ExitCode, Failure> {
    let pair = keys::create(directory, comment)?;
    if json {
        println!("{}", serde_json::to_string(&pair)?);
    } else {
        println!("{}  sign with this: keep it secret, keep a copy", pair.secret.display());
        println!("{}  key {}: name it under `release_keys` of a spec", pair.public.display(), pair.id);
    }
    Ok(ExitCode::SUCCESS)
}
