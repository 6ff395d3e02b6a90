//! A machine that is a directory: its files are real, accounts included; its programs and its manager are
//! honest twins that note what they were asked for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use error_text::redacted_address;
use first_boot::{
    MachineAccess, MachineRoot, ManagerError, ProgramCall, ProgramRunner, RealPrograms, RunError, RunOptions,
    RunOutcome, UnitManager, UnitRequest, WebClient, WebError, apply_file, await_logins, run_first_boot,
};
use tempfile::TempDir;
use user_data::plan::step::Timeouts;
use user_data::secret::Secret;

pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH";

const FILES: [(&str, &str); 11] = [
    ("/etc/passwd", "root:x:0:0::/root:/bin/bash\ncore:x:1000:1000::/home/core:/bin/bash\n"),
    ("/etc/shadow", "root:*:20000:0:99999:7:::\ncore:*:20000:0:99999:7:::\n"),
    ("/etc/group", "root:x:0:\ncore:x:1000:\nsudo:x:27:core\ndocker:x:999:core\n"),
    ("/etc/gshadow", "root:*::\ncore:!::\nsudo:*::core\ndocker:!::core\n"),
    ("/etc/subuid", "core:100000:65536\n"),
    ("/etc/subgid", "core:100000:65536\n"),
    ("/etc/skel/.profile", "# a profile\n"),
    ("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n"),
    ("/proc/sys/kernel/hostname", "localhost\n"),
    ("/dev/console", ""),
    ("/usr/share/zoneinfo/Europe/Berlin", "TZif"),
];

/// No two host keys are alike.
static MADE: AtomicU32 = AtomicU32::new(0);

type Notes = Arc<Mutex<Vec<String>>>;

/// What sshd says of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sshd {
    Complains,
    /// It is the host's own program, told where the files are.
    Real,
    /// It would start with these settings.
    Takes(&'static str),
}

const LETS_IN: Sshd = Sshd::Takes(
    "port 22\npubkeyauthentication yes\nlistenaddress 0.0.0.0:22\n\
     authorizedkeysfile .ssh/authorized_keys /run/catamaran/keys/%u\n",
);

#[derive(Debug)]
struct Twins {
    root: MachineRoot,
    calls: Notes,
    sshd: Sshd,
}

impl ProgramRunner for Twins {
    fn run_program(&self, call: &ProgramCall) -> Result<Vec<u8>, RunError> {
        self.calls.lock().unwrap().push(call.to_string());
        let failed = |code, complaint: &str| {
            let complaint = complaint.to_owned();
            Err(RunError::Failed { program: call.program, code: Some(code), complaint })
        };
        match (call.program, call.arguments.last()) {
            ("ssh-keygen", _) if self.sshd == Sshd::Real => RealPrograms.run_program(call),
            // Reads a key instead of making one.
            ("ssh-keygen", _) if call.arguments[0] == "-y" => Ok(Vec::new()),
            ("ssh-keygen", Some(path)) => {
                let number = MADE.fetch_add(1, Ordering::Relaxed);
                fs::write(path, format!("private {number}")).unwrap();
                fs::write(format!("{path}.pub"), "public").unwrap();
                Ok(Vec::new())
            }
            // blkid's way to say that a device holds nothing it knows.
            ("blkid", _) => failed(2, ""),
            ("/usr/sbin/sshd", _) => match self.sshd {
                Sshd::Complains => failed(255, "bad configuration option"),
                Sshd::Real => {
                    let config = self.root.path_of("/etc/ssh/sshd_config").display().to_string();
                    let arguments = ["-f".to_owned(), config].into_iter().chain(call.arguments.clone());
                    RealPrograms.run_program(&ProgramCall::new("/usr/sbin/sshd", arguments))
                }
                Sshd::Takes(settings) => Ok(settings.into()),
            },
            _ => Ok(Vec::new()),
        }
    }
}

#[derive(Debug)]
struct ManagerTwin {
    calls: Notes,
    root: MachineRoot,
}

