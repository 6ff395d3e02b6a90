//! Meets the others on the local link, by multicast.
//!
//! Knows sockets, the clock and the disk, for [`crate::link`], which knows none of them. Refuses packets that
//! no member made. Invariant: what a step wants on the disk is there before its message is sent.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
};
use user_data::cluster::ClusterDefinition;

use super::{FindError, FoundVoters, LinkMembership, await_address, draw_number, machine_number};
use crate::derive::{KeyPurpose, derive_key};
use crate::interfaces::{OwnAddress, own_addresses};
use crate::joining::Formation;
use crate::link::message::{LARGEST_PACKET, LinkKey};
use crate::link::{DurableBallots, LinkNode, LinkStep};
use crate::site::{Readers, Site};

/// UDP, beside etcd's members on TCP.
const PORT: u16 = 2380;
/// Of the block for use inside an organisation (RFC 2365). With a hop limit of 1 it stays on the link.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 23, 80);
/// Link-local (RFC 4291), transient.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x0023, 0x0080);
/// Between looks at the sockets.
const PAUSE: Duration = Duration::from_millis(50);
/// After which the sockets are made anew: interfaces and addresses come late.
const REOPEN: Duration = Duration::from_secs(20);
/// Packets for one look. A flood must not keep the node from its own work.
const MOST_PACKETS: usize = 256;

/// The sockets of one machine on its links.
#[derive(Debug)]
pub(crate) struct LinkSockets {
    receivers: Vec<UdpSocket>,
    senders: Vec<(UdpSocket, SocketAddr)>,
    key: LinkKey,
}

impl LinkSockets {
    /// Opens them on each interface that leads to others.
    pub(crate) fn open_sockets(key: LinkKey) -> io::Result<Self> {
        let own = own_addresses();
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        // A kernel without one of the two families is no error, as long as the other is there.
        if let Ok(receiver) = receiver_v4(&own) {
            receivers.push(receiver);
            senders.extend(own.iter().filter_map(sender_v4));
        }
        if let Ok((receiver, groups)) = receiver_v6(&own) {
            senders.extend(groups.into_iter().filter_map(|group| Some((receiver.try_clone().ok()?, group))));
            receivers.push(receiver);
        }
        if senders.is_empty() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        receivers.iter().try_for_each(|receiver| receiver.set_nonblocking(true))?;
        Ok(Self { receivers, senders, key })
    }

    /// Lets a node take what came and do what is due; `persist` is called before anything is sent.
    pub(crate) fn run_turn<E>(
        &self,
        node: &mut LinkNode,
        now: Duration,
        mut persist: impl FnMut(&DurableBallots) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut perform = |step: LinkStep| {
            step.persist.as_ref().map_or(Ok(()), &mut persist)?;
            if let Some(packet) = step.send.and_then(|message| self.key.seal_message(&message)) {
                self.send_packet(&packet);
            }
            Ok(())
        };
        let mut packet = vec![0; LARGEST_PACKET];
        for receiver in &self.receivers {
            for _ in 0..MOST_PACKETS {
                let Ok((length, _)) = receiver.recv_from(&mut packet) else { break };
                if let Some(message) = self.key.open_packet(&packet[..length]) {
                    perform(node.receive_message(message, now))?;
                }
            }
        }
        perform(node.run_tick(now))
    }

    /// A message that is lost is sent again, so that no failure matters.
    fn send_packet(&self, packet: &[u8]) {
        for (sender, group) in &self.senders {
            let _ = sender.send_to(packet, group);
        }
    }
}

/// Several programs of one machine may listen: the one that forms the cluster, and the one that tells of it.
fn receiver_v4(own: &[OwnAddress]) -> io::Result<UdpSocket> {
    let descriptor = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    let everywhere = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT));
    bind(descriptor.as_raw_fd(), &everywhere)?;
    let receiver = UdpSocket::from(descriptor);
    for one in own {
        if let IpAddr::V4(address) = one.address {
            // Twice where an interface has two addresses; the second is refused.
            let _ = receiver.join_multicast_v4(&GROUP_V4, &address);
        }
    }
    Ok(receiver)
}

/// Linux sends multicast through the interface whose address the socket has (`ip_route_output_key_hash_rcu`).
fn sender_v4(own: &OwnAddress) -> Option<(UdpSocket, SocketAddr)> {
    let IpAddr::V4(address) = own.address else { return None };
    let sender = UdpSocket::bind((address, 0)).ok()?;
    sender.set_multicast_ttl_v4(1).ok()?;
    Some((sender, SocketAddr::from((GROUP_V4, PORT))))
}

fn receiver_v6(own: &[OwnAddress]) -> io::Result<(UdpSocket, Vec<SocketAddr>)> {
    let descriptor = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    setsockopt(&descriptor, sockopt::Ipv6V6Only, &true)?;
    let everywhere = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0));
    bind(descriptor.as_raw_fd(), &everywhere)?;
    let receiver = UdpSocket::from(descriptor);
    let mut interfaces: Vec<u32> = own.iter().map(|one| one.interface).collect();
    interfaces.dedup();
    interfaces.retain(|interface| receiver.join_multicast_v6(&GROUP_V6, *interface).is_ok());
    let group = |interface| SocketAddr::from(SocketAddrV6::new(GROUP_V6, PORT, 0, interface));
    Ok((receiver, interfaces.into_iter().map(group).collect()))
}

/// Meets the others, and agrees with them.
pub(super) fn find_voters(
    site: &Site,
    definition: &ClusterDefinition,
    say: &mut dyn FnMut(String),
) -> Result<FoundVoters, FindError> {
    let key = || LinkKey::new(&derive_key(definition, KeyPurpose::LinkMessages));
    let membership = read_membership(site, definition.size, say)?;
    let (own_number, own_address) = (membership.number, membership.address);
    let number = (own_number, draw_number()?);
    let mut node =
        LinkNode::new(number, membership.address, usize::from(definition.size), membership.ballots);
    let start = Instant::now();
    let mut said = 0;
    loop {
        let opened = Instant::now();
        let sockets = match LinkSockets::open_sockets(key()) {
            Ok(sockets) => sockets,
            Err(error) => {
                say(format!("cannot listen on the local link yet: {error}"));
                thread::sleep(super::PAUSE);
                continue;
            }
        };
        while opened.elapsed() < REOPEN {
            sockets.run_turn(&mut node, start.elapsed(), |ballots| persist_ballots(site, ballots))?;
            if let Some(voters) = node.decided_voters() {
                let is_new_disk = node.ballots().names_another(own_address, own_number);
                let formation = if is_new_disk { Formation::Before } else { Formation::Unknown };
                return Ok(FoundVoters { voters, formation });
            }
            let answering = node.count_answering(start.elapsed());
            if answering != said {
                let ClusterDefinition { name, size, .. } = definition;
                say(format!("{answering} machines of {name} answer on the local link; {size} are to vote"));
                said = answering;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// What this machine is on the link.
pub(crate) fn read_membership(
    site: &Site,
    size: u8,
    say: &mut dyn FnMut(String),
) -> Result<LinkMembership, FindError> {
    let ballots = site.read(&site.state_path("ballots.json"))?;
    Ok(LinkMembership {
        number: machine_number(site)?,
        address: await_address(say).address,
        size,
        // One that cannot be read was never in place: files are replaced whole.
        ballots: ballots.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    })
}

fn persist_ballots(site: &Site, ballots: &DurableBallots) -> Result<(), FindError> {
    // Values of these types become JSON.
    let text = serde_json::to_string(ballots).unwrap_or_default();
    Ok(site.write(&site.state_path("ballots.json"), &text, Readers::All)?)
}
