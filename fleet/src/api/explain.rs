//! `/explain/NAME`: why a unit is where it is, or nowhere.

use super::answer::{ApiRefusal, allow_only, json_response};
use super::schema::{MachineVerdict, UnitExplanation};
use super::served::ServedApi;
use super::units::unit_without_text;
use crate::lock::RebootLocks;
use crate::model::state::JobState;
use crate::plan::explain::{PlacementVerdict, explain_unit as verdicts};
use crate::store::cluster::{Cluster, SubmittedUnit};
use crate::store::registry::Registry;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// `GET /explain/NAME`
pub(super) async fn serve_explanation<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path(name): Path<String>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::GET)?;
    let explanation = api.registry.read(|cluster| explain_unit(cluster, &name));
    let explanation = explanation.ok_or_else(|| ApiRefusal::not_found("unit does not exist"))?;
    Ok(json_response(StatusCode::OK, &explanation))
}

fn explain_unit(cluster: &Cluster, name: &str) -> Option<UnitExplanation> {
    let unit = cluster.units.get(name)?;
    let machines = verdicts(cluster, name)?;
    let shown = unit_without_text(cluster, unit);
    Some(UnitExplanation {
        current_state: shown.current_state,
        desired_state: shown.desired_state,
        global: unit.is_global(),
        machine_id: shown.machine_id,
        summary: summary_sentence(cluster, unit, &machines),
        machines: machines.iter().map(to_wire).collect(),
        name: shown.name,
    })
}

fn to_wire(verdict: &PlacementVerdict) -> MachineVerdict {
    MachineVerdict {
        able: verdict.refusal.is_none(),
        id: verdict.machine.to_string(),
        load: verdict.load as u64,
        reason: verdict.refusal.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The state of affairs in one sentence.
fn summary_sentence(cluster: &Cluster, unit: &SubmittedUnit, machines: &[PlacementVerdict]) -> String {
    let able = machines.iter().filter(|verdict| verdict.refusal.is_none()).count();
    let all = machines.len();
    let mut words = if unit.name.is_template() {
        "a template: its instances are placed, it is not".to_owned()
    } else if unit.desired == JobState::Inactive {
        format!("inactive as wanted; {able} of {all} machines could take it")
    } else if unit.is_global() {
        format!("global: runs on each of the {able} of {all} machines that can take it")
    } else if let Some(machine) = cluster.target_of(unit.name.as_str()) {
        let gone = if cluster.machines.contains_key(machine) { "" } else { ", which is gone" };
        format!("scheduled on machine {}{gone}", machine.short_id())
    } else if all == 0 {
        "not scheduled: there is no machine".to_owned()
    } else if able == 0 {
        format!("not scheduled: none of {all} machines can take it{}", most_common_reason(machines))
    } else if cluster.leader.is_none() {
        format!("not scheduled: {able} of {all} machines could take it, but no engine leads")
    } else {
        format!("not scheduled yet: {able} of {all} machines can take it")
    };
    if !cluster.brake.is_empty() && unit.desired != JobState::Inactive {
        words = format!("{words}; the engine holds still: {}", cluster.brake);
    }
    let state = cluster
        .target_of(unit.name.as_str())
        .and_then(|machine| cluster.state_on(unit.name.as_str(), machine.as_str()));
    if let Some(state) = state.filter(|state| !state.error.is_empty()) {
        words = format!("{words}; its agent says: {}", state.error);
    }
    if unit.note.is_empty() { words } else { format!("{words}; {}", unit.note) }
}

/// The reason that most machines give.
fn most_common_reason(machines: &[PlacementVerdict]) -> String {
    let reasons: Vec<String> =
        machines.iter().filter_map(|each| each.refusal.as_ref()).map(ToString::to_string).collect();
    let count = |reason: &String| reasons.iter().filter(|each| *each == reason).count();
    // Of equally common ones the first.
    let best = reasons.iter().rev().max_by_key(|reason| count(reason));
    best.map(|reason| format!(" ({} of them: {reason})", count(reason))).unwrap_or_default()
}
