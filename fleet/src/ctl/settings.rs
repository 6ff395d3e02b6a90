//! What the global flags and the environment mean together.
//!
//! The command line wins over `FLEETCTL_<NAME>`, which wins over the default; an empty variable counts as
//! absent. Pure: the environment is an argument.

use super::arguments::{GlobalArguments, parse_bool};
use super::endpoint::{ApiEndpoint, EndpointError};
use std::path::PathBuf;
use std::time::Duration;

/// Where the API is unless someone says otherwise.
pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/fleet.sock";

// The original had none towards the API. Half a minute outlasts an election of etcd and one of the engine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
// The original's.
const SSH_TIMEOUT: Duration = Duration::from_secs(10);

/// What holds for the whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Where the API is.
    pub endpoint: ApiEndpoint,
    /// Endpoints that were given beyond the first, which is the one in use.
    pub spare_endpoints: usize,
    /// After which a request has failed.
    pub request_timeout: Duration,
    /// How machines are reached.
    pub ssh: SshSettings,
    /// What is shown to the server, and what it must show.
    pub tls: TlsFiles,
    /// JSON or text.
    pub format: OutputFormat,
    /// Whether to tell what is being done.
    pub debug: bool,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// For programs.
    Json,
    /// For people, and for scripts that read what the original printed.
    Text,
}

/// How the system's ssh is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSettings {
    /// The machine to go through, if any.
    pub tunnel: Option<SshHost>,
    /// The user to log in as.
    pub username: String,
    /// How long connecting may take.
    pub timeout: Duration,
    /// Where known machines' keys are.
    pub known_hosts: PathBuf,
    /// Whether a machine's key must match the known one.
    pub strict_host_keys: bool,
}

/// A machine that ssh goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshHost {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// The files of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Who may have signed the server's certificate.
    pub authority: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why the settings make no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum SettingsError {
    #[error("unrecognized driver \"{0}\"")]
    Driver(String),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(
        "driver \"etcd\" is gone: only fleetd writes the registry now; leave out --driver and point --endpoint at fleetd"
    )]
    EtcdDriver,
    #[error("--{flag} must be a number of seconds, not \"{value}\"")]
    Seconds { flag: &'static str, value: String },
    #[error("--cert-file and --key-file must be given together")]
    TlsPair,
    #[error("--strict-host-key-checking must be true or false, not \"{0}\"")]
    Truth(String),
    #[error("--tunnel must be HOST or HOST:PORT, not \"{0}\"")]
    Tunnel(String),
}

impl ClientSettings {
    /// The settings of a program that only speaks to this endpoint.
    #[must_use]
    pub fn for_endpoint(endpoint: ApiEndpoint) -> Self {
        Self {
            endpoint,
            spare_endpoints: 0,
            request_timeout: REQUEST_TIMEOUT,
            ssh: SshSettings {
                tunnel: None,
                username: "core".to_owned(),
                timeout: SSH_TIMEOUT,
                known_hosts: PathBuf::new(),
                strict_host_keys: true,
            },
            tls: TlsFiles::default(),
            format: OutputFormat::Text,
            debug: false,
        }
    }

    /// Reads the flags, then the environment, then the defaults.
    pub fn from_arguments(
        arguments: &GlobalArguments,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let value = |flag: &str, typed: &Option<String>| {
            let variable = format!("FLEETCTL_{}", flag.replace('-', "_").to_uppercase());
            typed.clone().or_else(|| environment(&variable)).filter(|text| !text.is_empty())
        };
        match value("driver", &arguments.driver).as_deref() {
            None | Some("API") => {}
            Some("etcd") => return Err(SettingsError::EtcdDriver),
            Some(other) => return Err(SettingsError::Driver(other.to_owned())),
        }
        let endpoints = value("endpoint", &arguments.endpoint).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let mut endpoints = endpoints.split(',');
        let endpoint = ApiEndpoint::parse(endpoints.next().unwrap_or_default().trim())?;
        let file = |flag, alias, typed| value(flag, typed).or_else(|| value(alias, &None)).map(PathBuf::from);
        let identity = (
            file("cert-file", "etcd-certfile", &arguments.cert_file),
            file("key-file", "etcd-keyfile", &arguments.key_file),
        );
        let switch =
            |flag, typed: bool| typed || value(flag, &None).as_deref().and_then(parse_bool).unwrap_or(false);
        Ok(Self {
            endpoint,
            spare_endpoints: endpoints.count(),
            request_timeout: parse_seconds(
                "request-timeout",
                value("request-timeout", &arguments.request_timeout),
                REQUEST_TIMEOUT,
            )?,
            ssh: SshSettings {
                tunnel: value("tunnel", &arguments.tunnel).map(|text| SshHost::parse(&text)).transpose()?,
                username: value("ssh-username", &arguments.ssh_username).unwrap_or_else(|| "core".to_owned()),
                timeout: parse_seconds(
                    "ssh-timeout",
                    value("ssh-timeout", &arguments.ssh_timeout),
                    SSH_TIMEOUT,
                )?,
                known_hosts: known_hosts(value("known-hosts-file", &arguments.known_hosts_file), environment),
                strict_host_keys: match value("strict-host-key-checking", &arguments.strict_host_key_checking)
                {
                    None => true,
                    Some(text) => parse_bool(&text).ok_or(SettingsError::Truth(text))?,
                },
            },
            tls: TlsFiles {
                authority: file("ca-file", "etcd-cafile", &arguments.ca_file),
                identity: match identity {
                    (Some(certificate), Some(key)) => Some((certificate, key)),
                    (None, None) => None,
                    _ => return Err(SettingsError::TlsPair),
                },
            },
            format: if switch("json", arguments.json) { OutputFormat::Json } else { OutputFormat::Text },
            debug: switch("debug", arguments.debug),
        })
    }
}

