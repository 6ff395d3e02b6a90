//! Serves, for as long as the machine runs, what stands between its cluster and others.
//!
//! Knows the two parts: the keys of version 2 for old clients, and the link for late machines. Refuses to
//! change anything on the disk. Invariant: it needs no more than the certificate of a client and the key of the
//! link, and runs as a user of its own.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::derive::KEY_BYTES;
use crate::etcd::LOCAL;
use crate::etcd_client::{CALL_PATIENCE, CallError, ClientCredentials, EtcdClient};
use crate::finding::{FindError, LinkMembership, LinkSockets, draw_number};
use crate::link::LinkNode;
use crate::link::message::LinkKey;
use crate::prepare::{ServedCluster, advertised_address, read_served};
use crate::promotion::promote_member;
use crate::proxy::{Proxy, Upstream, UpstreamError};
use crate::site::{Site, SiteError};

/// Between looks at the link. Late machines repeat themselves each half second.
const PAUSE: Duration = Duration::from_millis(200);
/// Interfaces come and go.
const REOPEN: Duration = Duration::from_mins(1);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ServeError {
    #[error(transparent)]
    Client(#[from] CallError),
    #[error("cannot listen at {at}: is another etcd there?")]
    Listen { at: SocketAddr, source: io::Error },
    #[error("{path} is missing; 'systemctl restart etcd' makes it")]
    Missing { path: PathBuf },
    #[error(transparent)]
    Number(#[from] FindError),
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error("cannot start a thread")]
    Thread { source: io::Error },
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Serves until the process is stopped. `credentials` is where the private keys are.
pub fn serve_cluster(site: &Site, credentials: &Path) -> Result<(), ServeError> {
    let served =
        read_served(site)?.ok_or_else(|| ServeError::Missing { path: site.runtime_path("served.json") })?;
    let key = |name: &str| {
        let path = credentials.join(name);
        site.read(&path)?.ok_or(ServeError::Missing { path })
    };
    let mut threads = Vec::new();
    if !served.members.is_empty() {
        threads.extend(serve_classic(site, &served, &key("client.key")?)?);
    }
    if served.is_joining {
        threads.push(spawn_promotion(site, served.members.clone(), key("client.key")?)?);
    }
    if let Some(membership) = served.link {
        let bytes = link_key(&key("link.key")?)
            .ok_or_else(|| ServeError::Missing { path: credentials.join("link.key") })?;
        let node = new_node(membership)?;
        threads.push(spawn_thread("link", move || tell_others(node, &bytes))?);
    }
    // None of them but the promotion ends by itself; one that panics takes the process along, and systemd starts it anew.
    threads.into_iter().try_for_each(|thread| {
        thread.join().map_err(|_| ServeError::Thread { source: io::Error::other("a thread ended") })
    })
}

fn serve_classic(
    site: &Site,
    served: &ServedCluster,
    private_key: &str,
) -> Result<Vec<thread::JoinHandle<()>>, ServeError> {
    let public = |name: &str| {
        let path = site.runtime_path(name);
        site.read(&path)?.ok_or(ServeError::Missing { path })
    };
    let upstream = Upstream::new(
        served.members.clone(),
        &public("client-ca.pem")?,
        &public("client.pem")?,
        private_key,
    )?;
    let proxy = Proxy::new(upstream, advertised_address(served));
    let mut threads = Vec::new();
    for at in &served.classic {
        let listener = TcpListener::bind(at).map_err(|source| ServeError::Listen { at: *at, source })?;
        let proxy = proxy.clone();
        threads.push(spawn_thread("classic", move || proxy.serve_socket(&listener))?);
    }
    Ok(threads)
}

/// Lets this machine vote once it has the data.
fn spawn_promotion(
    site: &Site,
    members: Vec<SocketAddr>,
    private_key: String,
) -> Result<thread::JoinHandle<()>, ServeError> {
    let public = |name: &str| {
        let path = site.runtime_path(name);
        site.read(&path)?.ok_or(ServeError::Missing { path })
    };
    let (authority, certificate) = (public("client-ca.pem")?, public("client.pem")?);
    let credentials = ClientCredentials { authority, certificate, private_key };
    let client = EtcdClient::new(Some(&credentials), CALL_PATIENCE)?;
    spawn_thread("promotion", move || promote_member(&client, LOCAL, &members))
}

fn spawn_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, ServeError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|source| ServeError::Thread { source })
}

fn new_node(membership: LinkMembership) -> Result<LinkNode, ServeError> {
    let LinkMembership { number, address, size, ballots } = membership;
    Ok(LinkNode::new((number, draw_number()?), address, usize::from(size), ballots))
}

/// Answers machines that come late. The list is decided, so that nothing is left to remember.
fn tell_others(mut node: LinkNode, key: &[u8; KEY_BYTES]) {
    let start = Instant::now();
    loop {
        let opened = Instant::now();
        // Without an address now, there may be one later.
        let sockets = LinkSockets::open_sockets(LinkKey::new(key));
        while opened.elapsed() < REOPEN {
            if let Ok(sockets) = &sockets {
                let nothing = |_: &_| Ok::<(), std::convert::Infallible>(());
                let _ = sockets.run_turn(&mut node, start.elapsed(), nothing);
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Reads the digits that [`crate::derive::encode_hex`] wrote.
fn link_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let text = text.trim();
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (text.len() == 2 * KEY_BYTES).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::encode_hex;

    #[test]
    fn a_key_survives_its_file() {
        let key = crate::derive::derive_key(
            &crate::derive::tests::definition("harbour", 0),
            crate::derive::KeyPurpose::LinkMessages,
        );

        assert_eq!(link_key(&format!("{}\n", encode_hex(&key))), Some(key));
        assert_eq!(link_key(&encode_hex(&key)[1..]), None);
        assert_eq!(link_key("é"), None);
    }
}
