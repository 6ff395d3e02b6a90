//! Whether a machine is as well as it was before its update.
//!
//! Judging is pure: what was noted before (`Baseline`) and what is seen now give a list of results. Seeing is a
//! few questions to systemd and the kernel, and the scripts of health.d, in greenboot's layout
//! (<https://github.com/fedora-iot/greenboot>): `required.d` decides, `wanted.d` is shown only.
//! Invariant: only what was well before can fail a release: an extension that is optional, or a unit that failed
//! all along, never stops an update.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use first_boot::{ProgramCall, ProgramRunner, RunError};

use super::phase::Baseline;

/// Units of the image without which a machine is of no use, or out of reach.
pub(crate) const REQUIRED_UNITS: [&str; 7] = [
    "containerd.service",
    "docker.service",
    "etcd.service",
    "ssh.service",
    "ssh.socket",
    "systemd-networkd.service",
    "systemd-resolved.service",
];
const BOOT_COMPLETE: &str = "boot-complete.target";
/// Where checks lie: our own folders, and greenboot's, so that what people have already goes on working.
const CHECKS: [(&str, Weight); 6] = [
    ("usr/lib/catamaran/health.d/required.d", Weight::Required),
    ("usr/lib/catamaran/health.d/wanted.d", Weight::Wanted),
    ("etc/catamaran/health.d/required.d", Weight::Required),
    ("etc/catamaran/health.d/wanted.d", Weight::Wanted),
    ("etc/greenboot/check/required.d", Weight::Required),
    ("etc/greenboot/check/wanted.d", Weight::Wanted),
];
/// The longest that one script may take.
const SCRIPT_PATIENCE: Duration = Duration::from_mins(1);

/// Whether a check decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Its failure is the end of the release.
    Required,
    /// Its failure is shown.
    Wanted,
}

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckResult {
    /// Its name: a unit, a script or what it is about.
    pub(crate) name: String,
    /// Whether it decides.
    pub(crate) weight: Weight,
    /// What it said, if it failed.
    pub(crate) failure: Option<String>,
}

/// What is seen of the machine now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Observation {
    /// Required units that are active.
    pub(crate) active_units: Vec<String>,
    /// Units that failed.
    pub(crate) failed_units: Vec<String>,
    /// Whether systemd holds the boot to be complete.
    pub(crate) boot_is_complete: bool,
    /// Whether there is a way to other networks.
    pub(crate) has_route: bool,
    /// Why the update server did not answer, if it was asked and did not.
    pub(crate) update_server_failure: Option<String>,
    /// Why the etcd member is not healthy, if it was asked and is not.
    pub(crate) etcd_failure: Option<String>,
}

impl CheckResult {
    fn required(name: impl Into<String>, failure: Option<String>) -> Self {
        Self { name: name.into(), weight: Weight::Required, failure }
    }
}

/// Compares what is seen with what was noted.
pub(crate) fn compare_health(before: &Baseline, now: &Observation) -> Vec<CheckResult> {
    let incomplete = (!now.boot_is_complete).then(|| {
        let failed =
            if now.failed_units.is_empty() { "none".to_owned() } else { now.failed_units.join(", ") };
        format!("systemd does not hold the boot to be complete; failed units: {failed}")
    });
    let mut results = vec![CheckResult::required(BOOT_COMPLETE, incomplete)];
    for unit in &before.active_units {
        let failure = (!now.active_units.contains(unit)).then(|| {
            let state = if now.failed_units.contains(unit) { "it failed" } else { "it is not active" };
            format!("{state}, and was active before the update")
        });
        results.push(CheckResult::required(unit, failure));
    }
    if before.has_route {
        let failure =
            (!now.has_route).then(|| "there is no route to other networks, as there was".to_owned());
        results.push(CheckResult::required("network", failure));
    }
    if before.update_server.is_some() {
        // Without it, a release that is bad in another way could never be replaced.
        results.push(CheckResult::required("update-server", now.update_server_failure.clone()));
    }
    if before.etcd_is_healthy {
        results.push(CheckResult::required("etcd-member", now.etcd_failure.clone()));
    }
    let known = |unit: &&String| !before.failed_units.contains(unit) && !before.active_units.contains(unit);
    results.extend(now.failed_units.iter().filter(known).map(|unit| CheckResult {
        name: unit.clone(),
        weight: Weight::Wanted,
        failure: Some("it failed, and had not failed before the update".to_owned()),
    }));
    results
}

