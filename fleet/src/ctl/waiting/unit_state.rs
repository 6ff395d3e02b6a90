//! Waits until units are in the registry, or have got as far as they should.
//!
//! Knows the states of fleet. Refuses to know systemd ([`super::activity`]).

use super::lookup::{FEW, current_units, retry_later, unique_names};
use super::{ATTEMPT, Awaited, ChangeNotifier, WaitLimit, wait_for};
use crate::api::schema::ApiUnit;
use crate::ctl::session::{CommandError, CommandSession, IdLength, is_global};
use serde_json::json;
use std::time::Instant;

/// Waits until every unit has got as far as `state`, and says so unit by unit. Global units have no state
/// of their own: it is enough that they are wanted there.
pub fn for_state(
    session: &mut CommandSession<'_>,
    names: &[String],
    state: &str,
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    let pending = unique_names(names);
    let awaited =
        |started| StateReached { pending, units: Vec::new(), state, hint_at: Some(started + ATTEMPT) };
    wait_for(session, awaited, limit, notifier)
}

/// Waits until the created units are there, and says so. Somebody else may start them at once.
pub fn for_creation(
    session: &mut CommandSession<'_>,
    names: &[String],
    limit: WaitLimit,
) -> Result<(), CommandError> {
    // Units are there as soon as they are asked for: a watch would be opened for nothing.
    let mut notifier = ChangeNotifier::polling_only();
    wait_for(session, |_| UnitsCreated { pending: unique_names(names) }, limit, &mut notifier)
}

struct StateReached<'a> {
    pending: Vec<String>,
    /// As they were seen last.
    units: Vec<ApiUnit>,
    state: &'a str,
    /// When to say why units are not placed; nothing once that is said.
    hint_at: Option<Instant>,
}

impl Awaited for StateReached<'_> {
    type Outcome = ();

    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<()>, CommandError> {
        let answer = current_units(&session.client, &self.pending);
        let answer = retry_later(session, answer);
        let is_known = answer.is_some();
        self.units = answer.unwrap_or_default();
        let (units, state) = (&self.units, self.state);
        for unit in units.iter().filter(|unit| reached_state(unit) == state) {
            announce_state(session, unit)?;
        }
        self.pending
            .retain(|name| !units.iter().any(|unit| &unit.name == name && reached_state(unit) == state));
        if is_known {
            check_countermand(&self.pending, units, state)?;
        }
        Ok(self.pending.is_empty().then_some(()))
    }

    fn timeout_text(&self, _: &mut CommandSession<'_>) -> String {
        let first = self.pending.first().map_or("", String::as_str);
        format!("timed out waiting for unit {first} to report state {}", self.state)
    }

    fn before_sleep(
        &mut self,
        session: &mut CommandSession<'_>,
        now: Instant,
    ) -> Result<Option<Instant>, CommandError> {
        if self.hint_at.is_some_and(|at| at <= now) {
            self.hint_at = None;
            print_hint(session, &self.pending, &self.units);
        }
        Ok(self.hint_at)
    }
}

struct UnitsCreated {
    pending: Vec<String>,
}

impl Awaited for UnitsCreated {
    type Outcome = ();

    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<()>, CommandError> {
        let units = current_units(&session.client, &self.pending);
        let units = retry_later(session, units).unwrap_or_default();
        for unit in &units {
            announce_state(session, unit)?;
        }
        self.pending.retain(|name| !units.iter().any(|unit| unit.name == *name));
        Ok(self.pending.is_empty().then_some(()))
    }

    fn timeout_text(&self, _: &mut CommandSession<'_>) -> String {
        let first = self.pending.first().map_or("", String::as_str);
        format!("timed out waiting for unit {first} to be created")
    }
}

/// Fails when somebody else wants something else of a unit by now: it would be waited for without end.
fn check_countermand(pending: &[String], units: &[ApiUnit], state: &str) -> Result<(), CommandError> {
    for name in pending {
        let Some(unit) = units.iter().find(|unit| unit.name == *name) else {
            return Err(CommandError::new(format_args!(
                "Unit {name} was destroyed by somebody else meanwhile"
            )));
        };
        let wanted = &unit.desired_state;
        // The server shows what it has carried out, and a server that does not say what is wanted is none
        // that could contradict.
        if !wanted.is_empty() && wanted != state {
            return Err(CommandError::new(format_args!(
                "Unit {name} was set to {wanted} by somebody else meanwhile"
            )));
        }
    }
    Ok(())
}

/// How far a unit got, as far as anybody can tell.
fn reached_state(unit: &ApiUnit) -> &str {
    let state = if is_global(unit) { &unit.desired_state } else { &unit.current_state };
    if state.is_empty() { "inactive" } else { state }
}

fn announce_state(session: &mut CommandSession<'_>, unit: &ApiUnit) -> Result<(), CommandError> {
    if session.is_json() {
        return session.print_json(&json!({
            "unit": unit.name, "state": reached_state(unit), "machineID": unit.machine_id,
        }));
    }
    let mut line = format!("Unit {} {}", unit.name, unit.current_state);
    if !unit.machine_id.is_empty() {
        line = format!("{line} on {}", session.machine_legend(&unit.machine_id, IdLength::Short));
    }
    session.print_line(line)
}

/// Says why units are not placed, once: the original let people wait in silence.
fn print_hint(session: &mut CommandSession<'_>, pending: &[String], units: &[ApiUnit]) {
    let unplaced =
        |name: &&String| units.iter().any(|unit| &unit.name == *name && unit.machine_id.is_empty());
    for name in pending.iter().filter(unplaced).take(FEW) {
        if let Ok(explanation) = session.client.explain_unit(name)
            && explanation.machine_id.is_empty()
        {
            session.print_warning(format_args!("Unit {name} still waits: {}", explanation.summary));
        }
    }
}
