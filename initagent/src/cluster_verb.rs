//! The verb `cluster`: what was typed, and what the crate of that name made of it.
//!
//! Knows options and exit codes. Refuses to know clusters. Invariant: a unit whose condition this program is
//! starts, is skipped or fails, and never the one for the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use cluster::request::{ClusterError, ClusterRequest, FAIL};
use lexopt::prelude::*;

use crate::app::RunError;
use crate::cli::{UsageError, Verb, printable_word};
use crate::report::{VerbReport, announce, error_chain};

const HELP: &str = "\
Usage: initagent cluster secret
       initagent cluster status [--json]
       initagent cluster prepare etcd|fleet
       initagent cluster serve

Makes this machine a member of the cluster that the key `cluster` of cloud-config
names. Without that key, it is a cluster of one machine.

Verbs for people:
  secret    make a secret for a new cluster; who has it is root in the cluster
  status    say what this machine is in its cluster, and what is open to whom

Verbs that units run:
  prepare   make certificates and find the voters, before etcd or fleetd starts
  serve     offer the keys of etcd's API of version 2, and tell late machines who votes

Options:
      --json      print for programs
      --root DIR  the machine's files are below this folder
  -h, --help      this text

Exit codes: 0 done, 1 failed; of `prepare etcd`: 0 etcd is to start, 1 another machine
runs it, 255 failed.

Example:
  initagent cluster secret
";

/// What is done, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterCall {
    request: ClusterRequest,
    root: PathBuf,
}

/// Reads what stands behind `cluster`.
pub(crate) fn parse_cluster(parser: &mut lexopt::Parser) -> Result<Verb, UsageError> {
    let (mut words, mut root) = (Vec::new(), PathBuf::from("/"));
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => words.push("--json".to_owned()),
            Long("root") => root = parser.value()?.into(),
            Short('h') | Long("help") => return Ok(Verb::Help(HELP)),
            Value(word) => words.push(printable_word(&word)),
            other => return Err(other.unexpected().into()),
        }
    }
    let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
    match ClusterRequest::parse(&borrowed) {
        Some(request) => Ok(Verb::Cluster(ClusterCall { request, root })),
        None if words.is_empty() => {
            Err(UsageError::Incomplete { verb: "cluster", what: "secret, status, prepare or serve" })
        }
        None => Err(UsageError::Word { verb: "cluster", given: words.join(" ") }),
    }
}

/// Carries it out.
pub(crate) fn run_cluster(call: ClusterCall) -> Result<VerbReport, ClusterError> {
    let ClusterCall { request, root } = call;
    let environment = own_environment();
    let is_condition = matches!(request, ClusterRequest::Prepare(_));
    match request.carry_out(&root, &environment, &mut |line| announce(&line)) {
        Ok(answer) => Ok(VerbReport { text: answer.text, exit_code: answer.exit_code }),
        // To `ExecCondition=` an exit code of 1 means that all is well without the unit.
        Err(error) if is_condition => {
            announce(&error_chain(&error));
            Ok(VerbReport { text: String::new(), exit_code: FAIL })
        }
        Err(error) => Err(error),
    }
}

/// Runs etcdctl with what the words mean.
pub(crate) fn run_etcdctl(words: &[OsString]) -> Result<VerbReport, RunError> {
    let exit_code = cluster::etcdctl::run_etcdctl(words, &own_environment());
    let exit_code = exit_code.map_err(|source| RunError::Etcdctl { source })?;
    Ok(VerbReport { text: String::new(), exit_code })
}

/// Variables that are no text are none of etcd's or fleet's.
fn own_environment() -> BTreeMap<String, String> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}
