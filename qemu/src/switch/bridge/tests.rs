//! What the switch does with single frames, and with ten thousand random ones against a model.

use std::collections::BTreeSet;

use super::*;
use crate::switch::address_table::AGEING_TIME;
use crate::switch::cable::LossRate;

const START: Duration = Duration::ZERO;
const NOBODY: [usize; 0] = [];
const BROADCAST: [u8; 6] = [0xff; 6];

fn station(port: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, u8::try_from(port).unwrap()]
}

fn frame(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x08, 0x00], payload].concat()
}

/// The ports that have a frame due now, each taken out.
fn receivers(bridge: &mut Bridge, now: Duration) -> Vec<usize> {
    (0..bridge.port_count()).filter(|port| bridge.next_frame(PortIndex(*port), now).is_some()).collect()
}

fn send(bridge: &mut Bridge, from: usize, to: [u8; 6], now: Duration) {
    bridge.forward_frame(PortIndex(from), &frame(to, station(from), b"payload"), now);
}

fn change_cable(bridge: &mut Bridge, port: usize, change: impl Fn(&mut CableState)) {
    let mut cable = bridge.cable_state(PortIndex(port)).unwrap();
    change(&mut cable);
    bridge.set_cable(PortIndex(port), cable);
}

/// A switch of four ports that knows the station of each.
fn learned_bridge() -> Bridge {
    let mut bridge = Bridge::new(4, 1);
    for port in 0..4 {
        send(&mut bridge, port, BROADCAST, START);
        while !receivers(&mut bridge, START).is_empty() {}
    }
    bridge
}

#[test]
fn an_unknown_station_is_looked_for_at_every_other_port() {
    let mut bridge = Bridge::new(4, 1);

    send(&mut bridge, 1, station(3), START);

    assert_eq!(receivers(&mut bridge, START), [0, 2, 3]);
    assert_eq!(receivers(&mut bridge, START), NOBODY);
}

#[test]
fn a_known_station_alone_gets_its_frames() {
    let mut bridge = learned_bridge();

    send(&mut bridge, 1, station(3), START);

    assert_eq!(receivers(&mut bridge, START), [3]);
}

#[test]
fn a_silent_station_is_looked_for_again_after_the_ageing_time() {
    let mut bridge = learned_bridge();

    send(&mut bridge, 1, station(3), AGEING_TIME);

    assert_eq!(receivers(&mut bridge, AGEING_TIME), [0, 2, 3]);
}

#[test]
fn groups_of_ipv4_and_ipv6_reach_everybody_else() {
    for group in [BROADCAST, [0x01, 0, 0x5e, 1, 2, 3], [0x33, 0x33, 0, 0, 0, 1]] {
        let mut bridge = learned_bridge();

        send(&mut bridge, 2, group, START);

        assert_eq!(receivers(&mut bridge, START), [0, 1, 3]);
    }
}

#[test]
fn a_frame_between_two_stations_of_one_machine_stays_there() {
    let mut bridge = learned_bridge();
    bridge.forward_frame(PortIndex(0), &frame(BROADCAST, [2; 6], b"a container's"), START);
    while !receivers(&mut bridge, START).is_empty() {}

    bridge.forward_frame(PortIndex(0), &frame([2; 6], station(0), b""), START);

    assert_eq!(receivers(&mut bridge, START), NOBODY);
}

#[test]
fn short_frames_and_those_for_the_neighbour_only_are_not_forwarded() {
    let mut bridge = learned_bridge();
    let whole = frame(station(1), station(0), b"");

    for length in 0..MIN_FRAME {
        bridge.forward_frame(PortIndex(0), &whole[..length], START);
    }
    // A pause frame.
    send(&mut bridge, 0, [0x01, 0x80, 0xc2, 0, 0, 1], START);

    assert_eq!(receivers(&mut bridge, START), NOBODY);
    assert_eq!(bridge.port_statistics(PortIndex(0)).unwrap().invalid, MIN_FRAME as u64 + 1);
}

