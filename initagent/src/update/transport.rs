//! Fetches the files of a repository from its mirrors, none of which is trusted.
//!
//! Knows web servers and folders (a USB stick, an air-gapped copy). Refuses to judge what it fetched: the caller
//! does, by signature or digest. Limits hold against a hostile mirror: a body is never longer than asked for, a
//! request never takes longer than its size allows, redirects are few and never lead from https to http, and a
//! connection that breaks goes on where it broke, as long as the server offers ranges.
//! Invariant: one mirror that fails, for whatever reason, costs a bounded time and bounded memory.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use error_text::redacted_address;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

/// A server that does not answer for so long is away.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// What any request may take, beside the time for its bytes.
const REQUEST_PATIENCE: Duration = Duration::from_secs(20);
/// The slowest line that is put up with. A server that sends a byte now and then (slow loris) is cut off.
const SLOWEST: u64 = 8 << 10;
/// Attempts at one file on one mirror.
const ATTEMPTS: u32 = 4;
/// A connection that brought less than this counts as a failed attempt.
const LEAST_PROGRESS: usize = 16 << 10;
/// A bucket behind a front end redirects once; more than a few is a loop.
const MAX_REDIRECTS: u32 = 3;

/// A place that holds a copy of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A web server.
    Web(String),
}

/// All places that hold it, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct Mirrors {
    places: Vec<Mirror>,
    agent: Agent,
    /// The shortest pause before another attempt; nothing in tests.
    pause: Duration,
}

/// Why a file could not be fetched from one mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchFileError {
    #[error("{address} answered with status {status}")]
    Answer { address: String, status: u16 },
    #[error("{address} is not an address that can be asked: {why}")]
    Address { address: String, why: String },
    #[error("{address} has other bytes than the signed channel promises")]
    Forged { address: String },
    #[error("{address} is not there")]
    Missing { address: String },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{address} redirects to {to}, which is not followed")]
    Redirect { address: String, to: String },
    #[error("{address} is longer than the {limit} bytes that it may have")]
    TooLong { address: String, limit: u64 },
    #[error("cannot fetch {address}")]
    Unreachable { address: String, source: Box<ureq::Error> },
}

/// Why no mirror gave a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("no update server is configured: set SERVER in /etc/coreos/update.conf, or name a folder")]
    NoMirror,
    #[error("no mirror has {path}")]
    Nowhere { path: String, source: FetchFileError },
}

impl FetchFileError {
    /// Whether the mirror says for sure that it does not have the file.
    pub(crate) const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl Mirror {
    /// Reads an address: a folder begins with `/` or `file:`.
    pub(crate) fn parse(address: &str) -> Self {
        let folder = address.strip_prefix("file://").or_else(|| address.strip_prefix("file:"));
        match folder {
            Some(folder) => Self::Folder(folder.into()),
            None if address.starts_with('/') || address.starts_with('.') => Self::Folder(address.into()),
            None => Self::Web(address.trim_end_matches('/').to_owned()),
        }
    }
}

impl std::fmt::Display for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Web(address) => f.write_str(&redacted_address(address)),
        }
    }
}

impl Mirrors {
    /// Mirrors at these addresses, through the proxies that curl's variables name.
    pub(crate) fn new(
        addresses: &[String],
        proxies: &BTreeMap<String, String>,
    ) -> Result<Self, FetchFileError> {
        Ok(Self {
            places: addresses.iter().map(|address| Mirror::parse(address)).collect(),
            agent: build_agent(proxies)?,
            pause: Duration::from_millis(500),
        })
    }

    /// How many there are.
    pub(crate) fn count_mirrors(&self) -> usize {
        self.places.len()
    }

    /// One of them, for messages.
    pub(crate) fn mirror_name(&self, index: usize) -> String {
        self.places.get(index).map(ToString::to_string).unwrap_or_default()
    }

    /// Fetches a file from one mirror.
    pub(crate) fn fetch_from(&self, index: usize, path: &str, limit: u64) -> Result<Vec<u8>, FetchFileError> {
        match self.places.get(index) {
            Some(Mirror::Folder(folder)) => read_file(&folder.join(path), limit),
            Some(Mirror::Web(address)) => self.download_file(&format!("{address}/{path}"), limit),
            None => Err(FetchFileError::Missing { address: path.to_owned() }),
        }
    }

    fn download_file(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchFileError> {
        let (mut bytes, mut attempt, mut most) = (Vec::new(), 0, 0);
        let began = Instant::now();
        loop {
            let failed = match self.request_range(url, limit, &mut bytes) {
                Ok(()) => return Ok(bytes),
                Err(error) => error,
            };
            // Only what was never reached before counts, or a mirror that sends a byte a connection, or always the
            // same ones, would be asked for ever.
            attempt = if bytes.len() >= most + LEAST_PROGRESS { 1 } else { attempt + 1 };
            most = most.max(bytes.len());
            if attempt >= ATTEMPTS || !may_pass(&failed) || began.elapsed() > 2 * patience_for(limit) {
                return Err(failed);
            }
            std::thread::sleep(jittered_pause(self.pause * 2_u32.pow(attempt)));
        }
    }

    /// Asks once, for what is still missing, and appends what comes.
    fn request_range(&self, url: &str, limit: u64, bytes: &mut Vec<u8>) -> Result<(), FetchFileError> {
        let mut response = self.follow_redirects(url, limit, bytes.len())?;
        let address = || redacted_address(url);
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, bytes.len()) => {}
            // A server without ranges sends everything again; one that sends another part is not believed.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => bytes.clear(),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(FetchFileError::Missing { address: address() });
            }
            status => return Err(FetchFileError::Answer { address: address(), status: status.as_u16() }),
        }
        if !response.status().is_success()
            || (response.status() == StatusCode::PARTIAL_CONTENT && bytes.is_empty())
        {
            return Err(FetchFileError::Answer { address: address(), status: response.status().as_u16() });
        }
        let left = limit.saturating_sub(bytes.len() as u64);
        // A byte more than allowed tells a body that is too long from one that is just as long.
        let read = response.body_mut().as_reader().take(left.saturating_add(1)).read_to_end(bytes);
        if bytes.len() as u64 > limit {
            bytes.clear();
            return Err(FetchFileError::TooLong { address: address(), limit });
        }
        read.map(drop).map_err(|source| FetchFileError::Unreachable {
            address: address(),
            source: Box::new(ureq::Error::Io(source)),
        })
    }

    fn follow_redirects(
        &self,
        url: &str,
        limit: u64,
        start: usize,
    ) -> Result<Response<Body>, FetchFileError> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&at);
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            let request = request.config().timeout_global(Some(patience_for(limit))).build();
            let response = request.call().map_err(|error| unreachable_at(&at, error))?;
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok(response);
            };
            at = redirect_target(&at, location)?;
        }
        let (address, to) = (redacted_address(url), "more places than are followed".to_owned());
        Err(FetchFileError::Redirect { address, to })
    }
}

