//! `top`: machines by what they carry, and the units that need a person.

use super::arguments::TopArguments;
use super::session::{Outcome, Session, full_legend, is_global};
use super::table::render;
use super::waiting::{self, Alarm};
use crate::api::schema::{Machine, Unit, UnitState};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Clears the screen and goes to its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// The most troubled units that are shown.
const TROUBLES: usize = 20;

#[derive(Debug, Serialize)]
struct Load<'a> {
    machine: &'a Machine,
    units: usize,
    active: usize,
    failed: usize,
}

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &TopArguments, terminal: bool) -> Outcome {
    if arguments.once || !terminal || session.is_json() {
        let text = look(session)?;
        session.print(&text)?;
        return Ok(0);
    }
    let mut alarm = Alarm::silent();
    loop {
        let text = look(session)?;
        session.print(&format!("{CLEAR}{text}"))?;
        waiting::pause(&mut alarm, Duration::from_secs(arguments.interval.max(1)));
    }
}

fn look(session: &mut Session<'_>) -> Result<String, super::session::Complaint> {
    let (machines, states, units) =
        (session.client.machines()?, session.client.unit_states()?, session.client.units()?);
    let loads = loads(&machines, &states);
    if session.is_json() {
        session.json(&loads)?;
        return Ok(String::new());
    }
    Ok(picture(&loads, &states, &units))
}

/// The machines, busiest first.
fn loads<'a>(machines: &'a [Machine], states: &[UnitState]) -> Vec<Load<'a>> {
    let count = |machine: &Machine, active: Option<&str>| {
        let of_machine = states.iter().filter(|state| state.machine_id == machine.id);
        of_machine.filter(|state| active.is_none_or(|word| state.systemd_active_state == word)).count()
    };
    let mut loads: Vec<_> = machines
        .iter()
        .map(|machine| Load {
            machine,
            units: count(machine, None),
            active: count(machine, Some("active")),
            failed: count(machine, Some("failed")),
        })
        .collect();
    loads.sort_by(|left, right| {
        right.units.cmp(&left.units).then_with(|| left.machine.id.cmp(&right.machine.id))
    });
    loads
}

fn picture(loads: &[Load<'_>], states: &[UnitState], units: &[Unit]) -> String {
    let waiting: Vec<&Unit> = units.iter().filter(|unit| is_waiting(unit)).collect();
    let failed: Vec<&UnitState> =
        states.iter().filter(|state| state.systemd_active_state == "failed").collect();
    let mut text = format!(
        "{} machines, {} units, {} failed, {} waiting for a machine\n\n",
        loads.len(),
        units.len(),
        failed.len(),
        waiting.len()
    );
    let mut rows = vec![["MACHINE", "UNITS", "ACTIVE", "FAILED", "DRAIN"].map(str::to_owned).to_vec()];
    rows.extend(loads.iter().map(|load| {
        let drain = if load.machine.draining { "draining" } else { "-" };
        vec![
            full_legend(load.machine, false),
            load.units.to_string(),
            load.active.to_string(),
            load.failed.to_string(),
            drain.to_owned(),
        ]
    }));
    text.push_str(&render(&rows));
    let troubles = failed
        .iter()
        .map(|state| vec![state.name.clone(), format!("failed ({})", state.systemd_sub_state)])
        .chain(waiting.iter().map(|unit| vec![unit.name.clone(), "waits for a machine".to_owned()]));
    let rows: Vec<_> =
        std::iter::once(vec!["UNIT".to_owned(), "TROUBLE".to_owned()]).chain(troubles).collect();
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&render(&rows[..rows.len().min(TROUBLES + 1)]));
        if rows.len() > TROUBLES + 1 {
            let _ = writeln!(text, "and {} more", rows.len() - TROUBLES - 1);
        }
    }
    text
}

fn is_waiting(unit: &Unit) -> bool {
    unit.machine_id.is_empty() && !is_global(unit) && !matches!(unit.desired_state.as_str(), "" | "inactive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_load_and_trouble() {
        let machine = |id: &str, draining| Machine { id: id.into(), draining, ..Machine::default() };
        let machines = [machine("aaaaaaaaaaaa", false), machine("bbbbbbbbbbbb", true)];
        let state = |name: &str, active: &str| UnitState {
            name: name.into(),
            machine_id: "bbbbbbbbbbbb".into(),
            systemd_active_state: active.into(),
            systemd_sub_state: "x".into(),
            ..UnitState::default()
        };
        let states = [state("a.service", "active"), state("b.service", "failed")];
        let lost = Unit { name: "c.service".into(), desired_state: "launched".into(), ..Unit::default() };

        assert_eq!(
            picture(&loads(&machines, &states), &states, &[lost]),
            "2 machines, 1 units, 1 failed, 1 waiting for a machine\n\n\
             MACHINE\t\tUNITS\tACTIVE\tFAILED\tDRAIN\n\
             bbbbbbbb...\t2\t1\t1\tdraining\n\
             aaaaaaaa...\t0\t0\t0\t-\n\n\
             UNIT\t\tTROUBLE\n\
             b.service\tfailed (x)\n\
             c.service\twaits for a machine\n"
        );
    }
}
