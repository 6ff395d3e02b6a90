//! What may be typed after `fleetctl`: verbs, flags, and nothing of what they mean.
//!
//! Help, manual page and completions all come from these types, so they cannot drift from what is
//! accepted. Spellings that only old scripts use (`--l`, `--etcd-keyfile`, a verb's unique prefix) are
//! hidden aliases. Invariant: every prefix that named one verb of the original still names it.

#![expect(clippy::doc_markdown, reason = "these comments are printed as help")]

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;

const TEMPLATE: &str = "\
{before-help}NAME:
\t{name} - {about-with-newline}
USAGE:
\t{usage}

VERSION:
\t{version}

{all-args}{after-help}";

/// Commands a cluster's scheduler, wherever it is.
#[derive(Debug, Parser)]
#[command(
    name = "fleetctl",
    about = "control fleet, the scheduler of a cluster's systemd units",
    version,
    help_template = TEMPLATE,
    disable_help_flag = true,
    disable_version_flag = true,
    infer_subcommands = true,
    arg_required_else_help = false,
    max_term_width = 100
)]
pub struct Arguments {
    /// Flags that every verb takes.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// The verb.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Flags that every verb takes; each is also read from `FLEETCTL_<NAME>`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArguments {
    /// TLS certificate authority: who may have signed the server's certificate
    #[arg(long, global = true, value_name = "FILE", alias = "etcd-cafile")]
    pub ca_file: Option<String>,
    /// TLS certificate to show to the server
    #[arg(long, global = true, value_name = "FILE", alias = "etcd-certfile")]
    pub cert_file: Option<String>,
    /// Print what is being done to stderr
    #[arg(long, global = true)]
    pub debug: bool,
    /// Way to the cluster: only API is left
    #[arg(long, global = true, value_name = "NAME")]
    pub driver: Option<String>,
    /// Where the fleet API is: unix:///PATH, http://HOST:PORT or https://HOST:PORT [default: unix:///var/run/fleet.sock]
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Accepted and ignored: only the etcd driver used it
    #[arg(long, global = true, value_name = "PREFIX", hide = true)]
    pub etcd_key_prefix: Option<String>,
    /// Accepted and ignored: the API is no experiment any more
    #[arg(long, global = true, value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub experimental_api: Option<String>,
    /// Print usage information and exit
    #[arg(long, short, alias = "h", global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// TLS key that belongs to --cert-file
    #[arg(long, global = true, value_name = "FILE", alias = "etcd-keyfile")]
    pub key_file: Option<String>,
    /// Where ssh keeps the keys of the machines it knows [default: ~/.fleetctl/known_hosts]
    #[arg(long, global = true, value_name = "FILE")]
    pub known_hosts_file: Option<String>,
    /// Seconds after which a request has failed [default: 30]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub request_timeout: Option<String>,
    /// Seconds that ssh may take to connect [default: 10]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub ssh_timeout: Option<String>,
    /// User to log in as over ssh [default: core]
    #[arg(long, global = true, value_name = "USER")]
    pub ssh_username: Option<String>,
    /// Whether ssh refuses machines whose key has changed [default: true]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict_host_key_checking: Option<String>,
    /// Reach the API by ssh through this machine
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub tunnel: Option<String>,
    /// Print the version and exit
    #[arg(long, short, global = true, action = clap::ArgAction::SetTrue)]
    pub version: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Commands")]
pub enum Verb {
    /// Output the contents of a submitted unit
    #[command(alias = "c")]
    Cat(UnitNames),
    /// Print a shell's completions
    Completions(CompletionsArguments),
    /// Stop and remove one or more units from the cluster
    #[command(alias = "d")]
    Destroy(DestroyArguments),
    /// Move every unit off a machine and keep it free until undrain
    Drain(DrainArguments),
    /// Say why a unit is where it is, or nowhere, machine by machine
    Explain(UnitNames),
    /// Proxy stdin and stdout to a unix domain socket
    FdForward(FdForwardArguments),
    /// Copy the units of another fleet, an old one too, through its API
    Import(ImportArguments),
    /// Print the journal of a unit in the cluster
    Journal(JournalArguments),
    /// Enumerate the current hosts in the cluster
    ListMachines(TableArguments),
    /// List the units that exist in the cluster
    ListUnitFiles(TableArguments),
    /// List the current state of units in the cluster
    ListUnits(TableArguments),
    /// Schedule one or more units in the cluster, first submitting them if necessary
    Load(LaunchArguments),
    /// Print the manual page
    Man,
    /// Spread units over the machines again, within a budget of moves
    Rebalance(RebalanceArguments),
    /// Let the engine move units although more machines vanished than its brake allows
    ReleaseBrake,
    /// Stop and start again one or more units in the cluster
    #[command(aliases = ["r", "re"])]
    Restart(RestartArguments),
    /// Open a shell on a machine, or run a command there
    Ssh(SshArguments),
    /// Start one or more units in the cluster, first submitting and loading if necessary
    Start(LaunchArguments),
    /// Output systemd's status of one or more units in the cluster
    Status(StatusArguments),
    /// Stop one or more units in the cluster
    Stop(StopArguments),
    /// Upload one or more units to the cluster without starting them
    Submit(SubmitArguments),
    /// Watch machines and units, busiest first
    Top(TopArguments),
    /// Let a drained machine take units again
    Undrain(UndrainArguments),
    /// Unschedule one or more units in the cluster
    #[command(aliases = ["u", "un"])]
    Unload(StopArguments),
    /// DEPRECATED: no longer works
    #[command(hide = true)]
    Verify(UnitNames),
    /// Print the version and exit
    Version,
}

/// Units, by name or by path.
#[derive(Debug, Args)]
pub struct UnitNames {
    /// Unit names or paths of unit files
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// How a table is printed.
#[derive(Debug, Args)]
pub struct TableArguments {
    /// Columns to print, separated by commas; an unknown one prints the choice
    #[arg(long, value_name = "COLUMNS")]
    pub fields: Option<String>,
    /// Do not ellipsize fields on output
    #[arg(long, short = 'l', alias = "l")]
    pub full: bool,
    /// Do not print a legend (column headers)
    #[arg(long)]
    pub no_legend: bool,
}

/// How long a verb waits for its effect.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArguments {
    /// Give up after this many times two seconds; 0 waits for ever
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub block_attempts: i64,
    /// Do not wait at all; always so for global units
    #[arg(long)]
    pub no_block: bool,
}

/// What holds for every verb that creates units.
#[derive(Debug, Clone, Copy, Args)]
pub struct CreateArguments {
    /// Replace units whose file differs from the submitted one
    #[arg(long)]
    pub replace: bool,
    /// DEPRECATED: cannot be used
    #[arg(long, hide = true)]
    pub sign: bool,
}

/// Arguments of `load` and `start`.
#[derive(Debug, Args)]
pub struct LaunchArguments {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub wait: WaitArguments,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub create: CreateArguments,
    /// Unit names or paths of unit files
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `submit`.
#[derive(Debug, Args)]
pub struct SubmitArguments {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub create: CreateArguments,
    /// Paths of unit files, or names of instances of a known template
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `stop` and `unload`.
#[derive(Debug, Args)]
pub struct StopArguments {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub wait: WaitArguments,
    /// Unit names
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `destroy`.
#[derive(Debug, Args)]
pub struct DestroyArguments {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub wait: WaitArguments,
    /// Unit names
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct RestartArguments {
    /// Give up after this many times two seconds; 0 waits for ever
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub block_attempts: i64,
    /// ssh port of the machines, for global units
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub ssh_port: u16,
    /// Unit names
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Accepted and ignored: old scripts have it
    #[arg(long, hide = true)]
    pub no_block: bool,
    /// ssh port of the machines
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub ssh_port: u16,
    /// Unit names
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct JournalArguments {
    /// Go on printing new entries
    #[arg(long, short, alias = "f")]
    pub follow: bool,
    /// Number of recent lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub lines: u32,
    /// Output mode, handed to journalctl as it is
    #[arg(long, value_name = "MODE", default_value = "short")]
    pub output: String,
    /// ssh port of the machine
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub ssh_port: u16,
    /// Run journalctl by sudo
    #[arg(long)]
    pub sudo: bool,
    /// Unit name
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `ssh`.
#[derive(Debug, Args)]
pub struct SshArguments {
    /// Forward the local ssh-agent to the machine
    #[arg(long, short = 'A', alias = "A")]
    pub forward_agent: bool,
    /// The machine, by its id or the start of it
    #[arg(long, short, value_name = "ID")]
    pub machine: Option<String>,
    /// ssh port of the machine
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub ssh_port: u16,
    /// The unit on whose machine to log in
    #[arg(long, short, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Machine or unit (unless a flag names it), then the command
    #[arg(value_name = "MACHINE|UNIT [COMMAND]", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Arguments of `fd-forward`.
#[derive(Debug, Args)]
pub struct FdForwardArguments {
    /// The socket's path
    #[arg(value_name = "SOCKET")]
    pub sockets: Vec<OsString>,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// The machine, by its id or the start of it
    pub machine: String,
    /// Do not wait until the machine is free
    #[arg(long)]
    pub no_block: bool,
    /// Give up waiting after this many seconds; 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub timeout: u64,
}

/// Arguments of `undrain`.
#[derive(Debug, Args)]
pub struct UndrainArguments {
    /// The machine, by its id or the start of it
    pub machine: String,
}

/// Arguments of `rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceArguments {
    /// Only print the moves
    #[arg(long)]
    pub dry_run: bool,
    /// Move at most this many units
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub max_moves: u32,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArguments {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub interval: u64,
    /// Print once and exit; so too if stdout is no terminal
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// The other fleet's API: unix:///PATH, http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// Replace units that differ here
    #[arg(long)]
    pub replace: bool,
    /// Ask for the states that the units have over there, too
    #[arg(long)]
    pub start: bool,
    /// Only these units; without any, all of them
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The boolean flags, which Go's parser also took as `--flag=true` and `--flag=false`.
const SWITCHES: &[&str] = &[
    "A",
    "debug",
    "dry-run",
    "f",
    "follow",
    "forward-agent",
    "full",
    "h",
    "help",
    "json",
    "l",
    "no-block",
    "no-legend",
    "once",
    "replace",
    "sign",
    "start",
    "sudo",
    "version",
];

/// Rewrites `--switch=true` to `--switch` and drops `--switch=false`, up to `--`.
pub fn without_switch_values(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rewritten = Vec::new();
    let mut words = words.into_iter();
    for word in words.by_ref() {
        if word == "--" {
            rewritten.push(word);
            break;
        }
        match switch_value(&word) {
            Some((_, false)) => {}
            Some((name, true)) => rewritten.push(format!("--{name}").into()),
            None => rewritten.push(word),
        }
    }
    rewritten.extend(words);
    rewritten
}

fn switch_value(word: &OsString) -> Option<(&str, bool)> {
    let (name, value) = word.to_str()?.strip_prefix("--")?.split_once('=')?;
    let value = parse_bool(value)?;
    SWITCHES.contains(&name).then_some((name, value))
}

/// Reads a truth value as Go's `strconv.ParseBool` does.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
