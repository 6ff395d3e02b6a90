//! How a voter begins: it forms the cluster, goes on, comes back with a new disk, or takes a free place.
//!
//! Knows etcd's rules for members. Refuses to touch anything: a step is carried out by [`crate::membership_change`],
//! and then everything is looked at anew. Invariants: a machine without data never votes under the number of one that
//! had some, unless nobody ever did; a member is removed only where a quorum confirmed the list and the others do not
//! see it.
//!
//! Why a lost disk is no small matter: a member promises its vote, and says which entries are on its disk. One that
//! comes back under its number without them lets a majority elect a leader that lacks what was confirmed to clients.
//! etcd guards itself only where the others answer ("has already been bootstrapped"), and then does not start.
//!
//! ```text
//! data   quorum answers, own number      step
//! none   no,  formed before              wait: the others, or `restore`
//! none   no,  nothing known              form
//! none   yes, there and has started      remove it, unless the others still see it
//! none   yes, there and never started    start as it
//! none   yes, not there, a place free    add a learner
//! none   yes, not there, none free       work for the voters
//! some   no                              go on
//! some   yes, the number of the data     go on
//! some   yes, another number or none     put the data aside
//! ```

use std::net::IpAddr;

use crate::membership::{EtcdMember, MembershipView};
use crate::voters::VoterList;

/// What is on the disk of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataState {
    /// Nothing of etcd's.
    Empty,
    /// A member's data.
    Present,
}

/// Whether a cluster of this definition is known to have had data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Formation {
    /// It was formed: this machine or the others say so.
    Before,
    /// Nobody knows.
    #[default]
    Unknown,
}

/// What is known before etcd starts.
#[derive(Debug)]
pub struct JoinFacts<'a> {
    /// The machine's addresses.
    pub own: &'a [IpAddr],
    /// Who was found to vote.
    pub voters: &'a VoterList,
    /// How many are to vote.
    pub size: usize,
    /// What a quorum says; `None` if none answers.
    pub view: Option<&'a MembershipView>,
    /// Whether the others have a connection to the member at this machine's address.
    pub is_seen: bool,
    /// What is on the disk.
    pub data: DataState,
    /// The number of the member whose data it is, if it was noted.
    pub data_member: Option<u64>,
    /// Whether there was a cluster before.
    pub formation: Formation,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinStep {
    /// Become a learner in a free place, at this address, and look again.
    Add(IpAddr),
    /// Wait for this, and look again.
    Await(AwaitedEvent),
    /// Start with what is on the disk.
    Continue(IpAddr),
    /// Start as the member that the others have listed.
    Enter(IpAddr),
    /// Form the cluster with the voters that were found.
    Form(IpAddr),
    /// Put the data out of the way, and look again.
    PutAside,
    /// Remove the member whose data was on the lost disk, and look again.
    Remove(u64),
    /// Use the voters.
    Work,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwaitedEvent {
    /// The others lose sight of the member at this address.
    Disappearance,
    /// A majority of the other voters answers.
    Quorum,
}

impl AwaitedEvent {
    /// What is told to people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Disappearance => {
                "this machine's disk is new, but the other members still see a member at its address: waiting until \
                 they do not. If this goes on, another machine has the same address"
            }
            Self::Quorum => {
                "this machine's disk is new, and its cluster was formed before: waiting for a majority of the other \
                 voters. If they are lost for good, 'initagent cluster restore' brings back what was kept"
            }
        }
    }
}

/// Decides the next step.
#[must_use]
pub fn decide_join(facts: &JoinFacts<'_>) -> JoinStep {
    match facts.view {
        Some(view) => decide_among(facts, view),
        None => decide_unseen(facts),
    }
}

/// Nobody answers who speaks for a quorum.
fn decide_unseen(facts: &JoinFacts<'_>) -> JoinStep {
    let Some(address) = facts.voters.member_among(facts.own) else { return JoinStep::Work };
    match (facts.data, facts.formation) {
        (DataState::Present, _) => JoinStep::Continue(address),
        (DataState::Empty, Formation::Before) => JoinStep::Await(AwaitedEvent::Quorum),
        (DataState::Empty, Formation::Unknown) => JoinStep::Form(address),
    }
}

