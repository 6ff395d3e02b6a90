//! Makes a learner of this machine a voter, once it has the data.
//!
//! Knows that etcd refuses until the learner is no further behind than a tenth of the leader's log. Refuses to add
//! members. Invariant: it asks for its own member only.
//!
//! A machine comes as a learner because a voter that was listed and has not started counts as one that is down.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::etcd_client::{CallError, EtcdClient, decode_number};

/// Between two attempts. A learner of our quota needs seconds for the snapshot.
const PAUSE: Duration = Duration::from_secs(2);

/// Asks until the member at `own` votes. Another learner keeps a place from this one, so that it waits for as long as
/// it takes.
pub fn promote_member(client: &EtcdClient, own: SocketAddr, members: &[SocketAddr]) {
    loop {
        match attempt_promotion(client, own, members) {
            Ok(PromotionState::Votes) => return,
            Ok(PromotionState::Learns) | Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PromotionState {
    Learns,
    Votes,
}

fn attempt_promotion(
    client: &EtcdClient,
    own: SocketAddr,
    members: &[SocketAddr],
) -> Result<PromotionState, CallError> {
    let status = client.call(&format!("https://{own}"), "maintenance/status", &json!({}))?;
    if !status["isLearner"].as_bool().unwrap_or_default() {
        return Ok(PromotionState::Votes);
    }
    let id = decode_number(&status["header"]["member_id"]);
    // A learner hands the call on to nobody.
    let voters = members.iter().filter(|member| **member != own);
    for voter in voters {
        let promoted = client.call(
            &format!("https://{voter}"),
            "cluster/member/promote",
            &json!({ "ID": id.to_string() }),
        );
        if promoted.is_ok() {
            return Ok(PromotionState::Votes);
        }
    }
    Ok(PromotionState::Learns)
}
