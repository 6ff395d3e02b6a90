//! Tells the cluster how units are.
//!
//! Knows what was told before, so that nothing is told twice. Refuses to know how it came to be.
//! Invariant: what could not be told stays to be told.

use error_text::error_chain;
use std::time::{Duration, Instant};

use super::FleetAgent;
use crate::{
    metrics::AgentTask,
    model::{state::JobState, unit_name::UnitName},
    store::{
        records::StateRecord,
        writes::{self, MAX_TRANSACTION_OPERATIONS, StoreWrite},
    },
};

/// States written with one transaction. Fewer than fit, so that what others write meanwhile can join it.
const STATES_AT_ONCE: usize = MAX_TRANSACTION_OPERATIONS - 20;
/// How long further states are gathered after so many were told, so that one is told at once and a flood
/// of them with few transactions.
// One state is told at once, a hundred after a tenth of a second. A fixed pause would be too long for one
// and too short for the start of a thousand.
const GATHER_EACH: Duration = Duration::from_millis(1);
const GATHER_MOST: Duration = Duration::from_millis(100);

impl FleetAgent {
    /// Tells the cluster how units are, where that changed.
    pub(super) async fn publish_states(&mut self) {
        let me = self.machine.id.clone();
        let mut news: Vec<(UnitName, Option<StateRecord>)> = Vec::new();
        for unit in std::mem::take(&mut self.dirty) {
            let record = self.state_of(&unit);
            if self.published.get(&unit) != record.as_ref() || self.unsure.contains(&unit) {
                news.push((unit, record));
            }
        }
        self.gather_until = Instant::now()
            + GATHER_EACH.saturating_mul(u32::try_from(news.len()).unwrap_or(u32::MAX)).min(GATHER_MOST);
        for chunk in news.chunks(STATES_AT_ONCE) {
            let then = chunk
                .iter()
                .map(|(unit, record)| writes::state_operation(&me, unit, record.as_ref()))
                .collect();
            // No condition: a state is this machine's word about itself, and only its lease can end it.
            if let Err(error) = self.store.commit_write(&StoreWrite { when: Vec::new(), then }).await {
                tracing::debug!(reason = %error_chain(&error), "cannot read the states of units yet");
                self.dirty.extend(chunk.iter().map(|(unit, _)| unit.clone()));
                self.retry.get_or_insert_with(|| Instant::now() + Duration::from_millis(500));
                // The next chunk may fit where this one did not, or reach another member.
                continue;
            }
            self.metrics.count_task(AgentTask::State, chunk.len());
            for (unit, record) in chunk {
                self.unsure.remove(unit);
                match record {
                    Some(record) => self.published.insert(unit.clone(), record.clone()),
                    None => self.published.remove(unit),
                };
            }
        }
    }

    fn state_of(&self, unit: &UnitName) -> Option<StateRecord> {
        let error = self.errors.get(unit).cloned().unwrap_or_default();
        let Some(held) = self.held.get(unit) else {
            // What could not even be loaded is told all the same.
            let wish = self.wanted.get(unit).filter(|_| !error.is_empty())?;
            return Some(StateRecord {
                hash: wish.file.hash(),
                job: JobState::Inactive,
                load: "error".to_owned(),
                active: "inactive".to_owned(),
                sub: "dead".to_owned(),
                restarts: 0,
                error,
            });
        };
        let activity = self.activity.get(unit).cloned().unwrap_or_default();
        Some(StateRecord {
            hash: held.hash,
            job: held.job,
            load: activity.load,
            active: activity.active,
            sub: activity.sub,
            restarts: held.restarts,
            error,
        })
    }
}
