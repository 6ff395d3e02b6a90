//! Reads the bodies of requests, within bounds of size, time and memory.
//!
//! Who may not change anything needs no large body; who may has to send it in time, and only so many large
//! ones are held at once. Refuses to know what is in them. Invariant: whatever clients send, bodies take no
//! more memory than [`LARGE_AT_ONCE`] of the largest and a small one for each connection.

use super::access::{self, AccessRole};
use super::answer::{ApiRefusal, MAX_BODY};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::StreamExt as _;

/// The largest body of who changes no unit, and of any request before it has to wait for its turn.
// All that is asked without changing a unit is below it: a FleetLock message has some hundred bytes.
const SMALL: usize = 64 * 1024;
/// How many larger bodies are held at once: together 32 MiB, which a small machine can spare.
const LARGE_AT_ONCE: usize = 8;
/// How long a body may take: 4 MiB over one megabit a second, and a little more.
const DEADLINE: Duration = Duration::from_secs(40);

/// Turns for large bodies.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_AT_ONCE)))
    }
}

/// Reads the body before anybody may refuse the request: a client that is still sending when the
/// connection closes would see a broken pipe in place of the refusal. Of who may not ask for this, only a
/// small body is read; who has no role is not listened to.
pub(super) async fn read_ahead(State(turns): State<Turns>, request: Request, next: Next) -> Response {
    // Before a byte is read, so that who has no role costs no memory.
    let access = access::request_role(&request);
    if access == AccessRole::None {
        return close_connection(next.run(request).await);
    }
    let may_be_large =
        access == AccessRole::Admin && !matches!(*request.method(), Method::GET | Method::HEAD);
    let (limit, allowed) = (if may_be_large { MAX_BODY } else { SMALL }, access::check_access(&request));
    let (head, body) = request.into_parts();
    let outcome = tokio::time::timeout(DEADLINE, collect_body(body, limit, &turns.0)).await;
    let late = || {
        let message = format!("the body did not arrive within {} s", DEADLINE.as_secs());
        ApiRefusal::new(StatusCode::REQUEST_TIMEOUT, message)
    };
    match (allowed, outcome.unwrap_or_else(|_| Err(late()))) {
        (Ok(()), Ok((bytes, _turn))) => next.run(Request::from_parts(head, bytes.into())).await,
        (Err(refusal), Ok(_)) => refusal.into_response(),
        (Err(refusal), Err(_)) | (Ok(()), Err(refusal)) => close_connection(refusal.into_response()),
    }
}

/// What is left of the request is not read, so that nothing can follow it.
fn close_connection(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The whole body, and the turn that a large one has as long as it is held.
async fn collect_body(
    body: Body,
    limit: usize,
    turns: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiRefusal> {
    let mut chunks = body.into_data_stream();
    let (mut all, mut turn) = (Vec::new(), None);
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiRefusal::bad_request(format!("unable to read body: {error}")))?;
        let size = all.len() + chunk.len();
        if size > limit {
            return Err(ApiRefusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("body exceeds {limit} bytes"),
            ));
        }
        // The turn is asked for by what has arrived and not by Content-Length, which a client may leave out
        // or get wrong.
        if size > SMALL && turn.is_none() {
            // The semaphore is never closed.
            turn = turns.clone().acquire_owned().await.ok();
        }
        all.extend_from_slice(&chunk);
    }
    Ok((all.into(), turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(
        size: usize,
        limit: usize,
        turns: &Turns,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiRefusal> {
        let body = Body::from(vec![b' '; size]);
        collect_body(body, limit, &turns.0).await.map(|(bytes, turn)| {
            assert_eq!(bytes.len(), size);
            turn
        })
    }

    #[tokio::test]
    async fn large_bodies_wait_for_their_turn_and_small_ones_do_not() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..LARGE_AT_ONCE {
            held.push(read(MAX_BODY, MAX_BODY, &turns).await.unwrap().unwrap());
        }

        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, read(SMALL + 1, MAX_BODY, &turns)).await.is_err());
        assert!(read(SMALL, MAX_BODY, &turns).await.unwrap().is_none());
        held.pop();
        assert!(read(SMALL + 1, MAX_BODY, &turns).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        assert!(read(SMALL + 1, SMALL, &Turns::default()).await.is_err());
    }
}
