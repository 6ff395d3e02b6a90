//! Prepares this machine for etcd or fleetd, just before they start.
//!
//! Knows which files each needs. Refuses to decide: [`crate::etcd`] and [`crate::fleet`] do. Invariant: etcd
//! does not start with half of its settings; whatever a person opened is said at each start.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use user_data::cluster::{ClusterDefinition, FindMethod};
use user_data::systemd::environment_line;

use crate::etcd::{CLASSIC, ClusterPlace, EtcdPlan, Variables, VoterStart, plan_etcd};
use crate::finding::{
    FindError, FoundVoters, LinkMembership, cluster_token, find_voters, read_membership, remember_voters,
};
use crate::fleet::{plan_fleet, plan_remote_api};
use crate::identity::{
    DefinitionOrigin, IdentityError, certify_client, certify_etcd, certify_fleet, read_definition,
};
use crate::interfaces::own_addresses;
use crate::joining::{DataState, Formation};
use crate::membership_change::{PlaceError, PlaceSeeker, data_state, quick_client};
use crate::site::{Readers, Site, SiteError};
use crate::voters::VoterList;

/// Keeps etcd's old clients apart from it, and tells late machines of the cluster.
const SERVICE: &str = "catamaran-cluster.service";
/// What the service serves, and what `status` shows.
pub(crate) const SERVED: &str = "served.json";
/// Where Debian's unit has etcd keep its data.
const DATA_FOLDER: &str = "/var/lib/etcd/default";
/// Where people write fleet's options.
const FLEET_FILE: &str = "/etc/fleet/fleet.conf";

/// Why a machine is not prepared.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PrepareError {
    #[error("cannot find the voters of the cluster")]
    Find(#[from] FindError),
    #[error("cannot make the certificates of this machine")]
    Identity(#[from] IdentityError),
    #[error("this machine has no certificate for etcd yet")]
    NoCredentials,
    #[error("cannot find the place of this machine among the members of etcd")]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// Which program is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// etcd.
    Etcd,
    /// fleetd.
    Fleet,
}

impl Program {
    /// What its unit reads, below the folder of [`Site::runtime_path`].
    const fn environment_file(self) -> &'static str {
        match self {
            Self::Etcd => "etcd.env",
            Self::Fleet => "fleet.env",
        }
    }
}

/// Whether the program is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Another machine does it.
    NotHere,
}

/// What this machine is in its cluster, for those who ask and for what is served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ServedCluster {
    /// The cluster's name; none if nobody wrote one.
    pub(crate) name: Option<String>,
    /// `alone`, `voter` or `worker`.
    pub(crate) place: String,
    /// The voters' addresses.
    pub(crate) voters: Vec<IpAddr>,
    /// Where the keys of version 2 are offered.
    pub(crate) classic: Vec<SocketAddr>,
    /// Which members answer with certificates.
    pub(crate) members: Vec<SocketAddr>,
    /// What is open, in sentences.
    pub(crate) exposures: Vec<String>,
    /// Settings that are not followed.
    pub(crate) ignored: Vec<String>,
    /// Whether etcd of this machine comes to members that are there, as a learner.
    #[serde(default)]
    pub(crate) is_joining: bool,
    /// Where etcd of this machine keeps its data; none if it does not run here.
    #[serde(default)]
    pub(crate) data_folder: Option<PathBuf>,
    /// What others on the link are told.
    pub(crate) link: Option<LinkMembership>,
}

/// Prepares the machine for a program that has these variables.
pub fn prepare_program(
    site: &Site,
    program: Program,
    given: &Variables,
    say: &mut dyn FnMut(String),
) -> Result<Readiness, PrepareError> {
    let given = without_own(given, site.read(&site.runtime_path(program.environment_file()))?);
    match program {
        Program::Etcd => prepare_etcd(site, &given, say),
        Program::Fleet => prepare_fleet(site, &given),
    }
}

