//! Fetches what a document refers to, and reports what it wants reported.
//!
//! Knows one GET and one POST, bounded, with pauses that grow. Refuses to send the headers that a document gave
//! for one address to the one that a redirect leads to. Invariant: no answer is larger than its bound, and no
//! server is waited for without an end.
//!
//! Documentation: RFC 9110, "Redirection 3xx", and Ignition's `timeouts` in
//! <https://coreos.github.io/ignition/configuration-v3_6/>.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod location;

use std::cell::Cell;
use std::fmt::Debug;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use error_text::redacted_address;
use user_data::plan::step::Timeouts;
use user_data::secret::Secret;

/// Go's client, by which Ignition fetches, follows as many.
const MOST_REDIRECTS: u32 = 10;
/// For all requests of one run together, unless a document asks for another time: files and units must not wait
/// for ever, as they do under Ignition, where no time is set.
const BUDGET: Duration = Duration::from_mins(3);
/// The longest time that a document can ask for; 0, which is "no limit" to Ignition, is this, too.
const LONGEST: Duration = Duration::from_mins(30);
/// Ignition's pauses: they double up to five seconds. A server that turns away who asks too often wants such.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Ignition's time for an answer to begin.
const HEADERS: Duration = Duration::from_secs(10);
/// A whole form and its answer.
const POST: Duration = Duration::from_secs(20);

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum WebError {
    #[error("{url} is not asked any more: fetching has taken {} s already", spent.as_secs())]
    OutOfTime { url: String, spent: Duration },
    #[error("{url} answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("{url} answers with more than {most} bytes")]
    TooLarge { url: String, most: u64 },
    #[error("cannot reach {url}")]
    Unreachable { url: String, source: Box<ureq::Error> },
}

impl WebError {
    /// Whether another try may do better.
    fn is_passing(&self) -> bool {
        match self {
            // RFC 6585 for 429. All other refusals are the same a second later.
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::OutOfTime { .. } | Self::TooLarge { .. } => false,
            Self::Unreachable { .. } => true,
        }
    }
}

/// The way to the network.
pub trait WebClient: Debug {
    /// What an address holds, within the usual time.
    fn get(&self, url: &str, headers: &[(String, Secret<String>)], most: u64) -> Result<Vec<u8>, WebError> {
        self.get_within(url, headers, Timeouts::default(), most)
    }
    /// What an address holds, within the time that a document gives its server.
    fn get_within(
        &self,
        url: &str,
        headers: &[(String, Secret<String>)],
        timeouts: Timeouts,
        most: u64,
    ) -> Result<Vec<u8>, WebError>;
    /// Posts a form, so many times at most.
    fn post(&self, url: &str, form: &[(String, String)], tries: u32) -> Result<(), WebError>;
}

/// This machine's network.
#[derive(Debug)]
pub struct HttpClient {
    agent: ureq::Agent,
    /// What all requests took so far.
    spent: Cell<Duration>,
}

impl Default for HttpClient {
    fn default() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self { agent: config.into(), spent: Cell::new(Duration::ZERO) }
    }
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Until its answer begins; `None` for as long as all may take.
    headers: Option<Duration>,
    /// All tries together.
    total: Duration,
    tries: Option<u32>,
}

impl WebClient for HttpClient {
    fn get_within(
        &self,
        url: &str,
        headers: &[(String, Secret<String>)],
        timeouts: Timeouts,
        most: u64,
    ) -> Result<Vec<u8>, WebError> {
        self.retry_request(url, self.request_limits(timeouts), |limits| {
            let answer =
                self.send_request(url, headers, limits).map_err(|source| unreachable_at(url, source))?;
            let mut answer = check_status(url, answer)?;
            let mut body = Vec::new();
            // One byte more than allowed shows that there is more. `Content-Length` is only what the server
            // says.
            let read = answer.body_mut().as_reader().take(most + 1).read_to_end(&mut body);
            read.map_err(|source| unreachable_at(url, ureq::Error::Io(source)))?;
            if body.len() as u64 > most {
                Err(WebError::TooLarge { url: redacted_address(url), most })
            } else {
                Ok(body)
            }
        })
    }

