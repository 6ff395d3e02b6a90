//! How machines on one link agree, once, on who votes.
//!
//! Knows a list of voters, ballots and who was heard. Refuses to know sockets, clocks and disks: messages come
//! in with the time, and go out with what must be on disk first. Invariants:
//! - a list that one machine holds for decided, no other machine that shares a voter with it holds otherwise;
//! - a message counts only if it repeats a number that this machine drew at its start, so that no recording of
//!   an earlier day does.
//!
//! It is Paxos with a twist: who may vote is itself what is voted on. A list is decided when *each* machine on it
//! accepted it in one ballot. So one machine of a list that did not accept it, and promised not to, proves that
//! it was never decided, and frees the others. Nobody is a quorum of machines whose number is not known.
//!
//! Fewer machines than the list is long never decide. Two halves of a link that was cut *before* the first list
//! could each decide one if each half has as many machines as voters are wanted; below twice that number they
//! cannot. No protocol can do better without knowing how many machines there are.
//!
//! ```text
//! heard enough ──prepare──▶ all promised ──accept──▶ all accepted ──▶ decided ──▶ told to whoever comes
//!      ▲                         │ a list that may be decided already: that one
//!      └──── a higher ballot, or silence ◀───────────────┘
//! ```

pub mod message;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::voters::VoterList;

/// Half a second: a cluster of three forms in about five messages each.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Once decided, only whoever comes late needs to hear it; he is answered at once.
const QUIET_HEARTBEAT: Duration = Duration::from_secs(15);
/// Ten heartbeats: with a loss of one message in three, one in 60 000 machines seems gone that is not.
const SILENCE: Duration = Duration::from_secs(5);
/// Machines that start together are seconds apart; who proposes at once leaves a faster one out.
const CALM: Duration = Duration::from_secs(2);
/// What a message names at most, so that it stays below 8 KiB.
const MOST_HEARD: usize = 128;
/// Recordings of a machine's earlier runs must not push its own out.
const MOST_SESSIONS: usize = 4;

/// Time since this machine's start.
pub type Moment = Duration;
/// A machine, by a number that it drew once and keeps on its disk.
pub type MachineNumber = u64;
/// A start of a machine, by a number that it draws each time.
pub type SessionNumber = u64;
/// Voters by number.
pub type VoterMap = BTreeMap<MachineNumber, IpAddr>;

/// Which attempt to agree is meant; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Ballot {
    round: u64,
    proposer: MachineNumber,
}

/// A list that a machine accepted in a ballot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    ballot: Ballot,
    voters: VoterMap,
}

/// What a machine must not forget, whatever happens to its power.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DurableBallots {
    promised: Ballot,
    accepted: Option<Acceptance>,
    decided: Option<VoterMap>,
}

impl DurableBallots {
    /// Whether the decided list has another machine at this address: the one whose disk this machine had, since no
    /// list is decided before each machine on it accepted it.
    #[must_use]
    pub fn names_another(&self, address: IpAddr, number: MachineNumber) -> bool {
        let decided = self.decided.iter().flatten();
        decided.into_iter().any(|(known, at)| *at == address && *known != number)
    }
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposalPhase {
    /// Accept this list.
    Accept,
    /// Promise to accept nothing older.
    Prepare,
}

/// An attempt to agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    ballot: Ballot,
    voters: VoterMap,
    phase: ProposalPhase,
}

/// All that a machine says, each time whole: a lost message costs nothing but time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkMessage {
    /// Who says it.
    pub from: MachineNumber,
    /// In which of its runs.
    pub session: SessionNumber,
    /// Counts its messages of this run.
    pub count: u64,
    /// Where its etcd would be.
    pub address: IpAddr,
    /// Whom it heard, in which of their runs.
    pub heard: Vec<(MachineNumber, SessionNumber)>,
    /// What it promised and accepted.
    pub ballots: DurableBallots,
    /// What it proposes.
    pub proposal: Option<Proposal>,
}

/// What the caller does, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStep {
    /// Goes to the disk, and is there before anything is sent.
    pub persist: Option<DurableBallots>,
    /// Goes to the link.
    pub send: Option<LinkMessage>,
}

