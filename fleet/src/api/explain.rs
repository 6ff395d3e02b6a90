//! `/explain/NAME`: why a unit is where it is, or nowhere.

use super::answer::{Refusal, json, only};
use super::schema::{Explanation, MachineVerdict};
use super::served::Api;
use super::units::summary;
use crate::lock::RebootLocks;
use crate::model::state::JobState;
use crate::plan::explain::{Verdict, explain as verdicts};
use crate::store::cluster::{Cluster, Unit};
use crate::store::registry::Registry;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// `GET /explain/NAME`
pub(super) async fn explain<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    Path(name): Path<String>,
    method: Method,
) -> Result<Response, Refusal> {
    only(&method, &Method::GET)?;
    let explanation = api.registry.read(|cluster| explanation(cluster, &name));
    let explanation = explanation.ok_or_else(|| Refusal::not_found("unit does not exist"))?;
    Ok(json(StatusCode::OK, &explanation))
}

fn explanation(cluster: &Cluster, name: &str) -> Option<Explanation> {
    let unit = cluster.units.get(name)?;
    let machines = verdicts(cluster, name)?;
    let shown = summary(cluster, unit);
    Some(Explanation {
        current_state: shown.current_state,
        desired_state: shown.desired_state,
        global: unit.is_global(),
        machine_id: shown.machine_id,
        summary: sentence(cluster, unit, &machines),
        machines: machines.iter().map(to_wire).collect(),
        name: shown.name,
    })
}

fn to_wire(verdict: &Verdict) -> MachineVerdict {
    MachineVerdict {
        able: verdict.refusal.is_none(),
        id: verdict.machine.to_string(),
        load: verdict.load as u64,
        reason: verdict.refusal.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The state of affairs in one sentence.
fn sentence(cluster: &Cluster, unit: &Unit, machines: &[Verdict]) -> String {
    let able = machines.iter().filter(|verdict| verdict.refusal.is_none()).count();
    let all = machines.len();
    let mut words = if unit.name.is_template() {
        "a template: its instances are placed, it is not".to_owned()
    } else if unit.desired == JobState::Inactive {
        format!("inactive as wanted; {able} of {all} machines could take it")
    } else if unit.is_global() {
        format!("global: runs on each of the {able} of {all} machines that can take it")
    } else if let Some(machine) = cluster.target(unit.name.as_str()) {
        let gone = if cluster.machines.contains_key(machine) { "" } else { ", which is gone" };
        format!("scheduled on machine {}{gone}", machine.short())
    } else if all == 0 {
        "not scheduled: there is no machine".to_owned()
    } else if able == 0 {
        format!("not scheduled: none of {all} machines can take it{}", commonest(machines))
    } else if cluster.leader.is_none() {
        format!("not scheduled: {able} of {all} machines could take it, but no engine leads")
    } else {
        format!("not scheduled yet: {able} of {all} machines can take it")
    };
    if !cluster.brake.is_empty() && unit.desired != JobState::Inactive {
        words = format!("{words}; the engine holds still: {}", cluster.brake);
    }
    let state = cluster
        .target(unit.name.as_str())
        .and_then(|machine| cluster.state(unit.name.as_str(), machine.as_str()));
    if let Some(state) = state.filter(|state| !state.error.is_empty()) {
        words = format!("{words}; its agent says: {}", state.error);
    }
    if unit.note.is_empty() { words } else { format!("{words}; {}", unit.note) }
}

/// The reason that most machines give.
fn commonest(machines: &[Verdict]) -> String {
    let reasons: Vec<String> =
        machines.iter().filter_map(|each| each.refusal.as_ref()).map(ToString::to_string).collect();
    let count = |reason: &String| reasons.iter().filter(|each| *each == reason).count();
    // Of equally common ones the first.
    let best = reasons.iter().rev().max_by_key(|reason| count(reason));
    best.map(|reason| format!(" ({} of them: {reason})", count(reason))).unwrap_or_default()
}
