//! How etcd runs on this machine: what it is told, and what stays in front of it.
//!
//! Knows etcd's variables, and which of them a person set. Refuses to touch the machine. Invariants: without a
//! certificate nobody gets to etcd, unless a person wrote a plain address that others reach; what a person
//! wrote is changed only where it meant loopback.
//!
//! What Debian's etcd 3.5.16 really does, tried with it, decided the shape:
//! - One plain listener serves all of it: the keys of version 2, gRPC, its JSON gateway and `/v2/members`.
//! - `--listen-client-http-urls` takes gRPC off a plain listener, and `--enable-grpc-gateway=false` the gateway.
//!   Yet `POST /v2/members` is served there: `nobody` added a member, and the cluster of one lost its quorum.
//! - Authentication of version 2 (`/v2/auth`) would guard that, but whoever is first sets its password.
//! - The port for members takes messages of raft from everybody who reaches it, loopback or not.
//!
//! So etcd listens with certificates alone, and [`crate::proxy`] hands on the keys of version 2.

mod defaults;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::exposure::{Exposure, ServedUrl};
use crate::voters::{CLIENT_PORT, PEER_PORT, VoterList, member_name, peer_url};

/// Where etcd of this machine answers, with certificates. 2379 and 4001 belong to the old clients.
pub const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2378);
/// Where CoreOS's clients look for the keys of version 2.
pub const CLASSIC: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), CLIENT_PORT),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4001),
];

/// The store of version 3 is full then, unless a person sets another quota.
pub const QUOTA_BYTES: u64 = 512 << 20;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// How a voter's etcd begins if it has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoterStart {
    /// As one that the members have listed: these are they.
    Existing(String),
    /// It forms the cluster with the other voters.
    New,
}

/// What this machine is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterPlace {
    /// Nobody wrote `cluster`: etcd does what its own settings say.
    Unplaced,
    /// It votes.
    Voter {
        /// Its own address among the voters'.
        address: IpAddr,
        /// All voters.
        voters: VoterList,
        /// The cluster's name in etcd.
        token: String,
        /// How it begins.
        start: VoterStart,
    },
    /// It uses the voters.
    Worker {
        /// All voters.
        voters: VoterList,
    },
}

/// How etcd runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdPlan {
    /// What etcd is told besides what it was told.
    pub variables: Variables,
    /// Whether etcd runs here at all.
    pub runs_here: bool,
    /// Where the keys of version 2 are offered in the clear.
    pub classic: Vec<SocketAddr>,
    /// Members that answer those who have a certificate of the cluster; none if etcd has certificates of
    /// somebody else.
    pub members: Vec<SocketAddr>,
    /// What is open.
    pub exposures: Vec<Exposure>,
    /// Settings that are not followed.
    pub ignored: Vec<String>,
}

/// Decides how etcd runs, by the variables that its unit has, the machine's place, and the folder of its keys.
#[must_use]
pub fn plan_etcd(given: &Variables, place: &ClusterPlace, folder: &Path) -> EtcdPlan {
    let plan = match place {
        ClusterPlace::Unplaced => plan_unplaced(given, folder),
        ClusterPlace::Voter { address, voters, token, start } => {
            let mut plan = plan_voter(given, (*address, voters, token), folder);
            plan.variables.extend(start.variables());
            plan
        }
        ClusterPlace::Worker { voters } => {
            EtcdPlan { classic: CLASSIC.to_vec(), members: voters.client_sockets(), ..EtcdPlan::default() }
        }
    };
    let own = defaults::DEFAULTS.iter().filter(|(name, _)| !given.contains_key(*name));
    let own: Variables = own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    EtcdPlan { variables: own.into_iter().chain(plan.variables).collect(), ..plan }
}

