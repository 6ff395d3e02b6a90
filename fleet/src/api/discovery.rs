//! `/discovery`: the API described in the form that Google's client generators read.

use super::answer::ApiRefusal;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `GET /discovery`
pub(super) async fn serve_discovery(method: Method) -> Result<Response, ApiRefusal> {
    if method != Method::GET {
        return Err(ApiRefusal::bad_request("only HTTP GET supported against this resource"));
    }
    let kind = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, kind)], discovery_document().to_string()).into_response())
}

fn discovery_document() -> Value {
    json!({
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "fleet:v1",
        "name": "schema",
        "version": "v1",
        "title": "fleet API",
        "description": "",
        "documentationLink": "http://github.com/coreos/fleet",
        "protocol": "rest",
        "icons": { "x16": "", "x32": "" },
        "labels": [],
        "baseUrl": "$ENDPOINT/fleet/v1/",
        "basePath": "/fleet/v1/",
        "rootUrl": "$ENDPOINT/",
        "servicePath": "fleet/v1/",
        "batchPath": "batch",
        "parameters": {},
        "auth": {},
        "schemas": discovery_schemas(),
        "resources": discovery_resources(),
    })
}

fn discovery_schemas() -> Value {
    let text = json!({ "type": "string" });
    let state = json!({ "type": "string", "enum": ["inactive", "loaded", "launched"] });
    let list = |of: &str| json!({ "type": "array", "items": { "$ref": of } });
    let object =
        |id: &str, properties: Value| json!({ "id": id, "type": "object", "properties": properties });
    let labels = json!({ "type": "object", "properties": {}, "additionalProperties": text });
    json!({
        "Machine": object("Machine", json!({ "id": text, "primaryIP": text, "metadata": labels })),
        "MachinePage": object("MachinePage", json!({ "machines": list("Machine"), "nextPageToken": text })),
        "UnitOption": object("UnitOption", json!({ "section": text, "name": text, "value": text })),
        "Unit": object("Unit", json!({
            "name": text,
            "options": list("UnitOption"),
            "desiredState": state,
            "currentState": state,
            "machineID": text,
        })),
        "UnitPage": object("UnitPage", json!({ "units": list("Unit"), "nextPageToken": text })),
        "UnitState": object("UnitState", json!({
            "name": text,
            "hash": text,
            "machineID": text,
            "systemdLoadState": text,
            "systemdActiveState": text,
            "systemdSubState": text,
        })),
        "UnitStatePage": object("UnitStatePage", json!({ "states": list("UnitState"), "nextPageToken": text })),
    })
}

fn discovery_resources() -> Value {
    let in_query = json!({ "type": "string", "location": "query" });
    let in_path = json!({ "type": "string", "location": "path", "required": true });
    let method = |id: &str, verb: &str, path: &str, parameters: Value, request: &str, response: &str| {
        let mut method = json!({
            "id": id, "description": "", "httpMethod": verb, "path": path, "parameters": parameters,
        });
        for (key, of) in [("request", request), ("response", response)] {
            if !of.is_empty() {
                method[key] = json!({ "$ref": of });
            }
        }
        method
    };
    let page = json!({ "nextPageToken": in_query });
    let name = json!({ "unitName": in_path });
    let filters = json!({ "nextPageToken": in_query, "unitName": in_query, "machineID": in_query });
    json!({
        "Machines": { "methods": {
            "List": method("fleet.Machine.List", "GET", "machines", page.clone(), "", "MachinePage"),
        } },
        "Units": { "methods": {
            "List": method("fleet.Unit.List", "GET", "units", page, "", "UnitPage"),
            "Get": method("fleet.Unit.Get", "GET", "units/{unitName}", name.clone(), "", "Unit"),
            "Delete": method("fleet.Unit.Delete", "DELETE", "units/{unitName}", name.clone(), "", ""),
            "Set": method("fleet.Unit.Set", "PUT", "units/{unitName}", name.clone(), "Unit", ""),
        } },
        "UnitState": { "methods": {
            "List": method("fleet.UnitState.List", "GET", "state", filters, "", "UnitStatePage"),
            "Get": method("fleet.UnitState.Get", "GET", "state/{unitName}", name, "", "UnitState"),
        } },
    })
}