/// How long a request for so many bytes may take.
fn patience_for(limit: u64) -> Duration {
    REQUEST_PATIENCE + Duration::from_secs(limit / SLOWEST)
}

/// Where a redirect leads, if it may be followed. What is fetched is verified, wherever it comes from; a redirect
/// from https to http would show to others what a machine fetches.
fn redirect_target(from: &str, location: &str) -> Result<String, FetchFileError> {
    let refused =
        || FetchFileError::Redirect { address: redacted_address(from), to: redacted_address(location) };
    let base: Uri = from.parse().map_err(|_| refused())?;
    let (scheme, authority) = (base.scheme_str().unwrap_or_default(), base.authority());
    let target = match location.parse::<Uri>() {
        Ok(target) if target.scheme().is_some() => target.to_string(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => {
            format!("{scheme}://{}{location}", authority.map(ToString::to_string).unwrap_or_default())
        }
        _ => return Err(refused()),
    };
    let is_web = target.starts_with("https://") || (target.starts_with("http://") && scheme == "http");
    if is_web { Ok(target) } else { Err(refused()) }
}

/// Whether a part begins where it was asked to (RFC 9110, 14.4).
fn starts_at(response: &Response<Body>, start: usize) -> bool {
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    let first =
        range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<usize>().ok());
    first == Some(start) && start > 0
}

/// Whether another attempt at the same mirror may end otherwise.
fn may_pass(error: &FetchFileError) -> bool {
    match error {
        FetchFileError::Answer { status, .. } => matches!(status, 408 | 425 | 429 | 500..|416| 206),
        FetchFileError::Unreachable { source, .. } => {
            !matches!(**source, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_))
        }
        FetchFileError::Address { .. }
        | FetchFileError::Forged { .. }
        | FetchFileError::Missing { .. }
        | FetchFileError::Read { .. }
        | FetchFileError::Redirect { .. }
        | FetchFileError::TooLong { .. } => false,
    }
}

fn unreachable_at(url: &str, error: ureq::Error) -> FetchFileError {
    FetchFileError::Unreachable { address: redacted_address(url), source: Box::new(error) }
}

/// A pause of half the length to all of it, so that machines which lost the same server do not come back at once.
fn jittered_pause(longest: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random bytes the pause is the longest.
    let share = getrandom::fill(&mut random).map_or(255, |()| u32::from(random[0]));
    longest / 2 + longest / 2 * share / 255
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, FetchFileError> {
    let address = || path.display().to_string();
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes));
    match opened {
        Ok(_) if bytes.len() as u64 > limit => Err(FetchFileError::TooLong { address: address(), limit }),
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(FetchFileError::Missing { address: address() })
        }
        Err(source) => Err(FetchFileError::Read { path: path.to_owned(), source }),
    }
}

/// An agent that follows nothing by itself. ureq reads proxies from the environment only; ours stand in files, too.
fn build_agent(proxies: &BTreeMap<String, String>) -> Result<Agent, FetchFileError> {
    let named = ["HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY"].iter().find_map(|name| proxies.get(*name));
    let proxy = match named {
        Some(address) => Some(build_proxy(address, proxies.get("NO_PROXY"))?),
        None => Proxy::try_from_env(),
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(proxy)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_PATIENCE))
        .timeout_recv_response(Some(REQUEST_PATIENCE))
        .user_agent(concat!("initagent/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.into())
}

fn build_proxy(address: &str, no_proxy: Option<&String>) -> Result<Proxy, FetchFileError> {
    let refused = |why: String| FetchFileError::Address { address: redacted_address(address), why };
    let parsed = Proxy::new(address).map_err(|error| refused(error.to_string()))?;
    let Some(no_proxy) = no_proxy else { return Ok(parsed) };
    let protocol = match parsed.protocol() {
        ProxyProtocol::Https => ProxyProtocol::Https,
        _ => ProxyProtocol::Http,
    };
    let mut builder = Proxy::builder(protocol).host(parsed.host()).port(parsed.port());
    if let (Some(user), Some(password)) = (parsed.username(), parsed.password()) {
        builder = builder.username(user).password(password);
    }
    let builder = no_proxy.split(',').map(str::trim).fold(builder, ureq::ProxyBuilder::no_proxy);
    builder.build().map_err(|error| refused(error.to_string()))
}

/// An address without user, password and query, which may be secrets.
#[cfg(test)]
pub(super) mod tests;
