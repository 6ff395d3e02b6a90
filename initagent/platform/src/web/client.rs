//! Asks one address of a service once.
//!
//! Knows requests, tokens and what each status means. Refuses to try again, or to know another address: that
//! is [`super::Service`]. Invariant: no request outlives its own time or the deadline, and no body larger
//! than its limit is kept.

use std::time::{Duration, Instant};

use ureq::{
    Agent,
    http::{Request, StatusCode},
};

use super::{Timing, WebError, without_secrets};

/// A token is a short text.
const MAX_TOKEN: u64 = 4096;

/// How a service is asked, whatever its address.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) agent: Agent,
    pub(super) redirects: u32,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) tokens: Option<TokenScheme>,
    timing: Timing,
    deadline: Instant,
}

/// How a service hands out the token that every other request must carry.
#[derive(Clone, Copy, Debug)]
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
pub(super) enum Token {
    #[default]
    Unasked,
    Held(String),
    /// The service has none to give: an older or lookalike one.
    Unsupported,
}

/// One request, below the service's address.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) limit: u64,
}

/// What became of one attempt.
pub(super) enum Outcome {
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

impl Call {
    /// Asks for what is at `path`.
    pub(super) fn get(path: &str, limit: u64) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new(), limit }
    }

    /// The address for a message: without user, password or query, which may be secrets.
    pub(super) fn shown(&self, base: &str) -> String {
        without_secrets(&format!("{base}{}", self.path))
    }
}

impl Client {
    pub(super) fn new(agent: Agent, timing: Timing, deadline: Instant) -> Self {
        Self { agent, redirects: 0, headers: Vec::new(), tokens: None, timing, deadline }
    }

    /// The longest that one attempt may take from now on, with a new token.
    pub(super) fn longest(&self) -> Duration {
        (self.timing.request * 2).min(self.left())
    }

    /// Asks the service at `base`, for a token first if need be, and gives back the token to use next.
    pub(super) fn ask(&self, base: &str, call: &Call, token: Token) -> (Outcome, Token) {
        let Some(scheme) = self.tokens else { return (self.send(base, call, None), token) };
        let token = match token {
            Token::Unasked => match self.new_token(base, scheme) {
                Ok(new) => new,
                Err(outcome) => return (outcome, Token::Unasked),
            },
            known => known,
        };
        let outcome = match &token {
            Token::Held(value) => self.send(base, call, Some((scheme.send, value))),
            Token::Unasked | Token::Unsupported => self.send(base, call, None),
        };
        let is_refused = matches!(outcome, Outcome::NewToken);
        (outcome, if is_refused { Token::Unasked } else { token })
    }

    fn new_token(&self, base: &str, scheme: TokenScheme) -> Result<Token, Outcome> {
        let (name, value) = scheme.ask;
        let headers = vec![(name.to_owned(), value.to_owned())];
        let call = Call { method: "PUT", headers, ..Call::get(scheme.path, MAX_TOKEN) };
        match self.send(base, &call, None) {
            Outcome::Done(Some(body)) => Ok(Token::Held(
                String::from_utf8_lossy(&body).trim_matches(['"', '\n', '\r', ' ']).to_owned(),
            )),
            Outcome::Done(None)
            | Outcome::NewToken
            | Outcome::Failed(WebError::Status { status: 400..=499, .. }) => Ok(Token::Unsupported),
            other => Err(other),
        }
    }

    fn send(&self, base: &str, call: &Call, token: Option<(&str, &str)>) -> Outcome {
        if self.left().is_zero() {
            return Outcome::Retry { cause: "the time is up".to_owned(), after: None };
        }
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let more = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut request = Request::builder().method(call.method).uri(format!("{base}{}", call.path));
        for (name, value) in own.chain(more).chain(token) {
            request = request.header(name, value);
        }
        match request.body(call.body.as_slice()) {
            Ok(request) => self.run(request, base, call),
            Err(error) => {
                Outcome::Failed(WebError::Address { url: call.shown(base), why: error.to_string() })
            }
        }
    }

    fn run(&self, request: Request<&[u8]>, base: &str, call: &Call) -> Outcome {
        let left = self.left();
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(self.timing.request.min(left)))
            .timeout_connect(Some(self.timing.connect.min(left)))
            .max_redirects(self.redirects)
            .build();
        let mut response = match self.agent.run(request) {
            Ok(response) => response,
            Err(error) => return failed(call.shown(base), &error),
        };
        let status = response.status();
        if !status.is_success() {
            let after =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            return unsuccessful(call.shown(base), status, after.map(Duration::from_secs));
        }
        match response.body_mut().with_config().limit(call.limit).read_to_vec() {
            Ok(body) => Outcome::Done((status != StatusCode::NO_CONTENT && !body.is_empty()).then_some(body)),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                Outcome::Failed(WebError::TooLarge { url: call.shown(base), limit: call.limit })
            }
            Err(error) => Outcome::Retry { cause: format!("the answer broke off: {error}"), after: None },
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

fn unsuccessful(url: String, status: StatusCode, after: Option<Duration>) -> Outcome {
    let status = status.as_u16();
    match status {
        404 => Outcome::Done(None),
        401 => Outcome::NewToken,
        // Azure says 410 while it moves the machine; 408 and 425 ask for a retry by name.
        408 | 410 | 425 | 429 | 500.. => {
            Outcome::Retry { cause: format!("the server answered with status {status}"), after }
        }
        _ => Outcome::Failed(WebError::Status { url, status }),
    }
}

fn failed(url: String, error: &ureq::Error) -> Outcome {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
            Outcome::Failed(WebError::Address { url, why: error.to_string() })
        }
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => Outcome::Silent(error.to_string()),
        other => Outcome::Retry { cause: other.to_string(), after: None },
    }
}
