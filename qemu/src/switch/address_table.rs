//! Remembers at which port a station was last seen.
//!
//! Knows IEEE 802.1D's filtering database (<https://standards.ieee.org/ieee/802.1D/3387/>, 7.9): learning, ageing
//! and the addresses that a bridge keeps to itself. Refuses to know frames. Invariant: a table never grows beyond
//! [`MAX_STATIONS`], whatever addresses a guest invents.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The standard's default ageing time. Shorter floods needlessly; longer sends to a port that a station has left.
pub const AGEING_TIME: Duration = Duration::from_mins(5);

/// Far more than the cards of a cluster and its containers; a full table floods, which is slow but right.
pub const MAX_STATIONS: usize = 4096;

/// A port of the switch, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortIndex(pub usize);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether it means several stations; broadcast is one of these.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a bridge must not forward it: 01-80-C2-00-00-00 to 0F, which pause a link or look for loops
    /// (802.1D, table 7-10). They concern the cable between two neighbours only.
    #[must_use]
    pub fn is_link_local(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, last] if last < 0x10)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&digits.join(":"))
    }
}

/// Where a station was last seen, and when.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    port: PortIndex,
    at: Duration,
}

/// The stations that are known.
#[derive(Debug, Default)]
pub struct AddressTable {
    stations: HashMap<MacAddress, Sighting>,
}

impl AddressTable {
    /// Remembers that `station` sent something through `port`. A station that moved is known at its new port only.
    pub fn learn_station(&mut self, station: MacAddress, port: PortIndex, now: Duration) {
        // A group address is nobody's own; a frame that claims to come from one is forged.
        if station.is_group() {
            return;
        }
        if self.stations.len() >= MAX_STATIONS && !self.stations.contains_key(&station) {
            self.stations.retain(|_, sighting| is_recent(*sighting, now));
            if self.stations.len() >= MAX_STATIONS {
                return;
            }
        }
        self.stations.insert(station, Sighting { port, at: now });
    }

    /// The port of `station`, if it was seen lately.
    #[must_use]
    pub fn find_station(&self, station: MacAddress, now: Duration) -> Option<PortIndex> {
        self.stations
            .get(&station)
            .filter(|sighting| is_recent(**sighting, now))
            .map(|sighting| sighting.port)
    }

    /// Forgets the stations behind `port`: its cable was pulled, and they may come back elsewhere.
    pub fn forget_port(&mut self, port: PortIndex) {
        self.stations.retain(|_, sighting| sighting.port != port);
    }
}

fn is_recent(sighting: Sighting, now: Duration) -> bool {
    now.saturating_sub(sighting.at) < AGEING_TIME
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
    const START: Duration = Duration::ZERO;

    fn numbered_station(number: usize) -> MacAddress {
        let [.., a, b] = number.to_be_bytes();
        MacAddress([2, 0, 0, 0, a, b])
    }

    #[test]
    fn a_station_is_known_until_it_has_been_silent_for_the_ageing_time() {
        let mut table = AddressTable::default();
        table.learn_station(STATION, PortIndex(3), START);

        let shortly_before = AGEING_TIME.saturating_sub(Duration::from_nanos(1));
        assert_eq!(table.find_station(STATION, shortly_before), Some(PortIndex(3)));
        assert_eq!(table.find_station(STATION, AGEING_TIME), None);
    }

    #[test]
    fn a_station_that_moves_is_known_where_it_is() {
        let mut table = AddressTable::default();
        table.learn_station(STATION, PortIndex(0), START);
        table.learn_station(STATION, PortIndex(1), START);

        assert_eq!(table.find_station(STATION, START), Some(PortIndex(1)));
    }

    #[test]
    fn a_group_address_is_never_learned() {
        let mut table = AddressTable::default();
        table.learn_station(MacAddress([0xff; 6]), PortIndex(0), START);

        assert_eq!(table.find_station(MacAddress([0xff; 6]), START), None);
    }

    #[test]
    fn invented_addresses_fill_the_table_only_until_they_age() {
        let mut table = AddressTable::default();
        for number in 0..2 * MAX_STATIONS {
            table.learn_station(numbered_station(number), PortIndex(0), START);
        }
        assert_eq!(table.stations.len(), MAX_STATIONS);
        table.learn_station(STATION, PortIndex(1), START);
        assert_eq!(table.find_station(STATION, START), None);

        table.learn_station(STATION, PortIndex(1), AGEING_TIME);

        assert_eq!(table.find_station(STATION, AGEING_TIME), Some(PortIndex(1)));
        assert_eq!(table.stations.len(), 1);
    }

    #[test]
    fn a_known_station_is_refreshed_in_a_full_table() {
        let mut table = AddressTable::default();
        for number in 0..MAX_STATIONS {
            table.learn_station(numbered_station(number), PortIndex(0), START);
        }

        table.learn_station(numbered_station(0), PortIndex(1), START);

        assert_eq!(table.find_station(numbered_station(0), START), Some(PortIndex(1)));
    }
}
