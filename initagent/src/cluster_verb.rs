//! The verb `cluster`: what was typed, and what the crate of that name made of it.
//!
//! Knows options and help. Refuses to know clusters, and the other verbs. Invariant: what is not understood does
//! nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use cluster::request::{ClusterAnswer, ClusterError, ClusterRequest};
use lexopt::prelude::*;

const HELP: &str = "\
Usage: initagent cluster secret
       initagent cluster access NAME [--role admin|reader] [--days N] >FILE
       initagent cluster status [--json]
       initagent cluster backup [--to DIR] [--keep N] [--json]
       initagent cluster replace ADDRESS [--json]
       initagent cluster restore [BACKUP] [--lost ADDRESS,...] [--dry-run] [--json]
       initagent cluster discovery [--listen ADDRESS:PORT] [--to DIR]
       initagent cluster maintain [--json]
       initagent cluster prepare etcd|fleet
       initagent cluster serve

Makes this machine a member of the cluster that the key `cluster` of cloud-config
names. Without that key, it is a cluster of one machine.

Verbs for people:
  secret    make a secret for a new cluster; who has it is root in the cluster
  access    make a file by which NAME commands the cluster from another computer:
            'sh FILE fleetctl list-machines'; it is a certificate, and ends
  status    say what this machine is in its cluster, how etcd's members are, what is
            open to whom, and what a person can do
  backup    copy both stores of etcd, version 2 and 3, and read the copy back
  replace   give up a member that is gone for good; a worker that runs this takes its
            place. A machine that lost its disk needs no help: it comes back by itself
  restore   bring back what was lost: without a majority, this machine becomes the
            only member, with its own data or a backup's, and the others come to it;
            with one, the keys of a backup are written to the cluster

  discovery answer etcd's discovery protocol, as discovery.etcd.io did, from a folder

Verbs that units run:
  maintain  once a day: note the voters, back up, keep seven backups, give etcd room
  prepare   make certificates and find the machine's place, before etcd or fleetd starts
  serve     offer the keys of etcd's API of version 2, and tell late machines who votes

Options:
      --days N       how long access lasts, 1 to 398 days; 30 unless told
      --dry-run      restore in a copy, say what came of it, and change nothing
      --json         print for programs
      --keep N       remove all but the N youngest backups
      --listen ADDR  where to answer discovery; 0.0.0.0:8087 unless told
      --lost LIST    voters that are lost for good, by address
      --role ROLE    admin, which is root on every machine, or reader, which may look
                     at fleet and has nothing of etcd's; admin unless told
      --root DIR     the machine's files are below this folder
      --to DIR       write the backup there, not to /var/lib/catamaran/cluster/backups;
                     keep the tokens of discovery there
  -h, --help         this text

Exit codes: 0 done, 1 failed; of `prepare etcd`: 0 etcd is to start, 1 another machine
runs it, 255 failed.

Example:
  sudo initagent cluster restore --lost 10.0.0.2,10.0.0.3 --dry-run
";

/// What is done, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterCall {
    request: ClusterRequest,
    root: PathBuf,
}

/// What the words behind `cluster` are.
#[derive(Debug)]
pub(crate) enum ClusterWords {
    /// A verb.
    Call(ClusterCall),
    /// A question for this text.
    Help(&'static str),
    /// None.
    Missing,
    /// No verb.
    Unknown(String),
}

/// Reads what stands behind `cluster`.
pub(crate) fn parse_cluster(parser: &mut lexopt::Parser) -> Result<ClusterWords, lexopt::Error> {
    let (mut words, mut root) = (Vec::new(), PathBuf::from("/"));
    while let Some(argument) = parser.next()? {
        match argument {
            Long(flag @ ("json" | "dry-run")) => words.push(format!("--{flag}")),
            Long(option @ ("days" | "keep" | "listen" | "lost" | "role" | "to")) => {
                let option = option.to_owned();
                words.push(format!("--{option}={}", parser.value()?.string()?));
            }
            Long("root") => root = parser.value()?.into(),
            Short('h') | Long("help") => return Ok(ClusterWords::Help(HELP)),
            Value(word) => words.push(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected()),
        }
    }
    let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match ClusterRequest::parse_words(&borrowed) {
        Some(request) => ClusterWords::Call(ClusterCall { request, root }),
        None if words.is_empty() => ClusterWords::Missing,
        None => ClusterWords::Unknown(words.join(" ")),
    })
}

impl ClusterCall {
    /// Whether a unit starts or not by the exit code.
    pub(crate) fn is_condition(&self) -> bool {
        matches!(self.request, ClusterRequest::Prepare(_))
    }

    /// Carries it out.
    pub(crate) fn carry_out(self, say: &mut dyn FnMut(String)) -> Result<ClusterAnswer, ClusterError> {
        self.request.carry_out(&self.root, &own_environment(), say)
    }
}

/// Variables that are no text are none of etcd's or fleet's.
pub(crate) fn own_environment() -> BTreeMap<String, String> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}