/// The first check that decides and failed.
pub(crate) fn first_failure(results: &[CheckResult]) -> Option<(&str, &str)> {
    let mut required = results.iter().filter(|result| result.weight == Weight::Required);
    required.find_map(|result| Some((result.name.as_str(), result.failure.as_deref()?)))
}

/// Asks systemd which of these units are active.
pub(crate) fn active_units(programs: &dyn ProgramRunner, units: &[String]) -> Vec<String> {
    let properties = ["show", "--property=Id,ActiveState", "--"].map(ToOwned::to_owned);
    let call = ProgramCall::new("systemctl", properties.into_iter().chain(units.iter().cloned()));
    let text = programs.run_program(&call).unwrap_or_default();
    parse_active_units(&String::from_utf8_lossy(&text), units)
}

/// A block of lines for each unit, in the order in which they were asked for: a name that is an alias comes back
/// as what it stands for.
fn parse_active_units(text: &str, asked: &[String]) -> Vec<String> {
    let blocks = text.split("\n\n").map(|block| block.lines().any(|line| line == "ActiveState=active"));
    asked.iter().zip(blocks).filter(|(_, is_active)| *is_active).map(|(unit, _)| unit.clone()).collect()
}

/// Asks systemd which units failed.
pub(crate) fn failed_units(programs: &dyn ProgramRunner) -> Vec<String> {
    let call = ProgramCall::new("systemctl", ["list-units", "--failed", "--plain", "--no-legend", "--full"]);
    let text = programs.run_program(&call).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect()
}

/// Asks systemd whether the boot is complete.
pub(crate) fn boot_is_complete(programs: &dyn ProgramRunner) -> bool {
    programs.run_program(&ProgramCall::new("systemctl", ["is-active", "--quiet", BOOT_COMPLETE])).is_ok()
}

/// Whether the kernel has a default route, of either family.
pub(crate) fn has_route(root: &Path) -> bool {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (old, new) = (read("proc/net/route"), read("proc/net/ipv6_route"));
    // Destination and mask are columns 1 and 7 of the one; the other begins with both.
    let is_default = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
    };
    // The kernel itself has an unreachable default route on `lo` when IPv6 is on.
    let is_default_6 = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"00")
            && words.first().is_some_and(|to| to.bytes().all(|b| b == b'0'))
            && words.last() != Some(&"lo")
    };
    old.lines().any(is_default) || new.lines().any(is_default_6)
}

/// Runs the scripts of health.d.
pub(crate) fn run_scripts(root: &Path, programs: &dyn ProgramRunner) -> Vec<CheckResult> {
    let folders = CHECKS.iter().flat_map(|(folder, weight)| {
        list_scripts(&root.join(folder)).into_iter().map(|path| (path, *weight))
    });
    folders.map(|(path, weight)| run_script(&path, weight, programs)).collect()
}

fn run_script(path: &Path, weight: Weight, programs: &dyn ProgramRunner) -> CheckResult {
    let seconds = SCRIPT_PATIENCE.as_secs();
    // What a check prints is why it failed, on whichever stream; `timeout` also ends what it has started.
    let line = format!("exec timeout --kill-after=5 {seconds} \"$0\" 1>&2");
    let arguments = ["-c".to_owned(), line, path.to_string_lossy().into_owned()];
    let call = ProgramCall::new("sh", arguments).with_timeout(SCRIPT_PATIENCE + Duration::from_secs(10));
    let failure = programs.run_program(&call).err().map(|error| match error {
        RunError::Failed { code: Some(124 | 137), .. } => format!("it did not end within {seconds} s"),
        RunError::Failed { code, complaint, .. } => {
            let code = code.map(|code| format!("exit code {code}: ")).unwrap_or_default();
            format!("{code}{complaint}")
        }
        other => other.to_string(),
    });
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    CheckResult { name, weight, failure }
}

