//! `top`: machines by what they carry, and the units that need a person.

use super::arguments::TopArguments;
use super::session::{CommandOutcome, CommandSession, IdLength, OutputKind, full_legend, is_global};
use super::table::render_table;
use super::waiting::{self, notifier::ChangeNotifier};
use crate::api::schema::{ApiMachine, ApiUnit, UnitState};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Clears the screen and goes to its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// The most troubled units that are shown.
// A screen is short, and `list-unit-files` has them all.
const TROUBLES: usize = 20;

#[derive(Debug, Serialize)]
struct MachineLoad<'a> {
    machine: &'a ApiMachine,
    units: usize,
    active: usize,
    failed: usize,
}

/// Runs the verb.
pub fn run_top(
    session: &mut CommandSession<'_>,
    arguments: &TopArguments,
    output: OutputKind,
) -> CommandOutcome {
    if arguments.once || output == OutputKind::File || session.is_json() {
        let text = read_cluster(session)?;
        session.print_text(&text)?;
        return Ok(0);
    }
    let mut notifier = ChangeNotifier::polling_only();
    loop {
        let text = read_cluster(session)?;
        session.print_text(&format!("{CLEAR}{text}"))?;
        waiting::sleep_for(&mut notifier, Duration::from_secs(arguments.interval.max(1)));
    }
}

fn read_cluster(session: &mut CommandSession<'_>) -> Result<String, super::session::CommandError> {
    let (machines, states, units) =
        (session.client.list_machines()?, session.client.unit_states()?, session.client.list_units()?);
    let loads = machine_loads(&machines, &states);
    if session.is_json() {
        session.print_json(&loads)?;
        return Ok(String::new());
    }
    Ok(render_loads(&loads, &states, &units))
}

/// The machines, busiest first.
fn machine_loads<'a>(machines: &'a [ApiMachine], states: &[UnitState]) -> Vec<MachineLoad<'a>> {
    let count = |machine: &ApiMachine, active: Option<&str>| {
        let of_machine = states.iter().filter(|state| state.machine_id == machine.id);
        of_machine.filter(|state| active.is_none_or(|word| state.systemd_active_state == word)).count()
    };
    let mut loads: Vec<_> = machines
        .iter()
        .map(|machine| MachineLoad {
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

fn render_loads(loads: &[MachineLoad<'_>], states: &[UnitState], units: &[ApiUnit]) -> String {
    let waiting: Vec<&ApiUnit> = units.iter().filter(|unit| is_waiting(unit)).collect();
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
            full_legend(load.machine, IdLength::Short),
            load.units.to_string(),
            load.active.to_string(),
            load.failed.to_string(),
            drain.to_owned(),
        ]
    }));
    text.push_str(&render_table(&rows));
    let troubles = failed
        .iter()
        .map(|state| vec![state.name.clone(), format!("failed ({})", state.systemd_sub_state)])
        .chain(waiting.iter().map(|unit| vec![unit.name.clone(), "waits for a machine".to_owned()]));
    let rows: Vec<_> =
        std::iter::once(vec!["UNIT".to_owned(), "TROUBLE".to_owned()]).chain(troubles).collect();
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&render_table(&rows[..rows.len().min(TROUBLES + 1)]));
        if rows.len() > TROUBLES + 1 {
            let _ = writeln!(text, "and {} more", rows.len() - TROUBLES - 1);
        }
    }
    text
}

fn is_waiting(unit: &ApiUnit) -> bool {
    unit.machine_id.is_empty() && !is_global(unit) && !matches!(unit.desired_state.as_str(), "" | "inactive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_load_and_trouble() {
        let machine = |id: &str, draining| ApiMachine { id: id.into(), draining, ..ApiMachine::default() };
        let machines = [machine("aaaaaaaaaaaa", false), machine("bbbbbbbbbbbb", true)];
        let state = |name: &str, active: &str| UnitState {
            name: name.into(),
            machine_id: "bbbbbbbbbbbb".into(),
            systemd_active_state: active.into(),
            systemd_sub_state: "x".into(),
            ..UnitState::default()
        };
        let states = [state("a.service", "active"), state("b.service", "failed")];
        let lost =
            ApiUnit { name: "c.service".into(), desired_state: "launched".into(), ..ApiUnit::default() };

        assert_eq!(
            render_loads(&machine_loads(&machines, &states), &states, &[lost]),
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
