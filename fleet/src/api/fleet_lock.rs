//! The FleetLock protocol: a machine asks before it reboots, and says when it is well again.
//!
//! Both calls may be repeated without harm. If the cluster is set up so, a machine that takes a slot is
//! emptied first: it is told to ask again until it is. Failures are `{"kind","value"}`, as the protocol
//! wants, with few kinds, since clients make metrics of them. Who has the lock role asks for itself only.

use super::answer::{ApiRefusal, decode_first, read_body};
use super::served::ServedApi;
use super::{access, forgery};
use crate::lock::semaphore::GroupName;
use crate::lock::{LockError, RebootLocks};
use crate::model::machine::MachineId;
use crate::model::state::JobState;
use crate::store::cluster::Cluster;
use crate::store::registry::DrainChange;
use crate::store::registry::{CommandError, Registry, RegistryCommand};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use std::fmt::Display;
use std::time::Duration;

/// How long a call may wait for its machine to be empty.
// Clients of FleetLock give up after a while and ask again, so that a drain which takes minutes is many
// short calls.
const DRAIN_WAIT: Duration = Duration::from_secs(20);
/// The longest id of a client.
// Room for any host name (253 characters) and for the UUIDs that the known clients send.
const MAX_ID: usize = 256;

#[derive(Deserialize)]
struct LockMessage {
    client_params: ClientParams,
}

#[derive(Deserialize)]
struct ClientParams {
    id: String,
    group: String,
}

/// A client: who, in which group.
struct LockCaller {
    id: String,
    group: GroupName,
}

struct LockFailure {
    status: StatusCode,
    kind: &'static str,
    value: String,
}

impl LockFailure {
    fn new(status: StatusCode, kind: &'static str, value: impl Display) -> Self {
        Self { status, kind, value: value.to_string() }
    }
}

impl IntoResponse for LockFailure {
    fn into_response(self) -> Response {
        let mut response =
            Response::new(Body::from(json!({ "kind": self.kind, "value": self.value }).to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<LockError> for LockFailure {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Full { .. } => Self::new(StatusCode::LOCKED, "failed_lock", error),
            LockError::Contended { .. } => Self::new(StatusCode::CONFLICT, "failed_lock", error),
            LockError::Store { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "a reboot lock failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", error)
            }
        }
    }
}

impl From<CommandError> for LockFailure {
    fn from(error: CommandError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", error)
    }
}

/// `POST /v1/pre-reboot`
pub(super) async fn pre_reboot<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    request: Request,
) -> Response {
    let outcome = async {
        let caller = read_caller(request).await?;
        // The slot before the drain: a machine that empties itself while another one reboots would do so
        // for nothing.
        api.locks.acquire(&caller.group, &caller.id, "reboot").await?;
        if api.drain_on_lock {
            empty_machine(&*api.registry, &caller.id).await?;
        }
        Ok::<(), LockFailure>(())
    };
    lock_response(outcome.await)
}

/// `POST /v1/steady-state`
pub(super) async fn steady_state<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    request: Request,
) -> Response {
    let outcome = async {
        let caller = read_caller(request).await?;
        // Undrained before the slot is free: if this fails, the caller comes again and still holds it.
        let held = api.locks.group(&caller.group).await?.slot_holder(&caller.id).is_some();
        if held && api.drain_on_lock {
            fill_machine(&*api.registry, &caller.id).await?;
        }
        api.locks.release(&caller.group, &caller.id).await?;
        Ok::<(), LockFailure>(())
    };
    lock_response(outcome.await)
}

fn lock_response(outcome: Result<(), LockFailure>) -> Response {
    match outcome {
        Ok(()) => StatusCode::OK.into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn read_caller(request: Request) -> Result<LockCaller, LockFailure> {
    if request.method() != Method::POST {
        return Err(LockFailure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "only POST is allowed",
        ));
    }
    let header = request.headers().get(forgery::FLEET_LOCK);
    if header.is_none_or(|value| value != "true") {
        let text = "header \"fleet-lock-protocol: true\" is missing";
        return Err(LockFailure::new(StatusCode::BAD_REQUEST, "missing_header", text));
    }
    let connection = access::request_caller(&request);
    let bytes = read_body(request.into_body()).await.map_err(|refusal: ApiRefusal| {
        LockFailure::new(StatusCode::BAD_REQUEST, "decode_error", refusal.refusal_message())
    })?;
    let message: LockMessage = decode_first(&bytes)
        .map_err(|error| LockFailure::new(StatusCode::BAD_REQUEST, "decode_error", error))?;
    let identity = |text: String| LockFailure::new(StatusCode::BAD_REQUEST, "invalid_client_identity", text);
    let ClientParams { id, group } = message.client_params;
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(identity(format!("the client's id must have 1 to {MAX_ID} printable bytes")));
    }
    let group = GroupName::parse(&group).map_err(|error| identity(error.to_string()))?;
    if !connection.may_hold(&id) {
        let text = format!(
            "this connection may not acquire or release the slot of {id:?}: its role is bound to another name"
        );
        return Err(LockFailure::new(StatusCode::FORBIDDEN, "forbidden", text));
    }
    Ok(LockCaller { id, group })
}

/// Drains the caller's machine and waits a while for it to be empty.
async fn empty_machine<R: Registry>(registry: &R, id: &str) -> Result<(), LockFailure> {
    let Some(machine) = cluster_member(registry, id) else { return Ok(()) };
    let mut changes = registry.subscribe_changes();
    if !registry.read(|cluster| cluster.machines.get(&machine).is_some_and(|each| each.draining)) {
        registry
            .execute_command(RegistryCommand::Drain { machine: machine.clone(), drain: DrainChange::Begin })
            .await?;
    }
    let emptied = async {
        while registry.read(|cluster| units_on(cluster, &machine)) > 0 {
            // Whatever changed, or how much of it was missed: look again.
            let _ = changes.recv().await;
        }
    };
    if tokio::time::timeout(DRAIN_WAIT, emptied).await.is_ok() {
        return Ok(());
    }
    let left = registry.read(|cluster| units_on(cluster, &machine));
    let text =
        format!("the slot is yours, but {left} units are still on machine {}; ask again", machine.short_id());
    Err(LockFailure::new(StatusCode::SERVICE_UNAVAILABLE, "drain_pending", text))
}

async fn fill_machine<R: Registry>(registry: &R, id: &str) -> Result<(), LockFailure> {
    let Ok(machine) = MachineId::parse(id) else { return Ok(()) };
    if registry.read(|cluster| cluster.machines.get(&machine).is_none_or(|each| each.draining)) {
        registry.execute_command(RegistryCommand::Drain { machine, drain: DrainChange::End }).await?;
    }
    Ok(())
}

/// The machine that the caller is, if it is one of ours.
fn cluster_member<R: Registry>(registry: &R, id: &str) -> Option<MachineId> {
    let machine = MachineId::parse(id).ok()?;
    registry.read(|cluster| cluster.machines.contains_key(&machine)).then_some(machine)
}

fn units_on(cluster: &Cluster, machine: &MachineId) -> usize {
    let assigned =
        cluster.assignments.iter().filter(|(_, assignment)| assignment.machine == *machine).count();
    // A unit without an assignment may still be stopping here, and a reboot would kill it.
    let lingering = cluster.all_states().filter(|state| {
        state.machine == *machine
            && state.job == JobState::Launched
            && cluster.units.get(&state.name).is_none_or(|unit| !unit.is_global())
    });
    assigned.max(lingering.count())
}
