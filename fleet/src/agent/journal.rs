//! What the agent remembers over its own restarts: which units it took how far.
//!
//! Kept under /run, so that a restart of the machine, which stops every unit, forgets it too. Invariant:
//! a unit is only remembered if its file is still there with the remembered content.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::replace_file;
use crate::{
    model::{
        state::JobState,
        unit_file::{UnitFile, UnitHash},
        unit_name::UnitName,
    },
    plan::machine_units::ActualUnit,
};

/// The largest journal that is read back.
// A line has some hundred bytes, so this is a hundred thousand units. A larger file is none of ours.
const MAX_SIZE: u64 = 16 << 20;

/// The journal of an agent.
#[derive(Debug, Clone)]
pub struct AgentJournal {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct JournalLine {
    hash: UnitHash,
    job: JobState,
    #[serde(default)]
    restarts: u64,
}

/// The journal could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct JournalError {
    path: PathBuf,
    source: io::Error,
}

impl AgentJournal {
    /// The journal in this directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("held.json") }
    }

    /// What was held when the journal was last written, as far as it still is.
    #[must_use]
    pub fn read(&self, units_directory: &Path) -> BTreeMap<UnitName, ActualUnit> {
        let small = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() <= MAX_SIZE);
        let text = if small { std::fs::read(&self.path).unwrap_or_default() } else { Vec::new() };
        // A journal that cannot be read costs a look at systemd, which knows what runs. It is no reason not
        // to start.
        let lines: BTreeMap<UnitName, JournalLine> = serde_json::from_slice(&text).unwrap_or_default();
        lines
            .into_iter()
            .filter(|(unit, line)| {
                let file = std::fs::read_to_string(units_directory.join(unit.as_str())).ok();
                // By hash and not by date: a person who edited the file wants the new content started.
                file.and_then(|text| UnitFile::parse(&text).ok()).is_some_and(|file| file.hash() == line.hash)
            })
            .map(|(unit, line)| {
                (unit, ActualUnit { hash: line.hash, job: line.job, restarts: line.restarts })
            })
            .collect()
    }

    /// Writes what is held.
    pub fn write(&self, held: &BTreeMap<UnitName, ActualUnit>) -> Result<(), JournalError> {
        let lines: BTreeMap<&UnitName, JournalLine> = held
            .iter()
            .map(|(unit, held)| {
                (unit, JournalLine { hash: held.hash, job: held.job, restarts: held.restarts })
            })
            .collect();
        let text = serde_json::to_vec(&lines).unwrap_or_default();
        replace_file(&self.path, &text).map_err(|source| JournalError { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_whose_file_is_unchanged_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let journal = AgentJournal::in_directory(folder.path());
        let file = UnitFile::parse("[Service]\nExecStart=x\n").unwrap();
        let held = ActualUnit { hash: file.hash(), job: JobState::Launched, restarts: 3 };
        let name = |text: &str| UnitName::parse(text).unwrap();
        let all = ["a.service", "b.service", "c.service"].map(|unit| (name(unit), held));
        std::fs::write(folder.path().join("a.service"), file.canonical_text()).unwrap();
        std::fs::write(folder.path().join("b.service"), "[Service]\nExecStart=y\n").unwrap();

        journal.write(&BTreeMap::from(all)).unwrap();

        assert_eq!(journal.read(folder.path()), BTreeMap::from([(name("a.service"), held)]));
    }

    #[test]
    fn a_broken_journal_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("held.json"), "{").unwrap();

        assert!(AgentJournal::in_directory(folder.path()).read(folder.path()).is_empty());
    }
}
