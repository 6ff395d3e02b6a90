//! Which path is answered by what.

use super::access;
use super::answer::Refusal;
use super::bodies;
use super::requests;
use super::served::Api;
use super::{commands, discovery, explain, fleet_lock, locks, machines, metrics, state, units, watch};
use crate::lock::RebootLocks;
use crate::store::registry::{Health, Registry};
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
pub fn router<R: Registry, L: RebootLocks>(api: Api<R, L>) -> Router {
    let version_one = version_one::<R, L>();
    Router::new()
        .nest("/fleet/v1", version_one.clone().merge(additions::<R, L>()))
        .nest("/v1-alpha", version_one)
        .route("/v1/pre-reboot", any(fleet_lock::pre_reboot))
        .route("/v1/steady-state", any(fleet_lock::steady_state))
        .route("/fleet/v1/health", any(metrics::health))
        .route("/health", any(metrics::health))
        .route("/metrics", any(metrics::metrics))
        .fallback(fallback)
        .layer(from_fn_with_state(api.clone(), available))
        .layer(from_fn(access::guard))
        .layer(from_fn_with_state(bodies::Turns::default(), bodies::read_ahead))
        .layer(from_fn_with_state(api.requests.clone(), requests::count))
        .layer(from_fn(name_server))
        .with_state(api)
}

fn version_one<R: Registry, L: RebootLocks>() -> Router<Api<R, L>> {
    Router::new()
        .route("/discovery", any(discovery::discovery))
        .route("/machines", any(machines::machines))
        .route("/state", any(state::collection))
        .route("/state/{name}", any(state::item))
        .route("/units", any(units::collection))
        .route("/units/{name}", any(units::item))
}

fn additions<R: Registry, L: RebootLocks>() -> Router<Api<R, L>> {
    Router::new()
        .route("/brake", any(commands::brake))
        .route("/explain/{name}", any(explain::explain))
        .route("/locks", any(locks::groups))
        .route("/locks/{group}", any(locks::group))
        .route("/locks/{group}/holders/{id}", any(locks::holder))
        .route("/machines/{id}/drain", any(commands::drain))
        .route("/rebalance", any(commands::rebalance))
        .route("/units/{name}/restart", any(commands::restart))
        .route("/watch", any(watch::watch))
}

/// The roots exist but take no method; nothing else exists.
async fn fallback(uri: Uri) -> Refusal {
    match uri.path() {
        "/" | "/fleet/v1" | "/v1-alpha" => Refusal::method(""),
        _ => Refusal::not_found(""),
    }
}

/// While the picture can't be trusted, the API is silent, but for what tells of that.
async fn available<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    request: Request,
    next: Next,
) -> Response {
    let always = matches!(request.uri().path(), "/health" | "/fleet/v1/health" | "/metrics");
    let message = match api.registry.health() {
        _ if always => return next.run(request).await,
        Health::Serving => return next.run(request).await,
        Health::Excluded(reason) => reason,
        Health::Registering | Health::StoreLost(_) => UNREGISTERED.to_owned(),
    };
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

async fn name_server(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    response
}
