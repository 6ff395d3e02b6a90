//! The fleet API as calls: pages joined, errors told, "not there" a value.
//!
//! Works against this fleet and against any older one; what only this one has (watch, explain, drain,
//! rebalance) answers [`ApiError::Status`] with 404 elsewhere. Bodies are bounded before they are parsed.

use super::endpoint::ApiEndpoint;
use crate::api::schema::{
    ApiMachine, ApiUnit, ErrorBody, LockGroup, MachinePage, RebalanceRequest, RebalanceResult,
    UnitExplanation, UnitPage, UnitState, UnitStatePage, to_json,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The largest answer that is read: a page of a hundred units of the largest size, twice over.
// A page of 65 535 units, the longest that the original's tokens allow, with texts of 2 KiB.
const MAX_BODY: u64 = 128 * 1024 * 1024;
/// The longest line of a watch that is read.
// Events carry no unit text, and are far below it. A line without an end must not fill the memory.
const MAX_EVENT: u64 = 4 * 1024 * 1024;
/// The most pages a list may have; more means that the server sends us in circles.
// A token counts pages in 16 bits, so no honest server sends more.
const MAX_PAGES: usize = 65_535;

/// Why a call of the API failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ApiError {
    #[error("{endpoint} did not answer in JSON")]
    Body { endpoint: String, source: ureq::Error },
    #[error("{endpoint} sends page after page without an end")]
    Endless { endpoint: String },
    #[error("{endpoint} answered {code}: {message}")]
    Status { endpoint: String, code: u16, message: String },
    #[error("cannot reach the fleet API at {endpoint}")]
    Unreachable { endpoint: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl ApiError {
    /// Whether the server does not know what was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { code: 404, .. })
    }
}

/// A fleet API.
#[derive(Debug, Clone)]
pub struct ApiClient {
    agent: Agent,
    base: String,
    shown: String,
}

/// A method that carries no body, or one that does.
enum ApiRequest<'a> {
    Delete,
    Get,
    Post(&'a str),
    Put(&'a str),
}

impl ApiClient {
    /// The API at `endpoint`, spoken to by `agent`.
    #[must_use]
    pub fn new(agent: Agent, endpoint: &ApiEndpoint) -> Self {
        Self { agent, base: format!("{}/fleet/v1", endpoint.base_url()), shown: endpoint.to_string() }
    }

    /// Every submitted unit, sorted by name.
    pub fn list_units(&self) -> Result<Vec<ApiUnit>, ApiError> {
        let mut units = self.fetch_pages("/units", |page: UnitPage| (page.units, page.next_page_token))?;
        // Old servers send them in the order of their store. Tables were sorted by the client.
        units.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(units)
    }

    /// One unit.
    pub fn find_unit(&self, name: &str) -> Result<Option<ApiUnit>, ApiError> {
        none_if_missing(self.fetch_json(&format!("/units/{}", percent_encode(name))))
    }

    /// What systemd says everywhere, sorted by unit, then by machine.
    pub fn unit_states(&self) -> Result<Vec<UnitState>, ApiError> {
        let mut states =
            self.fetch_pages("/state", |page: UnitStatePage| (page.states, page.next_page_token))?;
        states.sort_by(|left, right| (&left.name, &left.machine_id).cmp(&(&right.name, &right.machine_id)));
        Ok(states)
    }

    /// What systemd says of one unit, on every machine that has it.
    pub fn states_of(&self, name: &str) -> Result<Vec<UnitState>, ApiError> {
        let path = format!("/state?unitName={}", percent_encode(name));
        self.fetch_pages(&path, |page: UnitStatePage| (page.states, page.next_page_token))
    }

    /// The machines, sorted by id.
    pub fn list_machines(&self) -> Result<Vec<ApiMachine>, ApiError> {
        let mut machines =
            self.fetch_pages("/machines", |page: MachinePage| (page.machines, page.next_page_token))?;
        machines.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(machines)
    }

    /// Creates the unit, or replaces its options.
    pub fn put_unit(&self, unit: &ApiUnit) -> Result<(), ApiError> {
        let path = format!("/units/{}", percent_encode(&unit.name));
        self.send_request(&path, &ApiRequest::Put(&to_json(unit))).map(drop)
    }

    /// Says what is wanted of a unit.
    pub fn set_desired_state(&self, name: &str, state: &str) -> Result<(), ApiError> {
        self.put_unit(&ApiUnit {
            name: name.to_owned(),
            desired_state: state.to_owned(),
            ..ApiUnit::default()
        })
    }

    /// Removes a unit; whether it was there.
    pub fn destroy_unit(&self, name: &str) -> Result<bool, ApiError> {
        let answer =
            self.send_request(&format!("/units/{}", percent_encode(name)), &ApiRequest::Delete).map(drop);
        Ok(none_if_missing(answer)?.is_some())
    }

    /// Why a unit is where it is.
    pub fn explain_unit(&self, name: &str) -> Result<UnitExplanation, ApiError> {
        self.fetch_json(&format!("/explain/{}", percent_encode(name)))
    }

    /// Empties a machine.
    pub fn drain_machine(&self, machine: &str) -> Result<(), ApiError> {
        self.send_request(&format!("/machines/{}/drain", percent_encode(machine)), &ApiRequest::Put("{}"))
            .map(drop)
    }

    /// Lets a machine take units again.
    pub fn undrain_machine(&self, machine: &str) -> Result<(), ApiError> {
        self.send_request(&format!("/machines/{}/drain", percent_encode(machine)), &ApiRequest::Delete)
            .map(drop)
    }

    /// Spreads units again.
    pub fn rebalance_units(&self, request: &RebalanceRequest) -> Result<RebalanceResult, ApiError> {
        let answer = self.send_request("/rebalance", &ApiRequest::Post(&to_json(request)))?;
        self.read(answer)
    }

    /// Lets the engine move units although many machines vanished.
    pub fn release_brake(&self) -> Result<(), ApiError> {
        self.send_request("/brake", &ApiRequest::Delete).map(drop)
    }

    /// Restarts a unit where it runs.
    pub fn restart_unit(&self, name: &str) -> Result<(), ApiError> {
        self.send_request(&format!("/units/{}/restart", percent_encode(name)), &ApiRequest::Post("{}"))
            .map(drop)
    }

    /// The reboot slots of a group.
    pub fn lock_group(&self, group: &str) -> Result<LockGroup, ApiError> {
        self.fetch_json(&format!("/locks/{}", percent_encode(group)))
    }

    /// Takes a reboot slot; it may be held already.
    pub fn take_lock(&self, group: &str, id: &str, reason: &str) -> Result<(), ApiError> {
        let path = format!("/locks/{}/holders/{}", percent_encode(group), percent_encode(id));
        let body = serde_json::json!({ "reason": reason }).to_string();
        self.send_request(&path, &ApiRequest::Put(&body)).map(drop)
    }

    /// Gives a reboot slot back; whether it was held.
    pub fn release_lock(&self, group: &str, id: &str) -> Result<bool, ApiError> {
        let path = format!("/locks/{}/holders/{}", percent_encode(group), percent_encode(id));
        Ok(none_if_missing(self.send_request(&path, &ApiRequest::Delete).map(drop))?.is_some())
    }

    /// Sets the number of reboot slots of a group.
    pub fn set_max(&self, group: &str, max: u32) -> Result<(), ApiError> {
        let body = serde_json::json!({ "max": max }).to_string();
        self.send_request(&format!("/locks/{}", percent_encode(group)), &ApiRequest::Put(&body)).map(drop)
    }

    /// Asks, by the FleetLock protocol, whether a machine may reboot now.
    pub fn pre_reboot(&self, group: &str, id: &str) -> Result<(), ApiError> {
        let url = format!("{}/v1/pre-reboot", self.base.trim_end_matches("/fleet/v1"));
        let body = serde_json::json!({ "client_params": { "group": group, "id": id } }).to_string();
        let request = self.agent.post(&url).header("fleet-lock-protocol", "true");
        // Longer than fleetd waits for a machine to be empty.
        let request = request.config().timeout_recv_response(Some(Duration::from_mins(1))).build();
        let unreachable =
            |error| ApiError::Unreachable { endpoint: self.shown.clone(), source: connection_error(error) };
        let mut answer = request.content_type("application/json").send(&body).map_err(unreachable)?;
        if answer.status().is_success() {
            return Ok(());
        }
        let code = answer.status().as_u16();
        let message = answer.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
        Err(ApiError::Status { endpoint: self.shown.clone(), code, message })
    }

    /// What changes from now on, event by event, until the server goes away.
    pub fn watch_events(&self) -> Result<WatchEvents, ApiError> {
        let answer = self.send_request("/watch", &ApiRequest::Get)?;
        // Without a bound: a watch lasts as long as the verb waits. Each line has its own.
        let reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(WatchEvents { lines: BufReader::new(Box::new(reader)) })
    }

    fn fetch_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.read(self.send_request(path, &ApiRequest::Get)?)
    }

    fn fetch_pages<P: DeserializeOwned, T>(
        &self,
        path: &str,
        take: impl Fn(P) -> (Vec<T>, String),
    ) -> Result<Vec<T>, ApiError> {
        let (mut all, mut token) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let (items, next) = take(self.fetch_json(&with_token(path, &token))?);
            all.extend(items);
            if next.is_empty() {
                return Ok(all);
            }
            token = next;
        }
        Err(ApiError::Endless { endpoint: self.shown.clone() })
    }

    fn send_request(&self, path: &str, request: &ApiRequest<'_>) -> Result<Response<Body>, ApiError> {
        let url = format!("{}{path}", self.base);
        let json = "application/json";
        let outcome = match request {
            ApiRequest::Delete => self.agent.delete(&url).call(),
            ApiRequest::Get => self.agent.get(&url).call(),
            ApiRequest::Post(body) => self.agent.post(&url).content_type(json).send(*body),
            ApiRequest::Put(body) => self.agent.put(&url).content_type(json).send(*body),
        };
        let mut answer = outcome.map_err(|error| ApiError::Unreachable {
            endpoint: self.shown.clone(),
            source: connection_error(error),
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let reason = answer.status().canonical_reason().unwrap_or_default().to_owned();
        let body = answer.body_mut().with_config().limit(64 * 1024).read_json::<ErrorBody>();
        let message =
            body.map(|body| body.error.message).ok().filter(|text| !text.is_empty()).unwrap_or(reason);
        Err(ApiError::Status { endpoint: self.shown.clone(), code, message })
    }

    fn read<T: DeserializeOwned>(&self, mut answer: Response<Body>) -> Result<T, ApiError> {
        let body = answer.body_mut().with_config().limit(MAX_BODY).read_json();
        body.map_err(|source| ApiError::Body { endpoint: self.shown.clone(), source })
    }
}

/// A watch's events, as they come.
pub struct WatchEvents {
    lines: BufReader<Box<dyn std::io::Read + Send>>,
}

impl std::fmt::Debug for WatchEvents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct WatchEvent {
    /// What kind of thing changed: `unit`, `state`, `machine`, `ready` or `reset`.
    pub kind: String,
    /// The thing, as JSON.
    pub data: String,
}

impl Iterator for WatchEvents {
    type Item = WatchEvent;

    fn next(&mut self) -> Option<WatchEvent> {
        let mut event = WatchEvent::default();
        loop {
            let mut line = String::new();
            let length = std::io::Read::take(&mut self.lines, MAX_EVENT).read_line(&mut line).ok()?;
            if length == 0 || !line.ends_with('\n') {
                return None;
            }
            match line.trim_end_matches(['\n', '\r']).split_once(": ") {
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("data", data)) => data.clone_into(&mut event.data),
                None if line.trim().is_empty() && !event.kind.is_empty() => return Some(event),
                _ => {}
            }
        }
    }
}

/// What went wrong with a connection, without the library's preface.
fn connection_error(error: ureq::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        ureq::Error::Io(error) => error.into(),
        other => other.into(),
    }
}

