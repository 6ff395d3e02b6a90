//! `backup`, `maintain`, `replace` and `restore`: what each finds, does and says.
//!
//! Knows the order of the steps and the sentences. Refuses to know how a step is done. Invariant: what is changed
//! beyond this machine was confirmed by a quorum, or by a person who named what is lost.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use user_data::cluster::ClusterDefinition;

use super::{ClusterAnswer, StatusFormat};
use crate::backup::{Backup, BackupError, read_backup, remove_oldest, take_backup};
use crate::etcd_client::{COPY_PATIENCE, CallError, ClientCredentials, EtcdClient};
use crate::finding::{FindError, FoundVoters, cluster_token, remember_voters};
use crate::identity::{DefinitionOrigin, IdentityError, certify_client, certify_etcd, read_definition};
use crate::joining::{DataState, Formation};
use crate::maintenance::{MaintenanceError, maintain_member};
use crate::membership::{MembershipView, ask_membership};
use crate::membership_change::data_state;
use crate::prepare::{ServedCluster, read_served};
use crate::restore::plan::{RestoreFacts, RestoreRefusal, RestoreWay, plan_restore};
use crate::restore::{RestoreError, RestoreRun, RestoreSource, RestoredMember, import_keys, rebuild_member};
use crate::site::{Site, SiteError};
use crate::voters::{PEER_PORT, VoterList, member_name, peer_url};

/// Where backups are, below the state of the cluster.
pub(super) const BACKUPS: &str = "backups";
/// etcd elects a leader within three seconds, unless the machines are very busy.
const VIEW_ATTEMPTS: u32 = 3;
const VIEW_PAUSE: Duration = Duration::from_secs(2);
/// Whoever runs etcd accepts at once.
const KNOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why a verb of recovery was not carried out.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RecoveryError {
    #[error("cannot back up etcd")]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Maintenance(#[from] MaintenanceError),
    #[error(
        "{address} is no member of the cluster; its members are {members}. 'initagent cluster status' says more"
    )]
    NoMember { address: IpAddr, members: String },
    #[error("etcd of this cluster has certificates of somebody else's, which this program does not have")]
    NoMembers,
    #[error("no majority of the members answers; 'initagent cluster status' says who does, and what to do")]
    NoQuorum,
    #[error("{address} answers, so that its place is not free; switch that machine off first")]
    NotLost { address: IpAddr },
    #[error("cannot restore the cluster: {0}")]
    Refusal(#[from] RestoreRefusal),
    #[error("cannot restore the cluster")]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(
        "etcd did not run since the last boot, so that this machine's place is not known: 'systemctl start etcd'"
    )]
    Unprepared,
    #[error("cannot {verb} {unit}; 'systemctl status {unit}' says more")]
    Unit { verb: &'static str, unit: &'static str },
}

/// What `restore` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOrder {
    /// The backup; none if this machine's own data are meant.
    pub backup: Option<PathBuf>,
    /// Voters that are lost.
    pub lost: Vec<IpAddr>,
    /// Whether the disk is changed.
    pub run: RestoreRun,
}

/// This machine and its way to etcd.
struct Cluster {
    definition: ClusterDefinition,
    origin: DefinitionOrigin,
    served: ServedCluster,
    client: EtcdClient,
}

impl Cluster {
    fn of_machine(site: &Site) -> Result<Self, RecoveryError> {
        let (definition, origin) = read_definition(site)?;
        certify_client(site, &definition)?;
        let served = read_served(site)?.ok_or(RecoveryError::Unprepared)?;
        if served.members.is_empty() {
            return Err(RecoveryError::NoMembers);
        }
        let credentials = ClientCredentials::of_machine(site)?.ok_or(RecoveryError::Unprepared)?;
        let client = EtcdClient::new(Some(&credentials), COPY_PATIENCE)?;
        Ok(Self { definition, origin, served, client })
    }

