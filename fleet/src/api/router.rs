//! Which path is answered by what.

use super::access;
use super::answer::ApiRefusal;
use super::bodies;
use super::requests;
use super::served::ServedApi;
use super::{commands, discovery, explain, fleet_lock, locks, machines, metrics, state, units, watch};
use crate::lock::RebootLocks;
use crate::store::registry::{Registry, StoreHealth};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{HeaderValue, SERVER};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

/// The name under which the server makes itself known.
const SERVER_NAME: &str = concat!("fleetd/", env!("CARGO_PKG_VERSION"));

/// What the original answered until its machine was registered; programs wait for these words.
const UNREGISTERED: &str = "fleet server unable to communicate with etcd";

/// The whole API as one service. Serve it with [`super::listen`], which tells it who is asking.
pub fn api_router<R: Registry, L: RebootLocks>(api: ServedApi<R, L>) -> Router {
    let version_one = version_one::<R, L>();
    Router::new()
        .nest("/fleet/v1", version_one.clone().merge(added_routes::<R, L>()))
        .nest("/v1-alpha", version_one)
        .route("/v1/pre-reboot", any(fleet_lock::pre_reboot))
        .route("/v1/steady-state", any(fleet_lock::steady_state))
        .route("/fleet/v1/health", any(metrics::serve_health))
        .route("/health", any(metrics::serve_health))
        .route("/metrics", any(metrics::serve_metrics))
        .fallback(not_found)
        .layer(from_fn_with_state(api.clone(), require_health))
        .layer(from_fn(access::authorize_request))
        .layer(from_fn_with_state(bodies::Turns::default(), bodies::read_ahead))
        .layer(from_fn_with_state(api.requests.clone(), requests::count_request))
        .layer(from_fn(name_server))
        .with_state(api)
}

fn version_one<R: Registry, L: RebootLocks>() -> Router<ServedApi<R, L>> {
    Router::new()
        .route("/discovery", any(discovery::serve_discovery))
        .route("/machines", any(machines::serve_machines))
        .route("/state", any(state::serve_states))
        .route("/state/{name}", any(state::serve_state))
        .route("/units", any(units::serve_units))
        .route("/units/{name}", any(units::serve_unit))
}

fn added_routes<R: Registry, L: RebootLocks>() -> Router<ServedApi<R, L>> {
    Router::new()
        .route("/brake", any(commands::release_brake))
        .route("/explain/{name}", any(explain::serve_explanation))
        .route("/locks", any(locks::serve_groups))
        .route("/locks/{group}", any(locks::serve_group))
        .route("/locks/{group}/holders/{id}", any(locks::serve_holder))
        .route("/machines/{id}/drain", any(commands::drain_machine))
        .route("/rebalance", any(commands::rebalance_units))
        .route("/units/{name}/restart", any(commands::restart_unit))
        .route("/watch", any(watch::serve_watch))
}

/// The roots exist but take no method; nothing else exists.
async fn not_found(uri: Uri) -> ApiRefusal {
    match uri.path() {
        "/" | "/fleet/v1" | "/v1-alpha" => ApiRefusal::wrong_method(""),
        _ => ApiRefusal::not_found(""),
    }
}

/// While the view cannot be trusted, the API refuses all but the paths that say so.
async fn require_health<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    request: Request,
    next: Next,
) -> Response {
    let always = matches!(request.uri().path(), "/health" | "/fleet/v1/health" | "/metrics");
    let message = match api.registry.health() {
        _ if always => return next.run(request).await,
        StoreHealth::Serving => return next.run(request).await,
        StoreHealth::Excluded(reason) => reason,
        StoreHealth::Registering | StoreHealth::StoreLost(_) => UNREGISTERED.to_owned(),
    };
    ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

async fn name_server(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    response
}
