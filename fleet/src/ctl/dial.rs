//! Opens the byte stream to a fleet API: TCP, a unix socket, or the system's ssh.
//!
//! Through a tunnel, an API on TCP is reached by `ssh -W`, one on a unix socket by running
//! `fleetctl fd-forward` over there; either way ssh's stdin and stdout are one socket pair, so that every
//! way but plain TCP is a [`UnixStream`] with real timeouts. TLS is laid over whichever stream it is.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use super::askpass;
use super::endpoint::ApiEndpoint;
use super::remote::{self, SshProgram};
use super::settings::{ClientSettings, TlsFiles};
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, TcpConnector, Transport,
};

/// Connections kept for the next request: as many as work at once.
// As many as `map_parallel` asks at once; one less would open and close a connection for each request
// beyond.
const CONNECTIONS: usize = 32;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum DialError {
    #[error("cannot make the folder of {path}, in which ssh keeps the keys of machines")]
    KnownHosts { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what}")]
    Pem { path: PathBuf, what: &'static str },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read {path} as PEM")]
    Syntax { path: PathBuf, source: ureq::Error },
}

/// Makes the HTTP client that reaches `endpoint` as the settings say.
pub fn http_agent(endpoint: &ApiEndpoint, settings: &ClientSettings) -> Result<Agent, DialError> {
    let config = Config::builder()
        // The body of a refusal says why.
        .http_status_as_error(false)
        // HTTP_PROXY is set for the web, and the API is on a socket or inside the cluster.
        .proxy(None)
        // The API never redirects, and a request with rights must not follow somebody else's word.
        .max_redirects(0)
        .max_idle_connections_per_host(CONNECTIONS)
        .timeout_connect(Some(settings.request_timeout))
        // The answer's head only: a watch has a body that lasts for hours.
        .timeout_recv_response(Some(settings.request_timeout))
        .tls_config(tls_config(&settings.tls)?)
        .user_agent(concat!("fleetctl/", env!("CARGO_PKG_VERSION")))
        .build();
    if settings.ssh.tunnel.is_some() {
        let path = settings.ssh.known_hosts.clone();
        remote::prepare_known_hosts(&settings.ssh)
            .map_err(|source| DialError::KnownHosts { path, source })?;
    }
    Ok(match (&settings.ssh.tunnel, endpoint) {
        (None, ApiEndpoint::Tcp { .. }) => {
            let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
            Agent::with_parts(config, connector, DefaultResolver::default())
        }
        (None, ApiEndpoint::Unix(path)) => {
            Agent::with_parts(config, UnixConnector(path.clone()), UnusedResolver)
        }
        (Some(tunnel), ApiEndpoint::Tcp { host, port, .. }) => {
            let target = format!("{host}:{port}");
            let argv =
                remote::ssh_command(&settings.ssh, &tunnel.host, tunnel.port, SshProgram::Forward(&target));
            Agent::with_parts(config, SshConnector(argv).chain(RustlsConnector::default()), UnusedResolver)
        }
        (Some(tunnel), ApiEndpoint::Unix(path)) => {
            let command = ["fleetctl".to_owned(), "fd-forward".to_owned(), path.display().to_string()];
            let argv =
                remote::ssh_command(&settings.ssh, &tunnel.host, tunnel.port, SshProgram::Command(&command));
            Agent::with_parts(config, SshConnector(argv), UnusedResolver)
        }
    })
}

/// The server must show a certificate that our authority signed (without one: the public authorities).
fn tls_config(files: &TlsFiles) -> Result<TlsConfig, DialError> {
    let mut config = TlsConfig::builder();
    if let Some(path) = &files.authority {
        config = config.root_certs(RootCerts::new_with_certs(&read_certificates(path)?));
    }
    if let Some((certificate, key)) = &files.identity {
        let key = PrivateKey::from_pem(&read(key)?).map_err(|source| syntax_error(key, source))?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&read_certificates(certificate)?, key)));
    }
    Ok(config.build())
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, DialError> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let ureq::tls::PemItem::Certificate(certificate) =
            item.map_err(|source| syntax_error(path, source))?
        {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(DialError::Pem { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, DialError> {
    std::fs::read(path).map_err(|source| DialError::Read { path: path.to_owned(), source })
}

fn syntax_error(path: &Path, source: ureq::Error) -> DialError {
    DialError::Syntax { path: path.to_owned(), source }
}

/// Connects to a unix socket, whatever the URL says.
#[derive(Debug)]
struct UnixConnector(PathBuf);

impl Connector for UnixConnector {
    type Out = StreamTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let stream = UnixStream::connect(&self.0)?;
        Ok(Some(StreamTransport::new(stream, None, details)))
    }
}

/// Runs ssh and speaks through its standard input and output.
#[derive(Debug)]
struct SshConnector(Vec<OsString>);

impl Connector for SshConnector {
    type Out = StreamTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        // One socket pair and no two pipes: a pipe has no timeouts.
        let (ours, theirs) = UnixStream::pair()?;
        let (program, arguments) = self.0.split_first().ok_or(ureq::Error::ConnectionFailed)?;
        let mut command = Command::new(program);
        askpass::prepare_ssh(&mut command);
        let child = command
            .args(arguments)
            // stderr stays ours, so that ssh's warnings reach the person.
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .spawn()?;
        Ok(Some(StreamTransport::new(ours, Some(child), details)))
    }
}

/// Resolves every name to an address nobody dials: the connector knows where to go.
#[derive(Debug)]
struct UnusedResolver;

impl Resolver for UnusedResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        Ok(addresses)
    }
}

/// An open stream, and the program behind it if there is one.
#[derive(Debug)]
struct StreamTransport {
    stream: UnixStream,
    child: Option<Child>,
    buffers: LazyBuffers,
}

impl StreamTransport {
    fn new(stream: UnixStream, child: Option<Child>, details: &ConnectionDetails<'_>) -> Self {
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Self { stream, child, buffers }
    }
}

impl Transport for StreamTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_write_timeout(timeout_limit(timeout))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| timeout_error(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_read_timeout(timeout_limit(timeout))?;
        let input = self.buffers.input_append_buf();
        let amount = loop {
            match self.stream.read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| timeout_error(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        // A read that would block is the only proof that the other end is there and has nothing left to
        // say.
        let idle =
            matches!(self.stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        idle && self.stream.set_nonblocking(false).is_ok()
    }
}

impl Drop for StreamTransport {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself, which is just as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn timeout_limit(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|each| *each)
}

fn timeout_error(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}