    fn post(&self, url: &str, form: &[(String, String)], tries: u32) -> Result<(), WebError> {
        let total = BUDGET.saturating_sub(self.spent.get());
        let limits = Limits { headers: None, total, tries: Some(tries.max(1)) };
        self.retry_request(url, limits, |limits| {
            let pairs = form.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let request = self.agent.post(url).config().timeout_global(Some(POST.min(limits.total))).build();
            let answer = request.send_form(pairs).map_err(|source| unreachable_at(url, source))?;
            check_status(url, answer).map(drop)
        })
    }
}

type Answer = ureq::http::Response<ureq::Body>;

fn check_status(url: &str, answer: Answer) -> Result<Answer, WebError> {
    match answer.status().as_u16() {
        200..=299 => Ok(answer),
        status => Err(WebError::Status { url: redacted_address(url), status }),
    }
}

fn unreachable_at(url: &str, source: ureq::Error) -> WebError {
    WebError::Unreachable { url: redacted_address(url), source: Box::new(source) }
}

impl HttpClient {
    /// What a document asks for, and what is left of the time of all of them where it asks for nothing.
    fn request_limits(&self, timeouts: Timeouts) -> Limits {
        let seconds =
            |seconds| if seconds == 0 { LONGEST } else { Duration::from_secs(seconds).min(LONGEST) };
        let total = timeouts.total.map_or_else(|| BUDGET.saturating_sub(self.spent.get()), seconds);
        let headers = match timeouts.headers {
            None => Some(HEADERS),
            Some(0) => None,
            Some(headers) => Some(Duration::from_secs(headers)),
        };
        Limits { headers, total, tries: None }
    }

    /// One request, and one more without its headers where they lead elsewhere.
    fn send_request(
        &self,
        url: &str,
        headers: &[(String, Secret<String>)],
        limits: Limits,
    ) -> Result<Answer, ureq::Error> {
        let started = Instant::now();
        if headers.is_empty() {
            return self.follow_redirects(url, headers, limits, MOST_REDIRECTS);
        }
        let answer = self.follow_redirects(url, headers, limits, 0)?;
        let Some(location) = location::redirect_address(&answer, url) else { return Ok(answer) };
        // What was given for one host is not carried to another, nor to another path: so does Ignition.
        let total = limits.total.saturating_sub(started.elapsed());
        self.follow_redirects(&location, &[], Limits { total, ..limits }, MOST_REDIRECTS - 1)
    }

    fn follow_redirects(
        &self,
        url: &str,
        headers: &[(String, Secret<String>)],
        limits: Limits,
        redirects: u32,
    ) -> Result<Answer, ureq::Error> {
        let config = self.agent.get(url).config().max_redirects(redirects);
        let config = config.timeout_recv_response(limits.headers).timeout_connect(Some(HEADERS));
        let request = config.timeout_global(Some(limits.total)).build();
        let with = |request: ureq::RequestBuilder<_>, (name, value): &(String, Secret<String>)| {
            request.header(name.as_str(), value.reveal().as_str())
        };
        headers.iter().fold(request, with).call()
    }

    fn retry_request<T>(
        &self,
        url: &str,
        limits: Limits,
        once: impl Fn(Limits) -> Result<T, WebError>,
    ) -> Result<T, WebError> {
        let spent = self.spent.get();
        if limits.total.is_zero() {
            return Err(WebError::OutOfTime { url: redacted_address(url), spent });
        }
        let started = Instant::now();
        let (mut pause, mut tried) = (FIRST_PAUSE, 0);
        loop {
            let left = limits.total.saturating_sub(started.elapsed());
            let answer = once(Limits { total: left, ..limits });
            tried += 1;
            let may_ask = limits.tries.is_none_or(|tries| tried < tries);
            let has_time = started.elapsed() + pause < limits.total;
            if !(may_ask && has_time && answer.as_ref().is_err_and(WebError::is_passing)) {
                self.spent.set(spent + started.elapsed());
                return answer;
            }
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_sets_its_times_and_none_is_endless() {
        let web = HttpClient::default();
        web.spent.set(Duration::from_secs(170));
        let limits = |headers, total| web.request_limits(Timeouts { headers, total });

        let usual = limits(None, None);
        assert_eq!((usual.headers, usual.total), (Some(HEADERS), Duration::from_secs(10)));
        let own = limits(Some(3), Some(600));
        assert_eq!((own.headers, own.total), (Some(Duration::from_secs(3)), Duration::from_mins(10)));
        let open = limits(Some(0), Some(0));
        assert_eq!((open.headers, open.total), (None, LONGEST));
        assert_eq!(limits(None, Some(u64::MAX)).total, LONGEST);
    }
}
