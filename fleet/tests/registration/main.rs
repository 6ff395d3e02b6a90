//! Machines register in a real etcd: one of each ID, no ghosts, and only with a certificate where etcd asks.
#![expect(clippy::disallowed_methods, reason = "tests run programs and wait for them")]
#![expect(clippy::print_stderr, reason = "a skipped test says why")]
#![expect(clippy::unwrap_used, reason = "what prepares a test may fail it too")]

#[path = "../support/etcd.rs"]
mod etcd;

use etcd::Etcd;
use fleet::agent::presence::MachinePresence;
use fleet::model::machine::{Machine, MachineId};
use fleet::store::etcd::{EtcdSettings, EtcdStore};
use fleet::store::registry::{Registry, StoreHealth};
use fleet::store::revision::LeaseId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long to wait for what must come; the host may starve.
const PATIENCE: Duration = Duration::from_mins(5);
/// Long, so that nothing here can be explained by a lease that ran out.
const TTL: Duration = Duration::from_mins(10);

fn settings(endpoint: &str) -> EtcdSettings {
    EtcdSettings {
        endpoints: vec![endpoint.to_owned()],
        prefix: "/fleet/".to_owned(),
        request_timeout: Duration::from_secs(5),
        ca: None,
        identity: None,
        user: None,
    }
}

/// A fleetd as far as its presence goes. Dropped, it is killed: nothing is given back.
struct Member {
    store: Arc<EtcdStore>,
    presence: Arc<MachinePresence>,
    tasks: JoinSet<()>,
}

impl Member {
    fn start(settings: EtcdSettings, id: &str, address: &str, ttl: Duration, lease_file: PathBuf) -> Self {
        let mut machine = Machine::new(MachineId::parse(id).unwrap());
        address.clone_into(&mut machine.public_ip);
        let store = Arc::new(EtcdStore::new(settings));
        let presence =
            Arc::new(MachinePresence::new(store.clone(), machine, address.to_owned(), ttl, lease_file));
        let mut tasks = JoinSet::new();
        let (following, staying) = (store.clone(), presence.clone());
        tasks.spawn(async move { following.follow_store().await });
        tasks.spawn(async move { staying.stay_registered().await });
        Self { store, presence, tasks }
    }

    /// The machines it sees, with their addresses.
    fn machines(&self) -> Vec<(String, String)> {
        self.store.read(|cluster| {
            let machines = cluster.machines.values();
            machines.map(|machine| (machine.id.to_string(), machine.public_ip.clone())).collect()
        })
    }

    async fn serves(&self) {
        until("it serves", || self.store.health() == StoreHealth::Serving).await;
    }

    async fn sees(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(id, address)| ((*id).to_owned(), (*address).to_owned())).collect();
        until("these machines are there", || self.machines() == expected).await;
    }

    fn why_excluded(&self) -> String {
        match self.store.health() {
            StoreHealth::Excluded(reason) => reason,
            _ => String::new(),
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not seen in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_second_machine_of_an_id_stays_out_until_the_first_has_left() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let start = |address: &str, ttl| {
        let file = folder.path().join(address);
        Member::start(settings(&etcd.endpoint()), "m1", address, ttl, file)
    };
    let original = start("10.0.0.1", TTL);
    original.serves().await;
    let mut registrations = original.store.watch_registration();
    registrations.mark_unchanged();

    // A TTL of two seconds, so that this one soon says that the other is alive.
    let clone = start("10.0.0.2", Duration::from_secs(2));
    until("it says that it waits", || clone.why_excluded().contains("10.0.0.1")).await;
    until("it says what to do", || clone.why_excluded().contains("systemd-machine-id-setup")).await;

    original.sees(&[("m1", "10.0.0.1")]).await;
    assert!(!registrations.has_changed().unwrap(), "the original notices nothing");
    assert!(clone.presence.watch_lease().borrow().is_none(), "without a lease nothing is started there");

    original.presence.leave_cluster().await;
    drop(original);
    clone.serves().await;
    clone.sees(&[("m1", "10.0.0.2")]).await;
}

#[tokio::test]
async fn a_machine_comes_back_unnoticed_and_another_id_leaves_no_ghost() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lease");
    let watcher = Member::start(settings(&etcd.endpoint()), "w", "", TTL, folder.path().join("watcher"));
    watcher.serves().await;
    let start = |id: &str| Member::start(settings(&etcd.endpoint()), id, "10.0.0.1", TTL, file.clone());

    let mut first = start("m1");
    first.serves().await;
    let lease = first.presence.watch_lease().borrow().unwrap().id;
    first.tasks.shutdown().await;
    let again = start("m1");
    again.serves().await;
    assert_eq!(again.presence.watch_lease().borrow().unwrap().id, lease, "the same registration");
    drop(again);

    let renamed = start("m2");
    renamed.serves().await;
    watcher.sees(&[("m2", "10.0.0.1"), ("w", "")]).await;
    drop(renamed);

    let elsewhere = EtcdSettings { prefix: "/other/".to_owned(), ..settings(&etcd.endpoint()) };
    let moved = Member::start(elsewhere, "m2", "10.0.0.1", TTL, file.clone());
    moved.serves().await;
    watcher.sees(&[("w", "")]).await;
    moved.sees(&[("m2", "10.0.0.1")]).await;
    moved.presence.leave_cluster().await;
    drop(moved);

    // What a fleetd wrote that did not know names yet, under a name that changed with the update.
    let old = start("m1");
    old.serves().await;
    let lease = old.presence.watch_lease().borrow().unwrap().id;
    drop(old);
    std::fs::write(&file, lease.to_string()).unwrap();
    let updated = start("m3");
    updated.serves().await;
    watcher.sees(&[("m3", "10.0.0.1"), ("w", "")]).await;
    drop(updated);
    // And under the same name.
    let lease =
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(&file).unwrap()).unwrap()["lease"].clone();
    std::fs::write(&file, lease.to_string()).unwrap();
    let updated = start("m3");
    updated.serves().await;
    assert_eq!(Some(updated.presence.watch_lease().borrow().unwrap().id), lease.as_i64().map(LeaseId));
}

