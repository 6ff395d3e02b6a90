//! Measures how long images take from power-on until ssh answers, two against each other.
//!
//! The images take turns, so that a machine that gets slower or busier slows both. Knows times; refuses to
//! judge them. Invariants: each first boot starts from the untouched image; a kernel that an emulator makes
//! panic counts for nobody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::acceleration::Acceleration;
use crate::builder::BuildError;
use crate::disk::{self, DiskError, DiskSize};
use crate::machine::{Machine, StartError};
use crate::options::{HardwareOptions, MachineOptions};
use crate::running::GuestError;

/// How often one lap is repeated because the guest's kernel panicked. Linux patches its code while it runs, and
/// QEMU's emulation of several processors now and then executes an instruction that is half patched.
const MOST_PANICS: usize = 3;

/// One of the two.
#[derive(Debug, Clone)]
pub struct BenchImage {
    /// A raw disk image
    pub image: PathBuf,
    /// Its user-data
    pub user_data: Option<Vec<u8>>,
    /// The account ssh logs in to
    pub user: String,
}

/// What both run on, and how often.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// Times each image starts fresh
    pub rounds: u32,
    /// What both run on
    pub hardware: HardwareOptions,
    /// How long an image may take
    pub within: Duration,
}

/// Seconds from power-on to ssh, of a fresh image and of its next boot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BootTimes {
    /// The first boot
    pub first: f64,
    /// The boot after it
    pub second: f64,
}

/// All laps of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BootComparison {
    /// The first image's
    pub ours: Vec<BootTimes>,
    /// The second image's
    pub theirs: Vec<BootTimes>,
}

/// What is heard of a race while it goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BenchProgress {
    /// A lap ended
    Lap(BootTimes),
    /// The emulated guest's kernel panicked: the lap is run again
    Panic,
}

/// Why a race was not finished.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RaceError {
    #[error("cannot make a temporary folder")]
    Folder(#[source] std::io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error("an emulated kernel panicked, lap after lap")]
    Emulation(#[source] GuestError),
}

impl BootComparison {
    /// The middle first-boot time of ours, divided by theirs.
    #[must_use]
    pub fn first_ratio(&self) -> f64 {
        median_of(self.ours.iter().map(|lap| lap.first)) / median_of(self.theirs.iter().map(|lap| lap.first))
    }

    /// The same of the second boots.
    #[must_use]
    pub fn second_ratio(&self) -> f64 {
        median_of(self.ours.iter().map(|lap| lap.second))
            / median_of(self.theirs.iter().map(|lap| lap.second))
    }
}

/// The middle one, or the mean of the two middle ones; 0 of none.
pub fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Lets both run, in turns; `tell` hears of each lap as it ends.
pub fn compare_boots(
    course: &BenchConfig,
    ours: &BenchImage,
    theirs: &BenchImage,
    mut tell: impl FnMut(&Path, BenchProgress),
) -> Result<BootComparison, RaceError> {
    let mut race = BootComparison { ours: Vec::new(), theirs: Vec::new() };
    for _ in 0..course.rounds {
        // In turns and not one after the other: a host that slows down in the middle slows both.
        for (contender, laps) in [(ours, &mut race.ours), (theirs, &mut race.theirs)] {
            let lap = run_until_sound(course, contender, || tell(&contender.image, BenchProgress::Panic))?;
            tell(&contender.image, BenchProgress::Lap(lap));
            laps.push(lap);
        }
    }
    Ok(race)
}

fn run_until_sound(
    course: &BenchConfig,
    contender: &BenchImage,
    mut panicked: impl FnMut(),
) -> Result<BootTimes, RaceError> {
    for _ in 0..MOST_PANICS {
        match run_round(course, contender) {
            Err(RaceError::Emulation(_)) => panicked(),
            other => return other,
        }
    }
    run_round(course, contender)
}

fn run_round(course: &BenchConfig, contender: &BenchImage) -> Result<BootTimes, RaceError> {
    let folder = tempfile::Builder::new().prefix("vm-race-").tempdir().map_err(RaceError::Folder)?;
    let disk = disk::create_overlay(
        &contender.image,
        &folder.path().join("disk.qcow2"),
        DiskSize::More(disk::ROOM),
    )?;
    let mut builder = Machine::builder(disk)
        .name("racer")
        .folder(&folder.path().join("machine"))
        .options(MachineOptions { hardware: course.hardware.clone(), ..MachineOptions::default() })
        .user(&contender.user);
    if let Some(document) = &contender.user_data {
        builder = builder.user_data(document.clone());
    }
    let machine = builder.build()?;
    // Powered off in order between the two: a second boot after a pulled plug would time the journal's replay.
    let (machine, first) = lap_of(machine, course.within)?;
    let (_, second) = lap_of(machine, course.within)?;
    Ok(BootTimes { first, second })
}

fn lap_of(machine: Machine, within: Duration) -> Result<(Machine, f64), RaceError> {
    // QEMU's emulation of several processors now and then executes an instruction that Linux is patching. Under
    // KVM a panic is the image's own and is told as such.
    let is_emulated = machine.acceleration() == Acceleration::Tcg;
    let mut running = machine.start_machine()?;
    let time = running.wait_for_ssh_at_once(within).map_err(|error| match error {
        GuestError::Panicked { .. } if is_emulated => RaceError::Emulation(error),
        _ => error.into(),
    })?;
    Ok((running.power_off(within)?, time.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_the_middle_laps() {
        let lap = |first| BootTimes { first, second: first / 2.0 };
        let race =
            BootComparison { ours: vec![lap(9.0), lap(2.0), lap(3.0)], theirs: vec![lap(5.0), lap(7.0)] };

        assert!((race.first_ratio() - 0.5).abs() < 1e-9);
        assert!((race.second_ratio() - 0.5).abs() < 1e-9);
    }
}
