//! What a person can type.
//!
//! Knows words, defaults and help; refuses to act.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vm::acceleration::AccelerationChoice;
use vm::arguments::DeviceSet;
use vm::builder::SeedBy;
use vm::firmware::Firmware;

/// Runs disk images as virtual machines, without root.
#[derive(Debug, Parser)]
#[command(
    name = "vm",
    version,
    after_help = "Examples:
  vm run disk.raw                                boot it, console on this terminal
  vm run disk.raw --user-data web.yaml --name web --detach
  vm ssh web                                     a shell in it
  vm ssh web -- systemctl is-system-running      one command in it
  vm stop web                                    shut it down

Exit codes: 0 done; 1 failed; 2 wrong arguments; 3 no such machine, or not in that state; 4 not in time.
vm ssh exits as the command in the guest did, or with 255 if ssh itself failed."
)]
pub(crate) struct Arguments {
    /// Folder of the machines [default: vm-UID in $TMPDIR, or in /var/tmp: disks do not belong into a
    /// runtime folder, which is memory]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Boot a copy-on-write overlay of an image; the image itself is never written
    Run(Box<RunArguments>),
    /// Switch a kept machine on again
    Start(StartArguments),
    /// Open a shell, or run a command, in a machine
    Ssh(SshArguments),
    /// Talk to a machine's serial console (Ctrl-] leaves)
    Console(MachineName),
    /// Shut a machine down in an orderly way, then by force
    Stop(StopArguments),
    /// List the machines
    List(ListArguments),
    /// Remove a machine that is off, and its disk
    Remove(MachineName),
    /// Race two images from power-on to ssh, in turns
    BenchBoot(Box<BenchBoot>),
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// `vm run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vm run disk.raw --firmware secure --memory 4096 --cpus 2
  vm run disk.raw --disk-size 20G --keep --name db
  vm run disk.raw --detach --timeout 600 && vm ssh
  vm run disk.raw -- -device nvme,drive=extra,serial=x -drive if=none,id=extra,file=extra.raw,format=raw

On the console, Ctrl-] shuts the machine down, and pressed again pulls the plug.")]
pub(crate) struct RunArguments {
    /// A raw disk image
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) hardware: HardwareArguments,
    /// The machine's name, also its first host name [default: from the image's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A document (cloud-config, Ignition, script) for the guest's first boot
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// How the document and the ssh key go in
    #[arg(long, value_enum, default_value_t = SeedBy::Disk, value_name = "WAY")]
    pub(crate) seed_by: SeedBy,
    /// The size of the virtual disk, as in 20G [default: 4G more than the image, which is as small as it
    /// can be]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) disk_size: Option<u64>,
    /// The account vm ssh logs in to [default: core, or root with --seed-by fw-cfg]
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// What the disk and the network card are
    #[arg(long, value_enum, default_value_t = DeviceSet::Virtual)]
    pub(crate) devices: DeviceSet,
    /// Let the guest reach neither the world nor this host's loopback (else at 10.0.2.2); ssh still goes in.
    /// For images of strangers
    #[arg(long)]
    pub(crate) isolate: bool,
    /// Put in a hardware watchdog (i6300esb)
    #[arg(long)]
    pub(crate) watchdog: bool,
    /// Keep the machine and its disk when it goes off; vm start boots it again
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) how: RunMode,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU-ARGUMENT")]
    pub(crate) extra: Vec<OsString>,
}

/// The machine's parts.
#[derive(Debug, Args)]
pub(crate) struct HardwareArguments {
    /// What runs before the disk
    #[arg(long, value_enum, default_value_t = Firmware::Bios)]
    pub(crate) firmware: Firmware,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..), value_name = "MIB")]
    pub(crate) memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,
    /// KVM or emulation
    #[arg(long, value_enum, default_value_t = AccelerationChoice::Auto)]
    pub(crate) accel: AccelerationChoice,
}

/// In the foreground or not.
#[derive(Debug, Args)]
pub(crate) struct RunMode {
    /// Run in the background; return when ssh answers
    #[arg(long)]
    pub(crate) detach: bool,
    /// With --detach: how long ssh may take, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// Be the background process
    #[arg(long, hide = true)]
    pub(crate) supervise: bool,
}

/// `vm start`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// The machine; may be left out if there is only one
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) how: RunMode,
}

/// A machine.
#[derive(Debug, Args)]
pub(crate) struct MachineName {
    /// The machine; may be left out if there is only one
    pub(crate) name: Option<String>,
}

/// `vm ssh`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vm ssh                     a shell in the only machine
  vm ssh web -- uptime
  vm ssh web --wait 120 -- docker ps")]
pub(crate) struct SshArguments {
    /// The machine; may be left out if there is only one
    pub(crate) name: Option<String>,
    /// Wait so many seconds for the guest to answer
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) wait: u64,
    /// The command, as words for the guest's shell
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// `vm stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    /// The machine; may be left out if there is only one
    pub(crate) name: Option<String>,
    /// Pull the plug after so many seconds; 0 pulls it at once
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// `vm list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vm bench-boot`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  vm bench-boot disk.raw plain.raw --user-data key.yaml --their-user-data key.yaml --rounds 5

Prints the middle times and ours divided by theirs, for a fresh image and for its second boot.")]
pub(crate) struct BenchBoot {
    /// Our image, raw
    pub(crate) ours: PathBuf,
    /// The image to compare with, raw
    pub(crate) theirs: PathBuf,
    /// Our user-data
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// The other image's user-data
    #[arg(long, value_name = "FILE")]
    pub(crate) their_user_data: Option<PathBuf>,
    /// The account in our image
    #[arg(long, default_value = "core")]
    pub(crate) user: String,
    /// The account in the other image
    #[arg(long, default_value = "core")]
    pub(crate) their_user: String,
    /// How often each image starts fresh
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// How long one boot may take, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) hardware: HardwareArguments,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads a number of bytes: digits and K, M, G or T (of 1024).
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        Some('T') => (&text[..text.len() - 1], 40),
        _ => return Err("a size needs a unit: K, M, G or T, as in 20G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is not a whole number"))?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| "out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_need_units() {
        assert_eq!(parse_size("20G"), Ok(20 << 30));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        for wrong in ["20", "G", "-1G", "99999999999T", "0K", "1.5G", ""] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
