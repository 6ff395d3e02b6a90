//! What the engine and the agents do only because a person asks: drain, rebalance, restart, release.

use super::answer::{Refusal, body, decode, empty, json, only};
use super::schema::{Move, RebalanceRequest, Rebalanced};
use super::served::Api;
use crate::lock::RebootLocks;
use crate::model::machine::MachineId;
use crate::plan::place::Placement;
use crate::store::cluster::Cluster;
use crate::store::registry::{Command, Registry};
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// `DELETE /brake`
pub(super) async fn brake<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    method: Method,
) -> Result<Response, Refusal> {
    only(&method, &Method::DELETE)?;
    api.registry.execute(Command::ReleaseBrake).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `PUT` and `DELETE /machines/ID/drain`
pub(super) async fn drain<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    Path(id): Path<String>,
    method: Method,
) -> Result<Response, Refusal> {
    let draining = match method {
        Method::DELETE => false,
        Method::PUT => true,
        _ => return Err(Refusal::method("only PUT and DELETE supported against this resource")),
    };
    let machine = MachineId::parse(&id).map_err(Refusal::bad_request)?;
    let present = api.registry.read(|cluster| cluster.machines.contains_key(&machine));
    // A machine that is gone can be let in again, but to empty it would be to wait for ever.
    if draining && !present {
        return Err(Refusal::not_found("machine does not exist"));
    }
    api.registry.execute(Command::Drain { machine, draining }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /rebalance`
pub(super) async fn rebalance<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    request: Request,
) -> Result<Response, Refusal> {
    only(request.method(), &Method::POST)?;
    let bytes = body(request.into_body()).await?;
    let request: RebalanceRequest =
        decode(&bytes).map_err(|error| Refusal::bad_request(format!("unable to decode body: {error}")))?;
    // The engine decides by the same rules on the same picture, so this is what it will do.
    let moves = api.registry.read(|cluster| moves(cluster, request.max_moves));
    if !request.dry_run && !moves.is_empty() {
        api.registry.execute(Command::Rebalance { budget: request.max_moves }).await?;
    }
    Ok(json(StatusCode::OK, &Rebalanced { moves }))
}

/// What a rebalance with this budget moves.
fn moves(cluster: &Cluster, budget: u32) -> Vec<Move> {
    let mut placement = Placement::default();
    for machine in cluster.machines.values() {
        placement.set_machine(machine);
    }
    for unit in cluster.units.values() {
        placement.set_unit(unit);
    }
    for (name, assignment) in &cluster.assignments {
        placement.observe(name, Some(&assignment.machine));
    }
    let shown = |id: Option<MachineId>| id.map(String::from).unwrap_or_default();
    let decisions = placement.rebalance(budget).into_iter();
    decisions
        .map(|each| Move { from: shown(each.from), to: shown(each.to), unit: each.unit.to_string() })
        .collect()
}

/// `POST /units/NAME/restart`
pub(super) async fn restart<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    Path(name): Path<String>,
    method: Method,
) -> Result<Response, Refusal> {
    only(&method, &Method::POST)?;
    let known = api.registry.read(|cluster| cluster.units.get(name.as_str()).map(|unit| unit.name.clone()));
    let name = known.ok_or_else(|| Refusal::not_found("unit does not exist"))?;
    api.registry.execute(Command::Restart { name }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
