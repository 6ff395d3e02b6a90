//! `/metrics` and `/health`: the cluster for those who watch it from outside.

use super::answer::{ApiRefusal, allow_only, json_response};
use super::served::ServedApi;
use crate::lock::RebootLocks;
use crate::model::state::JobState;
use crate::store::cluster::Cluster;
use crate::store::registry::{Registry, StoreHealth};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// `GET /metrics`
pub(super) async fn serve_metrics<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::GET)?;
    let mut text = api.registry.read(cluster_metrics);
    push_gauge(
        &mut text,
        "fleet_api_available",
        "Whether the API answers.",
        u64::from(api.registry.health() == StoreHealth::Serving),
    );
    metric_head(&mut text, "fleet_api_requests_total", "counter", "Requests answered, by class of status.");
    for (class, count) in api.requests.by_class() {
        let _ = writeln!(text, "fleet_api_requests_total{{code=\"{class}xx\"}} {count}");
    }
    if let Some(more) = &api.more_metrics {
        more(&mut text);
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// `GET /health`: 200 while the API answers, 503 while it does not, and why.
pub(super) async fn serve_health<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    method: Method,
) -> Result<Response, ApiRefusal> {
    allow_only(&method, &Method::GET)?;
    let (status, reason) = match api.registry.health() {
        StoreHealth::Serving => (StatusCode::OK, String::new()),
        StoreHealth::Registering => {
            (StatusCode::SERVICE_UNAVAILABLE, "this machine is not registered yet".to_owned())
        }
        StoreHealth::Excluded(reason) | StoreHealth::StoreLost(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    };
    let body = api.registry.read(|cluster| {
        json!({
            "brake": cluster.brake,
            "healthy": status == StatusCode::OK,
            "leader": cluster.leader.as_ref().map(ToString::to_string).unwrap_or_default(),
            "reason": reason,
            "revision": cluster.revision,
            "warnings": api.warnings,
        })
    });
    Ok(json_response(status, &body))
}

fn cluster_metrics(cluster: &Cluster) -> String {
    let mut text = String::new();
    push_gauge(&mut text, "fleet_machines", "Machines that are present.", cluster.machines.len() as u64);
    let draining = cluster.machines.values().filter(|machine| machine.draining).count();
    push_gauge(&mut text, "fleet_machines_draining", "Machines that are being emptied.", draining as u64);
    metric_head(&mut text, "fleet_units", "gauge", "Submitted units, by wanted state.");
    for state in [JobState::Inactive, JobState::Loaded, JobState::Launched] {
        let count = cluster.units.values().filter(|unit| unit.desired == state).count();
        let _ = writeln!(text, "fleet_units{{desired=\"{state}\"}} {count}");
    }
    let waiting = cluster.units.values().filter(|unit| {
        unit.desired != JobState::Inactive
            && !unit.is_global()
            && !unit.name.is_template()
            && cluster.target_of(unit.name.as_str()).is_none()
    });
    push_gauge(&mut text, "fleet_units_waiting", "Units that no machine has taken.", waiting.count() as u64);
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for state in cluster.all_states() {
        *states.entry(state.active.as_str()).or_default() += 1;
    }
    metric_head(&mut text, "fleet_unit_states", "gauge", "Units on machines, by what systemd says.");
    for (active, count) in states {
        let _ = writeln!(text, "fleet_unit_states{{active={active:?}}} {count}");
    }
    push_gauge(
        &mut text,
        "fleet_engine_leader_known",
        "Whether an engine leads.",
        u64::from(cluster.leader.is_some()),
    );
    push_gauge(
        &mut text,
        "fleet_engine_brake",
        "Whether the engine holds still.",
        u64::from(!cluster.brake.is_empty()),
    );
    text
}

fn metric_head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn push_gauge(text: &mut String, name: &str, help: &str, value: u64) {
    metric_head(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {value}");
}