#[tokio::test]
async fn a_longer_ttl_needs_another_lease_and_no_wait() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lease");
    let start = |ttl| Member::start(settings(&etcd.endpoint()), "m1", "10.0.0.1", ttl, file.clone());
    let first = start(TTL);
    first.serves().await;
    drop(first);

    let second = start(TTL * 2);
    second.serves().await;

    assert_eq!(second.presence.watch_lease().borrow().unwrap().ttl, TTL * 2);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for this user of etcd, and its key; etcd takes the common name for the user.
    fn sign(&self, folder: &Path, user: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut parameters =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, user);
        let certificate = parameters.signed_by(&key, &self.0).unwrap().pem();
        std::fs::write(folder.join(format!("{user}.pem")), &certificate).unwrap();
        std::fs::write(folder.join(format!("{user}.key")), key.serialize_pem()).unwrap();
        (certificate.into_bytes(), key.serialize_pem().into_bytes())
    }
}

/// etcd knows its clients by their certificates, and lets fleet's user into fleet's tree only.
#[tokio::test]
async fn etcd_lets_in_who_shows_the_certificate_of_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, strangers) = (Authority::new(), Authority::new());
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("ca.pem"), authority.0.pem()).unwrap();
    for user in ["server", "root"] {
        authority.sign(folder.path(), user);
    }
    let fleet = authority.sign(folder.path(), "fleet");
    let stranger = strangers.sign(folder.path(), "stranger");
    let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let tls =
        ["--client-cert-auth", "--trusted-ca-file", &ca, "--cert-file", &certificate, "--key-file", &key];
    let Some(etcd) = Etcd::start_with("https", &tls) else { return };
    let etcdctl = |user: &str, words: &str| {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &etcd.endpoint(), "--cacert", &ca])
            .args(["--cert", &path(&format!("{user}.pem")), "--key", &path(&format!("{user}.key"))])
            .args(words.split(' '))
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for words in [
        "user add root --no-password",
        "user grant-role root root",
        "role add fleet",
        "role grant-permission fleet --prefix=true readwrite /fleet/",
        "user add fleet --no-password",
        "user grant-role fleet fleet",
        "auth enable",
    ] {
        let (done, reason) = etcdctl("root", words);
        assert!(done, "{words}: {reason}");
    }
    let ca = Some(authority.0.pem().into_bytes());
    let with = |identity, prefix: &str| EtcdSettings {
        ca: ca.clone(),
        identity,
        prefix: prefix.to_owned(),
        ..settings(&etcd.endpoint())
    };
    let file = |name: &str| folder.path().join(name);

    let member = Member::start(with(Some(fleet.clone()), "/fleet/"), "m1", "10.0.0.1", TTL, file("lease"));
    member.serves().await;
    let others = [
        Member::start(with(None, "/fleet/"), "m2", "", TTL, file("nobody")),
        Member::start(with(Some(stranger), "/fleet/"), "m3", "", TTL, file("stranger")),
        Member::start(with(Some(fleet), "/elsewhere/"), "m4", "", TTL, file("elsewhere")),
    ];
    // Each tries again and again; by then the first attempts have failed for sure.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for other in &others {
        assert_ne!(other.store.health(), StoreHealth::Serving);
    }
    member.sees(&[("m1", "10.0.0.1")]).await;
}