/// The scripts of a folder, by name; greenboot runs what is executable and passes over the rest.
fn list_scripts(folder: &Path) -> Vec<PathBuf> {
    let is_script = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(is_script).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use first_boot::RealPrograms;

    use super::*;

    fn units(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn before() -> Baseline {
        Baseline {
            active_units: units(&["ssh.service", "docker.service"]),
            failed_units: units(&["always-broken.service"]),
            has_route: true,
            update_server: Some("http://updates/channel/stable".into()),
            etcd_is_healthy: true,
        }
    }

    fn well() -> Observation {
        Observation {
            active_units: units(&["ssh.service", "docker.service", "etcd.service"]),
            failed_units: units(&["always-broken.service"]),
            boot_is_complete: true,
            has_route: true,
            update_server_failure: None,
            etcd_failure: None,
        }
    }

    fn failure(now: &Observation) -> Option<String> {
        first_failure(&compare_health(&before(), now)).map(|(name, why)| format!("{name}: {why}"))
    }

    #[test]
    fn a_machine_that_is_as_it_was_is_well() {
        assert_eq!(failure(&well()), None);
    }

    #[test]
    fn each_thing_that_was_well_and_is_not_is_named() {
        let dead = Observation {
            active_units: units(&["docker.service"]),
            failed_units: units(&["ssh.service"]),
            ..well()
        };
        assert_eq!(failure(&dead).unwrap(), "ssh.service: it failed, and was active before the update");
        let no_route = Observation { has_route: false, ..well() };
        assert!(failure(&no_route).unwrap().starts_with("network: there is no route"));
        let silent = Observation { update_server_failure: Some("connection refused".into()), ..well() };
        assert_eq!(failure(&silent).unwrap(), "update-server: connection refused");
        let sick = Observation { etcd_failure: Some("unhealthy".into()), ..well() };
        assert_eq!(failure(&sick).unwrap(), "etcd-member: unhealthy");
        let incomplete = Observation { boot_is_complete: false, ..well() };
        assert!(failure(&incomplete).unwrap().contains("failed units: always-broken.service"));
    }

    #[test]
    fn a_unit_or_extension_that_is_optional_never_stops_an_update() {
        let now = Observation {
            failed_units: units(&["always-broken.service", "systemd-sysext.service"]),
            ..well()
        };

        let results = compare_health(&before(), &now);

        assert_eq!(first_failure(&results), None);
        let shown: Vec<&str> =
            results.iter().filter(|one| one.failure.is_some()).map(|one| one.name.as_str()).collect();
        assert_eq!(shown, ["systemd-sysext.service"]);
    }

    #[test]
    fn what_was_not_well_before_decides_nothing() {
        let nothing = Observation {
            boot_is_complete: true,
            update_server_failure: Some("x".into()),
            etcd_failure: Some("x".into()),
            ..Observation::default()
        };

        assert_eq!(first_failure(&compare_health(&Baseline::default(), &nothing)), None);
    }

    #[test]
    fn units_are_told_apart_by_the_order_in_which_they_were_asked_for() {
        let asked = units(&["sshd.service", "docker.service", "none.service"]);
        let text = "Id=ssh.service\nActiveState=active\n\nId=docker.service\nActiveState=failed\n\nId=none.service\nActiveState=inactive\n";

        assert_eq!(parse_active_units(text, &asked), ["sshd.service"]);
    }

    #[test]
    fn a_default_route_is_found_in_either_family() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(root.path().join("proc/net")).unwrap();
            fs::write(root.path().join("proc/net").join(name), text).unwrap();
        };
        let zeros = "0".repeat(32);
        write(
            "ipv6_route",
            &format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n"),
        );
        write(
            "route",
            "Iface\tDestination\tGateway\nens3\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n",
        );
        assert!(!has_route(root.path()));

        write(
            "route",
            "Iface\tDestination\tGateway\nens3\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n",
        );
        assert!(has_route(root.path()));
        write("route", "");
        write(
            "ipv6_route",
            &format!("{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 1 0 3 ens3\n"),
        );
        assert!(has_route(root.path()));
    }

    #[test]
    fn scripts_decide_by_their_folder_and_say_why_they_failed() {
        let root = tempfile::tempdir().unwrap();
        for (path, text, mode) in [
            ("etc/greenboot/check/required.d/10-fine.sh", "#!/bin/sh\ntrue\n", 0o755),
            (
                "etc/catamaran/health.d/required.d/20-sick.sh",
                "#!/bin/sh\necho the database is gone\nexit 3\n",
                0o755,
            ),
            ("etc/catamaran/health.d/wanted.d/30-meh.sh", "#!/bin/sh\nexit 1\n", 0o755),
            ("etc/catamaran/health.d/required.d/README", "not a script\n", 0o644),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        let results = run_scripts(root.path(), &RealPrograms);

        assert_eq!(results.len(), 3);
        assert_eq!(first_failure(&results), Some(("20-sick.sh", "exit code 3: the database is gone")));
        assert!(results.iter().any(|one| one.weight == Weight::Wanted && one.failure.is_some()));
    }
}