fn none_if_missing<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        // A server that is too old for a path answers 404 as well. Verbs for which that matters say so.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_token(path: &str, token: &str) -> String {
    if token.is_empty() {
        return path.to_owned();
    }
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}nextPageToken={}", percent_encode(token))
}

/// Escapes everything that has a meaning in a URL.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_a_path() {
        assert_eq!(percent_encode(r"a\x2d@b c/..?.service"), r"a%5Cx2d@b%20c%2F..%3F.service");
    }

    #[test]
    fn tokens_join_a_query_that_is_there_already() {
        assert_eq!(with_token("/units", ""), "/units");
        assert_eq!(with_token("/units", "ZAACAA=="), "/units?nextPageToken=ZAACAA%3D%3D");
        assert_eq!(with_token("/state?unitName=a", "ZA=="), "/state?unitName=a&nextPageToken=ZA%3D%3D");
    }

    #[test]
    fn events_are_cut_out_of_the_stream() {
        let text =
            ": hello\n\nid: 7\nevent: unit\ndata: {\"name\":\"a\"}\n\nevent: ready\ndata: {}\n\nevent: cut";
        let events = WatchEvents { lines: BufReader::new(Box::new(text.as_bytes())) };

        let event = |kind: &str, data: &str| WatchEvent { kind: kind.into(), data: data.into() };
        assert_eq!(events.collect::<Vec<_>>(), [event("unit", "{\"name\":\"a\"}"), event("ready", "{}")]);
    }
}
