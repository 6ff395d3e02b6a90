//! Waits until a changed unit has proved well in its new text.
//!
//! Knows what the server says of a change. Refuses to judge a unit itself: when a change has proved well is decided by
//! the engine. To count `HealthyAfter` here, too, was dropped: two clocks that start at different moments disagree just
//! where it matters.

use super::lookup::{current_states, current_units, retry_later};
use super::{Awaited, ChangeNotifier, WaitLimit, wait_for};
use crate::api::schema::{ApiUnit, UnitState};
use crate::ctl::session::{CommandError, CommandSession, is_global, unit_file};

/// Waits until every machine that has a unit runs the wanted text of it, and the server calls the change
/// over: a simple service is active for a moment before it fails. A change that failed or that somebody
/// else undid is a failure. A server of an earlier version says nothing of changes: there it is enough that
/// the text runs.
pub fn for_content(
    session: &mut CommandSession<'_>,
    units: &[ApiUnit],
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    wait_for(session, |_| ContentProven { pending: units.iter().collect() }, limit, notifier)
}

struct ContentProven<'a> {
    pending: Vec<&'a ApiUnit>,
}

impl Awaited for ContentProven<'_> {
    type Outcome = ();

    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<()>, CommandError> {
        let names: Vec<String> = self.pending.iter().map(|unit| unit.name.clone()).collect();
        let states = current_states(&session.client, &names);
        let states = retry_later(session, states).unwrap_or_default();
        let current = current_units(&session.client, &names);
        if let Some(current) = retry_later(session, current) {
            let mut open = Vec::new();
            for unit in std::mem::take(&mut self.pending) {
                if !is_change_over(unit, current.iter().find(|each| each.name == unit.name), &states)? {
                    open.push(unit);
                }
            }
            self.pending = open;
        }
        Ok(self.pending.is_empty().then_some(()))
    }

    fn timeout_text(&self, _: &mut CommandSession<'_>) -> String {
        let first = self.pending.first().map_or("", |unit| &unit.name);
        format!("timed out waiting for unit {first} to run its new text")
    }
}

/// Whether a changed unit has proved well in the text that was sent.
fn is_change_over(
    sent: &ApiUnit,
    current: Option<&ApiUnit>,
    states: &[UnitState],
) -> Result<bool, CommandError> {
    let name = &sent.name;
    let Some(current) = current else {
        return Err(CommandError::new(format_args!("Unit {name} was destroyed by somebody else meanwhile")));
    };
    if !current.note.is_empty() {
        return Err(CommandError::new(format_args!("Unit {name}: {}", current.note)));
    }
    if current.options != sent.options {
        return Err(CommandError::new(format_args!("Unit {name} was changed by somebody else meanwhile")));
    }
    if current.desired_state != "launched" {
        let state = &current.desired_state;
        return Err(CommandError::new(format_args!(
            "Unit {name} was set to {state} by somebody else meanwhile"
        )));
    }
    Ok(!current.changing && (is_global(sent) || runs_everywhere(sent, states)))
}

/// Whether the unit is somewhere, and everywhere in the text it should have.
fn runs_everywhere(unit: &ApiUnit, states: &[UnitState]) -> bool {
    let Ok(file) = unit_file(unit) else { return false };
    let hash = file.hash().to_string();
    let mut of_unit = states.iter().filter(|state| state.name == unit.name).peekable();
    of_unit.peek().is_some() && of_unit.all(|state| state.hash == hash)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{state, unit};
    use super::*;

    #[test]
    fn a_change_is_over_when_it_proved_well_and_not_before() {
        let sent = ApiUnit { desired_state: "launched".into(), ..unit("simple") };
        let hash = unit_file(&sent).unwrap().hash().to_string();
        let runs = [UnitState { hash, ..state("loaded", "active") }];
        let with = |change: fn(&mut ApiUnit)| {
            let mut unit = sent.clone();
            change(&mut unit);
            is_change_over(&sent, Some(&unit), &runs).map_err(|complaint| complaint.text)
        };
        let failed = |text: &str| Err(format!("Unit a.service{text}"));

        assert_eq!(with(|_| {}), Ok(true));
        assert_eq!(with(|unit| unit.changing = true), Ok(false));
        assert_eq!(with(|unit| unit.note = "taken back".into()), failed(": taken back"));
        assert_eq!(with(|unit| unit.options.clear()), failed(" was changed by somebody else meanwhile"));
        assert_eq!(
            with(|unit| unit.desired_state = "loaded".into()),
            failed(" was set to loaded by somebody else meanwhile")
        );
        assert!(is_change_over(&sent, None, &runs).is_err());
        assert!(!is_change_over(&sent, Some(&sent), &[]).unwrap(), "it runs nowhere yet");
    }
}
