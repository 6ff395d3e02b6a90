//! Asks a metadata service over HTTP, again and again until it answers or the time is up.
//!
//! Knows deadlines, pauses, tokens and what each status means: 404 is "nothing there", 401 wants a
//! new token, 429 and 5xx want patience. Refuses to know what is asked for.
//! Invariant: no call outlives the total deadline, and no body larger than its limit is kept.
//!
//! Documentation: RFC 9110 for status codes and `Retry-After`, RFC 8305 for racing addresses.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod client;
mod link_local;
mod privileged_port;

use std::{
    cell::{Cell, RefCell},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use ureq::{Agent, config::Config, unversioned::transport::DefaultConnector};

use self::{
    client::{AttemptOutcome, ServiceCall, ServiceClient, SessionToken},
    link_local::LinkLocalResolver,
    privileged_port::PrivilegedPort,
};

pub(crate) use self::{client::TokenScheme, link_local::link_local_bases};

/// The largest metadata document read; real ones are a few KiB.
pub(crate) const MAX_METADATA: u64 = 1 << 20;
/// The largest user-data read; no cloud takes more than a few MiB.
// EC2 takes 16 KiB, Azure 64 KiB and Google 256 KiB. Volumes and web servers have no limit, so this is one.
pub(crate) const MAX_USER_DATA: u64 = 16 << 20;

/// How long one address may take before the next is asked as well: what browsers give IPv6 (RFC 8305).
// Addresses were asked one after the other at first. One that swallowed packets cost its whole time before
// the next.
const HEAD_START: Duration = Duration::from_millis(250);

/// A token that is refused this often in one fetch is not going to be accepted.
// One refusal may be a token that has expired, so cloud-init asks for a new one, too. More are another fault.
const MAX_REFUSED_TOKENS: u32 = 3;
const MAX_REDIRECTS: u32 = 5;

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebTiming {
    /// For a connection to one address.
    pub connect: Duration,
    /// For one request with its whole answer.
    pub request: Duration,
    /// For everything one platform is asked.
    pub total: Duration,
    /// Before the first retry; each later pause is twice as long.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum WebError {
    #[error("cannot fetch {url}: {why}")]
    Address { url: String, why: String },
    #[error("cannot fetch {url}: the server answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("cannot fetch {url}: the answer is larger than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    #[error("gave up fetching {url} after {attempts} attempts in {waited:.1?}: {cause}")]
    GaveUp { url: String, attempts: u32, waited: Duration, cause: String },
}

/// The way to metadata services, with one total deadline that starts when it is made.
#[derive(Debug)]
pub struct MetadataWeb {
    agent: Agent,
    timing: WebTiming,
    started: Instant,
    seed: Cell<u64>,
    instead: Option<Vec<String>>,
}

/// One metadata service, at one of several addresses.
#[derive(Debug)]
pub(crate) struct MetadataService<'w> {
    web: &'w MetadataWeb,
    client: ServiceClient,
    bases: Vec<String>,
    /// The address that answered; from then on the only one asked.
    answering: Cell<Option<usize>>,
    token: RefCell<SessionToken>,
}

impl Default for WebTiming {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            request: Duration::from_secs(10),
            // cloud-init waits two minutes for most clouds, too.
            total: Duration::from_mins(2),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl MetadataWeb {
    /// Ready to ask; `seed` decides the jitter of the pauses, so that a rack of machines that
    /// start together does not ask together.
    #[must_use]
    pub fn new(timing: WebTiming, seed: u64) -> Self {
        Self {
            agent: Agent::with_parts(client_config(), DefaultConnector::new(), LinkLocalResolver::default()),
            timing,
            started: Instant::now(),
            // xorshift never leaves the state zero.
            seed: Cell::new(seed | 1),
            instead: None,
        }
    }

    /// Asks these addresses whatever platform is detected: a local server in a test, or a proxy
    /// that an operator runs.
    #[must_use]
    pub fn redirected_to(mut self, bases: Vec<String>) -> Self {
        self.instead = Some(bases);
        self
    }

    /// The metadata service at any of `bases`, which end without a slash.
    pub(crate) fn metadata_service(&self, bases: &[&str]) -> MetadataService<'_> {
        let bases = self.instead.clone().unwrap_or_else(|| bases.iter().map(ToString::to_string).collect());
        MetadataService {
            web: self,
            client: ServiceClient::new(self.agent.clone(), self.timing, self.started + self.timing.total),
            bases,
            answering: Cell::new(None),
            token: RefCell::default(),
        }
    }

