//! Waits until a destroyed unit is gone, or a machine is empty.
//!
//! Knows what machines still report. Refuses to know how a unit stops.

use super::lookup::retry_later;
use super::{Awaited, ChangeNotifier, WaitLimit, wait_for};
use crate::api::schema::{ApiUnit, UnitState};
use crate::ctl::session::{CommandError, CommandSession, IdLength, unit_file};

/// How the wait for a destroyed unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disappearance {
    /// No machine reports it any more.
    Complete,
    /// Somebody submitted a unit of this name again, and nothing is known of the old one.
    Resubmitted,
}

/// Waits until no machine reports a unit that was destroyed. The server shows what it has carried out, so
/// a unit of this name that is there was submitted again: it is another one, and may stay for ever.
pub fn for_disappearance(
    session: &mut CommandSession<'_>,
    destroyed: &ApiUnit,
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<Disappearance, CommandError> {
    wait_for(session, |_| UnitGone { destroyed }, limit, notifier)
}

struct UnitGone<'a> {
    destroyed: &'a ApiUnit,
}

impl Awaited for UnitGone<'_> {
    type Outcome = Disappearance;

    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<Disappearance>, CommandError> {
        let unit = session.client.find_unit(&self.destroyed.name);
        let states = session.client.states_of(&self.destroyed.name);
        if let (Some(unit), Some(states)) = (retry_later(session, unit), retry_later(session, states)) {
            return Ok(find_departure(self.destroyed, unit.as_ref(), &states));
        }
        Ok(None)
    }

    fn timeout_text(&self, _: &mut CommandSession<'_>) -> String {
        format!("timed out waiting for unit {} to disappear", self.destroyed.name)
    }
}

/// Whether a destroyed unit is gone. Machines say which text they have: one that comes with another text
/// does not hide the old one.
fn find_departure(
    destroyed: &ApiUnit,
    successor: Option<&ApiUnit>,
    states: &[UnitState],
) -> Option<Disappearance> {
    let Some(successor) = successor else { return states.is_empty().then_some(Disappearance::Complete) };
    let old = unit_file(destroyed).ok().map(|file| file.hash().to_string());
    let differs = successor.options != destroyed.options;
    let is_reported = states.iter().any(|state| Some(&state.hash) == old.as_ref());
    (!differs || !is_reported).then_some(Disappearance::Resubmitted)
}

/// Waits until no unit is assigned to the machine.
pub fn for_empty_machine(
    session: &mut CommandSession<'_>,
    machine: &str,
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    wait_for(session, |_| MachineEmpty { machine, left: 0 }, limit, notifier)
}

struct MachineEmpty<'a> {
    machine: &'a str,
    /// How many units were there when we looked last.
    left: usize,
}

impl Awaited for MachineEmpty<'_> {
    type Outcome = ();

    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<()>, CommandError> {
        let units = session.client.list_units()?;
        let assigned = units.iter().filter(|unit| unit.machine_id == self.machine).count();
        let states = session.client.unit_states()?;
        let running = states.iter().filter(|state| state.machine_id == self.machine).count();
        self.left = assigned.max(running);
        Ok((self.left == 0).then_some(()))
    }

    fn timeout_text(&self, session: &mut CommandSession<'_>) -> String {
        let legend = session.machine_legend(self.machine, IdLength::Short);
        format!("timed out: {} units are still on {legend}; `fleetctl explain UNIT` says why", self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{state, unit};
    use super::*;

    #[test]
    fn a_destroyed_unit_is_gone_also_when_another_one_came() {
        let (old, other) = (unit("simple"), unit("oneshot"));
        let hash = unit_file(&old).unwrap().hash().to_string();
        let reported = [UnitState { hash, ..state("loaded", "deactivating") }];

        assert_eq!(find_departure(&old, None, &reported), None);
        assert_eq!(find_departure(&old, None, &[]), Some(Disappearance::Complete));
        assert_eq!(find_departure(&old, Some(&old), &reported), Some(Disappearance::Resubmitted));
        assert_eq!(find_departure(&old, Some(&other), &reported), None, "the old text still runs");
        assert_eq!(find_departure(&old, Some(&other), &[]), Some(Disappearance::Resubmitted));
    }
}
