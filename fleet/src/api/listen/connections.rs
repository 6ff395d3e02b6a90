//! How many connections are served at once: in all, and of one peer.
//!
//! A peer is a user on a unix socket and an address on TCP. Refuses to know what is asked. Invariant: one
//! peer but root never has more than its share, so that it takes several to shut everybody out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one listener. systemd gives a service 1024 descriptors unless told otherwise; two
/// listeners, their handshakes and what fleetd needs itself have room in that.
const IN_ALL: usize = 256;
/// Connections of one peer: `fleetctl` opens 32 at most, so two of them and a dashboard have room.
const OF_ONE_PEER: usize = 96;

/// Who is at the other end, as far as shares are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// An address; of IPv6 the network, since one machine has all addresses of it.
    Address(IpAddr),
    /// Root on this machine, who needs no connections to do harm.
    Root,
    /// A user on this machine; `None` when the kernel does not say.
    User(Option<u32>),
}

impl Peer {
    pub(super) fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Self::Address(Ipv6Addr::from_bits(network).into())
            }
            address @ IpAddr::V4(_) => Self::Address(address),
        }
    }

    pub(super) fn of_user(uid: Option<u32>) -> Self {
        if uid == Some(0) { Self::Root } else { Self::User(uid) }
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Connections {
    places: Arc<Semaphore>,
    peers: Mutex<BTreeMap<Peer, usize>>,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    _place: OwnedSemaphorePermit,
    connections: Arc<Connections>,
    peer: Peer,
}

impl Connections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(IN_ALL)), peers: Mutex::default() })
    }

    /// Waits for a place: who comes meanwhile waits in the kernel's queue and costs nothing.
    pub(super) async fn reserve_place(&self) -> OwnedSemaphorePermit {
        match self.places.clone().acquire_owned().await {
            Ok(permit) => permit,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives the place to a peer, unless it has its share already.
    pub(super) fn admit_peer(self: &Arc<Self>, place: OwnedSemaphorePermit, peer: Peer) -> Option<Counted> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_default();
        if *count >= OF_ONE_PEER && peer != Peer::Root {
            return None;
        }
        *count += 1;
        Some(Counted { _place: place, connections: self.clone(), peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut peers = self.connections.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn admit(connections: &Arc<Connections>, peer: Peer) -> Option<Counted> {
        connections.admit_peer(connections.reserve_place().await, peer)
    }

    #[tokio::test]
    async fn a_peer_gets_its_share_and_gives_it_back() {
        let connections = Connections::new();
        let (one, other) = (Peer::of_user(Some(1000)), Peer::of_user(Some(1001)));
        let mut held = Vec::new();
        for _ in 0..OF_ONE_PEER {
            held.push(admit(&connections, one).await.unwrap());
        }

        assert!(admit(&connections, one).await.is_none());
        assert!(admit(&connections, other).await.is_some());
        held.pop();
        assert!(admit(&connections, one).await.is_some());
        drop(held);
        assert!(connections.peers.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn root_may_have_all_places_and_not_one_more() {
        let connections = Connections::new();
        let mut held = Vec::new();
        for _ in 0..IN_ALL {
            held.push(admit(&connections, Peer::of_user(Some(0))).await.unwrap());
        }

        let more =
            tokio::time::timeout(std::time::Duration::from_millis(20), connections.reserve_place()).await;

        assert!(more.is_err());
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let peer = |text: &str| Peer::of_address(text.parse().unwrap());

        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }
}