    /// What a quorum says. While a leader is elected none answers, for a second or two.
    fn view(&self) -> Option<MembershipView> {
        (0..VIEW_ATTEMPTS).find_map(|attempt| {
            thread::sleep(VIEW_PAUSE * attempt);
            ask_membership(&self.client, &self.served.members)
        })
    }

    /// The member that this machine is once it is restored.
    fn restored_member(&self, site: &Site) -> RestoredMember {
        let own = own_voter(&self.served);
        let (name, url) = match own {
            Some(address) => (member_name(address), peer_url(address)),
            None => ("default".to_owned(), format!("https://127.0.0.1:{PEER_PORT}")),
        };
        RestoredMember {
            name,
            peer_url: url,
            // Another one each time, so that no member of an earlier cluster is taken for one of this.
            token: format!("{}-{}", cluster_token(&self.definition), Timestamp::now().as_second()),
            data_folder: self
                .served
                .data_folder
                .clone()
                .unwrap_or_else(|| site.foreign_path("/var/lib/etcd/default")),
            keys: site.runtime_path(""),
        }
    }
}

/// `backup`: a copy of both stores, from a member that has a quorum behind it.
pub(super) fn back_up(
    site: &Site,
    (to, keep): (Option<PathBuf>, Option<usize>),
    format: StatusFormat,
) -> Result<ClusterAnswer, RecoveryError> {
    let cluster = Cluster::of_machine(site)?;
    let view = cluster.view().ok_or(RecoveryError::NoQuorum)?;
    let parent = to.unwrap_or_else(|| site.state_path(BACKUPS));
    let taken = take_backup(&cluster.client, &view.endpoint, &parent, Timestamp::now())?;
    let removed = keep.map_or(Ok(Vec::new()), |count| remove_oldest(&parent, count.max(1)))?;
    let Backup { folder, manifest } = &taken;
    let classic = manifest.classic.as_ref().map_or(0, |kept| kept.bytes);
    let text = format!(
        "{}: revision {}, {} KiB of version 3, {} KiB of version 2; read back and whole",
        folder.display(),
        manifest.revision,
        manifest.modern.bytes >> 10,
        classic.div_ceil(1024)
    );
    Ok(answer(format, text, &json!({ "folder": folder, "manifest": manifest, "removed": removed })))
}

/// `maintain`: the daily care, of a voter.
pub(super) fn maintain(site: &Site, format: StatusFormat) -> Result<ClusterAnswer, RecoveryError> {
    let cluster = Cluster::of_machine(site)?;
    if let (Some(view), DefinitionOrigin::Written) = (cluster.view(), cluster.origin) {
        // Voters that came or went since this machine's boot, for its next one.
        let found = FoundVoters { voters: view.voters(), formation: Formation::Before };
        if view.members.iter().all(|member| member.address.is_some_and(|address| !address.is_loopback())) {
            remember_voters(site, &cluster.definition, &found)?;
        }
    }
    if cluster.served.data_folder.is_none() {
        return Ok(answer(format, "a worker has nothing to keep".to_owned(), &json!({ "done": [] })));
    }
    let backups = site.state_path(BACKUPS);
    let done = maintain_member(&cluster.client, &cluster.served.members, &backups, Timestamp::now())?;
    Ok(answer(format, done.join("\n"), &json!({ "done": done })))
}

