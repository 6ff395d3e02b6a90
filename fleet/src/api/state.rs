//! `/state`: what systemd says of units, machine by machine.

use super::answer::{ApiRefusal, json_response};
use super::page::PageToken;
use super::schema::{UnitState, UnitStatePage};
use super::served::ServedApi;
use crate::lock::RebootLocks;
use crate::model::state;
use crate::store::cluster::Cluster;
use crate::store::registry::Registry;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;

/// A query, name by name, in the order it was written.
type QueryPairs = Vec<(String, String)>;

/// `GET /state?machineID=&unitName=`
pub(super) async fn serve_states<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
    uri: Uri,
) -> Result<Response, ApiRefusal> {
    check_method(&method)?;
    let token = page_token(&uri, api.token_limit)?;
    let pairs = query_pairs(&uri);
    let wanted = |name: &str| {
        pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    };
    let (machine, unit) = (wanted("machineID"), wanted("unitName"));
    let page = api.registry.read(|cluster| state_page(cluster, unit, machine, token));
    Ok(json_response(StatusCode::OK, &page))
}

/// `GET /state/NAME`
pub(super) async fn serve_state<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path(name): Path<String>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    check_method(&method)?;
    let state = api.registry.read(|cluster| cluster.states.get(name.as_str())?.values().next().map(to_wire));
    let state = state.ok_or_else(|| ApiRefusal::not_found("unit state does not exist"))?;
    Ok(json_response(StatusCode::OK, &state))
}

fn check_method(method: &Method) -> Result<(), ApiRefusal> {
    if method == Method::GET {
        Ok(())
    } else {
        Err(ApiRefusal::wrong_method("only GET supported against this resource"))
    }
}

fn state_page(
    cluster: &Cluster,
    unit: Option<&String>,
    machine: Option<&String>,
    token: PageToken,
) -> UnitStatePage {
    let of_unit = unit.map(|unit| cluster.states.get(unit.as_str()));
    let states: Box<dyn Iterator<Item = &state::UnitState>> = match of_unit {
        None => Box::new(cluster.all_states()),
        Some(states) => Box::new(states.into_iter().flat_map(|states| states.values())),
    };
    let states =
        states.filter(|state| machine.is_none_or(|machine| state.machine.as_str() == machine)).collect();
    let (states, next) = token.cut_page(states);
    UnitStatePage {
        next_page_token: next.map(PageToken::encode_token).unwrap_or_default(),
        states: states.into_iter().map(to_wire).collect(),
    }
}

/// A state as the wire carries it.
pub(super) fn to_wire(state: &state::UnitState) -> UnitState {
    UnitState {
        hash: state.hash.to_string(),
        machine_id: state.machine.to_string(),
        name: state.name.to_string(),
        systemd_active_state: state.active.clone(),
        systemd_load_state: state.load.clone(),
        systemd_sub_state: state.sub.clone(),
    }
}

/// The page that a query asks for.
pub(super) fn page_token(uri: &Uri, limit: u16) -> Result<PageToken, ApiRefusal> {
    let pairs = query_pairs(uri);
    let tokens = pairs.iter().filter(|(name, _)| name == "nextPageToken").map(|(_, value)| value.as_str());
    PageToken::from_query(tokens, limit).map_err(ApiRefusal::bad_request)
}

/// A query that cannot be read asks for nothing, as it always did.
pub(super) fn query_pairs(uri: &Uri) -> QueryPairs {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}
