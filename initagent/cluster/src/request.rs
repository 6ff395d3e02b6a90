//! The verbs of `initagent cluster`.
//!
//! Knows words, and what each verb answers. Refuses to know how a program reports. Invariant: a verb that is
//! not understood does nothing.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::etcd::Variables;
use crate::identity::{IdentityError, draw_secret};
use crate::prepare::{PrepareError, Program, Readiness, ServedCluster, prepare, read_served};
use crate::serve::{ServeError, serve};
use crate::site::{Site, SiteError};

/// By which systemd's `ExecCondition=` knows that a unit is to be skipped; 255 and up fail it.
pub const SKIP: u8 = 1;
/// systemd.service(5): the exit code by which `ExecCondition=` fails the unit.
pub const FAIL: u8 = 255;

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClusterRequest {
    /// Prepare the machine for a program.
    Prepare(Program),
    /// Make a secret.
    Secret,
    /// Serve old clients and late machines.
    Serve,
    /// Say what this machine is in its cluster.
    Status {
        /// For programs.
        format: StatusFormat,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusFormat {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ClusterError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot prepare this machine for its cluster")]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterAnswer {
    /// What is printed.
    pub text: String,
    /// The exit code.
    pub exit_code: u8,
}

impl ClusterRequest {
    /// Reads the words behind `cluster`. `None` if they are none of a verb.
    #[must_use]
    pub fn parse(words: &[&str]) -> Option<Self> {
        Some(match words {
            ["prepare", "etcd"] => Self::Prepare(Program::Etcd),
            ["prepare", "fleet"] => Self::Prepare(Program::Fleet),
            ["secret"] => Self::Secret,
            ["serve"] => Self::Serve,
            ["status"] => Self::Status { format: StatusFormat::Text },
            ["status", "--json"] => Self::Status { format: StatusFormat::Json },
            _ => return None,
        })
    }

    /// Carries it out on the machine below `root`. `say` gets what is worth a line in the journal.
    pub fn carry_out(
        self,
        root: &Path,
        environment: &Variables,
        say: &mut dyn FnMut(String),
    ) -> Result<ClusterAnswer, ClusterError> {
        let site = Site::below(root);
        let answer = |text: String| ClusterAnswer { text, exit_code: 0 };
        Ok(match self {
            Self::Prepare(program) => match prepare(&site, program, environment, say)? {
                Readiness::Ready => answer(String::new()),
                Readiness::NotHere => ClusterAnswer {
                    text: "this machine is a worker: the voters run etcd".to_owned(),
                    exit_code: SKIP,
                },
            },
            Self::Secret => answer(draw_secret()?.reveal().to_owned()),
            Self::Serve => {
                let credentials = environment.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                serve(&site, &credentials.unwrap_or_else(|| site.runtime("")))?;
                answer(String::new())
            }
            Self::Status { format } => status(read_served(&site)?, format),
        })
    }
}

fn status(served: Option<ServedCluster>, format: StatusFormat) -> ClusterAnswer {
    let Some(served) = served else {
        let text = match format {
            StatusFormat::Json => json!({ "place": "none" }).to_string(),
            StatusFormat::Text => {
                "etcd was not started since the last boot; 'systemctl start etcd' does it".to_owned()
            }
        };
        return ClusterAnswer { text, exit_code: 1 };
    };
    let text = match format {
        StatusFormat::Json => {
            let ServedCluster { name, place, voters, classic, members, exposures, ignored, .. } = served;
            format!(
                "{:#}",
                json!({
                    "name": name, "place": place, "voters": voters, "classic": classic, "members": members,
                    "exposures": exposures, "ignored": ignored,
                })
            )
        }
        StatusFormat::Text => text_status(&served),
    };
    ClusterAnswer { text, exit_code: 0 }
}

fn text_status(served: &ServedCluster) -> String {
    let name = served.name.as_deref().unwrap_or("of this machine alone");
    let joined =
        |addresses: Vec<String>| if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") };
    let mut lines = vec![
        format!("cluster   {name}"),
        format!("place     {}", served.place),
        format!("voters    {}", joined(served.voters.iter().map(ToString::to_string).collect())),
        format!(
            "members   {} (with a certificate)",
            joined(served.members.iter().map(ToString::to_string).collect())
        ),
        format!(
            "classic   {} (keys of version 2, for everybody)",
            joined(served.classic.iter().map(ToString::to_string).collect())
        ),
    ];
    lines.extend(served.exposures.iter().map(|sentence| format!("open      {sentence}")));
    lines.extend(served.ignored.iter().map(|name| format!("ignored   {name}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_verbs_or_nothing() {
        assert_eq!(ClusterRequest::parse(&["prepare", "etcd"]), Some(ClusterRequest::Prepare(Program::Etcd)));
        assert_eq!(
            ClusterRequest::parse(&["status", "--json"]),
            Some(ClusterRequest::Status { format: StatusFormat::Json })
        );
        for words in [&[][..], &["prepare"], &["secret", "again"], &["destroy"]] {
            assert_eq!(ClusterRequest::parse(words), None, "{words:?}");
        }
    }

    #[test]
    fn each_secret_is_another_and_passes_its_own_check() {
        let secret = || {
            let request = ClusterRequest::Secret;
            request.carry_out(Path::new("/"), &Variables::new(), &mut |_| {}).unwrap().text
        };
        let (one, other) = (secret(), secret());

        assert_ne!(one, other);
        assert!(user_data::cluster::secret::ClusterSecret::parse(&one).is_ok());
    }

    #[test]
    fn status_names_what_is_open() {
        let served = ServedCluster {
            place: "alone".to_owned(),
            exposures: vec!["etcd answers every client at http://0.0.0.0:2379".to_owned()],
            ..ServedCluster::default()
        };

        let text = status(Some(served.clone()), StatusFormat::Text).text;
        let json = status(Some(served), StatusFormat::Json).text;

        assert!(text.contains("open      etcd answers every client"), "{text}");
        assert!(json.contains("\"exposures\": [\n    \"etcd answers"), "{json}");
        assert_eq!(status(None, StatusFormat::Text).exit_code, 1);
    }
}
