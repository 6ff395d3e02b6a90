//! Every pattern of the cluster once, with the units whose names it matches.
//!
//! Knows which patterns a name hits and which names a pattern hits, without trying all against all: a
//! literal is looked up, a glob is tried only on the names that share its literal beginning. Invariant:
//! ids are dense and never reused for another pattern while the index lives.

use std::collections::HashMap;

use crate::model::glob;

/// The number of a pattern.
pub type PatternId = u32;

/// All patterns seen.
#[derive(Debug, Default)]
pub struct PatternTable {
    ids: HashMap<Box<str>, PatternId>,
    /// Globs by their literal beginning; the beginnings of a name find the globs that can match it.
    globs: HashMap<Box<str>, Vec<(Box<str>, PatternId)>>,
    /// The lengths of the beginnings in `globs`, sorted.
    lengths: Vec<usize>,
}

// A pattern that begins with a literal is tried only on the names that begin with it: of ten thousand
// names, `mongo@*.service` meets a handful.
impl PatternTable {
    /// The id of a pattern, and whether it is new.
    pub fn intern_pattern(&mut self, pattern: &str) -> (PatternId, bool) {
        if let Some(&id) = self.ids.get(pattern) {
            return (id, false);
        }
        let id = PatternId::try_from(self.ids.len()).unwrap_or(PatternId::MAX);
        self.ids.insert(pattern.into(), id);
        if !glob::is_literal(pattern) {
            self.add_glob(pattern, id);
        }
        (id, true)
    }

    fn add_glob(&mut self, pattern: &str, id: PatternId) {
        let start = literal_start(pattern);
        self.globs.entry(start.into()).or_default().push((pattern.into(), id));
        if let Err(at) = self.lengths.binary_search(&start.len()) {
            self.lengths.insert(at, start.len());
        }
    }

    /// The patterns that match `name`, sorted.
    #[must_use]
    pub fn matching_patterns(&self, name: &str) -> Vec<PatternId> {
        let mut hits: Vec<PatternId> =
            self.ids.get(name).copied().filter(|_| glob::is_literal(name)).into_iter().collect();
        for &length in self.lengths.iter().take_while(|&&length| length <= name.len()) {
            let candidates = name.get(..length).and_then(|start| self.globs.get(start));
            let matching =
                candidates.into_iter().flatten().filter(|(glob, _)| glob::glob_matches(glob, name));
            hits.extend(matching.map(|(_, id)| *id));
        }
        hits.sort_unstable();
        hits
    }
}

/// The beginning of a pattern that every name it matches shares.
#[must_use]
pub fn literal_start(pattern: &str) -> &str {
    &pattern[..pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_patterns_however_they_begin() {
        let mut patterns = PatternTable::default();
        let ids: Vec<_> = ["mongo@*", "*", "mongo@1.service", "m?ngo*", "redis*"]
            .iter()
            .map(|pattern| patterns.intern_pattern(pattern).0)
            .collect();

        assert_eq!(patterns.matching_patterns("mongo@1.service"), ids[..4]);
        assert_eq!(patterns.matching_patterns("redis.service"), [ids[1], ids[4]]);
        assert_eq!(patterns.intern_pattern("*"), (ids[1], false));
    }
}
