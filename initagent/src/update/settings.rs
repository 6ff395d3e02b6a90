//! How a machine is to update itself, from the files that a cloud-config and people write.
//!
//! Knows the files, their order and their words. Refuses to act on them. What is not understood is a warning that
//! `initagent update status` shows, never an error: a slip in a file must not cost a machine its updates.
//! Invariant: a setting that is written twice has the value of the file that comes last.
//!
//! | file | written by |
//! |---|---|
//! | /usr/share/coreos/update.conf | the image |
//! | locksmithd.service.d/*.conf below /run and /etc/systemd/system | `coreos.locksmith`, as its unit's environment |
//! | /etc/coreos/update.conf | `coreos.update` |
//! | /etc/catamaran/update.d/*.conf | people |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::window::{RebootWindow, parse_length};

const DEFAULTS: &str = "usr/share/coreos/update.conf";
const LOCKSMITH: [&str; 2] =
    ["run/systemd/system/locksmithd.service.d", "etc/systemd/system/locksmithd.service.d"];
/// A unit of that name that is masked: what people wrote on CoreOS so that no machine restarts by itself.
const LOCKSMITH_MASKS: [&str; 2] =
    ["run/systemd/system/locksmithd.service", "etc/systemd/system/locksmithd.service"];
/// Where fleetd of this machine answers, for root without a certificate.
pub(crate) const FLEET_SOCKET: &str = "run/fleet.sock";
const COREOS: &str = "etc/coreos/update.conf";
const DROP_INS: &str = "etc/catamaran/update.d";
/// A file of settings has some lines.
const MAX_FILE: u64 = 64 << 10;

/// What is done when the new slot is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RebootStrategy {
    /// As `etcd-lock` if a lock server is named, else as `reboot`.
    BestEffort,
    /// Takes a slot of the lock server first.
    EtcdLock,
    /// A person restarts the machine.
    Off,
    /// Restarts by itself.
    Reboot,
}

/// Whether releases are tried without a restart of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SoftTrials {
    /// Where kernel, initramfs and command line are those that run.
    Auto,
    /// Never.
    Off,
}

/// Who says that not all machines of a cluster restart at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LockServer {
    /// Its address.
    pub(crate) url: String,
    /// The group of machines that share the slots.
    pub(crate) group: String,
}

/// How the machine updates itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct UpdateSettings {
    /// Where releases are, in the order in which they are asked.
    pub(crate) mirrors: Vec<String>,
    /// The channel, unless it is the image's own.
    pub(crate) channel: Option<String>,
    /// What is done when the new slot is armed.
    pub(crate) strategy: RebootStrategy,
    /// When it may be done; at any time without one.
    pub(crate) window: Option<RebootWindow>,
    /// Who is asked before.
    pub(crate) lock_server: Option<LockServer>,
    /// The proxy for each scheme, as curl's variables name them.
    #[serde(skip)]
    pub(crate) proxies: BTreeMap<String, String>,
    /// Units that must be active after an update if they were before, beside the image's own.
    pub(crate) required_units: Vec<String>,
    /// How long the checks may fail before they count.
    pub(crate) check_patience: Duration,
    /// How long they must hold after they have passed.
    pub(crate) soak: Duration,
    /// After this the machine goes back without a verdict.
    pub(crate) deadline: Duration,
    /// Whether a release may be tried without a restart of the kernel.
    pub(crate) soft_trials: SoftTrials,
    /// What was not understood.
    pub(crate) warnings: Vec<String>,
}

impl Default for UpdateSettings {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            channel: None,
            strategy: RebootStrategy::Reboot,
            window: None,
            lock_server: None,
            proxies: BTreeMap::new(),
            required_units: Vec::new(),
            // Programs that pull images at their start take minutes on a slow line.
            check_patience: Duration::from_mins(5),
            soak: Duration::from_mins(1),
            deadline: Duration::from_mins(15),
            // It interrupts services less than a restart does. Yet no machine has passed one: the new root comes up, and
            // the deadline of its trial cannot be set. Until that is mended, who wants it asks for it.
            soft_trials: SoftTrials::Off,
            warnings: Vec::new(),
        }
    }
}

