//! `/locks`: the reboot slots, for people.

use super::answer::{ApiRefusal, allow_only, decode_first, empty_response, json_response, read_body};
use super::schema::{LockGroup, LockGroups, LockHolder};
use super::served::ServedApi;
use crate::lock::semaphore::{GroupName, GroupSemaphore};
use crate::lock::{LockError, RebootLocks};
use crate::store::registry::Registry;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct NewMaximum {
    max: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NewHolder {
    reason: String,
}

impl From<LockError> for ApiRefusal {
    fn from(error: LockError) -> Self {
        let status = match &error {
            LockError::Full { .. } => StatusCode::LOCKED,
            LockError::Contended { .. } => StatusCode::CONFLICT,
            LockError::Store { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }
}

/// `GET /locks`
pub(super) async fn serve_groups<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::GET)?;
    let groups = api.locks.groups().await?;
    let groups = groups.iter().map(|(name, semaphore)| to_wire(name, semaphore)).collect();
    Ok(json_response(StatusCode::OK, &LockGroups { groups }))
}

/// `GET` and `PUT /locks/GROUP`
pub(super) async fn serve_group<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiRefusal> {
    let name = GroupName::parse(&name).map_err(ApiRefusal::bad_request)?;
    match *request.method() {
        Method::GET => {
            let semaphore = api.locks.group(&name).await?;
            Ok(json_response(StatusCode::OK, &to_wire(&name, &semaphore)))
        }
        Method::PUT => {
            let bytes = read_body(request.into_body()).await?;
            let NewMaximum { max } = decode_first(&bytes)
                .map_err(|error| ApiRefusal::bad_request(format!("unable to decode body: {error}")))?;
            let old = api.locks.set_max(&name, max).await?;
            Ok(json_response(StatusCode::OK, &json!({ "max": max, "oldMax": old })))
        }
        _ => Err(ApiRefusal::wrong_method("only GET and PUT supported against this resource")),
    }
}

/// `PUT` and `DELETE /locks/GROUP/holders/ID`
pub(super) async fn serve_holder<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    Path((name, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiRefusal> {
    let name = GroupName::parse(&name).map_err(ApiRefusal::bad_request)?;
    if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
        return Err(ApiRefusal::bad_request("a holder's id must have 1 to 256 printable bytes"));
    }
    match *request.method() {
        Method::DELETE => {
            if api.locks.release(&name, &id).await? {
                return Ok(empty_response(StatusCode::NO_CONTENT));
            }
            Err(ApiRefusal::not_found("holder does not exist"))
        }
        Method::PUT => {
            let bytes = read_body(request.into_body()).await?;
            let NewHolder { reason } = decode_first(&bytes)
                .map_err(|error| ApiRefusal::bad_request(format!("unable to decode body: {error}")))?;
            api.locks.acquire(&name, &id, &reason).await?;
            Ok(empty_response(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiRefusal::wrong_method("only PUT and DELETE supported against this resource")),
    }
}

/// A group of reboot slots as both `fleetd` and `locksmithctl` tell it.
pub(crate) fn to_wire(name: &GroupName, semaphore: &GroupSemaphore) -> LockGroup {
    let holders = semaphore.holders.iter().map(|holder| LockHolder {
        id: holder.id.clone(),
        reason: holder.reason.clone(),
        since: holder.since,
    });
    LockGroup {
        available: semaphore.available_slots(),
        group: name.to_string(),
        holders: holders.collect(),
        max: semaphore.max,
    }
}
