//! The Rust crates that are in the agent, by the lock file of the workspace that this program is of.
//!
//! Knows the lines of a Cargo.lock. Refuses to ask cargo, which is not there when an image is built. The lock does
//! not tell what a crate needs from what only its tests need, so the list may have a few crates too many; what is
//! linked is never missing.

use std::collections::{BTreeMap, BTreeSet};

/// The lock by which `initagent` was built, unless another program was given with `--initagent`.
// At compile time, so that it is the lock of this very program.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// A crate of the registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The digest of its archive, which our own crates do not have.
    pub(crate) sha256: Option<String>,
    dependencies: Vec<String>,
}

/// A program of this workspace and all that it may be made of, sorted.
pub(crate) fn of_program(name: &str) -> Vec<Crate> {
    dependency_closure(&parse_lock(LOCK), name)
}

fn dependency_closure(all: &[Crate], program: &str) -> Vec<Crate> {
    let mut by_name: BTreeMap<&str, Vec<&Crate>> = BTreeMap::new();
    for known in all {
        by_name.entry(&known.name).or_default().push(known);
    }
    let mut found: BTreeSet<&Crate> = BTreeSet::new();
    let mut pending = vec![program];
    while let Some(wanted) = pending.pop() {
        // `NAME`, or `NAME VERSION` where there are several.
        let (name, version) =
            wanted.split_once(' ').map_or((wanted, None), |(name, rest)| (name, Some(rest)));
        let version = version.and_then(|rest| rest.split(' ').next());
        for known in by_name.get(name).into_iter().flatten() {
            if version.is_none_or(|version| version == known.version) && found.insert(known) {
                pending.extend(known.dependencies.iter().map(String::as_str));
            }
        }
    }
    found.into_iter().cloned().collect()
}

fn parse_lock(lock: &str) -> Vec<Crate> {
    lock.split("[[package]]\n").skip(1).map(parse_package).collect()
}

fn parse_package(text: &str) -> Crate {
    let mut package = Crate::default();
    for line in text.lines() {
        match line.split_once(" = ") {
            Some(("name", value)) => package.name = strip_quotes(value),
            Some(("version", value)) => package.version = strip_quotes(value),
            Some(("checksum", value)) => package.sha256 = Some(strip_quotes(value)),
            None if line.starts_with(" \"") => package.dependencies.push(strip_quotes(line)),
            _ => {}
        }
    }
    package
}

fn strip_quotes(text: &str) -> String {
    text.trim().trim_end_matches(',').trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_has_the_crates_that_speak_to_the_network_and_no_others() {
        let crates = of_program("initagent");

        let of = |name: &str| crates.iter().find(|known| known.name == name);
        for name in ["initagent", "first-boot", "image-format", "rustls", "ring", "ureq", "ed25519-dalek"] {
            assert!(of(name).is_some(), "{name} is missing");
        }
        assert!(of("tonic").is_none() && of("indicatif").is_none(), "crates of other programs");
        assert_eq!(of("ring").unwrap().sha256.as_ref().map(String::len), Some(64));
        assert_eq!(of("initagent").unwrap().sha256, None);
    }

    #[test]
    fn one_of_several_versions_is_the_one_that_is_asked_for() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b 2.0.0\",\n]\n\n\
            [[package]]\nname = \"b\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\nchecksum = \"00\"\n";

        let names: Vec<String> = dependency_closure(&parse_lock(lock), "a")
            .iter()
            .map(|known| format!("{} {}", known.name, known.version))
            .collect();

        assert_eq!(names, ["a 1.0.0", "b 2.0.0"]);
    }
}
