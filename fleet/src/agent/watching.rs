//! Takes in what systemd says of units, and asks what it left open.
//!
//! Knows what is noted of each unit. Refuses to start or stop any. Invariant: of a unit on its way up or
//! down, what is noted is at most some seconds old, whichever signals are lost.

use error_text::error_chain;
use std::{collections::BTreeSet, time::Instant};

use super::{
    ASK_AGAIN, FleetAgent,
    systemd::{News, SystemdError, UnitActivity},
};
use crate::{
    model::{state::JobState, unit_name::UnitName},
    plan::ordering::required_units,
};

impl FleetAgent {
    /// Takes in what systemd says; returns whether a batch is due. What has to be asked is only noted:
    /// a flood of news would wait for as many answers.
    pub(super) fn receive_news(&mut self, news: News) -> bool {
        match news {
            News::Anew => {
                self.unclear.extend(self.held.keys().chain(&self.leaving).cloned());
                true
            }
            News::Changed { unit, active, sub } => {
                if let Some(activity) = self.activity.get_mut(&unit) {
                    activity.active = active.unwrap_or_else(|| std::mem::take(&mut activity.active));
                    activity.sub = sub.unwrap_or_else(|| std::mem::take(&mut activity.sub));
                    let activity = activity.clone();
                    self.note_activity(unit, &activity);
                }
                false
            }
            News::JobDone { unit, trouble } => {
                self.note_job(&unit, trouble.as_deref());
                // A start that was skipped changes nothing else.
                let waits = self.activity.get(&unit).is_some_and(UnitActivity::is_activating);
                if self.leaving.contains(&unit) || waits {
                    self.unclear.insert(unit.clone());
                }
                self.refused.contains_key(&unit)
            }
        }
    }

    fn note_activity(&mut self, unit: UnitName, activity: &UnitActivity) {
        if activity.is_in_transition() {
            self.ask_again.get_or_insert_with(|| Instant::now() + ASK_AGAIN);
        }
        if self.leaving.contains(&unit) && !activity.is_up() {
            self.down.insert(unit.clone());
        }
        self.dirty.insert(unit);
    }

    /// Asks systemd what the news left open, and forgets the units that are down by now. Returns whether a
    /// batch is due.
    pub(super) async fn catch_up(&mut self) -> bool {
        if self.ask_again.is_some_and(|again| again <= Instant::now()) {
            self.ask_again = (!self.leaving.is_empty()).then(|| Instant::now() + ASK_AGAIN);
            let moving = self.activity.iter().filter(|(_, activity)| activity.is_in_transition());
            self.unclear.extend(moving.map(|(unit, _)| unit).chain(&self.leaving).cloned());
        }
        let unclear: Vec<UnitName> = std::mem::take(&mut self.unclear).into_iter().collect();
        self.refresh_units(&unclear).await;
        if self.reloads.next().is_some_and(|next| Instant::now() < next) {
            return false;
        }
        if self.down.is_empty() {
            if self.reloads.is_owed() {
                self.reload_systemd().await;
            }
            return false;
        }
        self.forget_all().await;
        true
    }

    /// A job that could not be done shows nowhere else: the unit is as inactive as before.
    fn note_job(&mut self, unit: &UnitName, trouble: Option<&str>) {
        let Some(held) = self.held.get(unit) else { return };
        let before = if let Some(trouble) = trouble {
            if held.job == JobState::Launched {
                self.refused.entry(unit.clone()).or_default();
            }
            self.errors.insert(unit.clone(), format!("systemd's job ended: {trouble}"))
        } else {
            self.refused.remove(unit);
            self.errors.remove(unit)
        };
        if before.is_some() || trouble.is_some() {
            self.dirty.insert(unit.clone());
        }
    }

    /// The units that this one requires and that this machine does not hold.
    pub(super) fn missing_units(&self, unit: &UnitName) -> BTreeSet<UnitName> {
        let Some(wish) = self.wanted.get(unit) else { return BTreeSet::new() };
        let mut required = required_units(unit, &wish.file);
        required.retain(|required| !self.held.contains_key(required));
        required
    }

    pub(super) async fn look_at_units(&mut self) -> Result<(), SystemdError> {
        let units: Vec<UnitName> = self.held.keys().cloned().collect();
        for (unit, activity) in self.systemd.list_activities(&units).await? {
            self.activity.insert(unit, activity);
        }
        Ok(())
    }

    pub(super) async fn refresh_units(&mut self, units: &[UnitName]) {
        if units.is_empty() {
            return;
        }
        match self.systemd.list_activities(units).await {
            Ok(activities) => {
                for (unit, activity) in activities {
                    self.activity.insert(unit.clone(), activity.clone());
                    self.note_activity(unit, &activity);
                }
            }
            Err(error) => {
                tracing::warn!(reason = %error_chain(&error), "cannot read the states of units from systemd");
                self.unclear.extend(units.iter().cloned());
                self.ask_again.get_or_insert_with(|| Instant::now() + ASK_AGAIN);
            }
        }
    }
}