impl SshHost {
    /// Reads `HOST`, `HOST:PORT`, or an IPv6 address with or without brackets.
    fn parse(text: &str) -> Result<Self, SettingsError> {
        let refuse = || SettingsError::Tunnel(text.to_owned());
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(22), str::parse).map_err(|_| refuse())?;
        // A host that starts with a dash would be an option of ssh.
        if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn parse_seconds(
    flag: &'static str,
    text: Option<String>,
    default: Duration,
) -> Result<Duration, SettingsError> {
    let Some(value) = text else { return Ok(default) };
    match value.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err(SettingsError::Seconds { flag, value }),
    }
}

fn known_hosts(typed: Option<String>, environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let path = typed.unwrap_or_else(|| "~/.fleetctl/known_hosts".to_owned());
    match (path.strip_prefix("~/"), environment("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(flags: &GlobalArguments, environment: &[(&str, &str)]) -> Result<ClientSettings, String> {
        let find = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        ClientSettings::from_arguments(flags, &find).map_err(|error| error.to_string())
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        let settings = gather(&GlobalArguments::default(), &[("HOME", "/home/core")]).unwrap();

        assert_eq!(settings.endpoint, ApiEndpoint::Unix("/var/run/fleet.sock".into()));
        assert_eq!(settings.ssh.username, "core");
        assert_eq!(settings.ssh.timeout, Duration::from_secs(10));
        assert_eq!(settings.ssh.known_hosts, PathBuf::from("/home/core/.fleetctl/known_hosts"));
        assert!(settings.ssh.strict_host_keys && settings.ssh.tunnel.is_none());
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let environment = [
            ("FLEETCTL_ENDPOINT", "http://env:1"),
            ("FLEETCTL_TUNNEL", "bastion:2222"),
            ("FLEETCTL_STRICT_HOST_KEY_CHECKING", "false"),
            ("FLEETCTL_SSH_TIMEOUT", "2.5"),
        ];
        let mut flags = GlobalArguments::default();
        flags.endpoint = Some("http://flag:1,http://other:1".into());
        let settings = gather(&flags, &environment).unwrap();

        assert_eq!(settings.endpoint.to_string(), "http://flag:1");
        assert_eq!(settings.spare_endpoints, 1);
        assert_eq!(settings.ssh.tunnel, Some(SshHost { host: "bastion".into(), port: 2222 }));
        assert!(!settings.ssh.strict_host_keys);
        assert_eq!(settings.ssh.timeout, Duration::from_millis(2500));
    }

    #[test]
    fn nonsense_is_refused_with_the_known_words() {
        let with =
            |name: &str, value: &str| gather(&GlobalArguments::default(), &[(name, value)]).unwrap_err();

        assert_eq!(with("FLEETCTL_DRIVER", "x"), "unrecognized driver \"x\"");
        assert!(with("FLEETCTL_DRIVER", "etcd").starts_with("driver \"etcd\" is gone"));
        assert_eq!(with("FLEETCTL_ENDPOINT", "/var/run/fleet.sock"), "URL scheme undefined");
        assert_eq!(
            with("FLEETCTL_SSH_TIMEOUT", "soon"),
            "--ssh-timeout must be a number of seconds, not \"soon\""
        );
        assert_eq!(
            with("FLEETCTL_TUNNEL", "-oProxyCommand=x"),
            "--tunnel must be HOST or HOST:PORT, not \"-oProxyCommand=x\""
        );
        assert_eq!(with("FLEETCTL_CERT_FILE", "/c"), "--cert-file and --key-file must be given together");
    }

    #[test]
    fn a_tunnel_may_be_an_ipv6_address() {
        let tunnel = |text: &str| SshHost::parse(text).map(|each| (each.host, each.port));

        assert_eq!(tunnel("fd00::1"), Ok(("fd00::1".into(), 22)));
        assert_eq!(tunnel("[fd00::1]:23"), Ok(("fd00::1".into(), 23)));
    }
}
