//! Fetches what a document refers to, and tells what it wants told.
//!
//! Knows one GET and one POST, bounded and with few retries. Refuses to follow a redirect with the
//! headers that a document gave for one host. Invariant: no answer is larger than its bound.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fmt::Debug;
use std::io::Read;
use std::thread;
use std::time::Duration;

use user_data::secret::Secret;

const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum WebError {
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
            Self::TooLarge { .. } => false,
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
}

impl Default for Real {
    fn default() -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Self { agent: config.into() }
    }
}

impl Web for Real {
    fn get(&self, url: &str, headers: &[(String, Secret<String>)], most: u64) -> Result<Vec<u8>, WebError> {
        retried(TRIES, || {
            let mut request = self.agent.get(url);
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
        retried(tries, || {
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

/// The address without its query and without a password in it.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return plain.to_owned() };
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}

fn retried<T>(tries: u32, once: impl Fn() -> Result<T, WebError>) -> Result<T, WebError> {
    let mut left = tries.max(1);
    loop {
        left -= 1;
        match once() {
            Err(error) if left > 0 && error.is_passing() => thread::sleep(PAUSE),
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        assert_eq!(shown("https://me:pw@example.org/a?token=x"), "https://example.org/a");
    }
}
