//! Carries out, before etcd starts, what [`crate::joining`] decides, until this machine has its place.
//!
//! Knows etcd's calls and the data folder. Refuses to decide. Invariant: after each step everything is looked at
//! anew, so that a power cut between two steps changes nothing.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::etcd::{ClusterPlace, VoterStart};
use crate::etcd_client::{CallError, EtcdClient, decode_number};
use crate::finding::FoundVoters;
use crate::joining::{DataState, Formation, JoinFacts, JoinStep, decide_join};
use crate::membership::{EtcdMember, MembershipView, confirm_membership, read_members};
use crate::site::{Readers, Site, SiteError};
use crate::voters::{member_name, peer_url};

/// Between two looks at the others.
const PAUSE: Duration = Duration::from_secs(2);
/// A member that has a leader answers in milliseconds. This machine's start waits for it.
const VIEW_PATIENCE: Duration = Duration::from_secs(4);

/// Why a machine has no place.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PlaceError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("cannot move {path} aside, which holds the data of a member that was removed")]
    PutAside { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// What a machine brings to its place.
#[derive(Debug)]
pub struct PlaceSeeker<'a> {
    /// Its files.
    pub site: &'a Site,
    /// Its certificate.
    pub client: &'a EtcdClient,
    /// Its addresses.
    pub own: &'a [IpAddr],
    /// Where its etcd keeps its data.
    pub data_folder: &'a Path,
    /// How many are to vote.
    pub size: usize,
    /// The cluster's name in etcd.
    pub token: &'a str,
}

