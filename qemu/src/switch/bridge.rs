//! Decides which machines get a frame, and when: the forwarding core of the switch.
//!
//! Pure: a frame and the time go in, frames that are due come out; no socket, no clock. Knows IEEE 802.1D's rules:
//! learn the sender, filter what is local, flood what is unknown or for a group. Without spanning tree, since one
//! switch has no loops. Invariants: a frame never returns to the port that it came from, reaches no port twice, and
//! never passes a cut cable; no queue grows beyond [`MAX_QUEUED_FRAMES`] and [`MAX_QUEUED_BYTES`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::address_table::{AddressTable, MacAddress, PortIndex};
use super::cable::{CableState, FrameLoss, LinkState, PortStatistics};
use crate::seeded_random::SeededRandom;

/// Destination, source and type: less is no Ethernet.
const MIN_FRAME: usize = 14;

/// The length of `netem`'s queue, which people know: enough for a burst, too little to hide that a machine hangs.
pub const MAX_QUEUED_FRAMES: usize = 1000;

/// Four mebibytes a machine: a whole window of TCP. Big frames reach it before their number counts.
pub const MAX_QUEUED_BYTES: usize = 4 << 20;

/// A frame on its way. Flooding shares the bytes.
pub type Frame = Arc<[u8]>;

/// The switch.
#[derive(Debug)]
pub struct Bridge {
    ports: Vec<Port>,
    table: AddressTable,
    random: SeededRandom,
    sequence: u64,
}

/// A socket for a cable, and what waits in it.
#[derive(Debug, Default)]
struct Port {
    cable: CableState,
    statistics: PortStatistics,
    /// By the time when each is due, then in the order of arrival: a frame from a slow cable must not hold up
    /// those that come later from a fast one.
    queue: BTreeMap<(Duration, u64), Frame>,
    queued_bytes: usize,
}

impl Port {
    fn queue_frame(&mut self, key: (Duration, u64), frame: Frame) -> Result<(), FrameLoss> {
        let bytes = self.queued_bytes + frame.len();
        // The newest is lost, as in a real switch. To drop the oldest would break up every burst.
        if self.queue.len() >= MAX_QUEUED_FRAMES || bytes > MAX_QUEUED_BYTES {
            return Err(FrameLoss::Overflow);
        }
        self.queued_bytes = bytes;
        self.queue.insert(key, frame);
        Ok(())
    }

    fn clear_queue(&mut self, loss: FrameLoss) {
        for _ in &self.queue {
            self.statistics.count_loss(loss);
        }
        self.queue.clear();
        self.queued_bytes = 0;
    }
}

impl Bridge {
    /// A switch with so many ports, all cables whole. The seed decides which frames a lossy cable loses.
    #[must_use]
    pub fn new(ports: usize, seed: u64) -> Self {
        Self {
            ports: (0..ports).map(|_| Port::default()).collect(),
            table: AddressTable::default(),
            random: SeededRandom::from_seed(seed),
            sequence: 0,
        }
    }

    /// The number of its ports.
    #[must_use]
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// Takes a frame that the machine at `from` sent, and queues it where it belongs.
    pub fn forward_frame(&mut self, from: PortIndex, bytes: &[u8], now: Duration) {
        let Some(port) = self.ports.get_mut(from.0) else { return };
        port.statistics.sent_frames += 1;
        port.statistics.sent_bytes += bytes.len() as u64;
        let carried = addresses_of(bytes).and_then(|addresses| {
            port.cable.carry_frame(&mut self.random).map(|delay| (addresses, now + delay))
        });
        match carried {
            Err(loss) => port.statistics.count_loss(loss),
            Ok(((destination, source), due)) => {
                self.table.learn_station(source, from, now);
                self.deliver_frame(from, destination, bytes, now, due);
            }
        }
    }

    fn deliver_frame(
        &mut self,
        from: PortIndex,
        destination: MacAddress,
        bytes: &[u8],
        now: Duration,
        due: Duration,
    ) {
        let known = (!destination.is_group()).then(|| self.table.find_station(destination, now)).flatten();
        let frame: Frame = bytes.into();
        match known {
            // The machine has both stations itself (containers on a bridge of its own), and has delivered it.
            Some(port) if port == from => {}
            Some(port) => self.queue_frame(port, &frame, due),
            None => {
                for port in (0..self.ports.len()).map(PortIndex).filter(|port| *port != from) {
                    self.queue_frame(port, &frame, due);
                }
            }
        }
    }

    fn queue_frame(&mut self, to: PortIndex, frame: &Frame, due: Duration) {
        let Some(port) = self.ports.get_mut(to.0) else { return };
        self.sequence += 1;
        let sequence = self.sequence;
        let queued = port
            .cable
            .carry_frame(&mut self.random)
            .and_then(|delay| port.queue_frame((due + delay, sequence), Frame::clone(frame)));
        if let Err(loss) = queued {
            port.statistics.count_loss(loss);
        }
    }

    /// The next frame for the machine at `to`, if one is due.
    pub fn next_frame(&mut self, to: PortIndex, now: Duration) -> Option<Frame> {
        let port = self.ports.get_mut(to.0)?;
        let entry = port.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let frame = entry.remove();
        port.queued_bytes -= frame.len();
        port.statistics.received_frames += 1;
        port.statistics.received_bytes += frame.len() as u64;
        Some(frame)
    }

    /// When the first frame for the machine at `to` is due.
    #[must_use]
    pub fn next_due(&self, to: PortIndex) -> Option<Duration> {
        self.ports.get(to.0)?.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// What the cable of a port does to frames.
    #[must_use]
    pub fn cable_state(&self, port: PortIndex) -> Option<CableState> {
        self.ports.get(port.0).map(|port| port.cable)
    }

    /// Changes the cable of a port. What is under way in a cable that is cut is lost; what has left it already
    /// arrives.
    pub fn set_cable(&mut self, port: PortIndex, cable: CableState) {
        let Some(slot) = self.ports.get_mut(port.0) else { return };
        slot.cable = cable;
        if cable.link == LinkState::Cut {
            slot.clear_queue(FrameLoss::Cut);
            self.table.forget_port(port);
        }
    }

    /// Forgets what waits for a machine that is off: after its next start it is another network card.
    pub fn reset_port(&mut self, port: PortIndex) {
        if let Some(slot) = self.ports.get_mut(port.0) {
            slot.clear_queue(FrameLoss::Cut);
        }
        self.table.forget_port(port);
    }

    /// What a port has seen.
    #[must_use]
    pub fn port_statistics(&self, port: PortIndex) -> Option<PortStatistics> {
        self.ports.get(port.0).map(|port| port.statistics)
    }
}

/// Destination and source.
fn addresses_of(frame: &[u8]) -> Result<(MacAddress, MacAddress), FrameLoss> {
    let address = |at: usize| frame.get(at..at + 6)?.try_into().ok().map(MacAddress);
    match (address(0), address(6)) {
        (Some(destination), Some(source)) if frame.len() >= MIN_FRAME && !destination.is_link_local() => {
            Ok((destination, source))
        }
        _ => Err(FrameLoss::Invalid),
    }
}

#[cfg(test)]
mod tests;
