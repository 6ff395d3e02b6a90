//! Machines whose files are in a folder and whose addresses are on loopback.
//!
//! Each set of machines takes a network of 127.0.0.0/8 for itself, since etcd's ports are fixed.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::etcd::{ClusterPlace, LOCAL, Variables, VoterStart, plan_etcd};
use cluster::etcd_client::{CALL_PATIENCE, ClientCredentials, EtcdClient};
use cluster::finding::find_voters;
use cluster::identity::{certify_client, certify_etcd};
use cluster::prepare::take_place;
use cluster::site::Site;
use tempfile::TempDir;
use user_data::cluster::secret::ClusterSecret;
use user_data::cluster::{ClusterDefinition, FindMethod};

/// How long to wait for what must come; the host may starve.
const PATIENCE: Duration = Duration::from_mins(3);

/// Machines of one definition.
pub(crate) struct Machines {
    pub(crate) definition: ClusterDefinition,
    pub(crate) all: Vec<Machine>,
    network: [u8; 2],
}

/// One machine.
pub(crate) struct Machine {
    pub(crate) address: IpAddr,
    definition: ClusterDefinition,
    folder: TempDir,
    etcd: Option<Child>,
    /// What it said before etcd started.
    pub(crate) said: Vec<String>,
}

/// Whether there is an etcd to test with.
pub(crate) fn has_etcd() -> bool {
    let is_here = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(is_here || std::env::var("CI").as_deref() != Ok("true"), "this test needs Debian's etcd-server");
    if !is_here {
        eprintln!("skipped: this test needs Debian's etcd-server");
    }
    is_here
}

impl Machines {
    /// So many, with a secret of their own, all off.
    pub(crate) fn new(count: u8) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        // Processes of other tests have other numbers.
        let [low, high, ..] = std::process::id().to_le_bytes();
        let network = [high ^ 0x5a, low.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(37))];
        let address = |last: u8| IpAddr::from([127, network[0], network[1], last]);
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        let definition = ClusterDefinition {
            name: "harbour".to_owned(),
            size: 3,
            secret: ClusterSecret::from_bytes(&bytes),
            find: FindMethod::Addresses((1..=count).map(address).collect()),
        };
        let all = (1..=count).map(|last| Machine::new(address(last), &definition)).collect();
        Self { definition, all, network }
    }

    /// So many that run, and have a leader.
    pub(crate) fn running(count: u8) -> Self {
        let mut machines = Self::new(count);
        for machine in &mut machines.all {
            machine.power_on();
        }
        for machine in machines.all.iter().take(3) {
            machine.await_health();
        }
        machines
    }

    /// One more machine of the same document.
    pub(crate) fn add(&mut self, last: u8) -> &mut Machine {
        let address = IpAddr::from([127, self.network[0], self.network[1], last]);
        self.all.push(Machine::new(address, &self.definition));
        self.all.last_mut().unwrap()
    }
}

impl Machine {
    fn new(address: IpAddr, definition: &ClusterDefinition) -> Self {
        let (definition, folder) = (definition.clone(), tempfile::tempdir().unwrap());
        Self { address, definition, folder, etcd: None, said: Vec::new() }
    }

    pub(crate) fn site(&self) -> Site {
        Site::at_root(self.folder.path())
    }

    pub(crate) fn data_folder(&self) -> PathBuf {
        self.folder.path().join("var/lib/etcd/default")
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, 2379)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.socket())
    }

    pub(crate) fn client(&self) -> EtcdClient {
        let credentials = ClientCredentials::of_machine(&self.site()).unwrap().unwrap();
        EtcdClient::new(Some(&credentials), CALL_PATIENCE).unwrap()
    }

    /// Does what the units of the image do.
    pub(crate) fn power_on(&mut self) -> VoterStart {
        match self.prepare() {
            ClusterPlace::Voter { start, .. } => start,
            place => panic!("{} is {place:?}: {:?}", self.address, self.said),
        }
    }

    /// Finds its place, and starts etcd if it votes.
    pub(crate) fn prepare(&mut self) -> ClusterPlace {
        let site = self.site();
        certify_client(&site, &self.definition).unwrap();
        certify_etcd(&site, &self.definition, &[self.address]).unwrap();
        let (data, mut said) = (self.data_folder(), Vec::new());
        let mut say = |sentence| said.push(sentence);
        let found = find_voters(&site, &self.definition, &mut say).unwrap();
        let own = [self.address];
        let place = take_place(&site, &self.definition, (&own, &data), &found, &mut say).unwrap();
        self.said.extend(said);
        let plan = plan_etcd(&Variables::new(), &place, &site.runtime_path(""));
        if plan.runs_here {
            self.spawn(plan.variables);
        }
        place
    }

    fn spawn(&mut self, mut variables: Variables) {
        let client = format!("https://{}", self.socket());
        // All machines here share the loopback address that each has for itself.
        variables.insert("ETCD_LISTEN_CLIENT_URLS".to_owned(), client);
        variables.retain(|_, value| !value.contains(&LOCAL.to_string()));
        let log = fs::File::create(self.folder.path().join("etcd.log")).unwrap();
        let data = self.data_folder();
        fs::create_dir_all(data.parent().unwrap()).unwrap();
        let mut command = Command::new("etcd");
        command.envs(variables).arg("--data-dir").arg(data).args(["--unsafe-no-fsync", "--log-level=info"]);
        self.etcd = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub(crate) fn is_healthy(&self) -> bool {
        cluster::membership::confirm_membership(&self.client(), &self.endpoint()).is_ok()
    }

    pub(crate) fn await_health(&self) {
        self.await_that("it is healthy", || self.is_healthy().then_some(()));
    }

    pub(crate) fn await_that<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = check() {
                return value;
            }
            let log = || fs::read_to_string(self.folder.path().join("etcd.log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "{}: not {what}\n{}", self.address, log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Takes its power away.
    pub(crate) fn power_off(&mut self) {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill().unwrap();
            etcd.wait().unwrap();
        }
    }

    /// Gives it an empty disk.
    pub(crate) fn lose_disk(&mut self) {
        self.power_off();
        fs::remove_dir_all(self.folder.path().join("var")).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}
