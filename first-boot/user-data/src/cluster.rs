//! What a machine is told of its cluster: a name, how many vote, a secret, and where to find the others.
//!
//! Knows the form of each and the file that carries them to the machine's other boots. Refuses to find
//! anybody, and to make keys. Invariants: a definition that exists can form a cluster; the file reads back
//! as what was written; `Debug` shows no secret.

pub mod secret;

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::address;
use secret::ClusterSecret;

/// Where first boot writes the definition. Root alone reads it.
pub const DEFINITION: &str = "/etc/catamaran/cluster.json";
/// How many machines may vote. An even number tolerates no more losses than the odd one below it, and
/// etcd's own FAQ advises against more than seven.
pub const SIZES: [u8; 4] = [1, 3, 5, 7];
/// Says that a domain's SRV records are meant, not its addresses.
const SRV_PREFIX: &str = "srv:";
/// Long enough for a host name, short enough for a common name in a certificate (RFC 5280, ub-common-name).
const LONGEST_NAME: usize = 48;

/// A cluster as its members know it before they know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDefinition {
    /// Tells clusters of one secret apart.
    pub name: String,
    /// How many machines vote.
    pub size: u8,
    /// What proves that a machine belongs to it.
    pub secret: ClusterSecret,
    /// How the machines find each other.
    pub find: FindMethod,
}

/// How machines of one cluster find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindMethod {
    /// These machines: the first ones vote.
    Addresses(Vec<IpAddr>),
    /// Nobody is looked for; the machine is alone.
    Alone,
    /// A list that a discovery service keeps, by etcd's protocol of version 2.
    Discovery(String),
    /// By multicast on the local link.
    Lan,
    /// The addresses of a DNS name.
    Name(String),
    /// The hosts of a domain's SRV records, as etcd's `--discovery-srv` finds them; or a whole name of such records.
    Service(String),
}

/// Why words do not say where to find the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindFlaw {
    /// Fewer addresses than voters.
    Few {
        /// How many there are.
        given: usize,
    },
    /// Two ways at once.
    Mixed,
    /// None of the forms.
    Unknown {
        /// Which of the words, counted from 0.
        index: usize,
    },
}

impl FindMethod {
    /// Reads the words of `find`.
    ///
    /// One way only: two could name two sets of machines, and a cluster that is formed twice loses writes.
    pub fn read(words: &[String], size: u8) -> Result<Self, FindFlaw> {
        let methods: Result<Vec<Self>, FindFlaw> = (0..)
            .zip(words)
            .map(|(index, word)| Self::of_word(word).ok_or(FindFlaw::Unknown { index }))
            .collect();
        let methods = methods?;
        let addresses: Vec<IpAddr> = methods.iter().flat_map(Self::static_addresses).copied().collect();
        match &methods[..] {
            [] => Ok(Self::Alone),
            _ if addresses.len() == methods.len() => match addresses.len() {
                given if given < usize::from(size) => Err(FindFlaw::Few { given }),
                _ => Ok(Self::Addresses(addresses)),
            },
            [method] => Ok(method.clone()),
            _ => Err(FindFlaw::Mixed),
        }
    }

    /// The words that [`Self::read`] reads.
    #[must_use]
    pub fn method_words(&self) -> Vec<String> {
        match self {
            Self::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Self::Alone => Vec::new(),
            Self::Discovery(word) | Self::Name(word) => vec![word.clone()],
            Self::Lan => vec!["lan".to_owned()],
            Self::Service(name) if name.starts_with('_') => vec![name.clone()],
            Self::Service(domain) => vec![format!("{SRV_PREFIX}{domain}")],
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        if word == "lan" {
            return Some(Self::Lan);
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            let is_usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
            return is_usable.then(|| Self::Addresses(vec![address]));
        }
        if address::is_web(word) {
            return Some(Self::Discovery(word.trim_end_matches('/').to_owned()));
        }
        if let Some(domain) = word.strip_prefix(SRV_PREFIX) {
            return is_host_name(domain).then(|| Self::Service(domain.to_owned()));
        }
        if is_service_name(word) {
            return Some(Self::Service(word.to_owned()));
        }
        is_host_name(word).then(|| Self::Name(word.to_owned()))
    }

    fn static_addresses(&self) -> &[IpAddr] {
        if let Self::Addresses(addresses) = self { addresses } else { &[] }
    }
}

impl ClusterDefinition {
    /// The text of [`DEFINITION`].
    #[must_use]
    pub fn definition_text(&self) -> String {
        let Self { name, size, secret, find } = self;
        let value = json!({
            "format": 1, "name": name, "size": size, "secret": secret.reveal(), "find": find.method_words(),
        });
        format!("{value:#}\n")
    }