impl UnitManager for ManagerTwin {
    fn send_requests(&self, requests: &[UnitRequest<'_>]) -> Vec<Result<(), ManagerError>> {
        let said: Vec<String> = requests.iter().map(ToString::to_string).collect();
        let when = if await_logins(&self.root, Duration::ZERO) { "" } else { " (before logins)" };
        self.calls.lock().unwrap().push(format!("manager: {}{when}", said.join(", ")));
        let answer = |request: &String| {
            if request.ends_with("broken.service") {
                return Err(ManagerError::Refused { complaint: "no such unit".to_owned() });
            }
            Ok(())
        };
        said.iter().map(answer).collect()
    }
}

/// A network on which nobody answers.
#[derive(Debug)]
struct Silence;

impl WebClient for Silence {
    fn get_within(
        &self,
        url: &str,
        _: &[(String, Secret<String>)],
        _: Timeouts,
        _: u64,
    ) -> Result<Vec<u8>, WebError> {
        Err(WebError::Status { url: redacted_address(url), status: 404 })
    }

    fn post(&self, url: &str, _: &[(String, String)], _: u32) -> Result<(), WebError> {
        Err(WebError::Status { url: redacted_address(url), status: 404 })
    }
}

pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) machine: MachineAccess,
    calls: Notes,
}

impl Bench {
    /// As it is before its first boot.
    pub(crate) fn new() -> Self {
        Self::with_sshd(LETS_IN)
    }

    /// With an sshd that says so of whatever is written.
    pub(crate) fn with_sshd(sshd: Sshd) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path().join("root"));
        for (path, text) in FILES {
            fs::create_dir_all(root.path_of(path).parent().unwrap()).unwrap();
            fs::write(root.path_of(path), text).unwrap();
        }
        fs::create_dir_all(root.path_of("/home/core")).unwrap();
        let calls = Notes::default();
        if sshd == Sshd::Real {
            let folder = root.path_of("/etc/ssh").display().to_string();
            let config =
                format!("Include {folder}/sshd_config.d/*.conf\nHostKey {folder}/ssh_host_ed25519_key\n");
            fs::write(root.path_of("/etc/ssh/sshd_config"), config).unwrap();
        }
        let twins = Twins { root: root.clone(), calls: Arc::clone(&calls), sshd };
        let manager = ManagerTwin { calls: Arc::clone(&calls), root: root.clone() };
        let machine = MachineAccess {
            root,
            programs: Box::new(twins),
            web: Box::new(Silence),
            manager: Box::new(manager),
        };
        Self { folder, machine, calls }
    }

    /// With a NoCloud seed.
    pub(crate) fn seeded(instance: &str, user_data: &str) -> Self {
        let bench = Self::new();
        bench.seed(instance, user_data);
        bench
    }

    pub(crate) fn seed(&self, instance: &str, user_data: &str) {
        let folder = self.machine.root.path_of("/var/lib/cloud/seed/nocloud");
        fs::create_dir_all(&folder).unwrap();
        let meta_data = format!("instance-id: {instance}\nlocal-hostname: seeded\n");
        fs::write(folder.join("meta-data"), meta_data).unwrap();
        fs::write(folder.join("user-data"), user_data).unwrap();
    }

    pub(crate) fn boot(&self, options: RunOptions) -> RunOutcome {
        self.calls.lock().unwrap().clear();
        run_first_boot(options, &self.machine)
    }

    pub(crate) fn apply(&self, document: &str) -> RunOutcome {
        let file = self.folder.path().join("user-data");
        fs::write(&file, document).unwrap();
        self.calls.lock().unwrap().clear();
        apply_file(&file, &self.machine)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.machine.root.path_of(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.machine.root.path_of(path)).unwrap().permissions().mode() & 0o7777
    }

    pub(crate) fn owner(&self, path: &str) -> (u32, u32) {
        let meta = fs::metadata(self.machine.root.path_of(path)).unwrap();
        (meta.uid(), meta.gid())
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn called(&self, words: &str) -> bool {
        self.calls().iter().any(|call| call.contains(words))
    }

    /// Every file with its mode and content.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        collect(&self.machine.root.path_of("/"), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            collect(&path, files);
        } else {
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string().into_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            files.insert(path.display().to_string(), (meta.mode(), content));
        }
    }
}