/// The variables that a person gave. systemd hands an `EnvironmentFile=` to this program as well as to the one that
/// starts, so what was written for the last start would pass for a person's certificates, and nothing of ours would
/// be set any more. The units remove the file when they stop: a variable that a person wrote, too, is hidden by it.
/// Where it is left, what stands in it is ours.
fn without_own(given: &Variables, written: Option<String>) -> Variables {
    let written = written.unwrap_or_default();
    let own: Vec<&str> = written.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    given
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn prepare_etcd(
    site: &Site,
    given: &Variables,
    say: &mut dyn FnMut(String),
) -> Result<Readiness, PrepareError> {
    let (definition, origin) = read_definition(site)?;
    certify_client(site, &definition)?;
    let place = find_place(site, given, (&definition, origin), say)?;
    let own: Vec<IpAddr> = own_addresses().into_iter().map(|one| one.address).collect();
    certify_etcd(site, &definition, &own)?;
    let plan = plan_etcd(given, &place, &site.runtime_path(""));
    for sentence in plan.exposures.iter().map(ToString::to_string) {
        say(format!("warning: {sentence}"));
    }
    // Debian's unit names each member after its host.
    for name in plan.ignored.iter().filter(|name| *name != "ETCD_NAME") {
        say(format!("warning: {name} is not used, since the key `cluster` forms this cluster"));
    }
    site.write(
        &site.runtime_path(Program::Etcd.environment_file()),
        &format_environment(&plan.variables),
        Readers::All,
    )?;
    start_serving(site, &served_cluster(site, (&definition, origin), given, (&place, &plan))?)?;
    Ok(if plan.runs_here { Readiness::Ready } else { Readiness::NotHere })
}

/// What the machine is in its cluster. Waits for the others.
fn find_place(
    site: &Site,
    given: &Variables,
    (definition, origin): (&ClusterDefinition, DefinitionOrigin),
    say: &mut dyn FnMut(String),
) -> Result<ClusterPlace, PrepareError> {
    // Alone, etcd stays on loopback, and what its own settings say holds.
    if origin == DefinitionOrigin::OwnMachine || definition.find == FindMethod::Alone {
        return Ok(ClusterPlace::Unplaced);
    }
    let found = find_voters(site, definition, say)?;
    let own: Vec<IpAddr> = own_addresses().into_iter().map(|one| one.address).collect();
    take_place(site, definition, (&own, &data_folder(site, given)), &found, say)
}

/// Finds this machine's place among the voters, and remembers who they are by now.
pub fn take_place(
    site: &Site,
    definition: &ClusterDefinition,
    (own, data_folder): (&[IpAddr], &Path),
    found: &FoundVoters,
    say: &mut dyn FnMut(String),
) -> Result<ClusterPlace, PrepareError> {
    let token = cluster_token(definition);
    // The certificate was made before.
    let client = quick_client(site)?.ok_or(PrepareError::NoCredentials)?;
    let size = usize::from(definition.size);
    let seeker = PlaceSeeker { site, client: &client, own, data_folder, size, token: &token };
    let (place, view) = seeker.find_place(found, say)?;
    let voters = match &place {
        ClusterPlace::Unplaced => found.voters.clone(),
        ClusterPlace::Voter { voters, .. } | ClusterPlace::Worker { voters } => voters.clone(),
    };
    let has_formed = view.is_some() || data_state(data_folder) == DataState::Present;
    let formation = if has_formed { Formation::Before } else { found.formation };
    remember_voters(site, definition, &FoundVoters { voters, formation }).map_err(FindError::Site)?;
    Ok(place)
}

/// Where etcd of this machine keeps its data.
fn data_folder(site: &Site, given: &Variables) -> PathBuf {
    site.foreign_path(given.get("ETCD_DATA_DIR").map_or(DATA_FOLDER, String::as_str))
}

fn served_cluster(
    site: &Site,
    (definition, origin): (&ClusterDefinition, DefinitionOrigin),
    given: &Variables,
    (place, plan): (&ClusterPlace, &EtcdPlan),
) -> Result<ServedCluster, PrepareError> {
    let (word, voters) = match place {
        ClusterPlace::Unplaced => ("alone", Vec::new()),
        ClusterPlace::Voter { voters, .. } => ("voter", voters.addresses().collect()),
        ClusterPlace::Worker { voters } => ("worker", voters.addresses().collect()),
    };
    let link = match definition.find {
        FindMethod::Lan => Some(read_membership(site, definition.size, &mut |_| {})?),
        _ => None,
    };
    Ok(ServedCluster {
        name: (origin == DefinitionOrigin::Written).then(|| definition.name.clone()),
        place: word.to_owned(),
        voters,
        classic: plan.classic.clone(),
        members: plan.members.clone(),
        exposures: plan.exposures.iter().map(ToString::to_string).collect(),
        ignored: plan.ignored.clone(),
        is_joining: matches!(place, ClusterPlace::Voter { start: VoterStart::Existing(_), .. }),
        data_folder: plan.runs_here.then(|| data_folder(site, given)),
        link,
    })
}

/// Lets the service serve this from now on.
fn start_serving(site: &Site, served: &ServedCluster) -> Result<(), PrepareError> {
    let text = serde_json::to_string(served).unwrap_or_default();
    let path = site.runtime_path(SERVED);
    // It makes a voter of a learner, and ends that work once it has.
    let is_new = served.is_joining || site.read(&path)?.as_deref() != Some(&text);
    site.write(&path, &text, Readers::All)?;
    if site.is_running() {
        // Its certificate may be new even if this is not; a restart takes milliseconds, and old clients try again.
        call_systemctl(if is_new { "restart" } else { "start" });
    }
    Ok(())
}

/// Without waiting: the service is no part of what is being started.
fn call_systemctl(verb: &str) {
    let mut command = Command::new("systemctl");
    command.args(["--no-block", verb, SERVICE]).stdin(Stdio::null());
    // Without it fleet works, and old clients do not; its own status says why.
    let _ = command.status();
}

fn prepare_fleet(site: &Site, given: &Variables) -> Result<Readiness, PrepareError> {
    let (definition, origin) = read_definition(site)?;
    certify_client(site, &definition)?;
    let members = read_served(site)?.map_or_else(|| vec![crate::etcd::LOCAL], |served| served.members);
    let file = site.read(&site.foreign_path(FLEET_FILE))?.unwrap_or_default();
    let folder = site.runtime_path("");
    let mut variables = plan_fleet(given, &file, &members, &folder);
    // Alone, a machine is commanded from itself.
    if origin == DefinitionOrigin::Written && definition.find != FindMethod::Alone {
        let own: Vec<IpAddr> = own_addresses().into_iter().map(|one| one.address).collect();
        certify_fleet(site, &definition, &own)?;
        variables.extend(plan_remote_api(given, &file, cluster_address(site, &own)?, &folder));
    }
    site.write(
        &site.runtime_path(Program::Fleet.environment_file()),
        &format_environment(&variables),
        Readers::All,
    )?;
    Ok(Readiness::Ready)
}

/// The address by which the others know this machine.
fn cluster_address(site: &Site, own: &[IpAddr]) -> Result<Option<IpAddr>, SiteError> {
    let voters = read_served(site)?.map(|served| VoterList::new(served.voters));
    let as_voter = voters.and_then(|voters| voters.member_among(own));
    Ok(as_voter.or_else(|| own.first().copied()))
}

pub(crate) fn read_served(site: &Site) -> Result<Option<ServedCluster>, SiteError> {
    Ok(site.read(&site.runtime_path(SERVED))?.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The address that old clients are told.
pub(crate) fn advertised_address(served: &ServedCluster) -> SocketAddr {
    served.classic.first().copied().unwrap_or(CLASSIC[0])
}

fn format_environment(variables: &Variables) -> String {
    let lines: Vec<String> = variables.iter().map(|(name, value)| environment_line(name, value)).collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the file says, as systemd hands it to whoever runs next.
    fn handed_on(text: &str) -> Variables {
        let value = |text: &str| text.trim_matches('"').to_owned();
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, text)| (name.to_owned(), value(text)))
            .collect()
    }

    #[test]
    fn what_was_written_for_the_last_start_does_not_pass_for_a_persons() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());
        for program in [Program::Etcd, Program::Fleet] {
            let path = site.runtime_path(program.environment_file());
            let given = Variables::from([("ETCD_NAME".to_owned(), "first".to_owned())]);
            prepare_program(&site, program, &given, &mut |_| {}).unwrap();
            let first = site.read(&path).unwrap().unwrap();
            assert!(first.contains("/client-ca.pem\""), "{first}");

            let again = handed_on(&first).into_iter().chain(given).collect();
            prepare_program(&site, program, &again, &mut |_| {}).unwrap();

            assert_eq!(site.read(&path).unwrap().unwrap(), first);
        }
    }
}
