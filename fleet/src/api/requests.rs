//! Counts the requests that were answered.
//!
//! Refuses to know what was asked. Invariant: counts never fall.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many requests were answered, by the first digit of their status.
#[derive(Debug, Default)]
pub struct RequestCounts([AtomicU64; 6]);

impl RequestCounts {
    /// Each class that there is, and how many it had.
    pub(super) fn by_class(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).enumerate().skip(1)
    }
}

/// Counts a request.
pub(super) async fn count_request(
    State(requests): State<Arc<RequestCounts>>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100).min(5);
    requests.0[class].fetch_add(1, Ordering::Relaxed);
    response
}
