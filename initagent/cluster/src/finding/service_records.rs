//! Finds the voters by DNS SRV, as etcd's `--discovery-srv` does.
//!
//! Knows the names that etcd asks for, and the machine's name servers. Refuses to trust the answers: they say where
//! the others are, and certificates say who they are. Invariant: each machine that gets the same records takes the
//! same voters.
//!
//! Not etcd's own option: with it a machine that is not among the records fails instead of working for the voters.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::thread;
use std::time::Duration;

use super::dns_message::{DnsAnswer, ServiceRecord, format_question, parse_answer};
use super::{PAUSE, draw_number};
use crate::site::Site;
use crate::voters::{PEER_PORT, VoterList};

/// resolv.conf(5) gives a server five seconds.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);
/// Without `EDNS`, servers send no longer datagram; some do anyway.
const LARGEST_DATAGRAM: usize = 4096;
/// What etcd asks for, the encrypted one first.
const SERVICES: [&str; 2] = ["_etcd-server-ssl._tcp", "_etcd-server._tcp"];

/// Asks until there are as many hosts as voters, each with an address.
pub(super) fn find_voters(site: &Site, domain: &str, size: u8, say: &mut dyn FnMut(String)) -> VoterList {
    let wanted = usize::from(size);
    let mut said = String::new();
    loop {
        let now = match resolve_hosts(site, domain, wanted) {
            Ok(addresses) if addresses.len() >= wanted => return VoterList::new(addresses),
            Ok(addresses) => {
                format!(
                    "{domain} has {} of {wanted} hosts with an address so far; waiting for the rest",
                    addresses.len()
                )
            }
            Err(reason) => format!("waiting for the SRV records of {domain}: {reason}"),
        };
        if now != said {
            say(now.clone());
            said = now;
        }
        thread::sleep(PAUSE);
    }
}

/// The addresses of the first hosts.
fn resolve_hosts(site: &Site, domain: &str, wanted: usize) -> Result<Vec<IpAddr>, String> {
    let text = site.read(&site.foreign_path("/etc/resolv.conf")).ok().flatten().unwrap_or_default();
    let servers = name_servers(&text);
    let address_of = |host: &str| {
        // The least, so that each machine takes the same one.
        (host, PEER_PORT).to_socket_addrs().ok()?.map(|one| one.ip()).min()
    };
    let mut failure = "no name server is known".to_owned();
    for name in record_names(domain) {
        match ask_servers(&servers, &name) {
            Ok(records) => {
                return Ok(choose_hosts(records, wanted)
                    .iter()
                    .filter_map(|host| address_of(host))
                    .collect());
            }
            Err(reason) => failure = reason,
        }
    }
    Err(failure)
}

/// Which names are asked for: one that a person wrote whole, or else etcd's.
fn record_names(domain: &str) -> Vec<String> {
    if domain.starts_with('_') {
        return vec![domain.to_owned()];
    }
    SERVICES.map(|service| format!("{service}.{domain}")).to_vec()
}

/// The hosts that vote: by priority, and then by name, since weights are for chance.
fn choose_hosts(mut records: Vec<ServiceRecord>, wanted: usize) -> Vec<String> {
    records.sort();
    let mut hosts: Vec<String> = records.into_iter().map(|record| record.target).collect();
    hosts.dedup();
    hosts.truncate(wanted);
    hosts
}

/// The servers of resolv.conf(5).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let servers = words.filter_map(|words| match words[..] {
        ["nameserver", address, ..] => address.parse::<IpAddr>().ok(),
        _ => None,
    });
    servers.map(|address| SocketAddr::new(address, 53)).collect()
}