/// `replace`: frees the place of a member that is gone for good, and takes it if this machine is a worker.
pub(super) fn replace(
    site: &Site,
    lost: IpAddr,
    format: StatusFormat,
) -> Result<ClusterAnswer, RecoveryError> {
    let cluster = Cluster::of_machine(site)?;
    let view = cluster.view().ok_or(RecoveryError::NoQuorum)?;
    let member = view
        .member_among(&[lost])
        .ok_or_else(|| RecoveryError::NoMember { address: lost, members: join(view.voters().addresses()) })?;
    if answers(lost) {
        return Err(RecoveryError::NotLost { address: lost });
    }
    let arguments = json!({ "ID": member.id.to_string() });
    cluster.client.call(&view.endpoint, "cluster/member/remove", &arguments)?;
    let is_worker = cluster.served.place == "worker";
    if is_worker && site.is_running() {
        // Its start takes the place, and says in the journal how that goes.
        run_unit("restart", "etcd.service")?;
    }
    let next = if is_worker {
        "this machine takes its place: 'initagent cluster status' shows it as a learner, then as a voter"
    } else {
        "a worker takes its place when its etcd starts: on one of them, 'sudo systemctl restart etcd'"
    };
    let text = format!("{lost} is no member any more; {next}");
    Ok(answer(format, text, &json!({ "removed": lost, "taken_by_this_machine": is_worker })))
}

/// `restore`: from this machine's data or from a backup.
pub(super) fn restore(
    site: &Site,
    order: &RestoreOrder,
    format: StatusFormat,
) -> Result<ClusterAnswer, RecoveryError> {
    let cluster = Cluster::of_machine(site)?;
    let backup = order.backup.as_deref().map(read_backup).transpose()?;
    let view = cluster.view();
    let way = plan_restore(&gather_facts(&cluster, site, view.is_some(), order))?;
    // A worker has none of etcd's yet; on a voter etcd reads them at each connection.
    if !site.runtime_path("etcd/server.key").exists() {
        let own: Vec<IpAddr> = own_voter(&cluster.served).into_iter().collect();
        certify_etcd(site, &cluster.definition, &own)?;
    }
    match (way, backup, view) {
        (RestoreWay::Import, Some(backup), Some(view)) => {
            import(site, &cluster, (&backup, &view.endpoint), order.run, format)
        }
        (RestoreWay::RebuildFromBackup, Some(backup), _) => {
            rebuild(site, &cluster, RestoreSource::Backup(&backup), order.run, format)
        }
        _ => rebuild(site, &cluster, RestoreSource::OwnData, order.run, format),
    }
}

fn gather_facts(cluster: &Cluster, site: &Site, has_quorum: bool, order: &RestoreOrder) -> RestoreFacts {
    let own = own_voter(&cluster.served);
    let others: Vec<IpAddr> =
        cluster.served.voters.iter().copied().filter(|voter| Some(*voter) != own).collect();
    let data = cluster.restored_member(site).data_folder;
    RestoreFacts {
        has_quorum,
        has_backup: order.backup.is_some(),
        has_data: data_state(&data) == DataState::Present,
        answering: others.iter().copied().filter(|other| answers(*other)).collect(),
        others,
        lost: order.lost.clone(),
    }
}

fn import(
    site: &Site,
    cluster: &Cluster,
    (backup, endpoint): (&Backup, &str),
    run: RestoreRun,
    format: StatusFormat,
) -> Result<ClusterAnswer, RecoveryError> {
    let member = cluster.restored_member(site);
    let work = site.state_path("restore");
    // What an earlier attempt left; a folder that cannot be removed fails the next step, which says so.
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work).map_err(|source| SiteError::Write { path: work.clone(), source })?;
    let report = import_keys(&cluster.client, endpoint, backup, (&member, &work), run);
    let _ = std::fs::remove_dir_all(&work);
    let report = report?;
    let verb = if run == RestoreRun::Dry { "would be written" } else { "written" };
    let text = format!(
        "the cluster has a quorum, so that the backup's keys come to it: {} of version 3 {verb}, {} are there \
         already, {} of programs of that day are left out; {} of version 2 {verb}, {} are there already. Keys that \
         are not in the backup stay",
        report.modern_written, report.modern_same, report.leased, report.classic_written, report.classic_same
    );
    let value = json!({
        "way": "import", "dry_run": run == RestoreRun::Dry, "written": report.modern_written,
        "same": report.modern_same, "leased": report.leased, "classic_written": report.classic_written,
        "classic_same": report.classic_same,
    });
    Ok(answer(format, text, &value))
}

