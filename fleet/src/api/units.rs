//! `/units`: the submitted units, read and changed.

use super::answer::{Refusal, body, check_content_type, decode, empty, json};
use super::page::PageToken;
use super::schema::{Unit, UnitOption, UnitPage};
use super::served::Api;
use super::state::token;
use crate::lock::RebootLocks;
use crate::model::requirements::Requirements;
use crate::model::state::{DesiredState, JobState};
use crate::model::unit_file::{self, UnitFile};
use crate::model::unit_name::UnitName;
use crate::store::cluster::{self, Cluster};
use crate::store::registry::{Command, Registry};
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;

/// `GET /units`
pub(super) async fn collection<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    method: Method,
    uri: Uri,
) -> Result<Response, Refusal> {
    if method != Method::GET {
        return Err(Refusal::method("only GET supported against this resource"));
    }
    let token = token(&uri, api.token_limit)?;
    Ok(json(StatusCode::OK, &api.registry.read(|cluster| page(cluster, token))))
}

/// `GET`, `PUT` and `DELETE /units/NAME`
pub(super) async fn item<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    match *request.method() {
        Method::DELETE => {
            let known =
                api.registry.read(|cluster| cluster.units.get(name.as_str()).map(|unit| unit.name.clone()));
            let name = known.ok_or_else(|| Refusal::not_found("unit does not exist"))?;
            api.registry.execute(Command::Destroy { name }).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Method::GET => {
            let unit = api
                .registry
                .read(|cluster| cluster.units.get(name.as_str()).map(|unit| to_wire(cluster, unit)));
            let unit = unit.ok_or_else(|| Refusal::not_found("unit does not exist"))?;
            Ok(json(StatusCode::OK, &unit))
        }
        Method::PUT => {
            check_content_type(&request)?;
            let bytes = body(request.into_body()).await?;
            let order = read_order(&name, &bytes)?;
            let known =
                api.registry.read(|cluster| cluster.units.get(&order.name).map(|unit| unit.file.clone()));
            let (command, status) = to_command(order, known.as_ref())?;
            api.registry.execute(command).await?;
            Ok(empty(status))
        }
        _ => Err(Refusal::method("only GET, PUT and DELETE supported against this resource")),
    }
}

/// What a `PUT` asks for, once it makes sense by itself.
struct Order {
    name: UnitName,
    desired: Option<DesiredState>,
    options: Vec<UnitOption>,
}

fn read_order(item: &str, bytes: &[u8]) -> Result<Order, Refusal> {
    let unit: Unit =
        decode(bytes).map_err(|error| Refusal::bad_request(format!("unable to decode body: {error}")))?;
    let name = if unit.name.is_empty() { item } else { &unit.name };
    if name != item {
        return Err(Refusal::bad_request(format!(
            "name in URL {item:?} differs from unit name in request body {name:?}"
        )));
    }
    let name = UnitName::parse(name).map_err(Refusal::bad_request)?;
    let desired = match unit.desired_state.as_str() {
        "" => None,
        word => Some(word.parse::<DesiredState>().map_err(Refusal::bad_request)?),
    };
    Ok(Order { name, desired, options: unit.options })
}

/// Creates, replaces or only sets the wanted state, and says so by the status.
fn to_command(order: Order, known: Option<&UnitFile>) -> Result<(Command, StatusCode), Refusal> {
    let Order { name, desired, options } = order;
    if name.is_template() && desired.is_some_and(|desired| desired != JobState::Inactive) {
        return Err(Refusal::bad_request(format!("cannot activate template {:?}", name.as_str())));
    }
    let conflict = |message: &str| Refusal::new(StatusCode::CONFLICT, message);
    match known {
        None if options.is_empty() => Err(conflict("unit does not exist and options field empty")),
        None => {
            let file = valid_file(&name, &options)?;
            Ok((Command::Create { name, file, desired: desired.unwrap_or_default() }, StatusCode::CREATED))
        }
        Some(known) => {
            let file = if options.is_empty() { known.clone() } else { valid_file(&name, &options)? };
            if file.hash() != known.hash() {
                let desired = desired.unwrap_or_default();
                return Ok((Command::Replace { name, file, desired }, StatusCode::CREATED));
            }
            let desired =
                desired.ok_or_else(|| conflict("must provide DesiredState to update existing unit"))?;
            Ok((Command::SetDesired { name, desired }, StatusCode::NO_CONTENT))
        }
    }
}

fn valid_file(name: &UnitName, options: &[UnitOption]) -> Result<UnitFile, Refusal> {
    let options = options.iter().map(unit_file::UnitOption::from).collect();
    let file = UnitFile::from_options(options).map_err(Refusal::bad_request)?;
    Requirements::of(name, &file).check().map_err(Refusal::bad_request)?;
    Ok(file)
}

fn page(cluster: &Cluster, token: PageToken) -> UnitPage {
    let (units, next) = token.cut(cluster.units.values().collect());
    UnitPage {
        next_page_token: next.map(PageToken::encode).unwrap_or_default(),
        units: units.into_iter().map(|unit| to_wire(cluster, unit)).collect(),
    }
}

/// A unit as the wire carries it.
fn to_wire(cluster: &Cluster, unit: &cluster::Unit) -> Unit {
    Unit { options: unit.file.options().iter().map(UnitOption::from).collect(), ..summary(cluster, unit) }
}

/// A unit without its text.
pub(super) fn summary(cluster: &Cluster, unit: &cluster::Unit) -> Unit {
    let target = cluster.target(unit.name.as_str()).filter(|_| !unit.is_global());
    Unit {
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
