//! Where a fleet API is: what a person types, taken apart.
//!
//! Pure; whether anything answers there is the dialler's concern.

use std::fmt;
use std::path::PathBuf;

/// The address of a fleet API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiEndpoint {
    /// Over TCP, in the clear or in TLS.
    Tcp {
        /// With or without TLS.
        scheme: UrlScheme,
        /// Name or address, IPv6 in brackets.
        host: String,
        /// Port.
        port: u16,
        /// A path before `/fleet/v1`, without a trailing slash; mostly empty.
        path: String,
    },
    /// On a unix domain socket.
    Unix(PathBuf),
}

/// What is spoken over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlScheme {
    /// In the clear.
    Http,
    /// In TLS.
    Https,
}

/// Why an endpoint is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum EndpointError {
    #[error("unable to connect to host \"{host}\" with scheme \"{scheme}\"")]
    HostInUnix { scheme: String, host: String },
    #[error("endpoint \"{0}\" names no host")]
    NoHost(String),
    #[error("endpoint \"{0}\" names no path of a socket")]
    NoPath(String),
    #[error("URL scheme undefined")]
    NoScheme,
    #[error("endpoint \"{0}\" has a port that is no number below 65536")]
    Port(String),
    #[error("unsupported protocol scheme \"{0}\"")]
    Scheme(String),
}

impl UrlScheme {
    const fn scheme_name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl ApiEndpoint {
    /// Reads `unix:///PATH`, `file:///PATH`, `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) =
            text.split_once(':').filter(|(name, _)| is_scheme(name)).ok_or(EndpointError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "unix" | "file" => parse_unix(text, scheme, rest),
            "http" => parse_tcp(text, UrlScheme::Http, rest),
            "https" => parse_tcp(text, UrlScheme::Https, rest),
            _ => Err(EndpointError::Scheme(scheme.to_owned())),
        }
    }

    /// The URL that requests name; for a socket a stand-in, which only the `Host` header shows.
    #[must_use]
    pub fn base_url(&self) -> String {
        match self {
            Self::Unix(_) => "http://domain-sock".to_owned(),
            Self::Tcp { scheme, host, port, path } => {
                format!("{}://{host}:{port}{path}", scheme.scheme_name())
            }
        }
    }
}

impl fmt::Display for ApiEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp { .. } => formatter.write_str(&self.base_url()),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|each| each.is_ascii_alphanumeric() || "+-.".contains(each))
}

fn parse_unix(text: &str, scheme: &str, rest: &str) -> Result<ApiEndpoint, EndpointError> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !host.is_empty() {
                return Err(EndpointError::HostInUnix { scheme: scheme.to_owned(), host: host.to_owned() });
            }
            path
        }
        None => rest,
    };
    if path.is_empty() {
        Err(EndpointError::NoPath(text.to_owned()))
    } else {
        Ok(ApiEndpoint::Unix(PathBuf::from(path)))
    }
}

fn parse_tcp(text: &str, scheme: UrlScheme, rest: &str) -> Result<ApiEndpoint, EndpointError> {
    let no_host = || EndpointError::NoHost(text.to_owned());
    let rest = rest.strip_prefix("//").ok_or_else(no_host)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[bracket..].split_once(':') {
        Some((before, port)) => (&authority[..bracket + before.len()], Some(port)),
        None => (authority, None),
    };
    if host.is_empty() || host.contains(['@', '?', '#']) || host.contains(char::is_whitespace) {
        return Err(no_host());
    }
    let port = match port {
        None | Some("") => scheme.default_port(),
        Some(digits) => digits.parse().map_err(|_| EndpointError::Port(text.to_owned()))?,
    };
    Ok(ApiEndpoint::Tcp { scheme, host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_type_is_understood() {
        let readings = [
            ("unix:///var/run/fleet.sock", "unix:///var/run/fleet.sock", "http://domain-sock"),
            ("file:///run/f", "unix:///run/f", "http://domain-sock"),
            ("http://10.0.0.1:49153", "http://10.0.0.1:49153", "http://10.0.0.1:49153"),
            (
                "https://fleet.example/prefix/",
                "https://fleet.example:443/prefix",
                "https://fleet.example:443/prefix",
            ),
            ("http://[fd00::1]", "http://[fd00::1]:80", "http://[fd00::1]:80"),
            ("http://[fd00::1]:8", "http://[fd00::1]:8", "http://[fd00::1]:8"),
        ];

        for (typed, shown, url) in readings {
            let endpoint = ApiEndpoint::parse(typed).unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.base_url().as_str()), (shown, url));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_known_words() {
        let refusals = [
            ("unix://var/run/fleet.sock", "unable to connect to host \"var\" with scheme \"unix\""),
            ("/var/run/fleet.sock", "URL scheme undefined"),
            ("127.0.0.1:4001", "URL scheme undefined"),
            ("ftp://host", "unsupported protocol scheme \"ftp\""),
            ("http:///path", "endpoint \"http:///path\" names no host"),
            ("http://h:99999", "endpoint \"http://h:99999\" has a port that is no number below 65536"),
            ("unix://", "endpoint \"unix://\" names no path of a socket"),
        ];

        for (typed, message) in refusals {
            assert_eq!(ApiEndpoint::parse(typed).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(host in "[a-z0-9.]{1,20}", port: u16, secure: bool) {
            let scheme = if secure { UrlScheme::Https } else { UrlScheme::Http };
            let endpoint = ApiEndpoint::Tcp { scheme, host, port, path: String::new() };
            prop_assert_eq!(ApiEndpoint::parse(&endpoint.to_string()), Ok(endpoint));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = ApiEndpoint::parse(&text);
        }
    }
}
