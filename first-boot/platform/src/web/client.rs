//! Asks one address of a service once.
//!
//! Knows requests, tokens and what each status means. Refuses to try again, or to know another address: that
//! is [`super::MetadataService`]. Invariant: no request outlives its own time or the deadline, and no body larger
//! than its limit is kept.
//!
//! Documentation: RFC 9110, sections 10.2.3 and 15.

use std::time::{Duration, Instant};

use error_text::redacted_address;
use ureq::{
    Agent,
    http::{Request, StatusCode},
};

use super::{WebError, WebTiming};

/// A token is a short text.
// EC2's tokens have less than a hundred letters.
const MAX_TOKEN: u64 = 4096;

/// How a service is asked, whatever its address.
#[derive(Debug, Clone)]
pub(super) struct ServiceClient {
    pub(super) agent: Agent,
    pub(super) redirects: u32,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) tokens: Option<TokenScheme>,
    timing: WebTiming,
    deadline: Instant,
}

/// How a service hands out the token that every other request must carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenScheme {
    /// Where to PUT the request for one.
    pub(crate) path: &'static str,
    /// The header to ask with.
    pub(crate) ask: (&'static str, &'static str),
    /// The header that carries the token.
    pub(crate) send: &'static str,
}

/// The token of one address.
#[derive(Debug, Default)]
pub(super) enum SessionToken {
    #[default]
    Unasked,
    Held(String),
    /// The service has none to give: an older or lookalike one.
    Unsupported,
}

/// One request, below the service's address.
#[derive(Debug, Clone)]
pub(super) struct ServiceCall {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) limit: u64,
}

/// What became of one attempt.
pub(super) enum AttemptOutcome {
    Done(Option<Vec<u8>>),
    Failed(WebError),
    NewToken,
    Retry {
        cause: String,
        after: Option<Duration>,
    },
    /// Nobody is listening at this address, so another one may be tried at once.
    Silent(String),
}

impl ServiceCall {
    /// Asks for what is at `path`.
    pub(super) fn get_path(path: &str, limit: u64) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new(), limit }
    }

    /// The address for a message: without user, password or query, which may be secrets.
    pub(super) fn shown_address(&self, base: &str) -> String {
        redacted_address(&format!("{base}{}", self.path))
    }
}

impl ServiceClient {
    pub(super) fn new(agent: Agent, timing: WebTiming, deadline: Instant) -> Self {
        Self { agent, redirects: 0, headers: Vec::new(), tokens: None, timing, deadline }
    }

    /// The longest that one attempt may take from now on, with a new token.
    pub(super) fn longest_attempt(&self) -> Duration {
        // A token that was refused is asked for anew, and that is a request of its own.
        (self.timing.request * 2).min(self.time_left())
    }

    /// Asks the service at `base`, for a token first if need be, and gives back the token to use next.
    pub(super) fn call_service(
        &self,
        base: &str,
        call: &ServiceCall,
        token: SessionToken,
    ) -> (AttemptOutcome, SessionToken) {
        let Some(scheme) = self.tokens else { return (self.send_call(base, call, None), token) };
        let token = match token {
            SessionToken::Unasked => match self.new_token(base, scheme) {
                Ok(new) => new,
                Err(outcome) => return (outcome, SessionToken::Unasked),
            },
            known => known,
        };
        let outcome = match &token {
            SessionToken::Held(value) => self.send_call(base, call, Some((scheme.send, value))),
            SessionToken::Unasked | SessionToken::Unsupported => self.send_call(base, call, None),
        };
        let is_refused = matches!(outcome, AttemptOutcome::NewToken);
        (outcome, if is_refused { SessionToken::Unasked } else { token })
    }

    fn new_token(&self, base: &str, scheme: TokenScheme) -> Result<SessionToken, AttemptOutcome> {
        let (name, value) = scheme.ask;
        let headers = vec![(name.to_owned(), value.to_owned())];
        let call = ServiceCall { method: "PUT", headers, ..ServiceCall::get_path(scheme.path, MAX_TOKEN) };
        match self.send_call(base, &call, None) {
            AttemptOutcome::Done(Some(body)) => Ok(SessionToken::Held(
                String::from_utf8_lossy(&body).trim_matches(['"', '\n', '\r', ' ']).to_owned(),
            )),
            AttemptOutcome::Done(None)
            | AttemptOutcome::NewToken
            // Lookalikes have no such address, and answer as they do to any unknown PUT. cloud-init goes on
            // without, too.
            | AttemptOutcome::Failed(WebError::Status { status: 400..=499, .. }) => {
                Ok(SessionToken::Unsupported)
            }
            other => Err(other),
        }
    }

    fn send_call(&self, base: &str, call: &ServiceCall, token: Option<(&str, &str)>) -> AttemptOutcome {
        if self.time_left().is_zero() {
            return AttemptOutcome::Retry { cause: "the time is up".to_owned(), after: None };
        }
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let more = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut request = Request::builder().method(call.method).uri(format!("{base}{}", call.path));
        for (name, value) in own.chain(more).chain(token) {
            request = request.header(name, value);
        }
        match request.body(call.body.as_slice()) {
            Ok(request) => self.run_request(request, base, call),
            Err(error) => AttemptOutcome::Failed(WebError::Address {
                url: call.shown_address(base),
                why: error.to_string(),
            }),
        }
    }

    fn run_request(&self, request: Request<&[u8]>, base: &str, call: &ServiceCall) -> AttemptOutcome {
        let left = self.time_left();
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(self.timing.request.min(left)))
            .timeout_connect(Some(self.timing.connect.min(left)))
            .max_redirects(self.redirects)
            .build();
        let mut response = match self.agent.run(request) {
            Ok(response) => response,
            Err(error) => return error_outcome(call.shown_address(base), &error),
        };
        let status = response.status();
        if !status.is_success() {
            let after =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            return status_outcome(call.shown_address(base), status, after.map(Duration::from_secs));
        }
        match response.body_mut().with_config().limit(call.limit).read_to_vec() {
            Ok(body) => {
                // Hetzner answers 204 where there is no user-data.
                AttemptOutcome::Done((status != StatusCode::NO_CONTENT && !body.is_empty()).then_some(body))
            }
            Err(ureq::Error::BodyExceedsLimit(_)) => AttemptOutcome::Failed(WebError::TooLarge {
                url: call.shown_address(base),
                limit: call.limit,
            }),
            Err(error) => {
                AttemptOutcome::Retry { cause: format!("the answer broke off: {error}"), after: None }
            }
        }
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

fn status_outcome(url: String, status: StatusCode, after: Option<Duration>) -> AttemptOutcome {
    let status = status.as_u16();
    match status {
        404 => AttemptOutcome::Done(None),
        401 => AttemptOutcome::NewToken,
        // Azure says 410 while it moves the machine; 408 and 425 ask for a retry by name.
        408 | 410 | 425 | 429 | 500.. => {
            AttemptOutcome::Retry { cause: format!("the server answered with status {status}"), after }
        }
        _ => AttemptOutcome::Failed(WebError::Status { url, status }),
    }
}

fn error_outcome(url: String, error: &ureq::Error) -> AttemptOutcome {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
            AttemptOutcome::Failed(WebError::Address { url, why: error.to_string() })
        }
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => AttemptOutcome::Silent(error.to_string()),
        other => AttemptOutcome::Retry { cause: other.to_string(), after: None },
    }
}
