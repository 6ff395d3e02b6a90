//! Publishing that ends before its time, or that happens twice.

use std::fs;

use image_format::release::paths;

use super::site::{CHANNEL, RELEASE, Site, TextPayloads, stable, version};
use crate::release::change::{ChannelChange, OfferTerms};
use crate::release::channels::ChannelFileError;
use crate::release::objects::PayloadFormat as _;
use crate::release::publish::{PublishError, PublishOrder, PublishStep, publish_image};
use crate::release::repository::RepositoryError;

/// The files that the second release adds to the first, in the order in which they were written.
fn steps_of_second_release(site: &Site) -> Vec<(String, Vec<u8>)> {
    site.publish("1.1.0").unwrap();
    let offered = &site.channel().unwrap().releases[1];
    let mut files: Vec<String> =
        object_paths(&fs::read(site.repository.file_path(&paths::index(&offered.version))).unwrap());
    let of_release = ["sbom", "packages.lock", "recipe", "index", "manifest"];
    files.extend(of_release.map(|name| format!("release/1.1.0/{name}")));
    files.push("channel/stable".to_owned());
    files
        .into_iter()
        .map(|file| (file.clone(), fs::read(site.repository.file_path(&file)).unwrap()))
        .collect()
}

fn object_paths(index: &[u8]) -> Vec<String> {
    TextPayloads.objects(index).unwrap().into_iter().map(|object| object.path).collect()
}

#[test]
fn an_interrupted_publish_leaves_the_old_state() {
    let steps = {
        let site = Site::new();
        site.publish("1.0.0").unwrap();
        steps_of_second_release(&site)
    };
    for written in 0..=steps.len() {
        let site = Site::new();
        site.publish("1.0.0").unwrap();
        for (file, bytes) in &steps[..written] {
            site.repository.write_file(file, bytes).unwrap();
        }

        let expected: &[&str] = if written == steps.len() { &["1.0.0", "1.1.0"] } else { &["1.0.0"] };
        assert_eq!(site.offered(), expected, "after {written} files");
        assert_eq!(site.findings(), Vec::<String>::new(), "after {written} files");

        // Whoever publishes again ends where an undisturbed one does.
        site.publish("1.1.0").unwrap();
        assert_eq!(site.offered(), ["1.0.0", "1.1.0"]);
        assert_eq!(site.findings(), Vec::<String>::new());
    }
}

#[test]
fn the_channel_is_written_last_and_after_a_sync() {
    let files = vec![
        ("release/1.0.0/index".to_owned(), Vec::new()),
        ("release/1.0.0/manifest".to_owned(), Vec::new()),
    ];

    let steps = crate::release::publish::plan_steps(files, Some(("channel/stable".to_owned(), Vec::new())));

    let names: Vec<&str> = steps
        .iter()
        .map(|step| match step {
            PublishStep::Sync => "sync",
            PublishStep::Write { relative, .. } => relative,
        })
        .collect();
    assert_eq!(names, ["sync", "release/1.0.0/index", "release/1.0.0/manifest", "sync", "channel/stable"]);
}

#[test]
fn a_second_publisher_waits_for_nobody_and_changes_nothing() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    let before = fs::read(site.repository.file_path("channel/stable")).unwrap();
    let lock = site.repository.lock_repository().unwrap();

    let refused = site.publish("1.1.0").unwrap_err();

    assert!(matches!(refused, PublishError::Repository(RepositoryError::Busy { .. })), "{refused}");
    assert_eq!(fs::read(site.repository.file_path("channel/stable")).unwrap(), before);
    drop(lock);
    site.publish("1.1.0").unwrap();
}

#[test]
fn a_release_never_changes() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();

    assert!(site.publish("1.0.0").unwrap().known);
    let other = site.build("1.0.0", b"other content", RELEASE);
    let refused = site.publish_folder(&other).unwrap_err();

    assert!(refused.to_string().contains("raise `version:` in the spec, or build with --as"), "{refused}");
    assert_eq!(site.findings(), Vec::<String>::new());
}

#[test]
fn what_exists_is_kept_and_shared() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    let same_content = site.build("1.1.0", b"1.0.0", RELEASE);

    site.publish_folder(&same_content).unwrap();

    let chunks: usize = site
        .repository
        .list_names("chunk")
        .unwrap()
        .iter()
        .map(|part| site.repository.list_names(&format!("chunk/{part}")).unwrap().len())
        .sum();
    assert_eq!(chunks, 1);
    assert_eq!(site.offered(), ["1.0.0", "1.1.0"]);
}

#[test]
fn without_a_key_of_the_role_nothing_is_written() {
    let site = Site::new();
    let image = site.build("1.0.0", b"content", RELEASE);
    let channel = stable();
    let order = PublishOrder {
        image: &image,
        channel: Some(&channel),
        terms: OfferTerms::default(),
        patch_bases: 2,
        recipe: None,
    };

    let refused = site
        .with_publisher(&[RELEASE], |publisher| publish_image(publisher, &order, &TextPayloads))
        .unwrap_err();

    let PublishError::Channel(ChannelFileError::Signers(refused)) = refused else { panic!("{refused}") };
    assert!(
        refused.to_string().contains("wants 1 keys of the role channel, and 0 of those given"),
        "{refused}"
    );
    assert_eq!(site.repository.list_names("chunk").unwrap(), Vec::<String>::new());
    assert_eq!(site.repository.list_versions().unwrap(), []);
}

#[test]
fn an_image_that_a_stranger_signed_is_not_published() {
    let site = Site::new();
    let image = site.build("1.0.0", b"content", 99);

    let refused = site.publish_folder(&image).unwrap_err();

    assert!(matches!(refused, PublishError::Manifest { .. }), "{refused}");
}

#[test]
fn each_verb_ends_in_a_repository_that_machines_can_use() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    site.publish("1.1.0").unwrap();
    let reason = || "it loses data".to_owned();
    for change in [
        ChannelChange::Pause { reason: reason() },
        ChannelChange::Resume,
        ChannelChange::Floor { version: version("1.0.0"), floor: true },
        ChannelChange::Withdraw { version: version("1.1.0"), reason: reason() },
        ChannelChange::Renew { counter: 0 },
    ] {
        let before = site.channel().unwrap().counter;

        let changed =
            site.with_publisher(&[CHANNEL], |publisher| publisher.change_existing(&stable(), change));

        assert_eq!(changed.unwrap().counter, before + 1);
        assert_eq!(site.findings(), Vec::<String>::new());
    }
}
