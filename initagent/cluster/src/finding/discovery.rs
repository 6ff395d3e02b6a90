//! Meets the others at a discovery service, by the protocol of etcd 2 (`/TOKEN/_config/size`, `/TOKEN/ID`).
//!
//! Knows what etcd itself sends there, so that any service which etcd can use will do. Refuses to trust it: it
//! says where the others are, and their certificates say who they are. Invariant: who registered first votes,
//! by the order that the service keeps.
//!
//! Not etcd's own `--discovery`: a machine beyond the size would become a proxy without certificates, and one
//! that lost its disk would be told that it "has already been bootstrapped".

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use super::{FindError, FoundVoters, PAUSE, await_address, machine_number};
use crate::joining::Formation;
use crate::membership::url_address;
use crate::site::Site;
use crate::voters::{VoterList, member_name, peer_url};

/// One machine at the service, in the order of their coming.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Registration {
    index: u64,
    address: IpAddr,
    /// Its number.
    key: String,
}

/// discovery.etcd.io took seconds on bad days.
const PATIENCE: Duration = Duration::from_secs(20);
/// A list of a thousand machines is shorter.
const LARGEST_ANSWER: u64 = 1 << 20;

/// Registers, and waits until enough others have.
pub(super) fn find_voters(
    site: &Site,
    url: &str,
    size: u8,
    say: &mut dyn FnMut(String),
) -> Result<FoundVoters, FindError> {
    let agent = Agent::new_with_config(
        Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build(),
    );
    let (number, address) = (machine_number(site)?, await_address(say).address);
    let mut said = String::new();
    loop {
        let outcome = query_service(&agent, url, (number, address));
        let now = match outcome {
            Ok((theirs, _)) if theirs != usize::from(size) => {
                return Err(FindError::Size { theirs, ours: size });
            }
            Ok((_, registered)) if registered.len() >= usize::from(size) => {
                return Ok(found_among(&registered, size, (number, address)));
            }
            Ok((_, registered)) => format!("{} of {size} machines are registered there", registered.len()),
            Err(reason) => reason,
        };
        if said != now {
            // Whoever has the URL may register, so that it is not shown.
            say(format!("waiting for the discovery service: {now}"));
            said = now;
        }
        thread::sleep(PAUSE);
    }
}

/// The size that the service wants, and who is registered, first come first.
fn query_service(agent: &Agent, url: &str, own: (u64, IpAddr)) -> Result<(usize, Vec<Registration>), String> {
    let (number, address) = own;
    let size = text_of(agent.get(format!("{url}/_config/size")).call())?;
    let size = size["node"]["value"].as_str().and_then(|text| text.parse().ok());
    let size = size.ok_or("it does not know this token, or says no size")?;
    let own = format!("{}={}", member_name(address), peer_url(address));
    // Refused with 412 where it was done before, which is as good.
    text_of(agent.put(format!("{url}/{number:016x}?prevExist=false")).send_form([("value", own)]))?;
    Ok((size, registered_machines(&text_of(agent.get(url).call())?)))
}

fn text_of(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
    let body = body.map_err(|error| error.to_string())?;
    serde_json::from_str(&body).map_err(|_| format!("it answered {}, and not in JSON", answer.status()))
}

/// Who votes of those that are registered. One that stands there under another number had another disk.
fn found_among(registered: &[Registration], size: u8, own: (u64, IpAddr)) -> FoundVoters {
    let addresses = registered.iter().map(|one| one.address).take(usize::from(size));
    let (number, address) = own;
    let key = format!("{number:016x}");
    let is_new_disk = registered.iter().any(|one| one.address == address && one.key != key);
    let formation = if is_new_disk { Formation::Before } else { Formation::Unknown };
    FoundVoters { voters: VoterList::new(addresses), formation }
}

/// Who came first at each address, by the order in which they were registered.
fn registered_machines(answer: &Value) -> Vec<Registration> {
    let nodes = answer["node"]["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let read = |node: &Value| {
        let key = node["key"].as_str()?.rsplit('/').next()?.to_owned();
        let address = url_address(node["value"].as_str()?.rsplit_once('=')?.1)?;
        Some(Registration { index: node["createdIndex"].as_u64()?, address, key })
    };
    let mut known: Vec<Registration> = nodes.iter().filter_map(read).collect();
    known.sort_unstable();
    // A machine that lost its disk registers anew, with its old address.
    let mut seen = BTreeSet::new();
    known.retain(|one| seen.insert(one.address));
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_came_first_votes_and_is_counted_once() {
        let answer = json!({"node": {"nodes": [
            {"key": "/t/3", "value": "10-0-0-3=https://10.0.0.3:2380", "createdIndex": 12},
            {"key": "/t/1", "value": "a=http://[fd00::1]:2380", "createdIndex": 9},
            {"key": "/t/4", "value": "10-0-0-3=https://10.0.0.3:2380", "createdIndex": 40},
            {"key": "/t/5", "value": "nonsense", "createdIndex": 1},
            {"key": "/t/2", "value": "10-0-0-2=https://10.0.0.2:2380", "createdIndex": 30},
        ]}});
        let expected = ["fd00::1", "10.0.0.3", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());

        let addresses: Vec<IpAddr> = registered_machines(&answer).iter().map(|one| one.address).collect();
        assert_eq!(addresses, expected);
        assert!(registered_machines(&json!({})).is_empty());
    }

    #[test]
    fn a_machine_with_a_new_disk_finds_its_address_under_its_old_number() {
        let answer = json!({"node": {"nodes": [
            {"key": "/t/0000000000000001", "value": "a=https://10.0.0.1:2380", "createdIndex": 3},
            {"key": "/t/0000000000000002", "value": "b=https://10.0.0.2:2380", "createdIndex": 4},
            {"key": "/t/0000000000000009", "value": "a=https://10.0.0.1:2380", "createdIndex": 9},
        ]}});
        let formation = |number, address: &str| {
            found_among(&registered_machines(&answer), 3, (number, address.parse().unwrap())).formation
        };

        assert_eq!(formation(9, "10.0.0.1"), Formation::Before);
        assert_eq!(formation(2, "10.0.0.2"), Formation::Unknown);
    }
}
