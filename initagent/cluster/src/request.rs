//! The verbs of `initagent cluster`.
//!
//! Knows words, and what each verb answers. Refuses to know how a program reports. Invariant: a verb that is
//! not understood does nothing.

mod recovery;
mod status;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::access::{AccessLevel, AccessOrder, DEFAULT_DAYS, MOST_DAYS, format_access, is_access_name};
use crate::condition::{EtcdCondition, observe_condition};
use crate::discovery_service::DiscoveryService;
use crate::discovery_service::http::serve_discovery;
use crate::etcd::{QUOTA_BYTES, Variables};
use crate::etcd_client::{CALL_PATIENCE, ClientCredentials, EtcdClient};
use crate::identity::{DefinitionOrigin, IdentityError, draw_secret, read_definition};
use crate::prepare::{PrepareError, Program, Readiness, prepare_program, read_served};
use crate::restore::RestoreRun;
use crate::serve::{ServeError, serve_cluster};
use crate::site::{Site, SiteError};
pub use recovery::{RecoveryError, RestoreOrder};
use status::{EtcdView, describe_status};

/// By which systemd's `ExecCondition=` knows that a unit is to be skipped; 255 and up fail it.
pub const SKIP: u8 = 1;
/// systemd.service(5): the exit code by which `ExecCondition=` fails the unit.
pub const FAIL: u8 = 255;

/// The port of discovery services by Debian's package of that name.
const DISCOVERY_ADDRESS: &str = "0.0.0.0:8087";

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterRequest {
    /// Make the file by which a person commands the cluster from another computer.
    Access(AccessOrder),
    /// Copy both stores of etcd.
    Backup {
        /// Below which folder; the machine's own unless told.
        to: Option<PathBuf>,
        /// How many to keep there; all unless told.
        keep: Option<usize>,
        /// For programs.
        format: StatusFormat,
    },
    /// Answer etcd's discovery protocol.
    Discovery {
        /// Where.
        listen: SocketAddr,
        /// Where the tokens are; the machine's own folder unless told.
        folder: Option<PathBuf>,
    },
    /// Take the daily care of this machine's member.
    Maintain {
        /// For programs.
        format: StatusFormat,
    },
    /// Prepare the machine for a program.
    Prepare(Program),
    /// Free the place of a member that is gone.
    Replace {
        /// Its address.
        lost: IpAddr,
        /// For programs.
        format: StatusFormat,
    },
    /// Bring the cluster back.
    Restore {
        /// From what.
        order: RestoreOrder,
        /// For programs.
        format: StatusFormat,
    },
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

/// What stands behind a verb: `--name=value` as the caller joined them, `--json`, and the rest.
struct VerbOptions<'a> {
    format: StatusFormat,
    named: Vec<(&'a str, &'a str)>,
    plain: Vec<&'a str>,
}