    /// The file at an address that a person wrote, where redirects are normal; `None` when the
    /// server has none.
    pub fn get_url(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>, WebError> {
        self.service_at(url).get_bounded("", limit)
    }

    /// Posts to an address that a platform named.
    pub(crate) fn post_page(&self, url: &str, body: &[u8]) -> Result<(), WebError> {
        self.service_at(url).send_body("POST", "", &[("Content-Type", "application/json")], body).map(drop)
    }

    fn service_at(&self, url: &str) -> MetadataService<'_> {
        let mut service = self.metadata_service(&[]);
        service.bases = vec![url.to_owned()];
        service.client.redirects = MAX_REDIRECTS;
        service
    }

    fn time_left(&self) -> Duration {
        self.timing.total.saturating_sub(self.started.elapsed())
    }

    /// Twice as long each time, and somewhere between half and all of that.
    fn retry_pause(&self, attempt: u32) -> Duration {
        let longest =
            // A larger shift would overflow long after the longest pause is reached.
            self.timing.first_pause.saturating_mul(1 << attempt.min(16)).min(self.timing.longest_pause);
        // Half of the pause is fixed, so that no client hammers. Half is random, so that a rack does not ask
        // in step.
        longest / 2 + (longest / 2).mul_f64(self.random_fraction())
    }