/// One machine that others are told of.
#[derive(Debug, Clone)]
struct LinkPeer {
    /// The last of its runs, newest first, each with the greatest count.
    sessions: VecDeque<(SessionNumber, u64)>,
    heard_at: Moment,
    /// What it said in answer to this run of ours.
    fresh: Option<(Moment, LinkMessage)>,
}

/// This machine's part.
#[derive(Debug, Clone)]
pub struct LinkNode {
    number: MachineNumber,
    session: SessionNumber,
    address: IpAddr,
    size: usize,
    count: u64,
    ballots: DurableBallots,
    proposal: Option<Proposal>,
    /// When the proposal was made or moved on.
    proposed_at: Moment,
    /// A list that may be decided, found in the way of another.
    forced: Option<VoterMap>,
    peers: BTreeMap<MachineNumber, LinkPeer>,
    highest_round: u64,
    candidates: BTreeSet<MachineNumber>,
    calm_since: Moment,
    sent_at: Option<Moment>,
}

impl LinkNode {
    /// A machine with what its disk remembers. `session` must be random.
    #[must_use]
    pub fn new(
        (number, session): (MachineNumber, SessionNumber),
        address: IpAddr,
        size: usize,
        ballots: DurableBallots,
    ) -> Self {
        Self {
            number,
            session,
            address,
            size,
            count: 0,
            ballots,
            proposal: None,
            proposed_at: Moment::ZERO,
            forced: None,
            peers: BTreeMap::new(),
            highest_round: 0,
            candidates: BTreeSet::new(),
            calm_since: Moment::ZERO,
            sent_at: None,
        }
    }

    /// What it must not forget.
    #[must_use]
    pub fn ballots(&self) -> &DurableBallots {
        &self.ballots
    }

    /// The list, once it is decided.
    #[must_use]
    pub fn decided_voters(&self) -> Option<VoterList> {
        self.ballots.decided.as_ref().map(|voters| VoterList::new(voters.values().copied()))
    }

    /// How many machines answer, this one included.
    #[must_use]
    pub fn count_answering(&self, now: Moment) -> usize {
        self.fresh_messages(now).count() + 1
    }

    /// Takes a message that was authenticated.
    pub fn receive_message(&mut self, message: LinkMessage, now: Moment) -> LinkStep {
        let before = (self.ballots.clone(), self.proposal.clone());
        let from = message.from;
        if from == self.number || !self.note_peer(message, now) {
            return LinkStep::default();
        }
        let Some((_, message)) = self.peers.get(&from).and_then(|peer| peer.fresh.clone()) else {
            // Heard, but not in answer to us: our next message names its run, and it can answer.
            return LinkStep::default();
        };
        self.follow_promise(&message);
        self.advance_proposal(now);
        let is_late = self.ballots.decided.is_some() && message.ballots.decided.is_none();
        let is_changed = before != (self.ballots.clone(), self.proposal.clone());
        let persist = (before.0 != self.ballots).then(|| self.ballots.clone());
        let send = (is_changed || (is_late && self.may_send(now, HEARTBEAT))).then(|| self.next_message(now));
        LinkStep { persist, send }
    }

    /// Does what is due. To be called every [`HEARTBEAT`] or more often.
    pub fn run_tick(&mut self, now: Moment) -> LinkStep {
        let before = self.ballots.clone();
        self.peers.retain(|_, peer| now.saturating_sub(peer.heard_at) < SILENCE * 12);
        let candidates: BTreeSet<MachineNumber> =
            self.fresh_messages(now).map(|(number, _)| number).collect();
        if candidates != self.candidates {
            self.candidates = candidates;
            self.calm_since = now;
        }
        self.advance_proposal(now);
        self.start_proposal(now);
        let persist = (before != self.ballots).then(|| self.ballots.clone());
        let wanted = if self.ballots.decided.is_some() { QUIET_HEARTBEAT } else { HEARTBEAT };
        // Whoever speaks and was not answered yet gets the number of his run repeated.
        let is_awaited = self.peers.values().any(|peer| self.sent_at.is_none_or(|sent| peer.heard_at > sent));
        let wanted = if is_awaited { HEARTBEAT } else { wanted };
        let send = (persist.is_some() || self.may_send(now, wanted)).then(|| self.next_message(now));
        LinkStep { persist, send }
    }

