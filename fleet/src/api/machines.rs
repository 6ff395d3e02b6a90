//! `/machines`: the members of the cluster, and their labels.

use super::answer::{ApiRefusal, decode_first, json_response, read_body};
use super::page::PageToken;
use super::schema::{ApiMachine, MachinePage, MetadataOperation};
use super::served::ServedApi;
use super::state::page_token;
use crate::lock::RebootLocks;
use crate::model::machine::{self, MachineId};
use crate::store::registry::{Registry, RegistryCommand};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

/// The most operations of one request.
// Each operation is a transaction of its own. A body of 4 MiB would hold some fifty thousand of them.
const MAX_OPERATIONS: usize = 1000;

/// `GET` and `PATCH /machines`
pub(super) async fn serve_machines<R: Registry, L: RebootLocks>(
    State(api): State<ServedApi<R, L>>,
    request: Request,
) -> Result<Response, ApiRefusal> {
    match *request.method() {
        Method::GET => {
            let token = page_token(request.uri(), api.token_limit)?;
            let (machines, next) =
                token.cut_page(api.registry.read(|cluster| cluster.machines.values().map(to_wire).collect()));
            let next_page_token = next.map(PageToken::encode_token).unwrap_or_default();
            Ok(json_response(StatusCode::OK, &MachinePage { machines, next_page_token }))
        }
        Method::PATCH => {
            let commands = read_operations(&read_body(request.into_body()).await?)?;
            for command in commands {
                api.registry.execute_command(command).await?;
            }
            let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            Ok((StatusCode::NO_CONTENT, json).into_response())
        }
        _ => Err(ApiRefusal::wrong_method("only GET and PATCH supported against this resource")),
    }
}

/// A machine as the wire carries it.
pub(super) fn to_wire(machine: &machine::Machine) -> ApiMachine {
    ApiMachine {
        draining: machine.draining,
        id: machine.id.to_string(),
        metadata: machine.metadata.clone(),
        primary_ip: machine.public_ip.clone(),
    }
}

/// All operations are looked at before the first is carried out.
fn read_operations(bytes: &[u8]) -> Result<Vec<RegistryCommand>, ApiRefusal> {
    let operations: Vec<MetadataOperation> = decode_first(bytes).map_err(ApiRefusal::bad_request)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiRefusal::bad_request(format!("more than {MAX_OPERATIONS} operations")));
    }
    operations.iter().map(read_operation).collect()
}

fn read_operation(operation: &MetadataOperation) -> Result<RegistryCommand, ApiRefusal> {
    if !matches!(operation.op.as_str(), "add" | "remove" | "replace") {
        return Err(ApiRefusal::bad_request("invalid op: expect add, remove, or replace"));
    }
    let (machine, key) =
        read_path(&operation.path).ok_or_else(|| ApiRefusal::bad_request("machine metadata path invalid"))?;
    let value = Some(operation.value.value_text().to_owned()).filter(|_| operation.op != "remove");
    if value.as_ref().is_some_and(String::is_empty) {
        return Err(ApiRefusal::bad_request("invalid value: add and replace require a value"));
    }
    Ok(RegistryCommand::SetMetadata { machine, key, value })
}

/// `/MACHINE/metadata/KEY`
fn read_path(path: &str) -> Option<(MachineId, String)> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let (machine, word, key) = (parts.next()?, parts.next()?, parts.next()?);
    // The key becomes a part of a key in etcd, so a slash in it would be another place.
    let plain =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if word != "metadata" || parts.next().is_some() || !plain {
        return None;
    }
    Some((MachineId::parse(machine).ok()?, key.to_owned()))
}
