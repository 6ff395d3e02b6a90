//! The boot stories: what a machine does, told in real virtual machines started from one disk image.
//!
//!   `CATAMARAN_IMAGE=out/disk.raw cargo test -p vm --test stories [-- PART-OF-A-NAME...] [--list]`
//!
//! A runner of its own, because virtual machines are slow: it runs two at a time, shares beginnings (`scene`) and
//! prints the time of each story. `--sample=SEED --seconds=N` runs what every run must prove, and as many of the
//! other stories as fit into the time; the seed says which come first. Without an image the stories are skipped,
//! or fail where `CI=true`.

#![expect(clippy::disallowed_methods, reason = "effects live here")]
#![expect(clippy::print_stdout, reason = "a test runner reports to standard output")]
#![expect(clippy::unwrap_used, reason = "a story fails by panicking")]

mod artefacts;
mod bigger_disk;
mod broken_kernel;
mod clouds;
mod cluster;
mod damaged_root;
mod disk_map;
mod first_boot;
mod forged_manifest;
mod installed;
mod lost_partition_table;
mod lost_slot_table;
mod lost_state;
mod metadata_service;
mod metal;
mod power_cut;
mod repaired_loaders;
mod runner;
mod scene;
mod second_boot;
mod secrets;
mod selection;
mod soft_trial;
mod three_panics;
mod update;
mod update_replay;
mod worst_user_data;

use std::path::PathBuf;
use std::process::ExitCode;

use runner::Story;
use scene::Scene;
use selection::Selection;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let selection = match Selection::parse(&arguments) {
        Ok(selection) => selection,
        Err(mistake) => {
            println!("stories: {mistake}");
            return ExitCode::FAILURE;
        }
    };
    let stories = selection.choose(all());
    if selection.list_only {
        for story in &stories {
            println!("{}: test", story.name);
        }
        return ExitCode::SUCCESS;
    }
    let Some(image) = std::env::var_os("CATAMARAN_IMAGE") else {
        println!("the boot stories need a disk image: set CATAMARAN_IMAGE to the disk.raw that a build made");
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        return if ci { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    };
    runner::run(&Scene::new(PathBuf::from(image)), &stories, selection.budget)
}

/// The slow ones first, so that no long one is left alone at the end.
fn all() -> Vec<Story> {
    let mut stories = vec![
        Story::sampled("update_moves_and_comes_back", update::moves_and_comes_back),
        Story::by_name("soft_trial_ends_on_the_slot_it_earned", soft_trial::ends_on_the_slot_it_earned),
        Story::every_time("second_boot_changes_nothing", second_boot::changes_nothing),
        Story::sampled("worst_user_data_leaves_ssh", worst_user_data::everything),
        Story::sampled("first_boot_bios_nocloud", first_boot::bios),
        Story::sampled("first_boot_uefi_gce", first_boot::uefi),
        Story::every_time("first_boot_secure_ec2", first_boot::secure),
        Story::sampled("broken_user_data_leaves_ssh", worst_user_data::broken_yaml),
        Story::sampled("cluster_of_two_is_cut_and_healed", cluster::of_two),
        Story::every_time("three_panics_change_the_slot", three_panics::change_the_slot),
        Story::sampled("install_to_a_second_disk_and_start_it_alone", installed::to_a_second_disk),
        Story::sampled("first_boot_digitalocean", first_boot::digital_ocean),
        Story::sampled("first_boot_config_drive", first_boot::config_drive),
        Story::sampled("flipped_bit_in_a_program_changes_the_slot", damaged_root::program),
        Story::sampled("flipped_bit_in_the_superblock_changes_the_slot", damaged_root::superblock),
        Story::sampled("forged_manifest_is_refused", forged_manifest::is_refused),
        Story::every_time("zeroed_kernel_falls_through_bios", broken_kernel::bios),
        Story::sampled("zeroed_kernel_falls_through_uefi", broken_kernel::uefi),
        Story::sampled("garbage_in_env0_leaves_env1", lost_slot_table::first_copy),
        Story::sampled("garbage_in_both_copies_boots", lost_slot_table::both_copies),
        Story::sampled(
            "repaired_boot_loaders_start_by_every_firmware",
            repaired_loaders::start_by_every_firmware,
        ),
        Story::sampled("lost_state_leaves_ssh", lost_state::without_superblock),
        Story::sampled("zeroed_primary_gpt_boots_bios", lost_partition_table::bios),
        Story::sampled("zeroed_primary_gpt_boots_uefi", lost_partition_table::uefi),
        Story::every_time("bigger_disk_is_filled", bigger_disk::is_filled),
    ];
    stories.extend(power_cut::MOMENTS.map(|moment| {
        Story::sampled(format!("power_cut_{moment:02}"), move |scene| power_cut::at(scene, moment))
    }));
    stories.extend(artefacts::stories());
    stories.extend(update_replay::stories());
    stories.extend(metal::stories());
    stories
}
