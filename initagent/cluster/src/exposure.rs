//! What a machine's etcd opens to whom, in sentences.
//!
//! Knows addresses and who reaches them. Refuses to close anything. Invariant: whatever is open to more than
//! the bearers of a certificate has a sentence.

use std::fmt;
use std::net::IpAddr;

/// One URL that etcd serves, as far as its reach goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedUrl {
    /// The URL, as it was written.
    pub url: String,
    /// Who gets there.
    pub reach: Reach,
    /// Whether it is served over TLS.
    pub is_encrypted: bool,
}

/// Who gets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Whoever reaches any address of the machine.
    Everywhere,
    /// Users of the machine, and containers with its network.
    Machine,
    /// Whoever reaches this address.
    Network(IpAddr),
    /// Who may open a socket of the file system; or a host name, which says nothing.
    Unknown,
}

/// Something that is open because a person wrote so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exposure {
    /// Clients come without a certificate.
    PlainClients(ServedUrl),
    /// Members come without a certificate.
    PlainPeers(ServedUrl),
}

impl ServedUrl {
    /// Reads one URL of a list.
    #[must_use]
    pub fn parse_url(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let host = host_of(rest.split('/').next().unwrap_or_default());
        let reach = match host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => Reach::Everywhere,
            Ok(address) if address.is_loopback() => Reach::Machine,
            Ok(address) => Reach::Network(address),
            // etcd listens on the loopback address for it, and refuses other names.
            Err(_) if host == "localhost" => Reach::Machine,
            Err(_) => Reach::Unknown,
        };
        Self { url: url.to_owned(), reach, is_encrypted: matches!(scheme, "https" | "unixs") }
    }

    /// Reads a list with commas.
    #[must_use]
    pub fn parse_list(list: &str) -> Vec<Self> {
        list.split(',').map(str::trim).filter(|url| !url.is_empty()).map(Self::parse_url).collect()
    }

    /// Whether only this machine gets there, in the clear.
    #[must_use]
    pub fn is_plain_loopback(&self) -> bool {
        self.reach == Reach::Machine && !self.is_encrypted
    }

    /// Whether other machines get there without a certificate.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_encrypted && matches!(self.reach, Reach::Everywhere | Reach::Network(_))
    }
}

fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, served) = match self {
            Self::PlainClients(served) => ("etcd answers every client", served),
            Self::PlainPeers(served) => ("etcd takes every member at its word", served),
        };
        let reached = match served.reach {
            Reach::Everywhere => "any address of this machine".to_owned(),
            Reach::Machine => {
                "this machine's loopback: each user and each container with its network".to_owned()
            }
            Reach::Network(address) => address.to_string(),
            Reach::Unknown => "that socket".to_owned(),
        };
        let url = &served.url;
        write!(
            out,
            "{who} at {url}: whoever reaches {reached} is root on every machine of the cluster, since fleet keeps \
             its units there; the key `cluster` of cloud-config closes it"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_is_read_from_each_form_of_an_address() {
        let reach = |url| ServedUrl::parse_url(url).reach;

        assert_eq!(reach("http://0.0.0.0:2379"), Reach::Everywhere);
        assert_eq!(reach("http://[::]:2379"), Reach::Everywhere);
        assert_eq!(reach("http://127.0.0.2:4001"), Reach::Machine);
        assert_eq!(reach("http://localhost:2379"), Reach::Machine);
        assert_eq!(reach("http://[::1]:2379/"), Reach::Machine);
        assert_eq!(reach("http://10.0.0.10:2379"), Reach::Network("10.0.0.10".parse().unwrap()));
        assert_eq!(reach("http://127.0.0.1@10.0.0.10:2379"), Reach::Network("10.0.0.10".parse().unwrap()));
        assert_eq!(reach("unix:///run/etcd.sock"), Reach::Unknown);
    }

    #[test]
    fn only_plain_urls_beyond_loopback_are_open() {
        let open = ServedUrl::parse_list("http://127.0.0.1:2379, https://0.0.0.0:2379,http://10.0.0.1:4001");

        assert_eq!(open.iter().map(ServedUrl::is_open).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn the_sentence_names_who_gets_in_and_what_closes_it() {
        let exposure = Exposure::PlainClients(ServedUrl::parse_url("http://0.0.0.0:4001"));

        assert_eq!(
            exposure.to_string(),
            "etcd answers every client at http://0.0.0.0:4001: whoever reaches any address of this machine is root \
             on every machine of the cluster, since fleet keeps its units there; the key `cluster` of cloud-config \
             closes it"
        );
    }
}
