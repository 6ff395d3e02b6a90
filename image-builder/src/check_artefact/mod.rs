//! Says whether a place will take an artefact, rule by rule, and how it is uploaded there.
//!
//! Knows what clouds and hypervisors document; uploads nothing. A place is one file in `places/` and one row of
//! [`places::PLACES`].

pub(crate) mod facts;
pub(crate) mod places;
pub(crate) mod rules;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::source::SourceError;
use places::Place;
use rules::{RuleVerdict, Verdict};

/// What is said of an artefact for a place.
#[derive(Debug, Serialize)]
pub(crate) struct CheckReport {
    artefact: String,
    place: &'static str,
    rules: Vec<RuleVerdict>,
    /// What a person types to upload and register it.
    commands: String,
    /// How much of this was ever tried.
    tested: &'static str,
}

/// Holds an artefact against every rule of a place.
pub(crate) fn check_artefact(path: &Path, place: &'static Place) -> Result<CheckReport, SourceError> {
    let facts = facts::gather_facts(path)?;
    Ok(report_artefact(&facts, place))
}

fn report_artefact(facts: &facts::ArtefactFacts, place: &'static Place) -> CheckReport {
    CheckReport {
        artefact: facts.path.display().to_string(),
        place: place.title,
        rules: place.rules.iter().map(|rule| rule.judge_artefact(facts)).collect(),
        commands: place.commands.replace("{FILE}", &facts.path.display().to_string()),
        tested: place.tested,
    }
}

impl CheckReport {
    pub(crate) fn all_hold(&self) -> bool {
        self.rules.iter().all(|rule| rule.verdict != Verdict::Fail)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {}\n", self.artefact, self.place)?;
        for RuleVerdict { rule, verdict, because } in &self.rules {
            let word = match verdict {
                Verdict::Fail => "FAIL",
                Verdict::Ok => "ok",
                Verdict::Unknown => "?",
            };
            writeln!(f, "  {word:<5} {rule}\n          {because}")?;
        }
        writeln!(f, "\n  tested by us: {}\n", self.tested)?;
        if self.all_hold() {
            write!(f, "To upload and register it (words in capitals are yours):\n\n{}", self.commands)
        } else {
            writeln!(f, "It would not run there. No command is shown until every rule holds.")
        }
    }
}

#[cfg(test)]
mod tests;
