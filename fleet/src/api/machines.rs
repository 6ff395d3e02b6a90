//! `/machines`: the members of the cluster, and their labels.

use super::answer::{Refusal, body, decode, json};
use super::page::PageToken;
use super::schema::{Machine, MachinePage, MetadataOperation};
use super::served::Api;
use super::state::token;
use crate::lock::RebootLocks;
use crate::model::machine::{self, MachineId};
use crate::store::registry::{Command, Registry};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

/// The most operations of one request.
const MAX_OPERATIONS: usize = 1000;

/// `GET` and `PATCH /machines`
pub(super) async fn machines<R: Registry, L: RebootLocks>(
    State(api): State<Api<R, L>>,
    request: Request,
) -> Result<Response, Refusal> {
    match *request.method() {
        Method::GET => {
            let token = token(request.uri(), api.token_limit)?;
            let (machines, next) =
                token.cut(api.registry.read(|cluster| cluster.machines.values().map(to_wire).collect()));
            let next_page_token = next.map(PageToken::encode).unwrap_or_default();
            Ok(json(StatusCode::OK, &MachinePage { machines, next_page_token }))
        }
        Method::PATCH => {
            let commands = read_operations(&body(request.into_body()).await?)?;
            for command in commands {
                api.registry.execute(command).await?;
            }
            let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            Ok((StatusCode::NO_CONTENT, json).into_response())
        }
        _ => Err(Refusal::method("only GET and PATCH supported against this resource")),
    }
}

/// A machine as the wire carries it.
pub(super) fn to_wire(machine: &machine::Machine) -> Machine {
    Machine {
        draining: machine.draining,
        id: machine.id.to_string(),
        metadata: machine.metadata.clone(),
        primary_ip: machine.public_ip.clone(),
    }
}

/// All operations are looked at before the first is carried out.
fn read_operations(bytes: &[u8]) -> Result<Vec<Command>, Refusal> {
    let operations: Vec<MetadataOperation> = decode(bytes).map_err(Refusal::bad_request)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Refusal::bad_request(format!("more than {MAX_OPERATIONS} operations")));
    }
    operations.iter().map(read_operation).collect()
}

fn read_operation(operation: &MetadataOperation) -> Result<Command, Refusal> {
    if !matches!(operation.op.as_str(), "add" | "remove" | "replace") {
        return Err(Refusal::bad_request("invalid op: expect add, remove, or replace"));
    }
    let (machine, key) =
        read_path(&operation.path).ok_or_else(|| Refusal::bad_request("machine metadata path invalid"))?;
    let value = Some(operation.value.text().to_owned()).filter(|_| operation.op != "remove");
    if value.as_ref().is_some_and(String::is_empty) {
        return Err(Refusal::bad_request("invalid value: add and replace require a value"));
    }
    Ok(Command::SetMetadata { machine, key, value })
}

/// `/MACHINE/metadata/KEY`
fn read_path(path: &str) -> Option<(MachineId, String)> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let (machine, word, key) = (parts.next()?, parts.next()?, parts.next()?);
    let plain =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if word != "metadata" || parts.next().is_some() || !plain {
        return None;
    }
    Some((MachineId::parse(machine).ok()?, key.to_owned()))
}
