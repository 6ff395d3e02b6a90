//! Which stories a run takes, and in which order, by the words of its command line.
//!
//! Pure: knows names, a seed and a time budget; starts nothing. Invariant: the same words choose the same order.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::runner::{Frequency, Story};

/// What the command line asks for.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Parts of names; a story with any of them is taken, and without parts each story of what is done.
    name_parts: Vec<String>,
    /// Changes from commit to commit, so that the sample moves through all stories as the project goes on.
    seed: Option<String>,
    /// After this time no sampled story begins.
    pub(crate) budget: Option<Duration>,
    pub(crate) list_only: bool,
}

impl Selection {
    /// Reads the words of the command line; options that Cargo's own test runner knows mean nothing here.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut selection = Self::default();
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--sample", seed)) => selection.seed = Some(seed.to_owned()),
                Some(("--seconds", number)) => selection.budget = Some(parse_seconds(number)?),
                _ if argument == "--list" => selection.list_only = true,
                _ if argument.starts_with('-') => {}
                _ => selection.name_parts.push(argument.clone()),
            }
        }
        Ok(selection)
    }

    /// The stories to run. A sample keeps the order of what runs every time, and puts the others behind it.
    pub(crate) fn choose(&self, stories: Vec<Story>) -> Vec<Story> {
        let wanted = |story: &Story| {
            let is_named = self.name_parts.iter().any(|part| story.name.contains(part));
            is_named || self.name_parts.is_empty() && story.frequency != Frequency::ByName
        };
        let mut chosen: Vec<Story> = stories.into_iter().filter(wanted).collect();
        if let Some(seed) = &self.seed {
            chosen.sort_by_key(|story| match story.frequency {
                Frequency::ByName | Frequency::EveryTime => 0,
                Frequency::Sampled => hash_with_seed(seed, &story.name).max(1),
            });
        }
        chosen
    }
}

fn parse_seconds(number: &str) -> Result<Duration, String> {
    let seconds =
        number.parse().map_err(|_| format!("--seconds={number} is not a whole number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}

fn hash_with_seed(seed: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    hasher.finish()
}
