//! Machines on a link that loses, repeats and parts, which lose their power; and an enemy with a recorder.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(100);

struct SimulatedMachine {
    node: LinkNode,
    disk: DurableBallots,
    starts_at: Moment,
    /// Machines of one number hear each other.
    side: usize,
}

struct SimulatedLink {
    machines: Vec<SimulatedMachine>,
    size: usize,
    now: Moment,
    dice: u64,
    /// Of a hundred messages.
    lost: u64,
    recorded: Vec<LinkMessage>,
    sessions: u64,
    /// Which messages never come, by who sends and who would hear them.
    is_cut: fn(usize, usize, &LinkMessage) -> bool,
}

impl SimulatedLink {
    fn new(machines: usize, size: usize, dice: u64, lost: u64) -> Self {
        let mut link = Self {
            machines: Vec::new(),
            size,
            now: Moment::ZERO,
            dice,
            lost,
            recorded: Vec::new(),
            sessions: 0,
            is_cut: |_, _, _| false,
        };
        for index in 0..machines {
            let node = link.start_node(index, DurableBallots::default());
            let (starts_at, side) = (Moment::ZERO, 0);
            link.machines.push(SimulatedMachine { node, disk: DurableBallots::default(), starts_at, side });
        }
        link
    }

    fn start_node(&mut self, index: usize, disk: DurableBallots) -> LinkNode {
        self.sessions += 1;
        let octet = u8::try_from(index + 1).unwrap();
        let number = u64::from(octet);
        LinkNode::new((number, self.sessions), IpAddr::from([10, 0, 0, octet]), self.size, disk)
    }

    /// splitmix64: the same dice throw the same, on every machine.
    fn throw_dice(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn lose_power(&mut self, index: usize) {
        let disk = self.machines[index].disk.clone();
        let node = self.start_node(index, disk);
        self.machines[index].node = node;
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let mut sent = Vec::new();
            for index in 0..self.machines.len() {
                if self.machines[index].starts_at <= self.now {
                    let step = self.machines[index].node.run_tick(self.now);
                    self.perform_step(index, step, &mut sent);
                }
            }
            // Answers are sent at once, as a real machine does.
            while let Some((from, message)) = sent.pop() {
                self.deliver_message(from, &message, &mut sent);
            }
        }
    }

    fn perform_step(&mut self, index: usize, step: LinkStep, sent: &mut Vec<(usize, LinkMessage)>) {
        if let Some(disk) = step.persist {
            self.machines[index].disk = disk;
        }
        if let Some(message) = step.send {
            self.recorded.push(message.clone());
            sent.push((index, message));
        }
    }

    fn deliver_message(&mut self, from: usize, message: &LinkMessage, sent: &mut Vec<(usize, LinkMessage)>) {
        for index in 0..self.machines.len() {
            let is_heard = index != from
                && self.machines[index].side == self.machines[from].side
                && self.machines[index].starts_at <= self.now;
            if is_heard && !(self.is_cut)(from, index, message) && self.throw_dice(100) >= self.lost {
                let step = self.machines[index].node.receive_message(message.clone(), self.now);
                self.perform_step(index, step, sent);
            }
        }
    }

    fn distinct_decisions(&self) -> BTreeSet<Vec<IpAddr>> {
        let lists = self.machines.iter().filter_map(|machine| machine.node.decided_voters());
        lists.map(|list| list.addresses().collect()).collect()
    }

    fn count_undecided(&self) -> usize {
        self.machines.iter().filter(|machine| machine.node.decided_voters().is_none()).count()
    }
}

#[test]
fn machines_that_start_together_agree_within_seconds() {
    let mut link = SimulatedLink::new(3, 3, 1, 0);

    link.run_for(Duration::from_secs(5));

    assert_eq!((link.distinct_decisions().len(), link.count_undecided()), (1, 0));
}

#[test]
fn one_machine_alone_agrees_with_itself_if_one_is_enough() {
    let mut link = SimulatedLink::new(1, 1, 1, 0);
    link.run_for(Duration::from_secs(5));
    assert_eq!(link.count_undecided(), 0);

    let mut link = SimulatedLink::new(2, 3, 1, 0);
    link.run_for(Duration::from_mins(5));
    assert_eq!(link.count_undecided(), 2, "two of three never decide");
}

#[test]
fn a_late_machine_is_told_and_changes_nothing() {
    let mut link = SimulatedLink::new(4, 3, 1, 0);
    // The least number would be first on every list, had it been there.
    link.machines[0].starts_at = Duration::from_mins(1);
    link.run_for(Duration::from_secs(30));
    let decided = link.distinct_decisions();

    link.run_for(Duration::from_secs(40));

    assert_eq!(link.distinct_decisions(), decided);
    assert_eq!((decided.len(), link.count_undecided()), (1, 0));
    let addresses = decided.first().unwrap();
    assert!(!addresses.contains(&IpAddr::from([10, 0, 0, 1])), "{addresses:?}");
}

