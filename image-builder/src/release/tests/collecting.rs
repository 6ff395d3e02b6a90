//! What `gc` removes, and what it never does.

use std::fs;
use std::time::{Duration, SystemTime};

use image_format::release::paths;

use super::site::{CHANNEL, Site, TextPayloads, stable, version};
use crate::release::change::ChannelChange;
use crate::release::collect::{CollectError, CollectPlan, CollectPolicy, plan_collection, remove_files};

#[expect(clippy::disallowed_methods, reason = "files get their times from the clock")]
fn plan(site: &Site, keep: usize, min_age: Duration) -> Result<CollectPlan, CollectError> {
    let policy = CollectPolicy { keep, min_age, now: SystemTime::now() };
    plan_collection(&site.repository, &site.chain(), &TextPayloads, policy)
}

fn collect(site: &Site, keep: usize) -> CollectPlan {
    let plan = plan(site, keep, Duration::ZERO).unwrap();
    remove_files(&site.repository, &plan).unwrap();
    plan
}

fn six_releases() -> Site {
    let site = Site::new();
    for minor in 0..6 {
        site.publish(&format!("1.{minor}.0")).unwrap();
    }
    site
}

#[test]
fn what_a_live_channel_needs_stays() {
    let site = six_releases();
    assert_eq!(site.offered(), ["1.2.0", "1.3.0", "1.4.0", "1.5.0"]);

    let plan = collect(&site, 0);

    assert_eq!(plan.releases, [version("1.0.0"), version("1.1.0")]);
    assert_eq!(site.findings(), Vec::<String>::new());
    assert_eq!(site.repository.list_names("release").unwrap(), ["1.2.0", "1.3.0", "1.4.0", "1.5.0"]);
    assert_eq!(collect(&site, 0), CollectPlan::default());
}

#[test]
fn floors_and_withdrawn_releases_stay_too() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    let change = ChannelChange::Floor { version: version("1.0.0"), floor: true };
    site.with_publisher(&[CHANNEL], |publisher| publisher.change_existing(&stable(), change)).unwrap();
    for minor in 1..7 {
        site.publish(&format!("1.{minor}.0")).unwrap();
    }
    let change = ChannelChange::Withdraw { version: version("1.6.0"), reason: "it loses data".into() };
    site.with_publisher(&[CHANNEL], |publisher| publisher.change_existing(&stable(), change)).unwrap();

    let plan = collect(&site, 0);

    assert_eq!(plan.releases, [version("1.1.0"), version("1.2.0")]);
    assert_eq!(site.findings(), Vec::<String>::new());
}

#[test]
fn releases_that_wait_to_be_offered_stay_by_number() {
    let site = six_releases();

    assert_eq!(plan(&site, 2, Duration::ZERO).unwrap(), CollectPlan::default());
    assert_eq!(plan(&site, 1, Duration::ZERO).unwrap().releases, [version("1.0.0")]);
}

#[test]
fn young_files_stay_for_machines_that_fetch_them() {
    assert_eq!(plan(&six_releases(), 0, Duration::from_hours(24)).unwrap().files, Vec::<String>::new());
}

#[test]
fn leftovers_of_interrupted_publishers_go() {
    let site = six_releases();
    for leftover in ["chunk/00/.new-abc", "channel/.new-abc", "root/.new-abc", "release/2.0.0/sbom"] {
        let path = site.repository.file_path(leftover);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "half").unwrap();
    }

    let plan = collect(&site, 9);

    assert_eq!(plan.files, ["release/2.0.0/sbom", "chunk/00/.new-abc", "channel/.new-abc", "root/.new-abc"]);
    assert!(!site.repository.file_path("release/2.0.0").exists());
    assert_eq!(site.findings(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_read_stops_it() {
    let site = six_releases();
    fs::write(site.repository.file_path("channel/beta"), "damaged").unwrap();
    assert!(matches!(plan(&site, 0, Duration::ZERO), Err(CollectError::Channel(_))));

    let site = six_releases();
    fs::write(site.repository.file_path(&paths::index(&version("1.5.0"))), "damaged").unwrap();
    assert!(matches!(plan(&site, 0, Duration::ZERO), Err(CollectError::Index { .. })));

    let site = six_releases();
    fs::remove_file(site.repository.file_path(&paths::index(&version("1.5.0")))).unwrap();
    assert!(matches!(plan(&site, 0, Duration::ZERO), Err(CollectError::Stored(_))));
}

#[test]
fn an_interrupted_collection_leaves_no_half_release() {
    let site = six_releases();
    let plan = plan(&site, 0, Duration::ZERO).unwrap();
    for removed in 0..plan.files.len() {
        let site = six_releases();
        for file in &plan.files[..removed] {
            site.repository.remove_file(file).unwrap();
        }

        assert_eq!(site.findings(), Vec::<String>::new());
        let versions = site.repository.list_versions().unwrap();
        assert!(versions.iter().all(|version| site.repository.file_path(&paths::index(version)).exists()));
        collect(&site, 0);
        assert_eq!(site.repository.list_names("release").unwrap(), ["1.2.0", "1.3.0", "1.4.0", "1.5.0"]);
    }
}
