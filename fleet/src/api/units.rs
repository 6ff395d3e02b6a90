//! `/units`: the submitted units, read and changed.

use super::answer::{ApiRefusal, check_content_type, decode_first, empty_response, json_response, read_body};
use super::page::PageToken;
use super::schema::{ApiUnit, UnitOption, UnitPage};
use super::served::ServedApi;
use super::state::page_token;
use crate::lock::RebootLocks;
use crate::model::requirements::UnitRequirements;
use crate::model::state::{DesiredState, JobState};
use crate::model::unit_file::{self, UnitFile};
use crate::model::unit_name::UnitName;
use crate::store::cluster::{self, Cluster};
use crate::store::registry::{Registry, RegistryCommand};
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;

/// `GET /units`
pub(super) async fn serve_units<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
    uri: Uri,
) -> Result<Response, ApiRefusal> {
    if method != Method::GET {
        return Err(ApiRefusal::wrong_method("only GET supported against this resource"));
    }
    let token = page_token(&uri, api.token_limit)?;
    Ok(json_response(StatusCode::OK, &api.registry.read(|cluster| unit_page(cluster, token))))
}

/// `GET`, `PUT` and `DELETE /units/NAME`
pub(super) async fn serve_unit<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiRefusal> {
    match *request.method() {
        Method::DELETE => {
            let known =
                api.registry.read(|cluster| cluster.units.get(name.as_str()).map(|unit| unit.name.clone()));
            let name = known.ok_or_else(|| ApiRefusal::not_found("unit does not exist"))?;
            api.registry.execute_command(RegistryCommand::Destroy { name }).await?;
            Ok(empty_response(StatusCode::NO_CONTENT))
        }
        Method::GET => {
            let unit = api
                .registry
                .read(|cluster| cluster.units.get(name.as_str()).map(|unit| to_wire(cluster, unit)));
            let unit = unit.ok_or_else(|| ApiRefusal::not_found("unit does not exist"))?;
            Ok(json_response(StatusCode::OK, &unit))
        }
        Method::PUT => {
            check_content_type(&request)?;
            let bytes = read_body(request.into_body()).await?;
            let order = read_order(&name, &bytes)?;
            let known =
                api.registry.read(|cluster| cluster.units.get(&order.name).map(|unit| unit.file.clone()));
            let (command, status) = to_command(order, known.as_ref())?;
            api.registry.execute_command(command).await?;
            Ok(empty_response(status))
        }
        _ => Err(ApiRefusal::wrong_method("only GET, PUT and DELETE supported against this resource")),
    }
}

/// What a `PUT` asks for, once it makes sense by itself.
struct UnitRequest {
    name: UnitName,
    desired: Option<DesiredState>,
    options: Vec<UnitOption>,
}

fn read_order(item: &str, bytes: &[u8]) -> Result<UnitRequest, ApiRefusal> {
    let unit: ApiUnit = decode_first(bytes)
        .map_err(|error| ApiRefusal::bad_request(format!("unable to decode body: {error}")))?;
    let name = if unit.name.is_empty() { item } else { &unit.name };
    if name != item {
        return Err(ApiRefusal::bad_request(format!(
            "name in URL {item:?} differs from unit name in request body {name:?}"
        )));
    }
    let name = UnitName::parse(name).map_err(ApiRefusal::bad_request)?;
    let desired = match unit.desired_state.as_str() {
        "" => None,
        word => Some(word.parse::<DesiredState>().map_err(ApiRefusal::bad_request)?),
    };
    Ok(UnitRequest { name, desired, options: unit.options })
}

/// Creates, replaces or only sets the wanted state, and says so by the status.
fn to_command(
    order: UnitRequest,
    known: Option<&UnitFile>,
) -> Result<(RegistryCommand, StatusCode), ApiRefusal> {
    let UnitRequest { name, desired, options } = order;
    if name.is_template() && desired.is_some_and(|desired| desired != JobState::Inactive) {
        return Err(ApiRefusal::bad_request(format!("cannot activate template {:?}", name.as_str())));
    }
    let conflict = |message: &str| ApiRefusal::new(StatusCode::CONFLICT, message);
    match known {
        None if options.is_empty() => Err(conflict("unit does not exist and options field empty")),
        None => {
            let file = valid_file(&name, &options)?;
            Ok((
                RegistryCommand::Create { name, file, desired: desired.unwrap_or_default() },
                StatusCode::CREATED,
            ))
        }
        Some(known) => {
            let file = if options.is_empty() { known.clone() } else { valid_file(&name, &options)? };
            if file.hash() != known.hash() {
                let desired = desired.unwrap_or_default();
                return Ok((RegistryCommand::Replace { name, file, desired }, StatusCode::CREATED));
            }
            let desired =
                desired.ok_or_else(|| conflict("must provide DesiredState to update existing unit"))?;
            Ok((RegistryCommand::SetDesired { name, desired }, StatusCode::NO_CONTENT))
        }
    }
}

fn valid_file(name: &UnitName, options: &[UnitOption]) -> Result<UnitFile, ApiRefusal> {
    let options = options.iter().map(unit_file::UnitOption::from).collect();
    let file = UnitFile::from_options(options).map_err(ApiRefusal::bad_request)?;
    UnitRequirements::of_unit(name, &file).check_rules().map_err(ApiRefusal::bad_request)?;
    Ok(file)
}

fn unit_page(cluster: &Cluster, token: PageToken) -> UnitPage {
    let (units, next) = token.cut_page(cluster.units.values().collect());
    UnitPage {
        next_page_token: next.map(PageToken::encode_token).unwrap_or_default(),
        units: units.into_iter().map(|unit| to_wire(cluster, unit)).collect(),
    }
}

/// A unit as the wire carries it.
fn to_wire(cluster: &Cluster, unit: &cluster::SubmittedUnit) -> ApiUnit {
    ApiUnit {
        options: unit.file.options().iter().map(UnitOption::from).collect(),
        ..unit_without_text(cluster, unit)
    }
}

/// A unit without its text.
pub(super) fn unit_without_text(cluster: &Cluster, unit: &cluster::SubmittedUnit) -> ApiUnit {
    let target = cluster.target_of(unit.name.as_str()).filter(|_| !unit.is_global());
    ApiUnit {
        changing: unit.rollout.is_some(),
        current_state: cluster
            .current_state(unit.name.as_str())
            .map(|state| state.to_string())
            .unwrap_or_default(),
        desired_state: unit.desired.to_string(),
        machine_id: target.map(ToString::to_string).unwrap_or_default(),
        name: unit.name.to_string(),
        note: unit.note.clone(),
        options: Vec::new(),
    }
}
