//! `initagent`: opens the verified root, configures the machine on first boot, and keeps its slots.
//!
//! One static binary with two lives: as `/init` of the initramfs it finds, verifies and mounts what
//! boots ([`initramfs`]); afterwards it is a program with verbs ([`cli`], [`app`]).

use std::process::ExitCode;

/// Carries a verb out.
mod app;
/// Reads and writes a disk past the page cache.
mod block_device;
/// Marks the running slot good once the boot is complete.
mod boot_complete;
/// What the initramfs leaves behind for the rest of the boot.
mod boot_record;
/// What was typed.
mod cli;
/// Makes the machine a member of its cluster.
mod cluster_verb;
/// What the kernel calls the devices of this machine.
mod devices;
/// Replaces files whole or not at all.
mod durable_file;
/// Makes the SSH host keys that are missing.
mod host_keys;
/// The life as `/init`.
mod initramfs;
/// Writes a system to a disk of this machine.
mod install;
/// The kernel calls that have no safe binding.
mod ioctl;
/// Brings up network cards beside systemd.
mod network_cards;
/// The lowest version that this machine starts.
mod release_floor;
/// Says what came of it, once.
mod report;
/// Why a verb was not carried out.
mod run_error;
/// Shows and changes the slot table.
mod slots;
/// Replaces the system of the machine.
mod update;

fn main() -> ExitCode {
    name_service::use_built_in_services();
    if initramfs::is_init() {
        initramfs::run_initramfs();
    }
    let verb = cli::parse_arguments(lexopt::Parser::from_env());
    report::finish_report(verb.map_err(run_error::RunError::from).and_then(app::run_verb))
}
