//! Meets the others at a discovery service, by the protocol of etcd 2 (`/TOKEN/_config/size`, `/TOKEN/ID`).
//!
//! Knows what etcd itself sends there, so that any service which etcd can use will do. Refuses to trust it: it
//! says where the others are, and their certificates say who they are. Invariant: who registered first votes,
//! by the order that the service keeps.
//!
//! Not etcd's own `--discovery`: a machine beyond the size would become a proxy without certificates, and one
//! that lost its disk would be told that it "has already been bootstrapped".

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use super::{FindError, PAUSE, await_address, machine_number};
use crate::site::Site;
use crate::voters::{VoterList, member_name, peer_url};

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
) -> Result<VoterList, FindError> {
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
                return Ok(VoterList::new(registered.into_iter().take(usize::from(size))));
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
fn query_service(agent: &Agent, url: &str, own: (u64, IpAddr)) -> Result<(usize, Vec<IpAddr>), String> {
    let (number, address) = own;
    let size = text_of(agent.get(format!("{url}/_config/size")).call())?;
    let size = size["node"]["value"].as_str().and_then(|text| text.parse().ok());
    let size = size.ok_or("it does not know this token, or says no size")?;
    let own = format!("{}={}", member_name(address), peer_url(address));
    // Refused with 412 where it was done before, which is as good.
    text_of(agent.put(format!("{url}/{number:016x}?prevExist=false")).send_form([("value", own)]))?;
    Ok((size, registered_addresses(&text_of(agent.get(url).call())?)))
}

fn text_of(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
    let body = body.map_err(|error| error.to_string())?;
    serde_json::from_str(&body).map_err(|_| format!("it answered {}, and not in JSON", answer.status()))
}

/// Addresses by the order in which they were registered.
fn registered_addresses(answer: &Value) -> Vec<IpAddr> {
    let nodes = answer["node"]["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut known: Vec<(u64, IpAddr)> = nodes
        .iter()
        .filter_map(|node| Some((node["createdIndex"].as_u64()?, address_of(node["value"].as_str()?)?)))
        .collect();
    known.sort_unstable();
    // A machine that lost its disk registers anew, with its old address.
    let mut seen = Vec::new();
    for (_, address) in known {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    seen
}

/// The address in `name=https://10.0.0.1:2380`.
fn address_of(value: &str) -> Option<IpAddr> {
    let (_, url) = value.rsplit_once('=')?;
    let (_, authority) = url.split_once("://")?;
    let (host, _) = authority.rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
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

        assert_eq!(registered_addresses(&answer), expected);
        assert!(registered_addresses(&json!({})).is_empty());
    }
}
