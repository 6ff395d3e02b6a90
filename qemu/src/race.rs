//! Races two images and shows the times.
//!
//! Knows the table's columns; the race itself is the library's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use vm::bench::{self, BenchConfig, BenchImage, BenchProgress, BootComparison};

use crate::cli::BenchBoot;
use crate::failure::CommandFailure;
use crate::report::{print_note, print_result};
use crate::user_file::{ReadError, read_user_file};

/// Runs it.
pub(crate) fn bench_boot(arguments: &BenchBoot) -> Result<(), CommandFailure> {
    let contender =
        |image: &Path, user_data: &Option<PathBuf>, user: &str| -> Result<BenchImage, ReadError> {
            let user_data = user_data.as_deref().map(read_user_file).transpose()?;
            Ok(BenchImage { image: image.into(), user_data, user: user.to_owned() })
        };
    let ours = contender(&arguments.ours, &arguments.user_data, &arguments.user)?;
    let theirs = contender(&arguments.theirs, &arguments.their_user_data, &arguments.their_user)?;
    let course = BenchConfig {
        rounds: arguments.rounds,
        hardware: arguments.hardware.clone(),
        within: Duration::from_secs(arguments.timeout),
    };
    let race = bench::compare_boots(&course, &ours, &theirs, |image, news| {
        let image = image.display();
        print_note(match news {
            BenchProgress::Lap(lap) => {
                format!("{image}: first boot {:.1} s, second {:.1} s", lap.first, lap.second)
            }
            BenchProgress::Panic => {
                format!("{image}: its kernel panicked in the emulator, so it boots once more")
            }
        });
    })?;
    print_result(if arguments.json { race_json(&race) } else { race_table(&race) });
    Ok(())
}

fn race_json(race: &BootComparison) -> String {
    let value = json!({
        "ours": race.ours, "theirs": race.theirs,
        "first_ratio": race.first_ratio(), "second_ratio": race.second_ratio(),
    });
    format!("{value:#}\n")
}

fn race_table(race: &BootComparison) -> String {
    let mut text = format!("{:<12} {:>8} {:>8} {:>6}\n", "to ssh", "ours", "theirs", "ratio");
    let mut row = |name: &str, of: fn(&bench::BootTimes) -> f64, ratio: f64| {
        let ours = bench::median_of(race.ours.iter().map(of));
        let theirs = bench::median_of(race.theirs.iter().map(of));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12} {ours:>6.1} s {theirs:>6.1} s {ratio:>6.2}");
    };
    row("first boot", |lap| lap.first, race.first_ratio());
    row("second boot", |lap| lap.second, race.second_ratio());
    text
}