impl<'a> VerbOptions<'a> {
    /// Reads words; `None` if one is an option that is not among `known`.
    fn read(words: &[&'a str], known: &[&str]) -> Option<Self> {
        let mut options = Self { format: StatusFormat::Text, named: Vec::new(), plain: Vec::new() };
        for word in words {
            match word.strip_prefix("--").map(|word| word.split_once('=').unwrap_or((word, ""))) {
                None => options.plain.push(*word),
                Some(("json", _)) => options.format = StatusFormat::Json,
                Some(named) if known.contains(&named.0) => options.named.push(named),
                Some(_) => return None,
            }
        }
        Some(options)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.named.iter().rfind(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    #[error(
        "this machine is in no cluster that other computers reach: the key `cluster` of cloud-config makes one, and \
         'systemctl start etcd' finds its voters"
    )]
    NoAccess,
    #[error("cannot serve discovery at {listen} from {folder}")]
    Discovery { listen: SocketAddr, folder: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot prepare this machine for its cluster")]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAnswer {
    /// What is printed.
    pub text: String,
    /// The exit code.
    pub exit_code: u8,
}

impl ClusterRequest {
    /// Reads the words behind `cluster`. `None` if they are none of a verb.
    #[must_use]
    pub fn parse_words(words: &[&str]) -> Option<Self> {
        Some(match words {
            ["prepare", "etcd"] => Self::Prepare(Program::Etcd),
            ["prepare", "fleet"] => Self::Prepare(Program::Fleet),
            ["secret"] => Self::Secret,
            ["serve"] => Self::Serve,
            ["status", options @ ..] => {
                let options = VerbOptions::read(options, &[])?;
                options.plain.is_empty().then_some(Self::Status { format: options.format })?
            }
            ["discovery", options @ ..] => {
                let options = VerbOptions::read(options, &["listen", "to"])?;
                let listen = options.value("listen").unwrap_or(DISCOVERY_ADDRESS).parse().ok()?;
                let folder = options.value("to").map(PathBuf::from);
                options.plain.is_empty().then_some(Self::Discovery { listen, folder })?
            }
            ["access", options @ ..] => Self::Access(parse_access(options)?),
            ["backup", options @ ..] => Self::parse_backup(options)?,
            ["maintain", options @ ..] => {
                let options = VerbOptions::read(options, &[])?;
                options.plain.is_empty().then_some(Self::Maintain { format: options.format })?
            }
            ["replace", options @ ..] => {
                let options = VerbOptions::read(options, &[])?;
                let [lost] = options.plain[..] else { return None };
                Self::Replace { lost: lost.parse().ok()?, format: options.format }
            }
            ["restore", options @ ..] => Self::parse_restore(options)?,
            _ => return None,
        })
    }

    fn parse_backup(words: &[&str]) -> Option<Self> {
        let options = VerbOptions::read(words, &["keep", "to"])?;
        let keep = options.value("keep").map(|count| count.parse().ok().filter(|count| *count > 0));
        let keep = match keep {
            Some(None) => return None,
            keep => keep.flatten(),
        };
        let to = options.value("to").map(PathBuf::from);
        options.plain.is_empty().then_some(Self::Backup { to, keep, format: options.format })
    }

    fn parse_restore(words: &[&str]) -> Option<Self> {
        let options = VerbOptions::read(words, &["dry-run", "lost"])?;
        let backup = match options.plain[..] {
            [] => None,
            [folder] => Some(PathBuf::from(folder)),
            _ => return None,
        };
        let lost = options.value("lost").unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let lost: Result<Vec<IpAddr>, _> = lost.map(|word| word.trim().parse()).collect();
        let run = if options.value("dry-run").is_some() { RestoreRun::Dry } else { RestoreRun::Real };
        let order = RestoreOrder { backup, lost: lost.ok()?, run };
        Some(Self::Restore { order, format: options.format })
    }

    /// Carries it out on the machine below `root`. `say` gets what is worth a line in the journal.
    pub fn carry_out(
        self,
        root: &Path,
        environment: &Variables,
        say: &mut dyn FnMut(String),
    ) -> Result<ClusterAnswer, ClusterError> {
        let site = Site::at_root(root);
        let answer = |text: String| ClusterAnswer { text, exit_code: 0 };
        Ok(match self {
            Self::Prepare(program) => match prepare_program(&site, program, environment, say)? {
                Readiness::Ready => answer(String::new()),
                Readiness::NotHere => ClusterAnswer {
                    text: "this machine is a worker: the voters run etcd".to_owned(),
                    exit_code: SKIP,
                },
            },
            Self::Access(order) => answer(make_access(&site, &order)?),
            Self::Backup { to, keep, format } => recovery::back_up(&site, (to, keep), format)?,
            Self::Discovery { listen, folder } => {
                run_discovery(listen, &folder.unwrap_or_else(|| site.state_path("discovery")), say)?;
                answer(String::new())
            }
            Self::Maintain { format } => recovery::maintain(&site, format)?,
            Self::Replace { lost, format } => recovery::replace(&site, lost, format)?,
            Self::Restore { order, format } => recovery::restore(&site, &order, format)?,
            Self::Secret => answer(draw_secret()?.reveal().to_owned()),
            Self::Serve => {
                let credentials = environment.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                serve_cluster(&site, &credentials.unwrap_or_else(|| site.runtime_path("")))?;
                answer(String::new())
            }
            Self::Status { format } => cluster_status(&site, format)?,
        })
    }
}

fn parse_access(words: &[&str]) -> Option<AccessOrder> {
    let options = VerbOptions::read(words, &["days", "role"])?;
    let [name] = options.plain[..] else { return None };
    let days = options.value("days").map_or(Some(DEFAULT_DAYS), |text| text.parse().ok());
    let level = options.value("role").map_or(Some(AccessLevel::Admin), AccessLevel::parse_name)?;
    let days = days.filter(|days| (1..=MOST_DAYS).contains(days))?;
    is_access_name(name).then(|| AccessOrder { name: name.to_owned(), level, days })
}

/// The file of a person. Its end counts from this machine's clock.
fn make_access(site: &Site, order: &AccessOrder) -> Result<String, ClusterError> {
    let (definition, origin) = read_definition(site)?;
    let voters = read_served(site)?.map(|served| served.voters).unwrap_or_default();
    if origin == DefinitionOrigin::OwnMachine || voters.is_empty() {
        return Err(ClusterError::NoAccess);
    }
    let now = Duration::from_secs(u64::try_from(Timestamp::now().as_second()).unwrap_or_default());
    let text = format_access(&definition, order, (&voters, &voters), now).map_err(IdentityError::from)?;
    Ok(text.trim_end().to_owned())
}

/// Serves tokens until the process is stopped.
fn run_discovery(listen: SocketAddr, folder: &Path, say: &mut dyn FnMut(String)) -> Result<(), ClusterError> {
    let failed = |source| ClusterError::Discovery { listen, folder: folder.to_owned(), source };
    let service = Arc::new(DiscoveryService::open_folder(folder).map_err(failed)?);
    let listener = TcpListener::bind(listen).map_err(failed)?;
    say(format!("a token for three voters: curl http://{listen}/new?size=3"));
    serve_discovery(&service, &listener).map_err(failed)
}

/// What this machine knows of its cluster, and what etcd's members say to root.
fn cluster_status(site: &Site, format: StatusFormat) -> Result<ClusterAnswer, ClusterError> {
    let served = read_served(site)?;
    // A key that may not be read is no error here: others may ask, and see this machine's part.
    let credentials = ClientCredentials::of_machine(site).ok().flatten();
    let etcd = match (&served, credentials) {
        (Some(served), Some(credentials)) if !served.members.is_empty() => {
            let client = EtcdClient::new(Some(&credentials), CALL_PATIENCE).map_err(RecoveryError::from)?;
            let last_backup = recovery::last_backup(&site.state_path(recovery::BACKUPS));
            let condition = observe_condition(&client, &served.members);
            EtcdView::Condition(EtcdCondition { last_backup, ..condition })
        }
        _ => EtcdView::Hidden,
    };
    Ok(describe_status(served, &etcd, (QUOTA_BYTES, Timestamp::now()), format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_verbs_or_nothing() {
        assert_eq!(
            ClusterRequest::parse_words(&["prepare", "etcd"]),
            Some(ClusterRequest::Prepare(Program::Etcd))
        );
        assert_eq!(
            ClusterRequest::parse_words(&["status", "--json"]),
            Some(ClusterRequest::Status { format: StatusFormat::Json })
        );
        let restore = |words: &[&str]| ClusterRequest::parse_words(&[&["restore"], words].concat());
        let order = RestoreOrder {
            backup: Some(PathBuf::from("/b")),
            lost: vec!["10.0.0.2".parse().unwrap(), "fd00::3".parse().unwrap()],
            run: RestoreRun::Dry,
        };
        assert_eq!(
            restore(&["/b", "--dry-run", "--lost=10.0.0.2,fd00::3", "--json"]),
            Some(ClusterRequest::Restore { order, format: StatusFormat::Json })
        );
        for words in [&[][..], &["prepare"], &["secret", "again"], &["destroy"]] {
            assert_eq!(ClusterRequest::parse_words(words), None, "{words:?}");
        }
        let access = ClusterRequest::parse_words(&["access", "anna", "--role=reader", "--days=7"]);
        let order = AccessOrder { name: "anna".to_owned(), level: AccessLevel::Reader, days: 7 };
        assert_eq!(access, Some(ClusterRequest::Access(order)));
        for words in [
            &["access", "anna", "--days=0"][..],
            &["access", "anna", "--days=399"],
            &["access", "anna", "--role=root"],
            &["access", "root"],
            &["backup", "--keep=0"],
            &["backup", "/b"],
            &["replace"],
            &["replace", "core-1"],
            &["restore", "/a", "/b"],
            &["restore", "--lost=core-1"],
            &["status", "--dry-run"],
        ] {
            assert_eq!(ClusterRequest::parse_words(words), None, "{words:?}");
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
}
