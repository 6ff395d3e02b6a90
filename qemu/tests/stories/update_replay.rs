//! The power goes at any write of an update: the selector starts a slot that is whole, and the machine answers.
//!
//! One update is recorded at block level, from the old slot through the install and the trial to the end of it. All
//! moments of it are judged in memory; some are made into disks and booted, by their names only until each was seen.
//! `CATAMARAN_UPDATE_CUTS` says how many there are.

use std::path::PathBuf;
use std::sync::OnceLock;

use image_format::slot::Slot;
use image_format::version::Version;
use vm::options::Bus;
use vm::seeded_random::SeededRandom;
use vm::update_replay::{UpdatePlaces, judge_update, table_moments};
use vm::write_log::WriteLog;

use crate::disk_map::DiskMap;
use crate::runner::Story;
use crate::scene::{PATIENCE, Scene, discard, pull_the_plug, run, throw_away, wait_until_back};
use crate::update::{device, make_release};

/// The first of a run costs the recording of an update, five minutes; `CATAMARAN_UPDATE_CUTS=200` is for a proof.
const CUTS: u64 = 2;
/// The other half of the moments is spread over the whole update, which is mostly bytes of the idle slot.
const NEAR_TABLE: usize = 8;

/// An update, write by write.
struct UpdateRecording {
    writes: PathBuf,
    places: UpdatePlaces,
}

static RECORDING: OnceLock<UpdateRecording> = OnceLock::new();

pub(crate) fn stories() -> impl Iterator<Item = Story> {
    let cuts = std::env::var("CATAMARAN_UPDATE_CUTS").ok().and_then(|count| count.parse().ok());
    let judged = Story::sampled("update_survives_every_cut_in_memory", judged_in_memory);
    let cuts = (1..=cuts.unwrap_or(CUTS))
        .map(|moment| Story::by_name(format!("update_cut_{moment:03}"), move |scene| at(scene, moment)));
    std::iter::once(judged).chain(cuts)
}

fn judged_in_memory(scene: &Scene) {
    let UpdateRecording { writes, places } = RECORDING.get_or_init(|| record(scene));
    let log = WriteLog::read_log(writes).unwrap();

    let count = judge_update(&log, places).unwrap_or_else(|fault| panic!("{fault}"));

    println!(
        "update: {} moments, {} tables, {} start the new slot",
        count.moments, count.tables, count.starts_new
    );
    assert!(count.moments > 100 && count.tables > 20 && count.starts_new > 10, "{count:?}");
}

fn at(scene: &Scene, moment: u64) {
    let UpdateRecording { writes, places } = RECORDING.get_or_init(|| record(scene));
    let log = WriteLog::read_log(writes).unwrap();
    let machine = scene.settled(&format!("update-cut-{moment}")).watchdog().build().unwrap();
    let mut chance = SeededRandom::from_seed(moment);
    let cut = choose_cut(&log, places, moment, &mut chance);
    log.cut_power(&machine.edit_disk().unwrap(), cut, &mut chance).unwrap();

    let mut running = machine.start_machine().unwrap();
    wait_until_back(&mut running);
    let said = run(
        &running,
        "sudo initagent state check; cat /etc/story; sudo initagent slots; sudo initagent update",
    );

    for words in ["state: healthy", "once upon a time", " good "] {
        assert!(said.contains(words), "cut before event {cut}: {words}: {said}");
    }
    throw_away(running);
}

/// Every other moment is close to a change of the slot table.
fn choose_cut(log: &WriteLog, places: &UpdatePlaces, moment: u64, chance: &mut SeededRandom) -> usize {
    let mut below = |count: usize| usize::try_from(chance.number_below(count as u64)).unwrap();
    let events = log.write_events().len();
    if moment.is_multiple_of(2) {
        return below(events);
    }
    let near = table_moments(log, places);
    (near[below(near.len())] + below(2 * NEAR_TABLE)).saturating_sub(NEAR_TABLE).min(events)
}

fn record(scene: &Scene) -> UpdateRecording {
    let newer = make_release(scene, &scene.settling().disk, Version::new(90, 1, 0), 3);
    let machine = scene.settled("recording").beside(&newer, Bus::Virtio).log_writes().watchdog();
    let machine = machine.build().unwrap();
    let map = DiskMap::of(machine.edit_disk().unwrap());
    let places = UpdatePlaces {
        running: Slot::A,
        running_root: map.root(Slot::A),
        idle_root: map.root(Slot::B),
        table_copies: map.slot_table_offsets(),
        table_before: map.slot_table_blocks(),
    };
    drop(map);
    let mut running = machine.start_machine().unwrap();
    wait_until_back(&mut running);
    run(&running, &INSTALL.replace("DEVICE", &device(&running, &newer)));
    running.wait_for_words("starting slot B", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    wait_until_back(&mut running);
    run(&running, "until sudo initagent slots | grep -q '^B .* good '; do sleep 1; done; sync");
    let machine = pull_the_plug(running);
    let writes = scene.keep("update-writes.log", b"");
    // The machine's folder goes with the machine.
    std::fs::rename(machine.write_log().unwrap(), &writes).unwrap();
    discard(&machine);
    UpdateRecording { writes, places }
}

/// Restarts once ssh has said that all went well.
const INSTALL: &str = "set -e
    sudo mkdir -p /etc/catamaran/update.d
    printf 'TRIAL_SOAK=3s\\nTRIAL_PATIENCE=20s\\n' | sudo tee /etc/catamaran/update.d/10-story.conf >/dev/null
    sudo initagent update install DEVICE
    nohup sh -c 'sleep 1; sudo systemctl reboot' >/dev/null 2>&1 &";
