//! Configurations that refer to others: who wins, what is kept, and where a mistake is found.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cloudconfig::order::PlanFacts;
use crate::container::{self, FetchPolicy};
use crate::plan::step::FetchRequest;
use crate::plan::text::{ContentDisplay, render_plan};
use crate::reading::{self, UserDataInput};
use document::caret::{self, Excerpts};

/// A reference to a configuration that stands in an address.
pub(super) fn data_reference(document: &str) -> String {
    format!(r#"{{"source": "data:;base64,{}"}}"#, STANDARD.encode(document))
}

/// What a configuration and the pages it refers to come to.
pub(super) fn read_with_pages(user_data: &str, pages: &[(&str, &str)]) -> (String, String) {
    let mut fetch = |fetch: &FetchRequest| {
        let page = pages.iter().find(|(url, _)| *url == fetch.url).map(|(_, page)| page.as_bytes().to_vec());
        page.ok_or_else(|| "no such page".to_owned())
    };
    let references = FetchPolicy { include: false, fetch: Some(&mut fetch) };
    let user = container::open_payload("user-data", user_data.as_bytes(), references);
    let reading = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
    let mut plan = String::new();
    for line in render_plan(&reading.plan, &reading.sources, ContentDisplay::Shown).lines() {
        // Every plan begins with the host keys.
        if !line.contains("host keys") && line != "identity" {
            let _ = writeln!(plan, "{line}");
        }
    }
    (plan, caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown))
}

fn merging(references: &str, rest: &str) -> String {
    format!(r#"{{"ignition": {{"version": "3.4.0", "config": {{"merge": [{references}]}}}}{rest}}}"#)
}

fn child(rest: &str) -> String {
    format!(r#"{{"ignition": {{"version": "3.5.0"}}, {rest}}}"#)
}

#[test]
fn a_child_wins_field_by_field() {
    let parent = r#", "storage": {"files": [
        {"path": "/srv/a", "mode": 384, "contents": {"source": "data:,1"}}, {"path": "/srv/b"}, {"path": "/srv/l"}]},
        "passwd": {"users": [{"name": "ann", "uid": 1500, "groups": ["sudo"]}]}"#;
    let over = child(
        r#""storage": {"files": [{"path": "/srv/a", "contents": {"source": "data:,2"}}, {"path": "/srv/c"}],
            "links": [{"path": "/srv/l", "target": "/srv/a"}]},
            "passwd": {"users": [{"name": "ann", "groups": ["docker"]}]}"#,
    );

    let (plan, found) = read_with_pages(&merging(&data_reference(&over), parent), &[]);

    assert_eq!(found, "");
    assert_eq!(plan, include_str!("child-wins.txt"));
}

#[test]
fn a_child_with_only_headers_leaves_the_content() {
    let parent =
        r#", "storage": {"files": [{"path": "/srv/a", "contents": {"source": "data:,from-the-parent"}}]}"#;
    let over = child(
        r#""storage": {"files": [{"path": "/srv/a", "contents": {"httpHeaders": [{"name": "X-A", "value": "b"}]}}]}"#,
    );

    let (plan, found) = read_with_pages(&merging(&data_reference(&over), parent), &[]);

    assert!(plan.contains("| from-the-parent"), "{plan}");
    assert!(found.contains("warning[no-effect]: these headers are not sent"), "{found}");
}