#[test]
fn a_part_with_too_few_machines_waits_for_the_others() {
    let mut link = SimulatedLink::new(4, 3, 1, 0);
    link.machines[0].side = 1;
    link.run_for(Duration::from_mins(1));
    assert_eq!((link.distinct_decisions().len(), link.count_undecided()), (1, 1));

    link.machines[0].side = 0;
    link.run_for(Duration::from_secs(40));

    assert_eq!((link.distinct_decisions().len(), link.count_undecided()), (1, 0));
}

#[test]
fn a_list_that_one_machine_alone_knows_to_be_decided_stays_the_only_one() {
    let mut link = SimulatedLink::new(5, 3, 1, 0);
    // The first machine decides, and from then on nobody hears it.
    link.is_cut = |from, _, message| from == 0 && message.ballots.decided.is_some();
    link.run_for(Duration::from_secs(30));
    assert_eq!(link.count_undecided(), 4);
    link.machines[0].side = 1;

    link.run_for(Duration::from_mins(5));

    // The four cannot know: on their list stands a machine that may have decided it.
    assert_eq!((link.distinct_decisions().len(), link.count_undecided()), (1, 4));
    link.is_cut = |_, _, _| false;
    link.machines[0].side = 0;
    link.run_for(Duration::from_mins(1));
    assert_eq!((link.distinct_decisions().len(), link.count_undecided()), (1, 0));
}

#[test]
fn a_list_that_cannot_have_been_decided_holds_nobody_up() {
    let mut link = SimulatedLink::new(4, 3, 1, 0);
    // The third machine never hears what it should accept; then the first, which proposed it, is gone for good.
    link.is_cut = |from, to, message| {
        let is_accept = |one: &Proposal| one.phase == ProposalPhase::Accept;
        from == 0 && to == 2 && message.proposal.as_ref().is_some_and(is_accept)
    };
    link.run_for(Duration::from_secs(4));
    assert!(link.machines[1].disk.accepted.is_some() && link.machines[2].disk.accepted.is_none());
    assert_eq!(link.count_undecided(), 4);
    link.machines[0].side = 1;

    link.run_for(Duration::from_mins(1));

    let decided = link.distinct_decisions();
    assert_eq!((decided.len(), link.count_undecided()), (1, 1));
    assert!(!decided.first().unwrap().contains(&IpAddr::from([10, 0, 0, 1])));
}

#[test]
fn recordings_change_nothing() {
    let mut link = SimulatedLink::new(3, 3, 1, 0);
    link.run_for(Duration::from_secs(10));
    let recorded = link.recorded.clone();
    // The disks are new and the numbers are the same: only their runs tell the recordings from the machines.
    let mut fresh = SimulatedLink::new(2, 3, 2, 0);
    fresh.sessions = 1000;
    (0..2).for_each(|index| fresh.lose_power(index));

    for _ in 0..3 {
        for message in &recorded {
            let mut sent = Vec::new();
            for index in 0..2 {
                let step = fresh.machines[index].node.receive_message(message.clone(), fresh.now);
                assert_eq!(step.persist, None);
                fresh.perform_step(index, step, &mut sent);
            }
        }
        fresh.run_for(Duration::from_secs(10));
    }

    assert_eq!(fresh.count_undecided(), 2, "two of three, and a recording of the third, are no three");
}

#[test]
fn an_older_message_of_the_same_run_is_not_taken() {
    let node =
        |number| LinkNode::new((number, number), IpAddr::from([10, 0, 0, 1]), 3, DurableBallots::default());
    let (mut one, mut other) = (node(1), node(2));
    let first = other.run_tick(Duration::from_secs(1)).send.unwrap();
    one.receive_message(first.clone(), Duration::from_secs(1));
    other.receive_message(one.run_tick(Duration::from_secs(1)).send.unwrap(), Duration::from_secs(1));
    let answer = other.run_tick(Duration::from_secs(2)).send.unwrap();

    one.receive_message(answer, Duration::from_secs(2));
    one.receive_message(first, Duration::from_secs(9));

    assert_eq!(one.count_answering(Duration::from_secs(3)), 2);
    assert_eq!(one.count_answering(Duration::from_secs(10)), 1, "an old message says nothing of now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Fewer than twice as many machines as voters: whatever happens, one list at most, and in the end one.
    #[test]
    fn never_two_lists_and_in_the_end_one(
        dice in any::<u64>(),
        machines in 3_usize..=5,
        lost in 0_u64..60,
        events in proptest::collection::vec((0_usize..5, 0_usize..3, 1_u64..40), 0..25),
    ) {
        let mut link = SimulatedLink::new(machines, 3, dice, lost);
        let mut ever = BTreeSet::new();
        for (index, kind, tenths) in events {
            let index = index % machines;
            match kind {
                0 => link.machines[index].side = 1 - link.machines[index].side,
                1 => link.lose_power(index),
                _ => {}
            }
            link.run_for(Duration::from_millis(tenths * 300));
            ever.extend(link.distinct_decisions());
            prop_assert!(ever.len() <= 1, "{ever:?}");
        }
        link.machines.iter_mut().for_each(|machine| machine.side = 0);
        link.lost = link.lost.min(30);
        link.run_for(Duration::from_mins(3));

        ever.extend(link.distinct_decisions());
        prop_assert_eq!((ever.len(), link.count_undecided()), (1, 0));
    }
}
