//! Whether this machine may restart without costing the cluster its etcd.
//!
//! Knows majorities. Refuses to restart anything, and to know why somebody wants to. Invariant: a voter whose absence
//! would leave no majority is kept, unless the cluster has one voter or two, which lose it at each restart anyhow.

use std::net::IpAddr;

use crate::condition::{ClusterHealth, EtcdCondition, MemberRole, observe_condition};
use crate::etcd_client::{CALL_PATIENCE, ClientCredentials, EtcdClient};
use crate::interfaces::own_addresses;
use crate::prepare::read_served;
use crate::site::Site;

/// Why this machine must not restart now; `None` if nothing of etcd's speaks against it.
#[must_use]
pub fn find_objection(site: &Site) -> Option<String> {
    // What cannot be read is no cluster of ours.
    let served = read_served(site).ok().flatten().filter(|served| served.place == "voter")?;
    let credentials = ClientCredentials::of_machine(site).ok().flatten()?;
    let client = EtcdClient::new(Some(&credentials), CALL_PATIENCE).ok()?;
    let own: Vec<IpAddr> = own_addresses().into_iter().map(|one| one.address).collect();
    judge_restart(&observe_condition(&client, &served.members), &own)
}

/// The same, by what was seen.
#[must_use]
pub fn judge_restart(condition: &EtcdCondition, own: &[IpAddr]) -> Option<String> {
    if condition.health == ClusterHealth::NoQuorum {
        return Some("etcd has no majority: 'initagent cluster status' says what to do".to_owned());
    }
    let is_own = |address: Option<IpAddr>| address.is_some_and(|address| own.contains(&address));
    let voters: Vec<_> =
        condition.members.iter().filter(|member| member.role != MemberRole::Learner).collect();
    let is_voter = voters.iter().any(|member| is_own(member.address));
    // One voter or two have none to spare, ever: to wait for one would be the end of their updates.
    if !is_voter || voters.len() < 3 {
        return None;
    }
    let others = voters.iter().filter(|member| !is_own(member.address) && member.role != MemberRole::Silent);
    let (left, majority) = (others.count(), voters.len() / 2 + 1);
    (left < majority).then(|| {
        let silent = voters.iter().filter(|member| member.role == MemberRole::Silent);
        let silent: Vec<String> = silent.filter_map(|member| Some(member.address?.to_string())).collect();
        format!(
            "etcd has no voter to spare: {left} of {} would be left, since {} does not answer; start it, or replace it",
            voters.len(),
            silent.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::tests::condition;

    #[test]
    fn a_voter_restarts_only_while_the_others_are_a_majority() {
        use MemberRole::{Follower, Leader, Learner, Silent};
        let objection = |roles: &[MemberRole], has_quorum, last: u8| {
            judge_restart(&condition(roles, has_quorum), &[IpAddr::from([10, 0, 0, last])])
        };

        assert_eq!(objection(&[Leader, Follower, Follower], true, 1), None);
        let down = objection(&[Leader, Follower, Silent], true, 1).unwrap();
        assert!(down.contains("no voter to spare") && down.contains("10.0.0.3"), "{down}");
        // A worker's restart costs etcd nothing.
        assert_eq!(objection(&[Leader, Follower, Silent], true, 9), None);
        assert!(objection(&[Leader, Follower, Follower], false, 9).unwrap().contains("no majority"));
        assert_eq!(objection(&[Leader], true, 1), None);
        assert_eq!(objection(&[Leader, Follower, Learner], true, 1), None);
        assert_eq!(objection(&[Leader, Follower, Follower, Follower, Silent], true, 1), None);
    }
}