/// The settings as they are written, the last value of each.
#[derive(Debug, Default)]
struct SettingValues {
    values: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl UpdateSettings {
    /// Reads the files below `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut values = SettingValues::default();
        values.add_file(&root.join(DEFAULTS), split_assignment);
        for path in LOCKSMITH.iter().flat_map(|folder| drop_ins(&root.join(folder))) {
            values.add_file(&path, unit_environment);
        }
        values.add_file(&root.join(COREOS), split_assignment);
        for path in drop_ins(&root.join(DROP_INS)) {
            values.add_file(&path, split_assignment);
        }
        let masked = |path: &str| fs::read_link(root.join(path)).is_ok_and(|to| to == Path::new("/dev/null"));
        if LOCKSMITH_MASKS.into_iter().any(masked) {
            values.values.insert("REBOOT_STRATEGY".to_owned(), "off".to_owned());
        }
        values.build_settings(&root.join(FLEET_SOCKET))
    }
}

impl SettingValues {
    fn add_file(&mut self, path: &Path, parse: impl Fn(&str) -> Option<(&str, &str)>) {
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() <= MAX_FILE => fs::read_to_string(path),
            Ok(_) => Err(std::io::ErrorKind::FileTooLarge.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => {
                let pairs = text.lines().filter_map(parse);
                self.values.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
            Err(error) => self.warnings.push(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn find_value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn build_settings(mut self, fleet_socket: &Path) -> UpdateSettings {
        let defaults = UpdateSettings::default();
        let window = self.read_window();
        let strategy = self.read_strategy().unwrap_or(defaults.strategy);
        let words = |value: Option<&str>| {
            let words = value.unwrap_or_default().split([' ', ',']);
            words.filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect::<Vec<String>>()
        };
        let mirrors = words(self.find_value("SERVER"));
        let required_units = words(self.find_value("TRIAL_UNITS"));
        let check_patience = self.read_duration("TRIAL_PATIENCE").unwrap_or(defaults.check_patience);
        let soak = self.read_duration("TRIAL_SOAK").unwrap_or(defaults.soak);
        // A deadline that comes before the checks could end would be the end of every update.
        let deadline = self.read_duration("TRIAL_DEADLINE").unwrap_or(defaults.deadline);
        let deadline = deadline.max(check_patience + soak + Duration::from_mins(2));
        let soft_trials = self.read_soft_trials().unwrap_or(defaults.soft_trials);
        let group = self.find_value("LOCKSMITHD_GROUP").unwrap_or("default").to_owned();
        // As CoreOS had it: etcd-lock means the cluster's own locks, and best-effort means them where there are any.
        let own = match strategy {
            RebootStrategy::EtcdLock => true,
            RebootStrategy::BestEffort => fleet_socket.exists(),
            RebootStrategy::Off | RebootStrategy::Reboot => false,
        };
        let own = own.then(|| format!("unix://{}", fleet_socket.display()));
        let url = self.find_value("FLEET_LOCK_URL").map(ToOwned::to_owned).or(own);
        UpdateSettings {
            mirrors,
            channel: self.find_value("GROUP").map(ToOwned::to_owned),
            strategy,
            window,
            lock_server: url.map(|url| LockServer { url, group }),
            proxies: self.read_proxies(),
            required_units,
            check_patience,
            soak,
            deadline,
            soft_trials,
            warnings: self.warnings,
        }
    }

    fn read_strategy(&mut self) -> Option<RebootStrategy> {
        let word = self.find_value("REBOOT_STRATEGY")?.to_owned();
        let strategy = match word.as_str() {
            "best-effort" => RebootStrategy::BestEffort,
            "etcd-lock" => RebootStrategy::EtcdLock,
            "off" | "false" => RebootStrategy::Off,
            "reboot" => RebootStrategy::Reboot,
            _ => {
                let warning = format!(
                    "REBOOT_STRATEGY is {word:?}, not reboot, etcd-lock, best-effort or off: taken for off"
                );
                self.warnings.push(warning);
                // A word that nobody understands does not restart a machine.
                RebootStrategy::Off
            }
        };
        Some(strategy)
    }

    fn read_soft_trials(&mut self) -> Option<SoftTrials> {
        match self.find_value("TRIAL_SOFT")?.to_owned().as_str() {
            "auto" => Some(SoftTrials::Auto),
            "off" | "false" => Some(SoftTrials::Off),
            word => {
                self.warnings.push(format!("TRIAL_SOFT is {word:?}, not auto or off: taken for off"));
                // The restart that every release can take.
                Some(SoftTrials::Off)
            }
        }
    }

    fn read_window(&mut self) -> Option<RebootWindow> {
        let start = self.find_value("REBOOT_WINDOW_START")?;
        let length = self.find_value("REBOOT_WINDOW_LENGTH").unwrap_or("1h");
        match RebootWindow::parse(start, length) {
            Ok(window) => Some(window),
            Err(error) => {
                // Locksmith did not start with such a window; to restart at any time would be the worse reading.
                self.warnings.push(format!("{error}: the machine does not restart by itself"));
                self.values.insert("REBOOT_STRATEGY".to_owned(), "off".to_owned());
                None
            }
        }
    }

    fn read_duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.find_value(name)?.to_owned();
        let duration = parse_length(&text);
        if duration.is_none() {
            self.warnings.push(format!("{name} is {text:?}, which is not a length like 90s or 1h30m"));
        }
        duration
    }

    fn read_proxies(&self) -> BTreeMap<String, String> {
        let names = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];
        let named = names.into_iter().flat_map(|name| [name.to_owned(), name.to_lowercase()]);
        let set = named.filter_map(|name| Some((name.to_uppercase(), self.find_value(&name)?.to_owned())));
        set.collect()
    }
}

/// `NAME=VALUE`, with or without quotes.
fn split_assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (name, strip_quotes(value.trim())))
}

