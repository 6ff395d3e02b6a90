//! What the engine and the agents do only because a person asks: drain, rebalance, restart, release.

use super::answer::{ApiRefusal, allow_only, decode_first, empty_response, json_response, read_body};
use super::schema::{RebalanceRequest, RebalanceResult, UnitMove};
use super::served::ServedApi;
use crate::lock::RebootLocks;
use crate::model::machine::MachineId;
use crate::plan::place::UnitPlacement;
use crate::store::cluster::Cluster;
use crate::store::registry::DrainChange;
use crate::store::registry::{Registry, RegistryCommand};
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// `DELETE /brake`
pub(super) async fn release_brake<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::DELETE)?;
    api.registry.execute_command(RegistryCommand::ReleaseBrake).await?;
    Ok(empty_response(StatusCode::NO_CONTENT))
}

/// `PUT` and `DELETE /machines/ID/drain`
pub(super) async fn drain_machine<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path(id): Path<String>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    let drain = match method {
        Method::DELETE => DrainChange::End,
        Method::PUT => DrainChange::Begin,
        _ => return Err(ApiRefusal::wrong_method("only PUT and DELETE supported against this resource")),
    };
    let machine = MachineId::parse(&id).map_err(ApiRefusal::bad_request)?;
    let present = api.registry.read(|cluster| cluster.machines.contains_key(&machine));
    // A machine that is gone can be let in again, but to empty it would be to wait for ever.
    if drain == DrainChange::Begin && !present {
        return Err(ApiRefusal::not_found("machine does not exist"));
    }
    api.registry.execute_command(RegistryCommand::Drain { machine, drain }).await?;
    Ok(empty_response(StatusCode::NO_CONTENT))
}

/// `POST /rebalance`
pub(super) async fn rebalance_units<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    request: Request,
) -> Result<Response, ApiRefusal> {
    allow_only(request.method(), &Method::POST)?;
    let bytes = read_body(request.into_body()).await?;
    let request: RebalanceRequest = decode_first(&bytes)
        .map_err(|error| ApiRefusal::bad_request(format!("unable to decode body: {error}")))?;
    // The engine decides by the same rules on the same picture, so this is what it will do.
    let moves = api.registry.read(|cluster| rebalance_moves(cluster, request.max_moves));
    if !request.dry_run && !moves.is_empty() {
        api.registry.execute_command(RegistryCommand::Rebalance { budget: request.max_moves }).await?;
    }
    Ok(json_response(StatusCode::OK, &RebalanceResult { moves }))
}

/// What a rebalance with this budget moves.
fn rebalance_moves(cluster: &Cluster, budget: u32) -> Vec<UnitMove> {
    let mut placement = UnitPlacement::of_cluster(cluster);
    let shown = |id: Option<MachineId>| id.map(String::from).unwrap_or_default();
    let decisions = placement.rebalance_units(budget).into_iter();
    decisions
        .map(|each| UnitMove { from: shown(each.from), to: shown(each.to), unit: each.unit.to_string() })
        .collect()
}

/// `POST /units/NAME/restart`
pub(super) async fn restart_unit<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path(name): Path<String>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::POST)?;
    let known = api.registry.read(|cluster| cluster.units.get(name.as_str()).map(|unit| unit.name.clone()));
    let name = known.ok_or_else(|| ApiRefusal::not_found("unit does not exist"))?;
    api.registry.execute_command(RegistryCommand::Restart { name }).await?;
    Ok(empty_response(StatusCode::NO_CONTENT))
}