fn rebuild(
    site: &Site,
    cluster: &Cluster,
    source: RestoreSource<'_>,
    run: RestoreRun,
    format: StatusFormat,
) -> Result<ClusterAnswer, RecoveryError> {
    let member = cluster.restored_member(site);
    let runs = site.is_running();
    if runs {
        run_unit("stop", "etcd.service")?;
    }
    let outcome = rebuild_member(&cluster.client, &member, source, run);
    if let (Ok(_), RestoreRun::Real) = (&outcome, run) {
        forget_others(site, cluster)?;
    }
    // Whatever came of it: what was there before goes on.
    if runs {
        run_unit("start", "etcd.service")?;
    }
    let report = outcome?;
    let becomes = if run == RestoreRun::Dry { "would be" } else { "is" };
    let old = report.old_data.as_ref();
    let old = old.map_or_else(String::new, |old| format!("\nits old data are in {}", old.display()));
    let next = match run {
        RestoreRun::Dry => "nothing was changed; without --dry-run it is done",
        RestoreRun::Real => {
            "the others come as new members when their etcd starts: 'sudo systemctl restart etcd' on each that runs"
        }
    };
    let text = format!(
        "this machine {becomes} the only member of a new cluster with the old content: {} keys of version 3, {} of \
         version 2, of revision {}{old}\n{next}",
        report.modern_keys, report.classic_keys, report.revision
    );
    let value = json!({
        "way": "rebuild", "dry_run": run == RestoreRun::Dry, "keys": report.modern_keys,
        "classic_keys": report.classic_keys, "revision": report.revision, "old_data": report.old_data,
    });
    Ok(answer(format, text, &value))
}

/// From now on this machine is the cluster, and the others come to it.
fn forget_others(site: &Site, cluster: &Cluster) -> Result<(), RecoveryError> {
    // The number of the member whose data it had.
    match std::fs::remove_file(site.state_path("member")) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(SiteError::Write { path: site.state_path("member"), source }.into());
        }
        _ => {}
    }
    if let Some(own) = own_voter(&cluster.served) {
        let found = FoundVoters { voters: VoterList::new([own]), formation: Formation::Before };
        remember_voters(site, &cluster.definition, &found)?;
    }
    Ok(())
}

/// This machine's address among the voters, or the one that it would have.
fn own_voter(served: &ServedCluster) -> Option<IpAddr> {
    let own: Vec<IpAddr> = crate::interfaces::own_addresses().into_iter().map(|one| one.address).collect();
    let voters = VoterList::new(served.voters.iter().copied());
    match served.place.as_str() {
        "alone" => None,
        _ => voters.member_among(&own).or_else(|| own.first().copied()),
    }
}

/// Whether etcd of a machine takes connections.
fn answers(address: IpAddr) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address, PEER_PORT), KNOCK_PATIENCE).is_ok()
}

fn run_unit(verb: &'static str, unit: &'static str) -> Result<(), RecoveryError> {
    let mut command = Command::new("systemctl");
    // A start waits for the others, for as long as they take.
    if verb != "stop" {
        command.arg("--no-block");
    }
    let status = command.args([verb, unit]).stdin(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(RecoveryError::Unit { verb, unit }) }
}

fn join(addresses: impl Iterator<Item = IpAddr>) -> String {
    addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(", ")
}

fn answer(format: StatusFormat, text: String, value: &Value) -> ClusterAnswer {
    let text = match format {
        StatusFormat::Json => format!("{value:#}"),
        StatusFormat::Text => text,
    };
    ClusterAnswer { text, exit_code: 0 }
}

/// When the last backup on this machine was made.
pub(super) fn last_backup(backups: &Path) -> Option<Timestamp> {
    let last = crate::backup::list_backups(backups).ok()?.pop()?;
    crate::backup::read_manifest(&last).ok().map(|manifest| manifest.taken_at)
}
