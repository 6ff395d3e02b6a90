//! Finds out who votes, once in a cluster's life.
//!
//! Knows each way to find the others, and the file that remembers the outcome. Refuses to form anything from
//! fewer machines than the definition wants. Invariant: what was found once holds, whatever the network says
//! later: a second list would be a second cluster.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod discovery;
mod dns_message;
mod lan;
mod service_records;

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use user_data::cluster::{ClusterDefinition, FindMethod};

use crate::derive::{KeyPurpose, derive_key, encode_hex};
use crate::interfaces::{OwnAddress, own_addresses};
use crate::joining::Formation;
use crate::link::{DurableBallots, MachineNumber};
use crate::site::{Readers, Site, SiteError};
use crate::voters::{PEER_PORT, VoterList};

pub(crate) use lan::{LinkSockets, read_membership};

/// Between two questions to a name server or a discovery service that knows too few yet.
const PAUSE: Duration = Duration::from_secs(2);

/// Where the voters are remembered.
const VOTERS: &str = "voters.json";

/// Why the voters are not known.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FindError {
    #[error("cannot draw random bytes")]
    Random { source: getrandom::Error },
    #[error("the discovery service wants {theirs} voters, but this machine's `cluster` says {ours}")]
    Size { theirs: usize, ours: u8 },
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// What the disk remembers of the voters.
#[derive(Debug, Serialize, Deserialize)]
struct RememberedVoters {
    /// Of which cluster they are.
    token: String,
    voters: VoterList,
    /// Whether the cluster had data before.
    #[serde(default)]
    formed: bool,
}

/// Who votes, and whether a cluster of them is known to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVoters {
    /// The voters.
    pub voters: VoterList,
    /// Whether the cluster was formed before.
    pub formation: Formation,
}

impl FoundVoters {
    /// Voters of whom nothing else is known.
    #[must_use]
    pub fn new(voters: VoterList) -> Self {
        Self { voters, formation: Formation::Unknown }
    }
}

/// What a machine tells others of its cluster on the link, and its number there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LinkMembership {
    /// Its number.
    pub(crate) number: MachineNumber,
    /// Its address.
    pub(crate) address: IpAddr,
    /// How many vote.
    pub(crate) size: u8,
    /// What it promised, accepted and knows to be decided.
    pub(crate) ballots: DurableBallots,
}

/// The name of a cluster in etcd.
#[must_use]
pub fn cluster_token(definition: &ClusterDefinition) -> String {
    encode_hex(&derive_key(definition, KeyPurpose::Token)[..16])
}

/// Who votes. Waits for as long as the others take.
pub fn find_voters(
    site: &Site,
    definition: &ClusterDefinition,
    say: &mut dyn FnMut(String),
) -> Result<FoundVoters, FindError> {
    let (path, token) = (site.state_path(VOTERS), cluster_token(definition));
    let remembered = site.read(&path)?.and_then(|text| serde_json::from_str::<RememberedVoters>(&text).ok());
    if let Some(known) = remembered.filter(|known| known.token == token) {
        let formation = if known.formed { Formation::Before } else { Formation::Unknown };
        return Ok(FoundVoters { voters: known.voters, formation });
    }
    let found = match &definition.find {
        FindMethod::Addresses(addresses) => {
            FoundVoters::new(VoterList::new(addresses.iter().copied().take(usize::from(definition.size))))
        }
        FindMethod::Alone => FoundVoters::new(VoterList::new([await_address(say).address])),
        FindMethod::Discovery(url) => discovery::find_voters(site, url, definition.size, say)?,
        FindMethod::Lan => lan::find_voters(site, definition, say)?,
        FindMethod::Name(name) => FoundVoters::new(resolve_voters(name, definition.size, say)),
        FindMethod::Service(domain) => {
            FoundVoters::new(service_records::find_voters(site, domain, definition.size, say))
        }
    };
    remember_voters(site, definition, &found)?;
    Ok(found)
}

/// Keeps the voters for the machine's next boots.
pub fn remember_voters(
    site: &Site,
    definition: &ClusterDefinition,
    found: &FoundVoters,
) -> Result<(), SiteError> {
    let remembered = RememberedVoters {
        token: cluster_token(definition),
        voters: found.voters.clone(),
        formed: found.formation == Formation::Before,
    };
    // Values of these types become JSON.
    let text = serde_json::to_string(&remembered).unwrap_or_default();
    let path = site.state_path(VOTERS);
    // The flash of small machines is written when there is something new.
    if site.read(&path)?.as_deref() == Some(&text) {
        return Ok(());
    }
    site.write(&path, &text, Readers::All)
}

/// The address by which others know this machine. A network that is slow to come is waited for.
fn await_address(say: &mut dyn FnMut(String)) -> OwnAddress {
    let mut is_said = false;
    loop {
        if let Some(first) = own_addresses().into_iter().next() {
            return first;
        }
        if !is_said {
            say("this machine has no address that others could reach; waiting for one".to_owned());
            is_said = true;
        }
        thread::sleep(PAUSE);
    }
}

/// The addresses of a name, the least ones if there are more than voters: so each machine takes the same.
fn resolve_voters(name: &str, size: u8, say: &mut dyn FnMut(String)) -> VoterList {
    let wanted = usize::from(size);
    let mut said = None;
    loop {
        let answer = (name, PEER_PORT).to_socket_addrs();
        let addresses: BTreeSet<IpAddr> =
            answer.map(|all| all.map(|one| one.ip()).collect()).unwrap_or_default();
        if addresses.len() >= wanted {
            return VoterList::new(addresses.into_iter().take(wanted));
        }
        if said != Some(addresses.len()) {
            say(format!("{name} has {} of {wanted} addresses so far; waiting for the rest", addresses.len()));
            said = Some(addresses.len());
        }
        thread::sleep(PAUSE);
    }
}

/// The number by which this machine is known among the others; drawn once.
pub(crate) fn machine_number(site: &Site) -> Result<MachineNumber, FindError> {
    let path = site.state_path("number");
    let known = site.read(&path)?.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    if let Some(number) = known {
        return Ok(number);
    }
    let number = draw_number()?;
    site.write(&path, &format!("{number:016x}\n"), Readers::All)?;
    Ok(number)
}

pub(crate) fn draw_number() -> Result<u64, FindError> {
    getrandom::u64().map_err(|source| FindError::Random { source })
}
