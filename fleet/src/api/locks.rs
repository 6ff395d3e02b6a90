//! `/locks`: the reboot slots, for people.

use super::answer::{Refusal, body, decode, empty, json, only};
use super::schema::{LockGroup, LockGroups, LockHolder};
use super::served::Api;
use crate::lock::semaphore::{GroupName, Semaphore};
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

impl From<LockError> for Refusal {
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
pub(super) async fn groups<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    method: Method,
) -> Result<Response, Refusal> {
    only(&method, &Method::GET)?;
    let groups = api.locks.groups().await?;
    let groups = groups.iter().map(|(name, semaphore)| to_wire(name, semaphore)).collect();
    Ok(json(StatusCode::OK, &LockGroups { groups }))
}

/// `GET` and `PUT /locks/GROUP`
pub(super) async fn group<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = GroupName::parse(&name).map_err(Refusal::bad_request)?;
    match *request.method() {
        Method::GET => {
            let semaphore = api.locks.group(&name).await?;
            Ok(json(StatusCode::OK, &to_wire(&name, &semaphore)))
        }
        Method::PUT => {
            let bytes = body(request.into_body()).await?;
            let NewMaximum { max } = decode(&bytes)
                .map_err(|error| Refusal::bad_request(format!("unable to decode body: {error}")))?;
            let old = api.locks.set_max(&name, max).await?;
            Ok(json(StatusCode::OK, &json!({ "max": max, "oldMax": old })))
        }
        _ => Err(Refusal::method("only GET and PUT supported against this resource")),
    }
}

/// `PUT` and `DELETE /locks/GROUP/holders/ID`
pub(super) async fn holder<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    Path((name, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = GroupName::parse(&name).map_err(Refusal::bad_request)?;
    if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
        return Err(Refusal::bad_request("a holder's id must have 1 to 256 printable bytes"));
    }
    match *request.method() {
        Method::DELETE => {
            if api.locks.release(&name, &id).await? {
                return Ok(empty(StatusCode::NO_CONTENT));
            }
            Err(Refusal::not_found("holder does not exist"))
        }
        Method::PUT => {
            let bytes = body(request.into_body()).await?;
            let NewHolder { reason } = decode(&bytes)
                .map_err(|error| Refusal::bad_request(format!("unable to decode body: {error}")))?;
            api.locks.acquire(&name, &id, &reason).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(Refusal::method("only PUT and DELETE supported against this resource")),
    }
}

/// A group of reboot slots as both `fleetd` and `locksmithctl` tell it.
pub(crate) fn to_wire(name: &GroupName, semaphore: &Semaphore) -> LockGroup {
    let holders = semaphore.holders.iter().map(|holder| LockHolder {
        id: holder.id.clone(),
        reason: holder.reason.clone(),
        since: holder.since,
    });
    LockGroup {
        available: semaphore.available(),
        group: name.to_string(),
        holders: holders.collect(),
        max: semaphore.max,
    }
}
