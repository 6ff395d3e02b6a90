//! Refuses what a web page could make somebody's browser send: the browser is inside, its page is not.
//!
//! Three ways in, three locks. A page of another origin sends `Origin`; nobody else does. What a page may
//! send without asking first (a "simple request" of the Fetch standard) has no JSON content type and no
//! header of ours. And a page whose own name was rebound to our address is of our origin, but names a host
//! that we are not: <https://en.wikipedia.org/wiki/DNS_rebinding>. Unix sockets need none of it.

use super::answer::{ApiRefusal, check_content_type};
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// The header that the FleetLock protocol wants of every request; no page can send it unasked either.
pub(super) const FLEET_LOCK: &str = "fleet-lock-protocol";
/// What Go's fleetctl calls a host that it reaches through a tunnel.
// The name stands for no host: no page can have it, and the old clients send it.
const TUNNEL: &str = "domain-sock";

/// The address of ours that a connection was made to; `None` on a unix socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialled(pub(super) Option<IpAddr>);

/// The names by which this server may be called.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Arc<[String]>);

impl Hosts {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether this is a name of ours, with any port. The port may be another one after a forward, and no
    /// page gains by it.
    fn is_ours(&self, host: &str, dialled: Option<IpAddr>) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_dialled = address.is_ok_and(|address| {
            dialled.is_some_and(|dialled| dialled.to_canonical() == address.to_canonical())
        });
        is_dialled || name == "localhost" || name == TUNNEL || self.0.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            // An IPv6 address without brackets is no host, so a colon in front of digits begins a port.
            name
        }
        _ => host,
    }
}

/// Refuses a request for a host that this server is not.
pub(super) async fn refuse_foreign_host(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Response {
    let Some(host) = foreign_host(&request, &hosts) else { return next.run(request).await };
    let message = format!(
        "{host:?} is no name of this server: use its address, or add the name to api_hosts in fleet.conf"
    );
    ApiRefusal::new(StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// The first host that a request names and that is not ours; empty when it names none.
fn foreign_host(request: &Request, hosts: &Hosts) -> Option<String> {
    let dialled = request.extensions().get::<Dialled>().and_then(|Dialled(address)| *address);
    let in_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let in_headers = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    let named: Vec<_> = in_target.into_iter().chain(in_headers).map(String::from_utf8_lossy).collect();
    if named.is_empty() {
        return Some(String::new());
    }
    named.into_iter().find(|host| !hosts.is_ours(host, dialled)).map(std::borrow::Cow::into_owned)
}

/// Refuses what comes from a page, and what a page could have sent without being asked.
pub(super) async fn refuse_forged(request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        let message = "requests of web pages are refused: this one has an Origin";
        return ApiRefusal::new(StatusCode::FORBIDDEN, message).into_response();
    }
    match check_intent(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// What changes something must be JSON. Without a body no type is asked for, but of POST: that is the one
/// changing method that a page may send unasked.
fn check_intent(request: &Request) -> Result<(), ApiRefusal> {
    match *request.method() {
        Method::GET | Method::HEAD => return Ok(()),
        Method::POST if request.headers().contains_key(FLEET_LOCK) => return Ok(()),
        Method::POST => {}
        _ if request.body().is_end_stream() => return Ok(()),
        _ => {}
    }
    check_content_type(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_its_address_and_the_names_it_was_given() {
        let hosts = Hosts::new(vec!["Fleet.Example".to_owned()]);
        let is_ours = |host: &str, dialled: &str| hosts.is_ours(host, Some(dialled.parse().unwrap()));

        for host in
            ["10.0.0.1", "10.0.0.1:49153", "localhost:1", "LOCALHOST", "domain-sock", "fleet.example:80"]
        {
            assert!(is_ours(host, "10.0.0.1"), "{host}");
        }
        for host in ["[::1]", "[::1]:49153"] {
            assert!(is_ours(host, "::1"), "{host}");
        }
        assert!(is_ours("10.0.0.1:80", "::ffff:10.0.0.1"), "a socket of both families");
        for host in
            ["evil.example", "10.0.0.2", "", ":80", "localhost.evil.example", "10.0.0.1.evil.example", "::1"]
        {
            assert!(!is_ours(host, "10.0.0.1"), "{host}");
        }
    }
}