fn decide_among(facts: &JoinFacts<'_>, view: &MembershipView) -> JoinStep {
    let member = view.member_among(facts.own);
    if facts.data == DataState::Present {
        let is_of = |member: &EtcdMember| facts.data_member.is_none_or(|id| id == member.id);
        return match member.filter(|member| is_of(member)).and_then(|member| member.address) {
            Some(address) => JoinStep::Continue(address),
            None => JoinStep::PutAside,
        };
    }
    match member {
        Some(EtcdMember { id, has_started: true, .. }) if !facts.is_seen => JoinStep::Remove(*id),
        Some(EtcdMember { has_started: true, .. }) => JoinStep::Await(AwaitedEvent::Disappearance),
        // With an address, since it was found by one.
        Some(member) => member.address.map_or(JoinStep::Work, JoinStep::Enter),
        None if view.members.len() >= facts.size => JoinStep::Work,
        None => {
            // The address by which the cluster knew this machine, or else the first that others reach.
            let address = facts.voters.member_among(facts.own).or_else(|| facts.own.first().copied());
            address.map_or(JoinStep::Work, JoinStep::Add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn member(last: u8, has_started: bool) -> EtcdMember {
        EtcdMember {
            id: u64::from(last),
            name: String::new(),
            address: Some(address(last)),
            peer_urls: Vec::new(),
            has_started,
            is_learner: false,
        }
    }

    fn view(members: &[EtcdMember]) -> MembershipView {
        MembershipView { members: members.to_vec(), ..MembershipView::default() }
    }

    /// The machine 10.0.0.1 of three voters.
    fn decided(view: Option<&MembershipView>, change: impl FnOnce(&mut JoinFacts<'_>)) -> JoinStep {
        let own = [address(1)];
        let voters = VoterList::new((1..=3).map(address));
        let mut facts = JoinFacts {
            own: &own,
            voters: &voters,
            size: 3,
            view,
            is_seen: false,
            data: DataState::Empty,
            data_member: None,
            formation: Formation::Unknown,
        };
        change(&mut facts);
        decide_join(&facts)
    }

    #[test]
    fn a_cluster_is_formed_only_where_none_is_known() {
        assert_eq!(decided(None, |_| {}), JoinStep::Form(address(1)));
        assert_eq!(
            decided(None, |facts| facts.formation = Formation::Before),
            JoinStep::Await(AwaitedEvent::Quorum)
        );
        // Late, while the others form it.
        let forming = view(&[member(1, false), member(2, true), member(3, true)]);
        assert_eq!(decided(Some(&forming), |_| {}), JoinStep::Enter(address(1)));
    }

    #[test]
    fn a_voter_that_lost_its_disk_is_replaced_once_the_others_do_not_see_it() {
        let others = view(&[member(1, true), member(2, true), member(3, true)]);

        assert_eq!(decided(Some(&others), |_| {}), JoinStep::Remove(1));
        assert_eq!(
            decided(Some(&others), |facts| facts.is_seen = true),
            JoinStep::Await(AwaitedEvent::Disappearance)
        );
        let removed = view(&[member(2, true), member(3, true)]);
        assert_eq!(decided(Some(&removed), |_| {}), JoinStep::Add(address(1)));
        let added = view(&[member(1, false), member(2, true), member(3, true)]);
        assert_eq!(decided(Some(&added), |_| {}), JoinStep::Enter(address(1)));
    }

    #[test]
    fn data_goes_on_without_the_others_and_with_those_that_know_it() {
        let others = view(&[member(1, true), member(2, true), member(3, true)]);
        let with_data = |view: Option<&MembershipView>, id| {
            decided(view, |facts| (facts.data, facts.data_member) = (DataState::Present, id))
        };

        assert_eq!(with_data(None, Some(1)), JoinStep::Continue(address(1)));
        assert_eq!(with_data(Some(&others), None), JoinStep::Continue(address(1)));
        assert_eq!(with_data(Some(&others), Some(1)), JoinStep::Continue(address(1)));
    }

    #[test]
    fn data_of_a_member_that_was_removed_is_put_aside() {
        let with_data = |view: Option<&MembershipView>, id| {
            decided(view, |facts| (facts.data, facts.data_member) = (DataState::Present, id))
        };
        let replaced_by_a_worker = view(&[member(4, true), member(2, true), member(3, true)]);
        let again_with_a_new_disk = view(&[member(1, true), member(2, true), member(3, true)]);

        assert_eq!(with_data(Some(&replaced_by_a_worker), None), JoinStep::PutAside);
        assert_eq!(with_data(Some(&again_with_a_new_disk), Some(99)), JoinStep::PutAside);
        assert_eq!(decided(Some(&replaced_by_a_worker), |_| {}), JoinStep::Work);
    }

    #[test]
    fn a_worker_enters_where_a_place_is_free() {
        let worker = [address(9)];
        let full = view(&[member(1, true), member(2, true), member(3, true)]);
        let free = view(&[member(2, true), member(3, true)]);
        let of_worker = |view: Option<&MembershipView>| {
            let voters = VoterList::new((1..=3).map(address));
            decide_join(&JoinFacts {
                own: &worker,
                voters: &voters,
                size: 3,
                view,
                is_seen: false,
                data: DataState::Empty,
                data_member: None,
                formation: Formation::Unknown,
            })
        };

        assert_eq!(of_worker(Some(&full)), JoinStep::Work);
        assert_eq!(of_worker(Some(&free)), JoinStep::Add(address(9)));
        assert_eq!(of_worker(None), JoinStep::Work);
    }
}
