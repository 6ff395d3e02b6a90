//! What a person can type.
//!
//! Knows words, defaults and help; refuses to act.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vm::cluster::metadata::ClusterSeed;
use vm::options::{HardwareOptions, MachineOptions, SeedBy};

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
  vm up 3 disk.raw --user-data web.yaml          three machines on one network
  vm cut 2 && vm ssh 1 && vm heal 2 && vm down   one alone for a while, then all gone

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
    /// Pull a machine's plug
    Kill(MachineName),
    /// List the machines
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Remove a machine that is off, and its disk
    Remove(MachineName),
    /// Start machines on one private network, from one image and one document
    Up(Box<UpArguments>),
    /// End the machines of vm up, their disks and their network
    Down,
    /// Cut machines of vm up off from the others; ssh still goes in
    Cut(CableArguments),
    /// Make the cables of machines as good as new
    Heal(HealArguments),
    /// Slow down a machine's cable or make it lose frames, and show what passed through it
    Link(LinkArguments),
    /// Be the network of vm up
    #[command(hide = true)]
    Network(NetworkArguments),
    /// Compare two images from power-on to ssh, in turns
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
    pub(crate) options: MachineOptions,
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
    /// Keep the machine and its disk when it goes off; vm start boots it again
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) how: RunMode,
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
    /// Run in the background without a person (used by --detach)
    #[arg(long, hide = true)]
    pub(crate) supervise: bool,
}

/// `vm start`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// The machine, or its number in vm up; may be left out if there is only one
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) how: RunMode,
}

/// A machine.
#[derive(Debug, Args)]
pub(crate) struct MachineName {
    /// The machine, or its number in vm up; may be left out if there is only one
    pub(crate) name: Option<String>,
}

/// `vm ssh`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vm ssh                     a shell in the only machine
  vm ssh web -- uptime
  vm ssh web --wait 120 -- docker ps")]
pub(crate) struct SshArguments {
    /// The machine, or its number in vm up; may be left out if there is only one
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
    /// The machine, or its number in vm up; may be left out if there is only one
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

/// `vm up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vm up 3 disk.raw
  vm up 3 disk.raw --user-data cluster.yaml --proxies 2 --memory 1024
  vm up 3 disk.raw --user-data cluster.yaml --update-server repository

The machines are core-01 (10.23.0.11), core-02 (10.23.0.12) and so on. In the user-data, each gets its own
@NAME@, @NUMBER@, @ADDRESS@, @ROLE@ (member or proxy) and @PROXY@ (on or off), and all get @COUNT@, @ADDRESSES@,
@INITIAL_CLUSTER@ (etcd's) and @UPDATE_SERVER@ (its address, as the machines reach it).")]
pub(crate) struct UpArguments {
    /// How many machines
    pub(crate) machines: usize,
    /// A raw disk image
    pub(crate) image: PathBuf,
    /// So many machines more, whose @ROLE@ is proxy
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) proxies: usize,
    /// A document (cloud-config, Ignition, script) for the first boot of each
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// How the document and the ssh key go in
    #[arg(long, value_enum, default_value_t = ClusterSeed::Disk, value_name = "WAY")]
    pub(crate) seed_by: ClusterSeed,
    /// Serve the files of DIR to the machines, to read only
    #[arg(long, value_name = "DIR", conflicts_with = "reach")]
    pub(crate) update_server: Option<PathBuf>,
    /// The port of the update server [default: a free one]
    #[arg(
        long,
        value_name = "PORT",
        requires = "update_server",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) update_port: u16,
    #[command(flatten)]
    pub(crate) options: MachineOptions,
    /// The size of each virtual disk, as in 20G [default: 4G more than the image]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) disk_size: Option<u64>,
    /// The account vm ssh logs in to
    #[arg(long, default_value = "core")]
    pub(crate) user: String,
    /// How long ssh may take on each, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// `vm cut`.
#[derive(Debug, Args)]
pub(crate) struct CableArguments {
    /// The machines, by number or name
    #[arg(required = true, value_name = "MACHINE")]
    pub(crate) names: Vec<String>,
}

/// `vm heal`.
#[derive(Debug, Args)]
pub(crate) struct HealArguments {
    /// The machines, by number or name [default: all]
    #[arg(value_name = "MACHINE")]
    pub(crate) names: Vec<String>,
}

/// `vm link`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vm link 2                        what passed through its cable
  vm link 2 --delay 50 --loss 1    both hold in each direction, until changed or vm heal 2
  vm link 2 --drop 10              the next ten frames get lost")]
pub(crate) struct LinkArguments {
    /// The machine, by number or name
    #[arg(value_name = "MACHINE")]
    pub(crate) name: String,
    /// How long each frame is under way, in milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) delay: Option<u64>,
    /// How many of 100 frames get lost
    #[arg(long, value_name = "PERCENT")]
    pub(crate) loss: Option<f64>,
    /// How many of the next frames get lost
    #[arg(long, value_name = "FRAMES")]
    pub(crate) drop: Option<u32>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vm network`, which vm up starts.
#[derive(Debug, Args)]
pub(crate) struct NetworkArguments {
    /// Serve the files of this directory
    #[arg(long)]
    pub(crate) update_server: Option<PathBuf>,
    /// At this port of the loopback
    #[arg(long, default_value_t = 0)]
    pub(crate) update_port: u16,
    /// How the machines are told what they are
    #[arg(long, value_enum, default_value_t = ClusterSeed::Disk)]
    pub(crate) seed_by: ClusterSeed,
    /// The ports of the metadata services, in the order of the machines [default: free ones]
    #[arg(long)]
    pub(crate) metadata_port: Vec<u16>,
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
    pub(crate) hardware: HardwareOptions,
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
    use vm::acceleration::AccelerationChoice;
    use vm::options::{DeviceSet, Reach};

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_options_of_a_machine_come_through_whole() {
        let parse = |words: &str| match Arguments::parse_from(words.split(' ')).verb {
            Verb::Run(run) => run.options,
            verb => panic!("{verb:?}"),
        };

        let plain = parse("vm run x.raw");
        let chosen = parse("vm run x.raw --isolate --watchdog --cpus 3 --devices scsi --accel tcg -- -s -S");

        assert_eq!((plain.reach, plain.watchdog, plain.hardware.memory), (Reach::Everything, false, 2048));
        assert_eq!((chosen.reach, chosen.watchdog, chosen.hardware.cpus), (Reach::Nothing, true, 3));
        assert_eq!(chosen.hardware.acceleration_choice, AccelerationChoice::Tcg);
        assert_eq!((chosen.devices, chosen.extra), (DeviceSet::Scsi, vec!["-s".into(), "-S".into()]));
        assert_ne!(plain.mac, chosen.mac, "two machines of one address");
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