    /// Reads that text. `None` if it is not one: no part of it is shown, since one is the secret.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let size = u8::try_from(value["size"].as_u64()?).ok().filter(|size| SIZES.contains(size))?;
        let word = |word: &Value| word.as_str().map(str::to_owned);
        let words: Option<Vec<String>> = value["find"].as_array()?.iter().map(word).collect();
        Some(Self {
            name: word(&value["name"]).filter(|name| is_cluster_name(name))?,
            size,
            secret: ClusterSecret::parse(value["secret"].as_str()?).ok()?,
            find: FindMethod::read(&words?, size).ok()?,
        })
        .filter(|_| value["format"].as_u64() == Some(1))
    }
}

/// Letters, digits and hyphens, as in a host name: it becomes part of names in certificates.
#[must_use]
pub fn is_cluster_name(name: &str) -> bool {
    is_label(name) && name.len() <= LONGEST_NAME
}

fn is_host_name(name: &str) -> bool {
    // A name of digits and dots was meant as an address.
    let is_number = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    name.len() <= 253 && !is_number && name.trim_end_matches('.').split('.').all(is_label)
}

/// `_etcd-server-ssl._tcp.example.org` (RFC 2782).
fn is_service_name(name: &str) -> bool {
    let service = |part: Option<&str>| part.and_then(|part| part.strip_prefix('_')).is_some_and(is_label);
    let mut parts = name.splitn(3, '.');
    service(parts.next()) && service(parts.next()) && parts.next().is_some_and(is_host_name)
}

fn is_label(label: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&label.len())
        && label.chars().all(is_inside)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], size: u8) -> Result<FindMethod, FindFlaw> {
        FindMethod::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), size)
    }

    #[test]
    fn each_way_is_known_by_its_form() {
        let addresses =
            ["10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap(), "10.0.0.3".parse().unwrap()];

        assert_eq!(read(&["lan"], 3), Ok(FindMethod::Lan));
        assert_eq!(read(&[], 1), Ok(FindMethod::Alone));
        assert_eq!(
            read(&["10.0.0.1", "fd00::2", "10.0.0.3"], 3),
            Ok(FindMethod::Addresses(addresses.to_vec()))
        );
        assert_eq!(read(&["etcd.example.org"], 3), Ok(FindMethod::Name("etcd.example.org".to_owned())));
        assert_eq!(
            read(&["https://discovery.example.org/3445fa/"], 3),
            Ok(FindMethod::Discovery("https://discovery.example.org/3445fa".to_owned()))
        );
        assert_eq!(read(&["srv:example.org"], 3), Ok(FindMethod::Service("example.org".to_owned())));
        let records = "_etcd-server._tcp.example.org";
        assert_eq!(read(&[records], 3), Ok(FindMethod::Service(records.to_owned())));
    }

    #[test]
    fn two_ways_at_once_and_what_is_no_way_are_refused() {
        assert_eq!(read(&["lan", "etcd.example.org"], 3), Err(FindFlaw::Mixed));
        assert_eq!(read(&["10.0.0.1", "lan"], 1), Err(FindFlaw::Mixed));
        assert_eq!(read(&["10.0.0.1", "10.0.0.2"], 3), Err(FindFlaw::Few { given: 2 }));
        for word in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "10.0.0.256",
            "a b",
            "",
            "-a",
            "ftp://a/",
            "srv:",
            "_tcp.example.org",
            "_a._b",
        ] {
            assert_eq!(read(&[word], 1), Err(FindFlaw::Unknown { index: 0 }), "{word}");
        }
    }

    #[test]
    fn the_file_reads_back_as_what_was_written_and_debug_hides_the_secret() {
        for words in [
            &["lan"][..],
            &["10.0.0.1", "10.0.0.2", "10.0.0.3"],
            &["https://d.example.org/x"],
            &["srv:example.org"],
        ] {
            let definition = ClusterDefinition {
                name: "harbour".to_owned(),
                size: 3,
                secret: ClusterSecret::from_bytes(&secret::tests::BYTES),
                find: read(words, 3).unwrap(),
            };

            assert_eq!(ClusterDefinition::parse(&definition.definition_text()), Some(definition.clone()));
            assert!(!format!("{definition:?}").contains(definition.secret.reveal()));
        }
        assert_eq!(ClusterDefinition::parse("{}"), None);
    }

    #[test]
    fn names_are_labels() {
        assert!(is_cluster_name("harbour") && is_cluster_name("h-2"));
        for bad in ["", "-a", "a-", "a.b", "a b", "é", &"a".repeat(49)] {
            assert!(!is_cluster_name(bad), "{bad}");
        }
    }
}
