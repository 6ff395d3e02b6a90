//! Waits until units are where they should be.
//!
//! The server's watch wakes us, so that a unit which is up in milliseconds is reported in milliseconds;
//! what we believe is always read anew, so that a watch which says too much, too little or nothing (an old
//! fleet has none) costs time, not truth. Without a watch we look every 250 ms, as the original does.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use super::arguments::WaitArguments;
use super::client::{ApiClient, ApiError};
use super::session::{CommandError, CommandSession, error_chain, is_global, unit_file};
use crate::api::schema::{ApiUnit, UnitState};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// One "attempt" of `--block-attempts`, and how long a unit may be launched without becoming active.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How often to look where there is no watch.
const POLL: Duration = Duration::from_millis(250);
/// How long events are gathered before looking again, at least and at most. In between, a look that takes
/// long is taken seldom: at most a fifth of the time is spent on looking.
const GATHER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Up to this many units are asked for one by one; beyond, whole lists are read.
const FEW: usize = 8;

/// How long a verb waits for its effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WaitLimit {
    /// Until it happens.
    Endless,
    /// Not at all.
    None,
    /// This many times two seconds.
    Attempts(u32),
}

impl From<WaitArguments> for WaitLimit {
    fn from(arguments: WaitArguments) -> Self {
        if arguments.no_block { Self::None } else { Self::of_attempts(arguments.block_attempts) }
    }
}

impl WaitLimit {
    /// The meaning of `--block-attempts=N`.
    #[must_use]
    pub fn of_attempts(attempts: i64) -> Self {
        match u32::try_from(attempts) {
            Ok(attempts @ 1..) => Self::Attempts(attempts),
            Ok(0) => Self::Endless,
            Err(_) => {
                if attempts > 0 {
                    Self::Endless
                } else {
                    Self::None
                }
            }
        }
    }

    fn deadline(self, from: Instant) -> Option<Instant> {
        match self {
            Self::Attempts(attempts) => from.checked_add(ATTEMPT.saturating_mul(attempts)),
            Self::Endless => None,
            Self::None => Some(from),
        }
    }
}

/// Wakes us when something in the cluster changed.
#[derive(Debug)]
pub struct ChangeNotifier {
    changes: Option<Receiver<()>>,
    /// When the last wait ended: a look began then.
    woke: Instant,
}

impl ChangeNotifier {
    /// Starts to listen. Open it before the change is asked for, and no wake-up is missed.
    #[must_use]
    pub fn open(client: &ApiClient) -> Self {
        let Ok(events) = client.watch_events() else { return Self::polling_only() };
        let (sender, receiver) = channel();
        // The thread ends with the stream, with the receiver, or with the process.
        std::thread::spawn(move || events.map(|_| sender.send(())).find(Result::is_err));
        Self { changes: Some(receiver), woke: Instant::now() }
    }

    /// Never rings: looks every 250 ms.
    #[must_use]
    pub fn polling_only() -> Self {
        Self { changes: None, woke: Instant::now() }
    }

    /// The first look begins now.
    fn reset_pause(&mut self) {
        self.woke = Instant::now();
    }

    /// Sleeps until something changed, at most until `deadline`.
    pub fn wait_for_change(&mut self, deadline: Option<Instant>) {
        let looked = self.woke.elapsed();
        let longest = if self.changes.is_some() { ATTEMPT } else { POLL };
        let left = deadline.map_or(longest, |at| at.saturating_duration_since(Instant::now()).min(longest));
        let outcome = self.changes.as_ref().map(|changes| changes.recv_timeout(left));
        match outcome {
            None => std::thread::sleep(left),
            Some(Err(RecvTimeoutError::Disconnected)) => self.changes = None,
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Ok(())) => {
                let (shortest, longest) = GATHER;
                std::thread::sleep((looked * 4).clamp(shortest, longest).min(left.max(shortest)));
                self.changes.iter().flat_map(Receiver::try_iter).for_each(drop);
            }
        }
        self.woke = Instant::now();
    }
}

