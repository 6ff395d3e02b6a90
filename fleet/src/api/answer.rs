//! Answers: values as JSON, refusals as the error body that every client knows.

use super::schema::{ErrorBody, ErrorEntity, to_json};
use crate::model::unit_file::DecodedText;
use crate::store::registry::CommandError;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error as _;
use std::fmt::Display;

/// The largest body that is read: the largest unit file, every byte of it escaped, and room to spare.
// Eight times the largest unit file: in JSON, option by option and escaped, a file grows severalfold.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;

/// A request that is not answered as asked.
#[derive(Debug)]
pub(super) struct ApiRefusal {
    status: StatusCode,
    message: String,
}

impl ApiRefusal {
    pub(super) fn new(status: StatusCode, message: impl Display) -> Self {
        Self { status, message: message.to_string() }
    }

    pub(super) fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn refusal_message(&self) -> &str {
        &self.message
    }

    pub(super) fn wrong_method(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }
}

impl IntoResponse for ApiRefusal {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorEntity { code: self.status.as_u16(), message: self.message } };
        json_response(self.status, &body)
    }
}

impl From<CommandError> for ApiRefusal {
    fn from(error: CommandError) -> Self {
        let status = match &error {
            CommandError::Collision(_) | CommandError::Exists(_) => StatusCode::CONFLICT,
            CommandError::NotFound(_) => return Self::not_found("unit does not exist"),
            CommandError::Contended { .. } | CommandError::Store { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // What the store says goes to the log: a client could not act on it, and may not be meant to see it.
        if let Some(cause) = error.source() {
            tracing::error!(%error, %cause, "a command failed");
        }
        Self::new(status, error)
    }
}

/// A value.
pub(super) fn json_response<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let mut response = Response::new(Body::from(to_json(value)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A success that has nothing to say.
pub(super) fn empty_response(status: StatusCode) -> Response {
    status.into_response()
}

/// Reads the whole body, within bounds.
pub(super) async fn read_body(body: Body) -> Result<Bytes, ApiRefusal> {
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        // axum tells it only by its text; there is no type for it that we could name.
        let too_large = error.source().is_some_and(|cause| cause.to_string().contains("length limit"));
        if too_large {
            return ApiRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body exceeds {MAX_BODY} bytes"));
        }
        ApiRefusal::bad_request(format!("unable to read body: {error}"))
    })
}

/// Reads the first JSON value of a body; what follows it is not looked at, as it never was. Bytes that are
/// no UTF-8 are read as Go reads them: the original took unit files that were saved as Latin-1.
pub(super) fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let text = DecodedText::decode_bytes(bytes).text;
    serde_json::Deserializer::from_str(&text)
        .into_iter()
        .next()
        .unwrap_or_else(|| serde_json::from_slice(b""))
}

/// Refuses a body that does not say it is JSON.
pub(super) fn check_content_type(request: &Request) -> Result<(), ApiRefusal> {
    let unsupported = |message: String| ApiRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let values = request.headers().get_all(CONTENT_TYPE);
    let count = values.iter().count();
    let Some(value) = values.iter().next().filter(|_| count == 1) else {
        return Err(unsupported(format!("expected 1 Content-Type, got {count}")));
    };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind == "application/json" {
        return Ok(());
    }
    Err(unsupported("only acceptable Content-Type is application/json".to_owned()))
}

/// Refuses every method but this one.
pub(super) fn allow_only(method: &Method, allowed: &Method) -> Result<(), ApiRefusal> {
    if method == allowed {
        return Ok(());
    }
    Err(ApiRefusal::wrong_method(&format!("only {allowed} supported against this resource")))
}