#[test]
fn a_cut_machine_hears_nothing_and_is_not_heard_until_it_is_healed() {
    let mut bridge = learned_bridge();
    send(&mut bridge, 1, station(2), START);
    change_cable(&mut bridge, 2, |cable| cable.link = LinkState::Cut);
    assert_eq!(receivers(&mut bridge, START), NOBODY, "what was under way is lost");

    send(&mut bridge, 1, station(2), START);
    send(&mut bridge, 2, BROADCAST, START);
    assert_eq!(receivers(&mut bridge, START), [0, 3], "its address is looked for elsewhere");
    assert_eq!(bridge.port_statistics(PortIndex(2)).unwrap().lost_by_cut, 3);

    change_cable(&mut bridge, 2, |cable| cable.link = LinkState::Whole);
    send(&mut bridge, 1, station(2), START);
    assert_eq!(receivers(&mut bridge, START), [0, 2, 3]);
}

#[test]
fn a_round_trip_over_one_slow_cable_costs_its_delay_twice() {
    let mut bridge = learned_bridge();
    let delay = Duration::from_millis(40);
    change_cable(&mut bridge, 2, |cable| cable.delay = delay);

    send(&mut bridge, 1, station(2), START);
    assert_eq!(bridge.next_due(PortIndex(2)), Some(delay));
    assert_eq!(bridge.next_frame(PortIndex(2), delay.saturating_sub(Duration::from_nanos(1))), None);
    assert!(bridge.next_frame(PortIndex(2), delay).is_some());
    send(&mut bridge, 2, station(1), delay);

    assert_eq!(bridge.next_due(PortIndex(1)), Some(2 * delay));
}

#[test]
fn a_slow_cable_does_not_hold_up_the_frames_of_a_fast_one() {
    let mut bridge = learned_bridge();
    change_cable(&mut bridge, 0, |cable| cable.delay = Duration::from_secs(1));
    send(&mut bridge, 0, station(3), START);

    send(&mut bridge, 1, station(3), START);

    let first = bridge.next_frame(PortIndex(3), START).unwrap();
    assert_eq!(first[6..12], station(1));
    assert_eq!(bridge.next_frame(PortIndex(3), START), None);
}

#[test]
fn frames_of_one_cable_arrive_in_their_order() {
    let mut bridge = learned_bridge();
    for number in 0..100 {
        bridge.forward_frame(PortIndex(0), &frame(station(1), station(0), &[number]), START);
    }

    let numbers: Vec<u8> =
        std::iter::from_fn(|| bridge.next_frame(PortIndex(1), START)).map(|frame| frame[14]).collect();

    assert_eq!(numbers, (0..100).collect::<Vec<u8>>());
}

#[test]
fn a_machine_that_does_not_read_loses_frames_and_costs_bounded_memory() {
    let mut bridge = learned_bridge();
    let big = frame(station(1), station(0), &vec![0; 60_000]);
    for _ in 0..MAX_QUEUED_FRAMES {
        bridge.forward_frame(PortIndex(0), &big, START);
        send(&mut bridge, 0, station(2), START);
    }
    send(&mut bridge, 0, station(2), START);

    let drained = |bridge: &mut Bridge, port| {
        std::iter::from_fn(|| bridge.next_frame(PortIndex(port), START)).map(|frame| frame.len()).collect()
    };
    let (bytes, frames): (Vec<usize>, Vec<usize>) = (drained(&mut bridge, 1), drained(&mut bridge, 2));

    assert_eq!(bytes.iter().sum::<usize>() / big.len(), MAX_QUEUED_BYTES / big.len());
    assert_eq!(frames.len(), MAX_QUEUED_FRAMES);
    assert_eq!(bridge.port_statistics(PortIndex(2)).unwrap().lost_by_overflow, 1);
}

