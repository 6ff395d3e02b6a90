//! When a task that failed is tried again, and which failures were said already.
//!
//! Knows nothing of what a task is. Invariants: a unit that is wanted in another way is tried at once, and
//! of one reason the log hears once, however often it comes back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    model::{state::JobState, unit_file::UnitHash, unit_name::UnitName},
    plan::machine_units::DesiredUnit,
};

/// The first pause is that of the original. Each is twice the one before, up to five minutes: what systemd
/// refused it will refuse again, until a person mends the unit or the machine.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// What was asked for when a task failed.
type Wish = Option<(UnitHash, JobState, u64)>;

#[derive(Debug)]
struct Failure {
    wish: Wish,
    reason: String,
    pause: Duration,
    due: Instant,
}

/// The units whose tasks failed.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: BTreeMap<UnitName, Failure>,
}

fn wish_of(wanted: &BTreeMap<UnitName, DesiredUnit>, unit: &UnitName) -> Wish {
    wanted.get(unit).map(|wish| (wish.file.hash(), wish.job, wish.restarts))
}

impl Retries {
    /// Whether the unit has to wait for its next try.
    pub(super) fn is_held_back(
        &self,
        unit: &UnitName,
        wanted: &BTreeMap<UnitName, DesiredUnit>,
        now: Instant,
    ) -> bool {
        let failure = self.failures.get(unit);
        failure.is_some_and(|failure| now < failure.due && failure.wish == wish_of(wanted, unit))
    }

    /// Takes in a failure; returns whether it is one that was not said yet.
    pub(super) fn note_failure(
        &mut self,
        unit: &UnitName,
        wanted: &BTreeMap<UnitName, DesiredUnit>,
        reason: &str,
        now: Instant,
    ) -> bool {
        let (first, most) = PAUSES;
        let wish = wish_of(wanted, unit);
        // A unit that is wanted in another way starts with the first pause again: the change may be the
        // cure.
        let before = self.failures.get(unit).filter(|failure| failure.wish == wish);
        let pause = before.map_or(first, |failure| (failure.pause * 2).min(most));
        let is_new = before.is_none_or(|failure| failure.reason != reason);
        let failure = Failure { wish, reason: reason.to_owned(), pause, due: now + pause };
        self.failures.insert(unit.clone(), failure);
        is_new
    }

    /// The task succeeded, or what it lacked appeared: nothing holds the unit back.
    pub(super) fn clear_unit(&mut self, unit: &UnitName) {
        self.failures.remove(unit);
    }

    /// The units whose tasks failed.
    pub(super) fn failed_units(&self) -> Vec<UnitName> {
        self.failures.keys().cloned().collect()
    }

    /// When the next unit is due after `now`.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.failures.values().map(|failure| failure.due).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an instant cannot be made in another way")]
mod tests {
    use super::*;
    use crate::model::unit_file::UnitFile;

    fn wanted(text: &str) -> (UnitName, BTreeMap<UnitName, DesiredUnit>) {
        let unit = UnitName::parse("a.service").unwrap();
        let file = UnitFile::parse(&format!("[Service]\nExecStart={text}\n")).unwrap();
        let wish = DesiredUnit { file, job: JobState::Launched, restarts: 0, fence: false, global: false };
        (unit.clone(), BTreeMap::from([(unit, wish)]))
    }

    #[test]
    fn pauses_grow_and_a_reason_is_said_once() {
        let (unit, wanted) = wanted("/bin/x");
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let mut pauses = Vec::new();
        let mut said = Vec::new();

        for _ in 0..8 {
            said.push(retries.note_failure(&unit, &wanted, "bad setting", now));
            let due = retries.next_due(now).unwrap();
            assert!(retries.is_held_back(&unit, &wanted, now));
            pauses.push((due - now).as_secs());
            now = due;
            assert!(!retries.is_held_back(&unit, &wanted, now));
        }

        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(said.iter().filter(|said| **said).count(), 1);
        assert!(retries.note_failure(&unit, &wanted, "another reason", now));
    }

    #[test]
    fn another_wish_is_tried_at_once() {
        let ((unit, before), (_, after)) = (wanted("/bin/x"), wanted("/bin/y"));
        let (mut retries, now) = (Retries::default(), Instant::now());
        retries.note_failure(&unit, &before, "bad setting", now);

        assert!(!retries.is_held_back(&unit, &after, now));
        assert!(!retries.is_held_back(&unit, &BTreeMap::new(), now));
        assert!(retries.note_failure(&unit, &after, "bad setting", now), "of another text it is news");
        retries.clear_unit(&unit);
        assert!(!retries.is_held_back(&unit, &after, now));
    }
}
