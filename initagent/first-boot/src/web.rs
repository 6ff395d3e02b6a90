//! Fetches what a document refers to, and tells what it wants told.
//!
//! Knows one GET and one POST, bounded and with few retries. Refuses to follow a redirect with the
//! headers that a document gave for one host. Invariant: no answer is larger than its bound.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::cell::Cell;
use std::fmt::Debug;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use user_data::address::shown;
use user_data::secret::Secret;

const TRIES: u32 = 4;
const MOST_REDIRECTS: u32 = 10;
/// For all requests of one run together.
const BUDGET: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

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
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::OutOfTime { .. } | Self::TooLarge { .. } => false,
            Self::Unreachable { .. } => true,
        }
    }
}

/// The way to the network.
pub trait Web: Debug {
    /// What an address holds.
    fn get(&self, url: &str, headers: &[(String, Secret<String>)], most: u64) -> Result<Vec<u8>, WebError>;
    /// Posts a form, so many times at most.
    fn post(&self, url: &str, form: &[(String, String)], tries: u32) -> Result<(), WebError>;
}

/// This machine's network.
#[derive(Debug)]
pub struct Real {
    agent: ureq::Agent,
    /// What all requests took so far: files and units must not wait for ever.
    spent: Cell<Duration>,
}

impl Default for Real {
    fn default() -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Self { agent: config.into(), spent: Cell::new(Duration::ZERO) }
    }
}

impl Web for Real {
    fn get(&self, url: &str, headers: &[(String, Secret<String>)], most: u64) -> Result<Vec<u8>, WebError> {
        self.retried(url, TRIES, || {
            // What was given for one host is not carried to another.
            let redirects = if headers.is_empty() { MOST_REDIRECTS } else { 0 };
            let mut request = self.agent.get(url).config().max_redirects(redirects).build();
            for (name, value) in headers {
                request = request.header(name.as_str(), value.reveal().as_str());
            }
            let answer = request.call().map_err(|source| unreachable_at(url, source))?;
            let mut body = Vec::new();
            let mut answer = checked(url, answer)?;
            let read = answer.body_mut().as_reader().take(most + 1).read_to_end(&mut body);
            read.map_err(|source| unreachable_at(url, ureq::Error::Io(source)))?;
            if body.len() as u64 > most {
                Err(WebError::TooLarge { url: shown(url), most })
            } else {
                Ok(body)
            }
        })
    }

    fn post(&self, url: &str, form: &[(String, String)], tries: u32) -> Result<(), WebError> {
        self.retried(url, tries, || {
            let pairs = form.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let answer =
                self.agent.post(url).send_form(pairs).map_err(|source| unreachable_at(url, source))?;
            checked(url, answer).map(drop)
        })
    }
}

type Answer = ureq::http::Response<ureq::Body>;

fn checked(url: &str, answer: Answer) -> Result<Answer, WebError> {
    match answer.status().as_u16() {
        200..=299 => Ok(answer),
        status => Err(WebError::Status { url: shown(url), status }),
    }
}

fn unreachable_at(url: &str, source: ureq::Error) -> WebError {
    WebError::Unreachable { url: shown(url), source: Box::new(source) }
}

impl Real {
    fn retried<T>(
        &self,
        url: &str,
        tries: u32,
        once: impl Fn() -> Result<T, WebError>,
    ) -> Result<T, WebError> {
        let mut left = tries.max(1);
        loop {
            let spent = self.spent.get();
            if spent > BUDGET {
                return Err(WebError::OutOfTime { url: shown(url), spent });
            }
            left -= 1;
            let started = Instant::now();
            let answer = once();
            let again = left > 0 && answer.as_ref().is_err_and(WebError::is_passing);
            if again {
                thread::sleep(PAUSE);
            }
            self.spent.set(spent + started.elapsed());
            if !again {
                return answer;
            }
        }
    }
}