impl VoterStart {
    /// What differs from forming a cluster.
    fn variables(&self) -> Variables {
        let Self::Existing(members) = self else { return Variables::new() };
        [("ETCD_INITIAL_CLUSTER", members.clone()), ("ETCD_INITIAL_CLUSTER_STATE", "existing".to_owned())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

fn plan_voter(given: &Variables, place: (IpAddr, &VoterList, &str), folder: &Path) -> EtcdPlan {
    let (address, voters, token) = place;
    let client = format!("https://{}", SocketAddr::new(address, CLIENT_PORT));
    let mut variables = tls_variables(&defaults::CLIENT_TLS, folder);
    variables.extend(tls_variables(&defaults::PEER_TLS, folder));
    let settings = [
        ("ETCD_ADVERTISE_CLIENT_URLS", client.clone()),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer_url(address)),
        ("ETCD_INITIAL_CLUSTER", voters.initial_cluster()),
        ("ETCD_INITIAL_CLUSTER_STATE", "new".to_owned()),
        ("ETCD_INITIAL_CLUSTER_TOKEN", token.to_owned()),
        ("ETCD_LISTEN_CLIENT_URLS", format!("https://{LOCAL},{client}")),
        ("ETCD_LISTEN_PEER_URLS", peer_url(address)),
        ("ETCD_NAME", member_name(address)),
    ];
    variables.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    let ignored = defaults::FORMING.iter().filter(|name| given.contains_key(**name));
    let ignored: Vec<String> = ignored.map(|name| (*name).to_owned()).collect();
    // An empty variable is none: what is left of another way to form a cluster would be a second opinion.
    for name in &ignored {
        variables.entry(name.clone()).or_default();
    }
    // The machine's own member first: it answers when the network does not.
    let others = voters.client_sockets().into_iter().filter(|socket| socket.ip() != address);
    let members = [LOCAL].into_iter().chain(others).collect();
    EtcdPlan {
        variables,
        runs_here: true,
        classic: CLASSIC.to_vec(),
        members,
        ignored,
        ..EtcdPlan::default()
    }
}

fn plan_unplaced(given: &Variables, folder: &Path) -> EtcdPlan {
    let mut plan = plan_clients(given, folder);
    plan.runs_here = true;
    if defaults::PEER_TLS_NAMES.iter().any(|name| given.contains_key(*name)) {
        return plan;
    }
    let peers = given.get("ETCD_LISTEN_PEER_URLS").map(|list| ServedUrl::parse_list(list));
    match peers {
        None if !forms_with_others(given) => plan.variables.extend(loopback_peers(given, folder)),
        Some(peers) if peers.iter().all(ServedUrl::is_plain_loopback) && !forms_with_others(given) => {
            plan.variables.extend(encrypted_peers(given, folder));
        }
        Some(peers) => plan.exposures.extend(exposures_of(peers, Exposure::PlainPeers)),
        // etcd's own default for members is its loopback address.
        None => plan.exposures.push(Exposure::PlainPeers(ServedUrl::parse_url("http://localhost:2380"))),
    }
    plan
}

/// Who comes for keys and values.
fn plan_clients(given: &Variables, folder: &Path) -> EtcdPlan {
    if defaults::CLIENT_TLS_NAMES.iter().any(|name| given.contains_key(*name)) {
        // Whose certificates they are, and who may come with them, is for their author to know.
        let served = given.get("ETCD_LISTEN_CLIENT_URLS").map_or("http://localhost:2379", String::as_str);
        let exposures = exposures_of(ServedUrl::parse_list(served), Exposure::PlainClients).collect();
        return EtcdPlan { exposures, ..EtcdPlan::default() };
    }
    let mut variables = tls_variables(&defaults::CLIENT_TLS, folder);
    let served = given.get("ETCD_LISTEN_CLIENT_URLS").map(|list| ServedUrl::parse_list(list));
    let (kept, classic) = match served {
        None => (Vec::new(), CLASSIC.to_vec()),
        // One plain address for others is the author's choice for all of it: clients that he lets in from
        // elsewhere find on loopback what they find there.
        Some(served) if served.iter().any(ServedUrl::is_open) => (served, Vec::new()),
        Some(served) => {
            let (plain, kept): (Vec<_>, Vec<_>) = served.into_iter().partition(ServedUrl::is_plain_loopback);
            (kept, plain.iter().filter_map(|served| loopback_socket(&served.url)).collect())
        }
    };
    let listen = [format!("https://{LOCAL}")].into_iter().chain(kept.iter().map(|served| served.url.clone()));
    variables.insert("ETCD_LISTEN_CLIENT_URLS".to_owned(), listen.collect::<Vec<_>>().join(","));
    if !given.contains_key("ETCD_ADVERTISE_CLIENT_URLS") {
        let url =
            classic.first().map_or_else(|| format!("https://{LOCAL}"), |socket| format!("http://{socket}"));
        variables.insert("ETCD_ADVERTISE_CLIENT_URLS".to_owned(), url);
    }
    let exposures = exposures_of(kept, Exposure::PlainClients).collect();
    EtcdPlan { variables, classic, members: vec![LOCAL], exposures, ..EtcdPlan::default() }
}

/// Whether the settings name other machines, or a way to them.
fn forms_with_others(given: &Variables) -> bool {
    let is_given = |name: &str| given.get(name).is_some_and(|value| !value.is_empty());
    let members = given.get("ETCD_INITIAL_CLUSTER").map_or(0, |list| list.split(',').count());
    // A proxy has no members' port.
    let is_proxy = given.get("ETCD_PROXY").is_some_and(|word| word != "off");
    members > 1
        || is_proxy
        || ["ETCD_DISCOVERY", "ETCD_DISCOVERY_SRV"].into_iter().any(is_given)
        || given
            .get("ETCD_INITIAL_ADVERTISE_PEER_URLS")
            .is_some_and(|list| !ServedUrl::parse_list(list).iter().all(ServedUrl::is_plain_loopback))
}

/// The members' port of a machine that is alone.
fn loopback_peers(given: &Variables, folder: &Path) -> Variables {
    let url = format!("https://127.0.0.1:{PEER_PORT}");
    let name = given.get("ETCD_NAME").map_or("default", String::as_str);
    let mut variables = tls_variables(&defaults::PEER_TLS, folder);
    let settings = [
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", url.clone()),
        ("ETCD_INITIAL_CLUSTER", format!("{name}={url}")),
        ("ETCD_LISTEN_PEER_URLS", url),
    ];
    variables.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    variables
}

/// The same addresses, with certificates.
fn encrypted_peers(given: &Variables, folder: &Path) -> Variables {
    let mut variables = tls_variables(&defaults::PEER_TLS, folder);
    let listen = given.get("ETCD_LISTEN_PEER_URLS").cloned().unwrap_or_default();
    let advertise = given.get("ETCD_INITIAL_ADVERTISE_PEER_URLS").unwrap_or(&listen).clone();
    let name = given.get("ETCD_NAME").map_or("default", String::as_str);
    let members = advertise.split(',').map(|url| format!("{name}={}", url.trim()));
    let members =
        given.get("ETCD_INITIAL_CLUSTER").cloned().unwrap_or_else(|| members.collect::<Vec<_>>().join(","));
    let settings = [
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", advertise),
        ("ETCD_INITIAL_CLUSTER", members),
        ("ETCD_LISTEN_PEER_URLS", listen),
    ];
    let encrypted = |value: String| value.replace("http://", "https://");
    variables.extend(settings.map(|(name, value)| (name.to_owned(), encrypted(value))));
    variables
}

fn exposures_of(
    served: Vec<ServedUrl>,
    exposure: fn(ServedUrl) -> Exposure,
) -> impl Iterator<Item = Exposure> {
    served.into_iter().filter(|served| served.is_open() || served.is_plain_loopback()).map(exposure)
}

/// Where a plain loopback URL is served.
fn loopback_socket(url: &str) -> Option<SocketAddr> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let authority = authority.replace("localhost", "127.0.0.1");
    authority.parse().ok().or_else(|| Some(SocketAddr::new(authority.parse().ok()?, 80)))
}

/// Names of files become paths.
fn tls_variables(settings: &[(&str, &str)], folder: &Path) -> Variables {
    let whole = |(name, value): &(&str, &str)| {
        let path = name.ends_with("_FILE").then(|| folder.join(value).display().to_string());
        ((*name).to_owned(), path.unwrap_or_else(|| (*value).to_owned()))
    };
    settings.iter().map(whole).collect()
}
