//! Many parts, as cluster tools hand them over: nothing of any of them is lost.

use std::collections::BTreeSet;

use proptest::prelude::*;
use user_data::cloudconfig::order::PlanFacts;
use user_data::part::PayloadPart;
use user_data::plan::step::PlanStep;
use user_data::reading::{self, ReadResult, UserDataInput};

fn read(parts: &[String]) -> ReadResult {
    let user = parts
        .iter()
        .enumerate()
        .map(|(index, text)| PayloadPart::whole(format!("part-{index}"), text.as_str()));
    reading::read(&UserDataInput { user: user.collect(), ..UserDataInput::default() }, &PlanFacts::default())
}

fn paths(reading: &ReadResult) -> BTreeSet<String> {
    let path = |step: &PlanStep| match step {
        PlanStep::WriteFile(file) => Some(file.path.clone()),
        _ => None,
    };
    reading.plan.steps.iter().filter_map(|planned| path(&planned.step)).collect()
}

fn keys(reading: &ReadResult) -> BTreeSet<String> {
    let keys = |step: &PlanStep| match step {
        PlanStep::AuthorizeKeys { keys, .. } => keys.clone(),
        _ => Vec::new(),
    };
    reading.plan.steps.iter().flat_map(|planned| keys(&planned.step)).collect()
}

/// A key whose bytes are a number, so that each is another one.
fn key(number: usize) -> String {
    let letters = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    let tail: String = (0..4).map(|digit| letters[(number >> (3 * digit)) % 8]).collect();
    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEIDxYdJCsyOUBHTlVcY2pxeH+GjZSboqmwt77F{tail} k{number}")
}

/// The shapes in which people write keys and users.
fn part(number: usize, shape: usize) -> String {
    let key = key(number);
    let access = match shape % 4 {
        0 => format!("ssh_authorized_keys: [{key}]"),
        1 => format!("ssh-authorized-keys: {key}"),
        2 => format!("users: [{{name: p{number}, ssh_authorized_keys: [{key}]}}]"),
        _ => format!("users: {{p{number}: {{ssh_authorized_keys: [{key}]}}}}"),
    };
    format!("#cloud-config\nwrite_files:\n  - {{path: /etc/site/{number}, content: x}}\n{access}\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_and_keys_of_all_parts_are_there(shapes in prop::collection::vec(0_usize..4, 1..26)) {
        let parts: Vec<String> = shapes.iter().enumerate().map(|(index, shape)| part(index, *shape)).collect();

        let reading = read(&parts);

        prop_assert_eq!(paths(&reading).len(), parts.len());
        prop_assert_eq!(keys(&reading).len(), parts.len());
        prop_assert!(reading.found.list().is_empty(), "{:?}", reading.found);
    }
}

#[test]
fn a_part_that_is_broken_adds_the_keys_that_can_be_read() {
    let broken = format!("#cloud-config\nssh_authorized_keys: [{}]\nruncmd: [\n", key(1));

    let reading = read(&[part(0, 0), broken, part(2, 1)]);

    assert_eq!(keys(&reading).len(), 3);
}
