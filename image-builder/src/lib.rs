//! Turns one YAML file and Debian packages into a reproducible, signed, A/B-partitioned disk image.
//!
//! Knows Debian's archive, file systems and boot loaders. Refuses to know what the machine does once
//! it runs: it shares only the disk's format with the agent, in the crate `image-format`. Data flows
//! one way: cli → spec → facts → plan → apply → report.

/// What the commands do.
mod app;
/// Carries out a plan.
mod apply;
/// What an image can be converted to.
mod artefact;
/// GRUB, the slot selector and the two FAT volumes.
mod boot;
/// The folder that stays between builds.
mod cache;
/// Holds artefacts against the rules of places.
mod check_artefact;
/// What was typed.
mod cli;
/// Writes images in other formats.
mod convert;
/// Debian's archive and packages.
mod debian;
/// The disk image while it is written.
mod disk;
/// What the host offers a build.
mod facts;
/// Writes an image to a disk.
mod flash;
/// The initramfs.
mod initramfs;
/// Looks into images without mounting them.
mod inspect;
/// Release keys.
mod keys;
/// What travels when a machine is updated.
pub mod payload;
/// What a build will do.
mod plan;
/// Runs programs.
mod process;
/// Tells how a build goes.
mod progress;
/// Repositories of releases, and the keys that machines trust for them.
mod release;
/// What an image contains, written down.
mod reports;
/// The root file system.
mod rootfs;
/// First-boot data put into an image.
mod seed;
/// A disk out of whatever file holds it.
mod source;
/// What an image is to be.
mod spec;
/// The steps of a build and their order.
mod step;
/// Says how a copy goes.
mod transfer;

use std::process::ExitCode;

/// Does what the command line says and prints what came of it.
#[must_use]
pub fn run_program() -> ExitCode {
    app::finish_command(app::run_command(cli::parse_arguments()))
}

/// Checks one spec that includes no other, as `image-builder build` does before it builds.
///
/// # Errors
/// The complaints, each with the line it is about.
pub fn check_spec(text: &str) -> Result<(), String> {
    spec::check_text(text).map(|_| ()).map_err(|error| error.to_string())
}