#[test]
fn compression_and_hash_of_the_parent_stay_beside_a_new_source() {
    let parent = r#", "storage": {"files": [{"path": "/srv/a", "contents": {"source": "https://h/a", "compression": "gzip"}}]}"#;
    let over = child(r#""storage": {"files": [{"path": "/srv/a", "contents": {"source": "data:,plain"}}]}"#);

    let (plan, found) = read_with_pages(&merging(&data_reference(&over), parent), &[]);

    assert_eq!(plan, "");
    assert!(found.contains("this data address is not gzip"), "{found}");
}

#[test]
fn a_header_without_a_value_takes_the_parents_away() {
    let file = |headers: &str| {
        format!(
            r#""storage": {{"files": [{{"path": "/srv/a", "contents": {{"source": "https://h/a", "httpHeaders": [{headers}]}}}}]}}"#
        )
    };
    let parent = format!(", {}", file(r#"{"name": "A", "value": "1"}, {"name": "B", "value": "2"}"#));

    let (plan, found) =
        read_with_pages(&merging(&data_reference(&child(&file(r#"{"name": "A"}"#))), &parent), &[]);

    assert_eq!(found, "");
    assert!(plan.contains("/srv/a"), "{plan}");
    let orphan =
        read_with_pages(&merging(&data_reference(&child(&file(r#"{"name": "C"}"#))), &parent), &[]).1;
    assert!(orphan.contains("a header needs a `value`"), "{orphan}");
}

#[test]
fn arguments_of_commands_are_added_and_names_are_not() {
    let filesystem = |option: &str| {
        format!(
            r#""storage": {{"filesystems": [{{"device": "/dev/vdb1", "format": "ext4", "path": "/srv/d",
            "options": ["-q"], "mountOptions": ["{option}"]}}]}}"#
        )
    };
    let parent = format!(", {}", filesystem("ro"));

    let (plan, found) = read_with_pages(&merging(&data_reference(&child(&filesystem("ro"))), &parent), &[]);

    assert_eq!(found, "");
    assert!(plan.contains("/dev/vdb1 /srv/d ext4 ro,ro,nofail 0 2"), "{plan}");
    assert_eq!(plan.matches("make ext4").count(), 1, "{plan}");
}

#[test]
fn children_are_merged_depth_first_and_the_last_one_wins() {
    let file = |text: &str| {
        format!(r#""storage": {{"files": [{{"path": "/srv/a", "contents": {{"source": "data:,{text}"}}}}]}}"#)
    };
    let grandchild = child(&file("grandchild"));
    let first = format!(
        r#"{{"ignition": {{"version": "3.4.0", "config": {{"merge": [{}]}}}}, {}}}"#,
        data_reference(&grandchild),
        file("first")
    );
    let references = format!(
        "{}, {}",
        data_reference(&first),
        data_reference(&child(r#""storage": {"files": [{"path": "/srv/b"}]}"#))
    );

    let (plan, found) = read_with_pages(&merging(&references, &format!(", {}", file("parent"))), &[]);

    assert_eq!(found, "");
    assert!(plan.contains("| grandchild") && plan.contains("/srv/b"), "{plan}");
}

#[test]
fn a_replacement_replaces_everything() {
    let text = r#"{"ignition": {"version": "3.0.0", "config": {"replace": {"source": "http://h/new"}}},
        "storage": {"files": [{"path": "/srv/old"}]}}"#;

    let (plan, found) =
        read_with_pages(text, &[("http://h/new", &child(r#""storage": {"files": [{"path": "/srv/new"}]}"#))]);

    assert_eq!(found, "");
    assert!(plan.contains("/srv/new") && !plan.contains("/srv/old"), "{plan}");
}

#[test]
fn a_mistake_is_found_in_the_file_that_it_stands_in() {
    let parent = ",\n \"storage\": {\"files\": [{\"path\": \"/srv/a\", \"mode\": 5000}]}";
    let over =
        "{\"ignition\": {\"version\": \"3.4.0\"},\n\n  \"systemd\": {\"units\": [{\"name\": \"a.blah\"}]}}";

    let (plan, found) = read_with_pages(
        &merging(r#"{"source": "https://user:pw@h/a.ign?token=x"}"#, parent),
        &[("https://user:pw@h/a.ign?token=x", over)],
    );

    assert_eq!(plan, "");
    assert!(found.contains("--> user-data:2:51"), "{found}");
    assert!(found.contains("--> user-data by way of https://h/a.ign:3:26"), "{found}");
    assert_eq!(found.matches("must be a decimal number").count(), 1, "{found}");
}

#[test]
fn a_mistake_that_another_document_hides_is_one_all_the_same() {
    let parent = r#", "storage": {"files": [{"path": "/srv/a", "contents": {"source": "ftp://h/x"}}]}"#;
    let over = child(r#""storage": {"files": [{"path": "/srv/a", "contents": {"source": "data:,2"}}]}"#);

    let (plan, found) = read_with_pages(&merging(&data_reference(&over), parent), &[]);

    assert_eq!(plan, "");
    assert!(found.contains("data, http or https"), "{found}");
}

#[test]
fn what_cannot_be_had_costs_all_but_the_keys_of_the_author() {
    let rest = format!(
        r#", "storage": {{"files": [{{"path": "/srv/a"}}]}}, "passwd": {{"users": [{{"name": "core", "sshAuthorizedKeys": ["{}"]}}]}}"#,
        super::KEY
    );

    let (plan, found) = read_with_pages(&merging(r#"{"source": "http://h/none"}"#, &rest), &[]);

    assert!(plan.contains("authorize 1 key for core") && !plan.contains("/srv/a"), "{plan}");
    assert!(found.contains("no such page") && found.contains("user-data:1:"), "{found}");
}

#[test]
fn the_hash_of_a_reference_is_checked_after_unpacking() {
    let reference =
        format!(r#"{{"source": "http://h/a", "verification": {{"hash": "sha256-{}"}}}}"#, "0".repeat(64));

    let (_, found) = read_with_pages(&merging(&reference, ""), &[("http://h/a", &child(r#""storage": {}"#))]);

    assert!(found.contains("does not have the hash"), "{found}");
}

#[test]
fn configurations_that_refer_to_themselves_end() {
    let text = merging(r#"{"source": "http://h/a"}, {"source": "http://h/a"}"#, "");

    let (plan, found) = read_with_pages(&text, &[("http://h/a", &text)]);

    assert_eq!(plan, "");
    assert!(found.contains("error[limit-exceeded]"), "{found}");
}

#[test]
fn a_configuration_of_specification_2_may_stand_below_one_of_3() {
    let old = r#"{"ignition": {"version": "2.3.0"}, "storage": {"files": [{"filesystem": "root", "path": "/srv/old"}]}}"#;

    let (plan, found) = read_with_pages(&merging(&data_reference(old), ""), &[]);

    assert!(plan.contains("write /srv/old"), "{plan}");
    assert!(found.contains("specification 2.3.0") && !found.contains("error"), "{found}");
}