    fn may_send(&self, now: Moment, pause: Duration) -> bool {
        self.sent_at.is_none_or(|sent| now.saturating_sub(sent) >= pause)
    }

    /// Notes that a machine was heard; whether the message is newer than all before it.
    fn note_peer(&mut self, message: LinkMessage, now: Moment) -> bool {
        let peer = self.peers.entry(message.from).or_insert_with(|| LinkPeer {
            sessions: VecDeque::new(),
            heard_at: now,
            fresh: None,
        });
        let known = peer.sessions.iter().position(|(session, _)| *session == message.session);
        if known.is_some_and(|at| peer.sessions[at].1 >= message.count) {
            return false;
        }
        if let Some(at) = known {
            peer.sessions.remove(at);
        }
        peer.sessions.push_front((message.session, message.count));
        peer.sessions.truncate(MOST_SESSIONS);
        peer.heard_at = now;
        let is_answer = message.heard.contains(&(self.number, self.session));
        if is_answer {
            self.highest_round = self.highest_round.max(highest_round(&message));
            peer.fresh = Some((now, message));
        }
        is_answer
    }

    /// What others said in answer to this run, not too long ago.
    fn fresh_messages(&self, now: Moment) -> impl Iterator<Item = (MachineNumber, &LinkMessage)> {
        self.peers.iter().filter_map(move |(number, peer)| {
            let (at, message) = peer.fresh.as_ref()?;
            (now.saturating_sub(*at) < SILENCE).then_some((*number, message))
        })
    }

    /// Does what another asks, as far as a promise allows it.
    fn follow_promise(&mut self, message: &LinkMessage) {
        if self.ballots.decided.is_some() {
            return;
        }
        if let Some(decided) = &message.ballots.decided {
            self.ballots.decided = Some(decided.clone());
            self.proposal = None;
            return;
        }
        if let Some(proposal) = message.proposal.as_ref().filter(|proposal| self.is_asked(proposal)) {
            self.grant_proposal(&proposal.clone());
        }
    }

    fn is_asked(&self, proposal: &Proposal) -> bool {
        proposal.voters.get(&self.number) == Some(&self.address) && proposal.voters.len() == self.size
    }

    fn grant_proposal(&mut self, proposal: &Proposal) {
        if proposal.ballot < self.ballots.promised {
            return;
        }
        self.ballots.promised = proposal.ballot;
        if proposal.phase == ProposalPhase::Accept {
            let (ballot, voters) = (proposal.ballot, proposal.voters.clone());
            self.ballots.accepted = Some(Acceptance { ballot, voters });
        }
    }

    /// Moves the own proposal on, if those it asks have answered.
    fn advance_proposal(&mut self, now: Moment) {
        let Some(proposal) = self.proposal.clone().filter(|_| self.ballots.decided.is_none()) else { return };
        let answers = self.collect_ballots(&proposal, now);
        if answers.values().any(|ballots| ballots.promised > proposal.ballot) {
            self.proposal = None;
            return;
        }
        let is_promised = |ballots: &DurableBallots| ballots.promised == proposal.ballot;
        if answers.len() < proposal.voters.len() || !answers.values().all(is_promised) {
            return;
        }
        match proposal.phase {
            ProposalPhase::Prepare => {
                let forced = self.possibly_decided(&answers);
                match forced.filter(|voters| *voters != proposal.voters) {
                    Some(voters) => (self.forced, self.proposal) = (Some(voters), None),
                    None => self.begin_phase(Proposal { phase: ProposalPhase::Accept, ..proposal }, now),
                }
            }
            ProposalPhase::Accept => {
                let wanted = Acceptance { ballot: proposal.ballot, voters: proposal.voters };
                if answers.values().all(|ballots| ballots.accepted.as_ref() == Some(&wanted)) {
                    self.ballots.decided = Some(wanted.voters);
                    self.proposal = None;
                }
            }
        }
    }