    /// Between 0 and 1, by xorshift.
    fn random_fraction(&self) -> f64 {
        let mut state = self.seed.get();
        // Marsaglia's triple for 64 bits. Jitter needs no better numbers, so it needs no crate.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.seed.set(state);
        f64::from(u32::try_from(state >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

impl MetadataService<'_> {
    /// Sends this header with every request.
    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.client.headers.push((name, value.to_owned()));
        self
    }

    /// Tries these addresses too, unless the service was redirected.
    pub(crate) fn or_at(mut self, bases: Vec<String>) -> Self {
        if self.web.instead.is_none() {
            self.bases.extend(bases);
        }
        self
    }

    /// Asks from a source port that only root may use.
    pub(crate) fn with_privileged_port(mut self) -> Self {
        self.client.agent = Agent::with_parts(client_config(), PrivilegedPort, LinkLocalResolver::default());
        self
    }

    /// Gets a token first and sends it with every request.
    pub(crate) fn with_token(mut self, scheme: TokenScheme) -> Self {
        self.client.tokens = Some(scheme);
        self
    }

    /// A metadata item; `None` when the service has none.
    pub(crate) fn get_item(&self, path: &str) -> Result<Option<Vec<u8>>, WebError> {
        self.get_bounded(path, MAX_METADATA)
    }

    /// User-data or vendor-data; `None` when the service has none.
    pub(crate) fn get_data(&self, path: &str) -> Result<Option<Vec<u8>>, WebError> {
        self.get_bounded(path, MAX_USER_DATA)
    }

    /// A metadata item that is one line of text; `None` when the service has none.
    pub(crate) fn get_text(&self, path: &str) -> Result<Option<String>, WebError> {
        let text = self.get_item(path)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Tells the service something.
    pub(crate) fn send_body(
        &self,
        method: &'static str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, WebError> {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let headers = headers.iter().map(own).collect();
        let (path, body) = (path.to_owned(), body.to_owned());
        self.fetch_with_retries(&ServiceCall { method, path, headers, body, limit: MAX_METADATA })
    }

    fn get_bounded(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, WebError> {
        self.fetch_with_retries(&ServiceCall::get_path(path, limit))
    }

    fn fetch_with_retries(&self, call: &ServiceCall) -> Result<Option<Vec<u8>>, WebError> {
        let mut refused_tokens = 0;
        let mut attempt = 0;
        loop {
            let (cause, pause) = match self.ask_any(call) {
                AttemptOutcome::Done(body) => return Ok(body),
                AttemptOutcome::Failed(error) => return Err(error),
                AttemptOutcome::NewToken if refused_tokens < MAX_REFUSED_TOKENS => {
                    refused_tokens += 1;
                    continue;
                }
                AttemptOutcome::NewToken => {
                    return Err(WebError::Status { url: self.shown_address(call), status: 401 });
                }
                AttemptOutcome::Retry { cause, after } => (cause, after.unwrap_or_default()),
                AttemptOutcome::Silent(cause) => (cause, Duration::ZERO),
            };
            let pause = pause.max(self.web.retry_pause(attempt));
            attempt += 1;
            if pause >= self.web.time_left() {
                let waited = self.web.started.elapsed();
                return Err(WebError::GaveUp {
                    url: self.shown_address(call),
                    attempts: attempt,
                    waited,
                    cause,
                });
            }
            thread::sleep(pause);
        }
    }

    /// Asks the address that answered before, or all of them until one does.
    fn ask_any(&self, call: &ServiceCall) -> AttemptOutcome {
        let Some(index) = self.answering.get() else { return self.race_addresses(call) };
        let (outcome, token) = self.client.call_service(&self.bases[index], call, self.token.take());
        self.token.replace(token);
        outcome
    }

    /// The first address at which anybody answers. The next one is asked when those before are silent, or
    /// have taken longer than an answer from nearby does; who loses ends by its own deadline.
    fn race_addresses(&self, call: &ServiceCall) -> AttemptOutcome {
        let (sender, answers) = mpsc::channel();
        let mut silent = AttemptOutcome::Silent("nobody answered".to_owned());
        let mut asked = 0;
        let mut unanswered = 0;
        loop {
            if let Some(base) = self.bases.get(asked) {
                let (client, base, call, sender) =
                    (self.client.clone(), base.clone(), call.clone(), sender.clone());
                let index = asked;
                // Nobody listens any more to who comes late.
                thread::spawn(move || {
                    sender.send((index, client.call_service(&base, &call, SessionToken::Unasked))).ok()
                });
                asked += 1;
                unanswered += 1;
            }
            if unanswered == 0 {
                return silent;
            }
            let is_last = asked == self.bases.len();
            // The last address has no successor to hurry for, so it gets its whole time.
            let patience = if is_last { self.client.longest_attempt() } else { HEAD_START };
            match answers.recv_timeout(patience) {
                Ok((_, (outcome @ AttemptOutcome::Silent(_), _))) => {
                    unanswered -= 1;
                    silent = outcome;
                }
                Ok((index, (outcome, token))) => {
                    self.answering.set(Some(index));
                    self.token.replace(token);
                    return outcome;
                }
                Err(_) if is_last => return silent,
                Err(_) => {}
            }
        }
    }

    /// The address for a message: without user, password or query, which may be secrets.
    fn shown_address(&self, call: &ServiceCall) -> String {
        let base = self.bases.get(self.answering.get().unwrap_or(0)).map_or("", String::as_str);
        call.shown_address(base)
    }
}

/// Now; 1970 if the clock is before it.
pub(crate) fn current_time() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// No proxy and no redirects: a metadata service is at its own address or nowhere.
fn client_config() -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        // `http_proxy` in the environment would hand the instance's credentials to the proxy.
        .proxy(None)
        // A service that could redirect could make root ask any address. Addresses that a person wrote set
        // their own number.
        .max_redirects(0)
        .max_idle_connections_per_host(1)
        .user_agent("initagent")
        .accept("*/*")
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_never_alike() {
        let web = MetadataWeb::new(WebTiming::default(), 7);

        let pauses: Vec<Duration> = (0..8).map(|attempt| web.retry_pause(attempt)).collect();

        assert!(pauses[0] >= Duration::from_millis(100) && pauses[0] <= Duration::from_millis(200));
        assert!(pauses[7] >= Duration::from_millis(2500) && pauses[7] <= Duration::from_secs(5));
        assert_ne!(web.retry_pause(7), web.retry_pause(7));
    }
}
