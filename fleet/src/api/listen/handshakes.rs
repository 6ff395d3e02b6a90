//! TLS handshakes, many at once, so that who is slow keeps nobody waiting.
//!
//! Nobody has shown a certificate yet, so nothing here may be used up: when the slots are taken, the newest
//! handshake takes that of the oldest, first among those of its own address. Refuses to know what is asked
//! afterwards.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use super::connections::Peer;

/// An honest handshake takes two round trips; 3 s are enough for one around the world with a lost packet.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Handshakes at once: descriptors are what they cost.
// As many as there are connections, so that both together stay below the 1024 descriptors that systemd
// gives a service.
const SLOTS: usize = 256;
/// Handshakes of one address at once. Beyond that its oldest is dropped, which hurts only who does not go on
/// with the ones before.
const OF_ONE_ADDRESS: usize = 32;
/// Connections that may wait to be served after their handshake.
// Small: a connection that is done waits here only until the accepting loop comes by.
const READY: usize = 16;

/// Hands out connections whose handshake is done.
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY);
        tokio::spawn(shake_hands(listener, TlsAcceptor::from(config.clone()), sender));
        Ok(Self { ready, address })
    }
}

async fn shake_hands(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let mut pending = Pending::default();
    let mut tasks = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            connection = Listener::accept(&mut listener) => connection,
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                pending.0.retain(|(_, handshake)| handshake.id() != id);
                continue;
            }
            () = ready.closed() => return,
        };
        let peer = Peer::of_address(address.ip());
        // Before the new one is counted, and by dropping an old one. To refuse the new one would let a few
        // hundred idle connections shut everybody out.
        pending.make_room(peer);
        let handshake = tasks.spawn(shake_hand(acceptor.clone(), stream, address, ready.clone()));
        pending.0.push_back((peer, handshake));
    }
}

async fn shake_hand(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        // A receiver that is gone means that we are being stopped.
        Ok(Ok(stream)) => drop(ready.send((stream, address)).await),
        Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

/// Handshakes under way, the oldest first.
#[derive(Default)]
struct Pending(VecDeque<(Peer, AbortHandle)>);

impl Pending {
    /// Drops a handshake if there is no room for one more of this peer.
    fn make_room(&mut self, peer: Peer) {
        let own = self.0.iter().filter(|(other, _)| *other == peer).count();
        let oldest = if own >= OF_ONE_ADDRESS {
            self.0.iter().position(|(other, _)| *other == peer)
        } else {
            (self.0.len() >= SLOTS).then_some(0)
        };
        if let Some((_, handshake)) = oldest.and_then(|oldest| self.0.remove(oldest)) {
            handshake.abort();
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task lives as long as we do; without it there is nothing to hand out.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes(tasks: &mut JoinSet<()>, peers: impl Iterator<Item = Peer>) -> Pending {
        Pending(peers.map(|peer| (peer, tasks.spawn(std::future::pending()))).collect())
    }

    fn peer(number: usize) -> Peer {
        Peer::of_user(u32::try_from(number).ok())
    }

    #[tokio::test]
    async fn the_newest_takes_the_slot_of_the_oldest_of_its_address() {
        let mut tasks = JoinSet::new();
        let other = handshakes(&mut tasks, std::iter::once(peer(1)));
        let mut pending = handshakes(&mut tasks, std::iter::repeat_n(peer(2), OF_ONE_ADDRESS));
        pending.0.push_front(other.0[0].clone());

        pending.make_room(peer(2));

        assert_eq!(pending.0.len(), OF_ONE_ADDRESS);
        assert_eq!(pending.0[0].0, peer(1), "another address has nothing to fear");
    }

    #[tokio::test]
    async fn when_all_slots_are_taken_the_oldest_of_all_goes() {
        let mut tasks = JoinSet::new();
        let mut pending = handshakes(&mut tasks, (1..=SLOTS).map(peer));

        pending.make_room(peer(SLOTS + 1));

        assert_eq!((pending.0.len(), pending.0[0].0), (SLOTS - 1, peer(2)));
    }
}
