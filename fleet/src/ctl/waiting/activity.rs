//! Waits until systemd calls units active.
//!
//! Knows the words of systemd's states, as systemctl(1) shows them. Refuses to know fleet's own states
//! ([`super::unit_state`]).

use super::lookup::{current_states, retry_later};
use super::{ATTEMPT, Awaited, ChangeNotifier, WaitLimit, wait_for};
use crate::api::schema::{ApiUnit, UnitState};
use crate::ctl::session::{CommandError, CommandSession};
use std::time::Instant;

/// Waits until systemd calls every unit active, or has run a oneshot to its end. A unit that is being
/// activated is waited for; one that failed, or is launched and stays inactive for two seconds, is not.
pub fn for_active(
    session: &mut CommandSession<'_>,
    units: &[ApiUnit],
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    let awaited =
        |started| UnitsActive { pending: units.iter().collect(), activating: false, inactive_since: started };
    wait_for(session, awaited, limit, notifier)
}

struct UnitsActive<'a> {
    pending: Vec<&'a ApiUnit>,
    /// Whether one was on its way up when we looked last.
    activating: bool,
    inactive_since: Instant,
}

impl UnitsActive<'_> {
    fn first_unit(&self) -> &str {
        self.pending.first().map_or("", |unit| &unit.name)
    }
}

impl Awaited for UnitsActive<'_> {
    type Outcome = ();

    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<()>, CommandError> {
        let names: Vec<String> = self.pending.iter().map(|unit| unit.name.clone()).collect();
        let states = current_states(&session.client, &names);
        let states = retry_later(session, states).unwrap_or_default();
        let mut activating = false;
        let mut failed = None;
        self.pending.retain(|unit| {
            let verdict = unit_activity(unit, &states);
            activating |= verdict == UnitActivity::Activating;
            if let UnitActivity::Failed(words) = &verdict {
                failed.get_or_insert_with(|| (unit.name.clone(), words.clone()));
            }
            verdict != UnitActivity::Done
        });
        if let Some((name, words)) = failed {
            return Err(CommandError::new(format_args!("Failed to find an active unit {name}: {words}")));
        }
        self.activating = activating;
        Ok(self.pending.is_empty().then_some(()))
    }

    fn timeout_text(&self, _: &mut CommandSession<'_>) -> String {
        format!("timed out waiting for unit {} to report active state", self.first_unit())
    }

    fn before_sleep(
        &mut self,
        _: &mut CommandSession<'_>,
        now: Instant,
    ) -> Result<Option<Instant>, CommandError> {
        if self.activating {
            self.inactive_since = now;
        }
        let give_up = self.inactive_since + ATTEMPT;
        if give_up <= now {
            let name = self.first_unit();
            return Err(CommandError::new(format_args!(
                "Failed to find an active unit {name} within {ATTEMPT:?}"
            )));
        }
        Ok(Some(give_up))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum UnitActivity {
    Activating,
    Done,
    Failed(String),
    Inactive,
}

fn unit_activity(unit: &ApiUnit, states: &[UnitState]) -> UnitActivity {
    let Some(state) = states.iter().find(|state| state.name == unit.name) else {
        return UnitActivity::Inactive;
    };
    let words = format!("systemd says {} ({})", state.systemd_active_state, state.systemd_sub_state);
    match (state.systemd_load_state.as_str(), state.systemd_active_state.as_str()) {
        ("loaded", "active") => UnitActivity::Done,
        ("loaded", "inactive") if is_oneshot(unit) => UnitActivity::Done,
        (_, "failed") => UnitActivity::Failed(words),
        (_, "activating" | "reloading" | "deactivating") => UnitActivity::Activating,
        _ => UnitActivity::Inactive,
    }
}

fn is_oneshot(unit: &ApiUnit) -> bool {
    let kind = unit.options.iter().rfind(|option| option.section == "Service" && option.name == "Type");
    kind.is_some_and(|option| option.value == "oneshot")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{state, unit};
    use super::*;

    #[test]
    fn what_systemd_says_is_judged() {
        let verdicts = [
            (unit("simple"), state("loaded", "active"), UnitActivity::Done),
            (unit("simple"), state("loaded", "inactive"), UnitActivity::Inactive),
            (unit("oneshot"), state("loaded", "inactive"), UnitActivity::Done),
            (unit("oneshot"), state("loaded", "activating"), UnitActivity::Activating),
            (
                unit("simple"),
                state("loaded", "failed"),
                UnitActivity::Failed("systemd says failed (x)".into()),
            ),
            (unit("simple"), state("not-found", "active"), UnitActivity::Inactive),
        ];

        for (unit, state, verdict) in verdicts {
            assert_eq!(unit_activity(&unit, &[state]), verdict);
        }
        assert_eq!(unit_activity(&unit("simple"), &[]), UnitActivity::Inactive);
    }
}