fn ask_servers(servers: &[SocketAddr], name: &str) -> Result<Vec<ServiceRecord>, String> {
    let mut failure = "no name server is known".to_owned();
    for server in servers {
        match ask_server(*server, name) {
            Ok(DnsAnswer::Records(records)) => return Ok(records),
            Ok(DnsAnswer::None | DnsAnswer::Truncated) => failure = format!("there are none of {name}"),
            Ok(DnsAnswer::Failed(code)) => failure = format!("{} failed with code {code}", server.ip()),
            Err(error) => failure = format!("{} does not answer: {error}", server.ip()),
        }
    }
    Err(failure)
}

/// By UDP, and by TCP what is too long for it.
fn ask_server(server: SocketAddr, name: &str) -> io::Result<DnsAnswer> {
    let [low, high, ..] = draw_number().map_err(io::Error::other)?.to_le_bytes();
    let id = u16::from_le_bytes([low, high]);
    let question = format_question(id, name).ok_or(io::ErrorKind::InvalidInput)?;
    // From a port that the kernel draws, which together with the number makes forged answers unlikely.
    let local: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(SERVER_PATIENCE))?;
    socket.send(&question)?;
    let mut buffer = [0; LARGEST_DATAGRAM];
    let length = socket.recv(&mut buffer)?;
    match parse_answer(id, name, &buffer[..length]).ok_or(io::ErrorKind::InvalidData)? {
        DnsAnswer::Truncated => ask_by_tcp(server, (id, name), &question),
        answer => Ok(answer),
    }
}

/// With its length in front (RFC 1035, 4.2.2).
fn ask_by_tcp(server: SocketAddr, (id, name): (u16, &str), question: &[u8]) -> io::Result<DnsAnswer> {
    let mut stream = TcpStream::connect_timeout(&server, SERVER_PATIENCE)?;
    stream.set_read_timeout(Some(SERVER_PATIENCE))?;
    stream.set_write_timeout(Some(SERVER_PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    parse_answer(id, name, &message).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::dns_message::tests::answer;
    use super::*;

    #[test]
    fn every_machine_chooses_the_same_hosts() {
        let record =
            |priority, target: &str| ServiceRecord { priority, target: target.to_owned(), port: 2380 };
        let records =
            vec![record(20, "a"), record(10, "d"), record(10, "c"), record(10, "c"), record(20, "b")];
        let turned: Vec<_> = records.iter().rev().cloned().collect();

        assert_eq!(choose_hosts(records, 3), ["c", "d", "a"]);
        assert_eq!(choose_hosts(turned, 3), ["c", "d", "a"]);
    }

    #[test]
    fn a_domain_is_asked_for_as_etcd_does_and_a_whole_name_as_it_is() {
        assert_eq!(
            record_names("core.test"),
            ["_etcd-server-ssl._tcp.core.test", "_etcd-server._tcp.core.test"]
        );
        assert_eq!(record_names("_etcd._tcp.core.test"), ["_etcd._tcp.core.test"]);
    }

    #[test]
    fn servers_are_those_of_resolv_conf() {
        let text = "# nameserver 10.0.0.9\nsearch core.test\nnameserver 127.0.0.53\nnameserver fd00::1\nnameserver x\n";

        let expected: [SocketAddr; 2] = ["127.0.0.53:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
        let name = "_etcd-server-ssl._tcp.core.test";
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(server).unwrap();
        let serving = thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, client) = udp.recv_from(&mut buffer).unwrap();
            let mut truncated = answer(&buffer[..length], &[]);
            truncated[2] = 0x83;
            udp.send_to(&truncated, client).unwrap();
            let (mut stream, _) = tcp.accept().unwrap();
            let mut question = vec![0; length + 2];
            stream.read_exact(&mut question).unwrap();
            let message = answer(&question[2..], &[("a", 2380), ("b", 2380), ("c", 2380)]);
            let length = u16::try_from(message.len()).unwrap();
            stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).unwrap();
        });

        let records = ask_server(server, name).unwrap();

        serving.join().unwrap();
        let DnsAnswer::Records(records) = records else { panic!("{records:?}") };
        assert_eq!(choose_hosts(records, 5), ["a.core.test", "b.core.test", "c.core.test"]);
    }
}
