//! `/watch`: what changes, as it changes, as server-sent events.
//!
//! Events `unit`, `state` and `machine` carry the thing as the API shows it (a unit without its text);
//! `unit-removed`, `state-removed` and `machine-removed` carry its name; `reset` says that everything may
//! have changed; `ready` comes first. An event's id is the store's revision. A client that reads too
//! slowly gets a `reset` instead of what it missed: nobody's slowness costs memory here.

use super::answer::{ApiRefusal, allow_only};
use super::schema::to_json;
use super::served::ServedApi;
use super::state::query_pairs;
use super::{machines, state, units};
use crate::lock::RebootLocks;
use crate::store::cluster::Cluster;
use crate::store::registry::{ClusterChange, Registry};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Uri};
use axum::response::Response;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How often a silent stream says that it lives.
// Proxies close a connection that has been silent for about a minute. Writing is also how a server notices
// that its client is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that wait for a client to read them; the rest waits in the registry's channel.
// Small on purpose: what waits here was made for one client, what waits in the registry's channel is shared
// by all.
const PENDING: usize = 16;

/// `GET /watch?unit=NAME`
pub(super) async fn serve_watch<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
    uri: Uri,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::GET)?;
    let units =
        query_pairs(&uri).into_iter().filter(|(name, _)| name == "unit").map(|(_, value)| value).collect();
    let (sender, receiver) = mpsc::channel(PENDING);
    // Subscribed before the first byte of the answer: what happens after it is not missed.
    let changes = api.registry.subscribe_changes();
    tokio::spawn(follow_changes(api.registry, changes, units, sender));
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

type StreamChunk = Result<String, Infallible>;

/// Ends when the client has gone, or the registry.
async fn follow_changes<R: Registry>(
    registry: Arc<R>,
    mut changes: Receiver<ClusterChange>,
    units: Vec<String>,
    sender: mpsc::Sender<StreamChunk>,
) {
    let revision = registry.read(|cluster| cluster.revision);
    let mut next = Some(format!("id: {revision}\nevent: ready\ndata: {{}}\n\n"));
    loop {
        if let Some(text) = next.take()
            && sender.send(Ok(text)).await.is_err()
        {
            return;
        }
        next = tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(HEARTBEAT) => Some(": still here\n\n".to_owned()),
            change = changes.recv() => match change {
                Ok(change) => registry.read(|cluster| change_event(cluster, &change, &units)),
                // What was missed cannot be told any more. A client that reads everything anew is right
                // again, and a queue for each slow client would take memory without bounds.
                Err(RecvError::Lagged(_)) => registry.read(|cluster| change_event(cluster, &ClusterChange::Everything, &units)),
                Err(RecvError::Closed) => return,
            },
        };
    }
}

/// The event that tells of a change; none if it is about a unit that nobody asked for.
fn change_event(cluster: &Cluster, change: &ClusterChange, units: &[String]) -> Option<String> {
    let wanted = |name: &str| units.is_empty() || units.iter().any(|unit| unit == name);
    let (kind, data) = match change {
        ClusterChange::Everything => ("reset", "{}".to_owned()),
        // Orders are between a person and the engine; what comes of them is told as units.
        ClusterChange::Order => return None,
        ClusterChange::Machine(id) => match cluster.machines.get(id) {
            Some(machine) => ("machine", to_json(&machines::to_wire(machine))),
            None => ("machine-removed", to_json(&json!({ "id": id.as_str() }))),
        },
        ClusterChange::State(name, machine) => {
            if !wanted(name.as_str()) {
                return None;
            }
            match cluster.state_on(name.as_str(), machine.as_str()) {
                Some(state) => ("state", to_json(&state::to_wire(state))),
                None => (
                    "state-removed",
                    to_json(&json!({ "machineID": machine.as_str(), "name": name.as_str() })),
                ),
            }
        }
        ClusterChange::Unit(name) => {
            if !wanted(name.as_str()) {
                return None;
            }
            match cluster.units.get(name) {
                Some(unit) => ("unit", to_json(&units::unit_without_text(cluster, unit))),
                None => ("unit-removed", to_json(&json!({ "name": name.as_str() }))),
            }
        }
    };
    Some(format!("id: {}\nevent: {kind}\ndata: {data}\n\n", cluster.revision))
}