/// Waits until every unit has got as far as `state`, and says so unit by unit. Global units have no state
/// of their own: it is enough that they are wanted there.
pub fn for_state(
    session: &mut CommandSession<'_>,
    names: &[String],
    state: &str,
    patience: WaitLimit,
    alarm: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    alarm.reset_pause();
    let started = Instant::now();
    let deadline = patience.deadline(started);
    let mut hint_at = Some(started + ATTEMPT);
    let mut pending: Vec<String> = unique_names(names);
    loop {
        let answer = current_units(&session.client, &pending);
        let answer = retry_later(session, answer);
        let is_known = answer.is_some();
        let units = answer.unwrap_or_default();
        for unit in units.iter().filter(|unit| reached_state(unit) == state) {
            announce_state(session, unit)?;
        }
        pending.retain(|name| !units.iter().any(|unit| &unit.name == name && reached_state(unit) == state));
        if is_known {
            check_countermand(&pending, &units, state)?;
        }
        let Some(first) = pending.first() else { return Ok(()) };
        let now = Instant::now();
        if deadline.is_some_and(|at| at <= now) {
            return Err(CommandError::new(format_args!(
                "timed out waiting for unit {first} to report state {state}"
            )));
        }
        if hint_at.is_some_and(|at| at <= now) {
            hint_at = None;
            print_hint(session, &pending, &units);
        }
        let next = [deadline, hint_at].into_iter().flatten().min();
        alarm.wait_for_change(next);
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

/// Waits until the created units are there, and says so. Somebody else may start them at once.
pub fn for_creation(
    session: &mut CommandSession<'_>,
    names: &[String],
    patience: WaitLimit,
) -> Result<(), CommandError> {
    let mut alarm = ChangeNotifier::polling_only();
    let deadline = patience.deadline(Instant::now());
    let mut pending = unique_names(names);
    loop {
        let units = current_units(&session.client, &pending);
        let units = retry_later(session, units).unwrap_or_default();
        for unit in &units {
            announce_state(session, unit)?;
        }
        pending.retain(|name| !units.iter().any(|unit| unit.name == *name));
        let Some(first) = pending.first() else { return Ok(()) };
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(CommandError::new(format_args!("timed out waiting for unit {first} to be created")));
        }
        alarm.wait_for_change(deadline);
    }
}

/// Waits until systemd calls every unit active, or has run a oneshot to its end. A unit that is being
/// activated is waited for; one that failed, or is launched and stays inactive for two seconds, is not.
pub fn for_active(
    session: &mut CommandSession<'_>,
    units: &[ApiUnit],
    patience: WaitLimit,
    alarm: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    alarm.reset_pause();
    let mut pending: Vec<&ApiUnit> = units.iter().collect();
    let mut inactive_since = Instant::now();
    let deadline = patience.deadline(inactive_since);
    loop {
        let names: Vec<String> = pending.iter().map(|unit| unit.name.clone()).collect();
        let states = current_states(&session.client, &names);
        let states = retry_later(session, states).unwrap_or_default();
        let mut activating = false;
        let mut failed = None;
        pending.retain(|unit| {
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
        let Some(first) = pending.first() else { return Ok(()) };
        let now = Instant::now();
        if activating {
            inactive_since = now;
        }
        if deadline.is_some_and(|at| at <= now) {
            let name = &first.name;
            return Err(CommandError::new(format_args!(
                "timed out waiting for unit {name} to report active state"
            )));
        }
        let limit = inactive_since + ATTEMPT;
        if limit <= now {
            let name = &first.name;
            return Err(CommandError::new(format_args!(
                "Failed to find an active unit {name} within {ATTEMPT:?}"
            )));
        }
        alarm.wait_for_change(Some(deadline.map_or(limit, |at| at.min(limit))));
    }
}

/// Waits until every machine that has a unit runs the wanted text of it, and the server calls the change
/// over: a simple service is active for a moment before it fails. A change that failed or that somebody
/// else undid is a failure. A server of an earlier version says nothing of changes: there it is enough that
/// the text runs.
pub fn for_content(
    session: &mut CommandSession<'_>,
    units: &[ApiUnit],
    patience: WaitLimit,
    alarm: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    alarm.reset_pause();
    let deadline = patience.deadline(Instant::now());
    let mut pending: Vec<&ApiUnit> = units.iter().collect();
    loop {
        let names: Vec<String> = pending.iter().map(|unit| unit.name.clone()).collect();
        let states = current_states(&session.client, &names);
        let states = retry_later(session, states).unwrap_or_default();
        let current = current_units(&session.client, &names);
        if let Some(current) = retry_later(session, current) {
            let mut open = Vec::new();
            for unit in pending {
                if !is_change_over(unit, current.iter().find(|each| each.name == unit.name), &states)? {
                    open.push(unit);
                }
            }
            pending = open;
        }
        let Some(first) = pending.first() else { return Ok(()) };
        if deadline.is_some_and(|at| at <= Instant::now()) {
            let name = &first.name;
            return Err(CommandError::new(format_args!(
                "timed out waiting for unit {name} to run its new text"
            )));
        }
        alarm.wait_for_change(deadline);
    }
}

/// Sleeps this long.
pub fn sleep_for(alarm: &mut ChangeNotifier, length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until {
        alarm.wait_for_change(Some(until));
    }
}

/// How the wait for a destroyed unit ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
    patience: WaitLimit,
    alarm: &mut ChangeNotifier,
) -> Result<Disappearance, CommandError> {
    alarm.reset_pause();
    let name = &destroyed.name;
    let deadline = patience.deadline(Instant::now());
    loop {
        let unit = session.client.find_unit(name);
        let states = session.client.states_of(name);
        if let (Some(unit), Some(states)) = (retry_later(session, unit), retry_later(session, states))
            && let Some(end) = departure(destroyed, unit.as_ref(), &states)
        {
            return Ok(end);
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(CommandError::new(format_args!("timed out waiting for unit {name} to disappear")));
        }
        alarm.wait_for_change(deadline);
    }
}

/// Whether a destroyed unit is gone. Machines say which text they have: one that comes with another text
/// does not hide the old one.
fn departure(
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
    limit: Option<Duration>,
    alarm: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    alarm.reset_pause();
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = session.client.list_units()?.into_iter().filter(|unit| unit.machine_id == machine).count();
        let running =
            session.client.unit_states()?.into_iter().filter(|state| state.machine_id == machine).count();
        if left == 0 && running == 0 {
            return Ok(());
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            let legend = session.machine_legend(machine, false);
            return Err(CommandError::new(format_args!(
                "timed out: {} units are still on {legend}; `fleetctl explain UNIT` says why",
                left.max(running)
            )));
        }
        alarm.wait_for_change(deadline);
    }
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
        line = format!("{line} on {}", session.machine_legend(&unit.machine_id, false));
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

#[derive(Clone, Debug, Eq, PartialEq)]
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

fn is_oneshot(unit: &ApiUnit) -> bool {
    let kind = unit.options.iter().rfind(|option| option.section == "Service" && option.name == "Type");
    kind.is_some_and(|option| option.value == "oneshot")
}

/// The named units that are in the registry: one by one if they are few, else from the whole list.
pub fn current_units(client: &ApiClient, names: &[String]) -> Result<Vec<ApiUnit>, ApiError> {
    if names.len() <= FEW {
        return names.iter().filter_map(|name| client.find_unit(name).transpose()).collect();
    }
    let wanted: BTreeSet<&String> = names.iter().collect();
    Ok(client.list_units()?.into_iter().filter(|unit| wanted.contains(&unit.name)).collect())
}

fn current_states(client: &ApiClient, names: &[String]) -> Result<Vec<UnitState>, ApiError> {
    if names.len() <= FEW {
        let states: Result<Vec<_>, _> = names.iter().map(|name| client.states_of(name)).collect();
        return Ok(states?.into_iter().flatten().collect());
    }
    let wanted: BTreeSet<&String> = names.iter().collect();
    Ok(client.unit_states()?.into_iter().filter(|state| wanted.contains(&state.name)).collect())
}

/// A server that can't answer now is asked again later: waiting outlives a change of leader.
fn retry_later<T>(session: &mut CommandSession<'_>, outcome: Result<T, ApiError>) -> Option<T> {
    outcome.map_err(|error| session.print_trace(error_chain(&error))).ok()
}

fn unique_names(names: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| seen.insert(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::UnitOption;

    fn unit(kind: &str) -> ApiUnit {
        let option = UnitOption { name: "Type".into(), section: "Service".into(), value: kind.into() };
        ApiUnit { name: "a.service".into(), options: vec![option], ..ApiUnit::default() }
    }

    fn state(load: &str, active: &str) -> UnitState {
        UnitState {
            name: "a.service".into(),
            systemd_load_state: load.into(),
            systemd_active_state: active.into(),
            systemd_sub_state: "x".into(),
            ..UnitState::default()
        }
    }

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

    #[test]
    fn a_destroyed_unit_is_gone_also_when_another_one_came() {
        let (old, other) = (unit("simple"), unit("oneshot"));
        let hash = unit_file(&old).unwrap().hash().to_string();
        let reported = [UnitState { hash, ..state("loaded", "deactivating") }];

        assert_eq!(departure(&old, None, &reported), None);
        assert_eq!(departure(&old, None, &[]), Some(Disappearance::Complete));
        assert_eq!(departure(&old, Some(&old), &reported), Some(Disappearance::Resubmitted));
        assert_eq!(departure(&old, Some(&other), &reported), None, "the old text still runs");
        assert_eq!(departure(&old, Some(&other), &[]), Some(Disappearance::Resubmitted));
    }

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

    #[test]
    fn attempts_are_counted_in_twos() {
        let now = Instant::now();

        assert_eq!(WaitLimit::of_attempts(0), WaitLimit::Endless);
        assert_eq!(WaitLimit::of_attempts(-1), WaitLimit::None);
        assert_eq!(WaitLimit::Attempts(3).deadline(now), Some(now + Duration::from_secs(6)));
        assert_eq!(WaitLimit::Endless.deadline(now), None);
    }
}