#[test]
fn a_port_that_does_not_exist_changes_nothing() {
    let mut bridge = learned_bridge();

    bridge.forward_frame(PortIndex(9), &frame(BROADCAST, station(9), b""), START);
    bridge.set_cable(PortIndex(9), CableState::default());

    assert_eq!(receivers(&mut bridge, START), NOBODY);
    assert_eq!(bridge.cable_state(PortIndex(9)), None);
}

/// Random frames, cuts, delays and losses. Each frame has a number of its own, by which every delivery is held
/// against what the rules allow.
#[test]
fn random_traffic_keeps_the_invariants() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..2000 {
            simulation.step();
        }
        assert!(simulation.delivered > 100, "seed {seed}: {}", simulation.delivered);
        simulation.check_counters();
    }
}

const PORTS: usize = 5;

struct Simulation {
    bridge: Bridge,
    random: SeededRandom,
    now: Duration,
    /// By the number of the frame: who sent it, to which station, and when
    sent: Vec<(usize, [u8; 6], Duration)>,
    /// The pairs of frame and receiver
    seen: BTreeSet<(usize, usize)>,
    delivered: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            bridge: Bridge::new(PORTS, seed),
            random: SeededRandom::from_seed(seed ^ 0xb71d_9e5c),
            now: START,
            sent: Vec::new(),
            seen: BTreeSet::new(),
            delivered: 0,
        }
    }

    fn any_port(&mut self) -> usize {
        usize::try_from(self.random.number_below(PORTS as u64)).unwrap()
    }

    fn step(&mut self) {
        match self.random.number_below(20) {
            0 => self.change_a_cable(),
            1..=8 => self.send_a_frame(),
            9 => self.now += Duration::from_millis(self.random.number_below(200)),
            10 if self.random.flip_coin() => {
                let port = self.any_port();
                self.bridge.reset_port(PortIndex(port));
            }
            _ => self.receive_frames(),
        }
    }

    fn change_a_cable(&mut self) {
        let port = self.any_port();
        let cable = CableState {
            link: if self.random.number_below(4) == 0 { LinkState::Cut } else { LinkState::Whole },
            delay: Duration::from_millis(self.random.number_below(50)),
            loss: LossRate::from_percent(10.0).unwrap(),
            drop_next: u32::try_from(self.random.number_below(3)).unwrap(),
        };
        self.bridge.set_cable(PortIndex(port), cable);
    }

    fn send_a_frame(&mut self) {
        let (from, to) = (self.any_port(), self.any_port());
        let to = if self.random.number_below(4) == 0 { BROADCAST } else { station(to) };
        let bytes = frame(to, station(from), &self.sent.len().to_be_bytes());
        self.sent.push((from, to, self.now));
        self.bridge.forward_frame(PortIndex(from), &bytes, self.now);
    }

    fn receive_frames(&mut self) {
        let port = self.any_port();
        let due = self.bridge.next_due(PortIndex(port));
        let Some(frame) = self.bridge.next_frame(PortIndex(port), self.now) else {
            assert!(due.is_none_or(|due| due > self.now), "a frame that is due is kept back");
            return;
        };
        let number = usize::from_be_bytes(frame[14..22].try_into().unwrap());
        let (from, to, at) = self.sent[number];
        assert_ne!(port, from, "a frame returned to its sender");
        assert_eq!(frame[..6], to, "a frame was changed");
        assert!(at <= self.now && due.is_some_and(|due| due >= at));
        assert!(self.seen.insert((number, port)), "a frame came twice");
        assert_eq!(
            self.bridge.cable_state(PortIndex(port)).unwrap().link,
            LinkState::Whole,
            "it passed a cut cable"
        );
        self.delivered += 1;
    }

    /// What was delivered is what was counted.
    fn check_counters(&self) {
        let all = (0..PORTS).map(|port| self.bridge.port_statistics(PortIndex(port)).unwrap());
        let (sent, received) = all
            .fold((0, 0), |(sent, received), one| (sent + one.sent_frames, received + one.received_frames));
        assert_eq!((sent, received), (self.sent.len() as u64, self.delivered));
    }
}