impl PlaceSeeker<'_> {
    /// Finds the machine's place. Waits for as long as the others take.
    pub fn find_place(
        &self,
        found: &FoundVoters,
        say: &mut dyn FnMut(String),
    ) -> Result<(ClusterPlace, Option<MembershipView>), PlaceError> {
        let mut said = String::new();
        loop {
            let OthersAnswer { view, listed } = self.ask_others(found);
            let is_known = listed.iter().any(|member| {
                member.has_started && member.address.is_some_and(|address| self.own.contains(&address))
            });
            let formation = if is_known { Formation::Before } else { found.formation };
            let step = self.decide(&FoundVoters { formation, ..found.clone() }, view.as_ref());
            if let Some(place) = self.place_of(&step, found, view.as_ref()) {
                self.note_member(&step, view.as_ref())?;
                return Ok((place, view));
            }
            let outcome = self.carry_out(&step, view.as_ref());
            let (now, pause) = match (&step, outcome) {
                (JoinStep::Await(event), _) => (event.sentence().to_owned(), PAUSE),
                (_, Ok(sentence)) => (sentence, Duration::ZERO),
                // Another learner, or a quorum that was lost meanwhile: it is tried again.
                (_, Err(PlaceError::Call(error))) => {
                    (format!("the other members do not agree yet: {error}"), PAUSE)
                }
                (_, Err(error)) => return Err(error),
            };
            if now != said {
                say(now.clone());
                said = now;
            }
            thread::sleep(pause);
        }
    }

    /// What the others say, asked at once: each that is gone would cost seconds of this machine's start.
    fn ask_others(&self, found: &FoundVoters) -> OthersAnswer {
        let others = found.voters.client_sockets();
        let others = others.into_iter().filter(|socket| !self.own.contains(&socket.ip()));
        let answers: Vec<OthersAnswer> = thread::scope(|scope| {
            let ask = |socket: SocketAddr| scope.spawn(move || ask_member(self.client, socket));
            let asked: Vec<_> = others.map(ask).collect();
            asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let view = answers.iter().find_map(|answer| answer.view.clone());
        OthersAnswer { view, listed: answers.into_iter().flat_map(|answer| answer.listed).collect() }
    }

    fn decide(&self, found: &FoundVoters, view: Option<&MembershipView>) -> JoinStep {
        let member = view.and_then(|view| Some((view, view.member_among(self.own)?)));
        let is_seen =
            member.is_some_and(|(view, member)| is_connected(self.client, &view.endpoint, member.id));
        decide_join(&JoinFacts {
            own: self.own,
            voters: &found.voters,
            size: self.size,
            view,
            is_seen,
            data: data_state(self.data_folder),
            data_member: self.noted_member(),
            formation: found.formation,
        })
    }

    /// The place that a step leads to; `None` if it is not the last.
    fn place_of(
        &self,
        step: &JoinStep,
        found: &FoundVoters,
        view: Option<&MembershipView>,
    ) -> Option<ClusterPlace> {
        let voters = view.map_or_else(|| found.voters.clone(), MembershipView::voters);
        let voter = |address: IpAddr, start| ClusterPlace::Voter {
            address,
            voters: voters.clone(),
            token: self.token.to_owned(),
            start,
        };
        let (JoinStep::Continue(address) | JoinStep::Enter(address) | JoinStep::Form(address)) = *step else {
            return (*step == JoinStep::Work).then_some(ClusterPlace::Worker { voters });
        };
        let start = match (step, view) {
            (JoinStep::Enter(_), Some(view)) => {
                VoterStart::Existing(view.initial_cluster(&member_name(address), address))
            }
            _ => VoterStart::New,
        };
        Some(voter(address, start))
    }

    /// Carries a step out, and says what was done.
    fn carry_out(&self, step: &JoinStep, view: Option<&MembershipView>) -> Result<String, PlaceError> {
        let endpoint = view.map(|view| view.endpoint.as_str()).unwrap_or_default();
        Ok(match step {
            JoinStep::Add(address) => {
                let arguments = json!({ "peerURLs": [peer_url(*address)], "isLearner": true });
                self.client.call(endpoint, "cluster/member/add", &arguments)?;
                format!("{address} is a new member of the cluster; it votes once it has the data")
            }
            JoinStep::Remove(id) => {
                self.client.call(endpoint, "cluster/member/remove", &json!({ "ID": id.to_string() }))?;
                format!("this machine's disk is new: the member {id:x}, whose data it had, is removed")
            }
            JoinStep::PutAside => {
                let aside = put_aside(self.data_folder)?;
                format!("the cluster went on without this machine: its old data is in {}", aside.display())
            }
            _ => String::new(),
        })
    }

    fn noted_member(&self) -> Option<u64> {
        let text = self.site.read(&self.site.state_path("member")).ok().flatten()?;
        u64::from_str_radix(text.trim(), 16).ok()
    }

    /// Notes whose data is on the disk, once the others say so.
    fn note_member(&self, step: &JoinStep, view: Option<&MembershipView>) -> Result<(), PlaceError> {
        let (JoinStep::Continue(_) | JoinStep::Enter(_)) = step else { return Ok(()) };
        let Some(member) = view.and_then(|view| view.member_among(self.own)) else { return Ok(()) };
        let (path, text) = (self.site.state_path("member"), format!("{:016x}\n", member.id));
        if self.site.read(&path)?.as_deref() == Some(&text) {
            return Ok(());
        }
        Ok(self.site.write(&path, &text, Readers::All)?)
    }
}

/// What others say of the members.
#[derive(Debug, Default)]
struct OthersAnswer {
    /// What a quorum confirmed.
    view: Option<MembershipView>,
    /// What a member without a leader remembers.
    listed: Vec<EtcdMember>,
}

/// The answer of one member. One without a leader is not asked for a quorum, which it would wait for; what it
/// remembers still says whether this machine ever was a member.
fn ask_member(client: &EtcdClient, member: SocketAddr) -> OthersAnswer {
    let endpoint = format!("https://{member}");
    let call = |call: &str| client.call(&endpoint, call, &json!({}));
    let Ok(status) = call("maintenance/status") else { return OthersAnswer::default() };
    let has_leader = decode_number(&status["leader"]) != 0;
    let view = has_leader.then(|| confirm_membership(client, &endpoint).ok()).flatten();
    let listed = match view {
        Some(_) => Vec::new(),
        None => call("cluster/member/list").map(|list| read_members(&list)).unwrap_or_default(),
    };
    OthersAnswer { view, listed }
}

/// A client whose calls do not hold up the start of this machine.
pub fn quick_client(site: &Site) -> Result<Option<EtcdClient>, PlaceError> {
    let credentials = crate::etcd_client::ClientCredentials::of_machine(site)?;
    let client = credentials.map(|credentials| EtcdClient::new(Some(&credentials), VIEW_PATIENCE));
    Ok(client.transpose()?)
}

/// Whether a member has a connection to another. No connection is no proof of an empty seat, yet a connection is one
/// that the seat is taken.
fn is_connected(client: &EtcdClient, endpoint: &str, id: u64) -> bool {
    client.metrics(endpoint).is_ok_and(|metrics| names_active_peer(&metrics, id))
}

/// etcd's metric `etcd_network_active_peers`, which is 1 while there is a connection.
fn names_active_peer(metrics: &str, id: u64) -> bool {
    let peer = format!("Remote=\"{id:x}\"");
    metrics.lines().any(|line| {
        line.starts_with("etcd_network_active_peers{") && line.contains(&peer) && line.ends_with(" 1")
    })
}

/// What is in a data folder.
#[must_use]
pub fn data_state(folder: &Path) -> DataState {
    // etcd makes the folders of its log first. One that is empty was made by a start that went no further.
    let has_log = fs::read_dir(folder.join("member/wal")).is_ok_and(|mut files| files.next().is_some());
    if has_log { DataState::Present } else { DataState::Empty }
}

/// Moves a data folder out of etcd's way. One that was moved before is removed: two would fill a small disk.
fn put_aside(folder: &Path) -> Result<PathBuf, PlaceError> {
    let aside = folder.with_extension("put-aside");
    let failed = |source| PlaceError::PutAside { path: folder.to_owned(), source };
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::rename(folder, &aside).map_err(failed)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_has_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("default");
        assert_eq!(data_state(&data), DataState::Empty);
        fs::create_dir_all(data.join("member/wal")).unwrap();
        assert_eq!(data_state(&data), DataState::Empty);
        fs::write(data.join("member/wal/0000000000000000-0000000000000000.wal"), "").unwrap();
        assert_eq!(data_state(&data), DataState::Present);

        let aside = put_aside(&data).unwrap();

        assert_eq!((data_state(&data), data_state(&aside)), (DataState::Empty, DataState::Present));
    }

    #[test]
    fn a_member_is_seen_while_another_has_a_connection_to_it() {
        let metrics = "# TYPE etcd_network_active_peers gauge\n\
                       etcd_network_active_peers{Local=\"1f\",Remote=\"a0\"} 1\n\
                       etcd_network_active_peers{Local=\"1f\",Remote=\"b0\"} 0\n";

        assert!(names_active_peer(metrics, 0xa0));
        assert!(!names_active_peer(metrics, 0xb0) && !names_active_peer(metrics, 0x1f));
    }
}