/// `Environment="NAME=VALUE"`, of which a drop-in of ours has one a line.
fn unit_environment(line: &str) -> Option<(&str, &str)> {
    split_assignment(strip_quotes(line.trim().strip_prefix("Environment=")?.trim()))
}

fn strip_quotes(text: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(text)
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> UpdateSettings {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        UpdateSettings::read(root.path())
    }

    #[test]
    fn a_machine_that_nobody_told_anything_asks_nobody() {
        assert_eq!(read(&[]), UpdateSettings::default());
    }

    #[test]
    fn etcd_lock_means_the_locks_of_the_machines_own_fleet_unless_a_server_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/coreos/update.conf");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let url = |strategy: &str| {
            fs::write(&path, format!("REBOOT_STRATEGY={strategy}\n")).unwrap();
            UpdateSettings::read(folder.path()).lock_server.map(|server| server.url)
        };
        let own = Some(format!("unix://{}/run/fleet.sock", folder.path().display()));

        assert_eq!(url("etcd-lock"), own);
        assert_eq!((url("best-effort"), url("reboot")), (None, None));
        fs::create_dir_all(folder.path().join("run")).unwrap();
        fs::write(folder.path().join("run/fleet.sock"), "").unwrap();
        assert_eq!(url("best-effort"), own);
    }

    #[test]
    fn who_masks_locksmithd_restarts_the_machine_himself() {
        let folder = tempfile::tempdir().unwrap();
        let units = folder.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        std::os::unix::fs::symlink("/dev/null", units.join("locksmithd.service")).unwrap();

        assert_eq!(UpdateSettings::read(folder.path()).strategy, RebootStrategy::Off);
    }

    #[test]
    fn what_a_cloud_config_and_people_wrote_is_read_in_order() {
        let locksmith = "[Service]\nEnvironment=\"LOCKSMITHD_GROUP=workers\"\n\
                         Environment=\"REBOOT_WINDOW_START=Thu 04:00\"\nEnvironment=\"REBOOT_WINDOW_LENGTH=1h30m\"\n";
        let settings = read(&[
            ("usr/share/coreos/update.conf", "GROUP=stable\nREBOOT_STRATEGY=off\n"),
            ("run/systemd/system/locksmithd.service.d/20-cloudinit.conf", locksmith),
            (
                "etc/coreos/update.conf",
                "# mine\nGROUP=\"beta\"\nSERVER='https://one.example/c, https://two.example'\n",
            ),
            ("etc/catamaran/update.d/20-b.conf", "REBOOT_STRATEGY=etcd-lock\n"),
            (
                "etc/catamaran/update.d/10-a.conf",
                "REBOOT_STRATEGY=reboot\nFLEET_LOCK_URL=http://lock:8080\nhttps_proxy=http://p:3128\n",
            ),
            ("etc/catamaran/update.d/30.txt", "REBOOT_STRATEGY=off\n"),
        ]);

        assert_eq!(settings.mirrors, ["https://one.example/c", "https://two.example"]);
        assert_eq!(settings.channel.as_deref(), Some("beta"));
        assert_eq!(settings.strategy, RebootStrategy::EtcdLock);
        assert_eq!(settings.window, Some(RebootWindow::parse("Thu 04:00", "1h30m").unwrap()));
        let lock_server = LockServer { url: "http://lock:8080".into(), group: "workers".into() };
        assert_eq!(settings.lock_server, Some(lock_server));
        assert_eq!(settings.proxies["HTTPS_PROXY"], "http://p:3128");
        assert_eq!(settings.warnings, [""; 0]);
    }

    #[test]
    fn a_slip_is_a_warning_and_never_restarts_a_machine() {
        let settings = read(&[(
            "etc/coreos/update.conf",
            "REBOOT_STRATEGY=rebot\nTRIAL_PATIENCE=soon\nTRIAL_SOAK=ten\nSERVER=\n=x\n",
        )]);

        assert_eq!((settings.strategy, settings.window), (RebootStrategy::Off, None));
        assert_eq!(settings.soak, UpdateSettings::default().soak);
        assert_eq!(settings.warnings.len(), 3, "{:?}", settings.warnings);
        assert!(settings.mirrors.is_empty());
    }

    #[test]
    fn a_window_that_is_none_is_no_leave_to_restart_at_any_time() {
        let settings = read(&[("etc/coreos/update.conf", "REBOOT_WINDOW_START=noon\n")]);

        assert_eq!((settings.strategy, settings.window), (RebootStrategy::Off, None));
        assert_eq!(settings.warnings.len(), 1);
    }

    #[test]
    fn soft_trials_are_had_only_where_somebody_asked_for_them() {
        let soft_trials = |text: &str| read(&[("etc/catamaran/update.d/1.conf", text)]).soft_trials;

        assert_eq!(soft_trials(""), SoftTrials::Off);
        assert_eq!(soft_trials("TRIAL_SOFT=auto\n"), SoftTrials::Auto);
        assert_eq!(soft_trials("TRIAL_SOFT=off\n"), SoftTrials::Off);
        assert_eq!(soft_trials("TRIAL_SOFT=maybe\n"), SoftTrials::Off);
        let settings = read(&[("etc/catamaran/update.d/1.conf", "TRIAL_SOFT=maybe\n")]);
        assert!(settings.warnings[0].contains("auto or off"), "{:?}", settings.warnings);
    }

    #[test]
    fn a_deadline_leaves_the_checks_their_time() {
        let settings = read(&[(
            "etc/catamaran/update.d/1.conf",
            "TRIAL_DEADLINE=1s\nTRIAL_PATIENCE=10m\nTRIAL_SOAK=5m\n",
        )]);

        assert_eq!(settings.deadline, Duration::from_mins(17));
    }

    #[test]
    fn a_proxy_with_a_password_is_not_printed() {
        let settings = read(&[("etc/catamaran/update.d/1.conf", "HTTPS_PROXY=http://me:SEKRIT@p:1\n")]);

        assert!(!serde_json::to_string(&settings).unwrap().contains("SEKRIT"));
    }
}