    /// The ballots of those on a list, as far as they answer.
    fn collect_ballots(&self, proposal: &Proposal, now: Moment) -> BTreeMap<MachineNumber, DurableBallots> {
        let own = [(self.number, self.ballots.clone())];
        let others = self.fresh_messages(now).map(|(number, message)| (number, message.ballots.clone()));
        let is_asked = |(number, _): &(MachineNumber, DurableBallots)| proposal.voters.contains_key(number);
        others.chain(own).filter(is_asked).collect()
    }

    /// The latest list that was accepted by somebody and may have been decided.
    ///
    /// It was not if one of its machines has promised this ballot and did not accept it: it never will. Each list
    /// is judged, not only the latest, since two of them need not share a machine.
    fn possibly_decided(&self, answers: &BTreeMap<MachineNumber, DurableBallots>) -> Option<VoterMap> {
        let own = self.ballots.accepted.as_ref();
        let accepted = answers.values().filter_map(|ballots| ballots.accepted.as_ref()).chain(own);
        let is_possible = |one: &&Acceptance| {
            let mut known = one.voters.keys().filter_map(|number| answers.get(number));
            known.all(|ballots| ballots.accepted.as_ref() == Some(one))
        };
        accepted.filter(is_possible).max_by_key(|one| one.ballot).map(|one| one.voters.clone())
    }

    /// Makes a proposal, if it is this machine's turn: that of the least number among those that answer.
    fn start_proposal(&mut self, now: Moment) {
        let is_first = self.candidates.iter().all(|number| self.number < *number);
        let is_calm = now.saturating_sub(self.calm_since) >= CALM;
        let is_stalled = now.saturating_sub(self.proposed_at) >= SILENCE;
        let is_busy = self.proposal.is_some() && !is_stalled;
        if self.ballots.decided.is_some() || !is_first || !is_calm || is_busy {
            return;
        }
        if self.candidates.len() + 1 < self.size {
            return;
        }
        let round = self.highest_round.max(self.ballots.promised.round) + 1;
        self.highest_round = round;
        let voters = self.forced.take().unwrap_or_else(|| self.first_voters(now));
        let ballot = Ballot { round, proposer: self.number };
        self.begin_phase(Proposal { ballot, voters, phase: ProposalPhase::Prepare }, now);
    }

    fn begin_phase(&mut self, proposal: Proposal, now: Moment) {
        if self.is_asked(&proposal) {
            self.grant_proposal(&proposal);
        }
        self.proposal = Some(proposal);
        self.proposed_at = now;
        // A cluster of one machine has nobody to wait for.
        if self.size == 1 {
            self.advance_proposal(now);
        }
    }

    fn first_voters(&self, now: Moment) -> VoterMap {
        let others = self.fresh_messages(now).map(|(number, message)| (number, message.address));
        let all: VoterMap = others.chain([(self.number, self.address)]).collect();
        all.into_iter().take(self.size).collect()
    }

    fn next_message(&mut self, now: Moment) -> LinkMessage {
        self.count += 1;
        self.sent_at = Some(now);
        let mut latest: Vec<(&MachineNumber, &LinkPeer)> = self.peers.iter().collect();
        latest.sort_by_key(|(_, peer)| std::cmp::Reverse(peer.heard_at));
        let sessions = |(number, peer): (&MachineNumber, &LinkPeer)| {
            let number = *number;
            peer.sessions.iter().map(move |(session, _)| (number, *session)).collect::<Vec<_>>()
        };
        LinkMessage {
            from: self.number,
            session: self.session,
            count: self.count,
            address: self.address,
            heard: latest.into_iter().flat_map(sessions).take(MOST_HEARD).collect(),
            ballots: self.ballots.clone(),
            proposal: self.proposal.clone(),
        }
    }
}

fn highest_round(message: &LinkMessage) -> u64 {
    let proposed = message.proposal.as_ref().map_or(0, |proposal| proposal.ballot.round);
    message.ballots.promised.round.max(proposed)
}
