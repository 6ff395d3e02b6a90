//! The units that the image brings, as far as a document can start or enable them.
//!
//! Knows names only, of the flavours that are built from `overlays/`; an image of somebody's own may have
//! more, so that nothing is refused by this list and the machine itself is not asked by it. Invariant: a
//! unit that a plan writes, mounts or links is never called missing.

use std::collections::HashSet;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use crate::plan::FirstBootPlan;
use crate::plan::step::{PlanStep, UnitVerb};
use crate::systemd::mount_unit;

/// Services, sockets, timers and paths besides systemd's own, which begin with its name.
const UNITS: [&str; 56] = [
    "afterburn.service",
    "autovt@.service",
    "capsule@.service",
    "catamaran-boot-complete.service",
    "catamaran-boot-settled.service",
    "catamaran-boot-settled.timer",
    "catamaran-cluster-care.service",
    "catamaran-cluster-care.timer",
    "catamaran-cluster.service",
    "catamaran-first-boot.service",
    "catamaran-host-keys.service",
    "catamaran-logins.service",
    "catamaran-update-resume.service",
    "catamaran-update-trial.service",
    "catamaran-update.service",
    "catamaran-update.timer",
    "console-getty.service",
    "container-getty@.service",
    "containerd.service",
    "coreos-metadata.service",
    "dbus.service",
    "dbus.socket",
    "debug-shell.service",
    "docker.service",
    "docker.socket",
    "e2scrub@.service",
    "e2scrub_all.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "emergency.service",
    "etcd.service",
    "etcd2.service",
    "fleet.service",
    "fstrim.service",
    "fstrim.timer",
    "getty@.service",
    "kmod-static-nodes.service",
    "kmod.service",
    "ldconfig.service",
    "locksmithd.service",
    "modprobe@.service",
    "procps.service",
    "quotaon-root.service",
    "quotaon@.service",
    "rescue.service",
    "serial-getty@.service",
    "ssh.service",
    "ssh.socket",
    "ssh@.service",
    "sshd.service",
    "sshd@.service",
    "system-cloudinit@.service",
    "system-update-cleanup.service",
    "udev.service",
    "user-runtime-dir@.service",
    "user@.service",
];

/// What does the work of units that people know from elsewhere.
const INSTEAD: [(&str, &str); 17] = [
    ("NetworkManager", "networkd configures the network"),
    ("chrony", "systemd-timesyncd.service keeps the time"),
    ("chronyd", "systemd-timesyncd.service keeps the time"),
    ("cron", "write a `.timer` unit and its `.service`"),
    ("crond", "write a `.timer` unit and its `.service`"),
    ("etcd3", "it is called etcd.service, and etcd2.service as CoreOS had it"),
    ("firewalld", "bring the program, and load its rules from a unit"),
    ("flanneld", "bring the program, and write its unit; `coreos.flannel` makes its options"),
    ("fleetd", "it is called fleet.service, as CoreOS had it"),
    ("networking", "networkd configures the network"),
    ("ntp", "systemd-timesyncd.service keeps the time"),
    ("ntpd", "systemd-timesyncd.service keeps the time"),
    ("rpc-statd", "the image holds no NFS"),
    ("rsyslog", "the journal keeps the logs"),
    ("ufw", "bring the program, and load its rules from a unit"),
    ("update-engine", "the system is updated as a whole image, by slots"),
    ("update-engine-stub", "the system is updated as a whole image, by slots"),
];

/// Warns of each unit that is to run, is not in the image, and that nothing of the plan makes.
pub fn warn_missing_units(plan: &FirstBootPlan, found: &mut Diagnostics) {
    let made: HashSet<String> = plan.steps.iter().flat_map(|planned| made_by(&planned.step)).collect();
    let mut seen = HashSet::new();
    for planned in &plan.steps {
        let name = match &planned.step {
            PlanStep::CommandUnit { verb: UnitVerb::Stop, .. }
            | PlanStep::EnableUnit { enable: false, .. } => continue,
            PlanStep::CommandUnit { name, .. } | PlanStep::EnableUnit { name, .. } => name,
            _ => continue,
        };
        let Some(at) = planned.origin.at else { continue };
        // Aliases and units that a script writes cannot be known, so this is a warning and never an error.
        if is_brought(name) || made.contains(name) || made.contains(&template_of(name)) || !seen.insert(name)
        {
            continue;
        }
        let message = format!("the image has no unit {name}, and nothing here writes it");
        let diagnostic =
            Diagnostic::warning(DiagnosticCode::NoEffect, at, message).with_key(planned.origin.key.clone());
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        let known = INSTEAD.iter().find(|(other, _)| *other == stem).map(|(_, instead)| *instead);
        found.push(diagnostic.with_help(known.unwrap_or("give it a `content`, or mend its name")));
    }
}

/// Whether the image has a unit. Targets, slices and what the kernel or fstab makes are not listed.
fn is_brought(name: &str) -> bool {
    let is_listed = |name: &str| UNITS.contains(&name) || name.starts_with("systemd-");
    let kind = name.rsplit('.').next().unwrap_or_default();
    !matches!(kind, "path" | "service" | "socket" | "timer")
        || is_listed(name)
        || is_listed(&template_of(name))
}

/// `getty@tty1.service` is made of `getty@.service`.
fn template_of(name: &str) -> String {
    match (name.split_once('@'), name.rsplit_once('.')) {
        (Some((stem, _)), Some((_, kind))) => format!("{stem}@.{kind}"),
        _ => name.to_owned(),
    }
}

/// The units that a step makes, by whatever means.
fn made_by(step: &PlanStep) -> Vec<String> {
    let file_name = |path: &str| path.rsplit('/').next().map(str::to_owned).into_iter().collect();
    match step {
        PlanStep::AddMounts(mounts) => mounts.iter().map(|mount| mount_unit(&mount.fields[1])).collect(),
        PlanStep::WriteUnit { name, content, .. } => {
            // Enabling a unit makes its aliases, which another item may start.
            let aliases = content.reveal().lines().filter_map(|line| line.trim().strip_prefix("Alias="));
            let aliases = aliases.flat_map(str::split_whitespace).map(str::to_owned);
            aliases.chain([name.clone()]).collect()
        }
        step => step.written_path().map(file_name).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cloudconfig::order::PlanFacts;
    use crate::part::PayloadPart;
    use crate::reading::{self, UserDataInput};

    #[test]
    fn the_units_of_the_overlays_are_known() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../overlays/base/usr/lib/systemd/system");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();

        assert!(names.len() > 10);
        let is_unit = |name: &&String| !matches!(name.rsplit('.').next(), Some("d" | "wants"));
        for name in names.iter().filter(is_unit) {
            assert!(is_brought(name), "{name}");
        }
    }

    #[test]
    fn a_unit_that_a_file_or_a_link_makes_is_there_whichever_format_asks_for_it() {
        let ignition = r#"{"ignition": {"version": "3.4.0"},
            "storage": {"files": [{"path": "/etc/systemd/system/a.service", "contents": {"source": "data:,x"}}],
                        "links": [{"path": "/etc/systemd/system/b.service", "target": "/srv/b.service"}]},
            "systemd": {"units": [{"name": "a.service", "enabled": true}, {"name": "b.service", "enabled": true},
                                  {"name": "c.service", "enabled": true}]}}"#;
        let cloud_config = "#cloud-config\nwrite_files: [{path: /etc/systemd/system/a.service, content: x}]\n\
            coreos: {units: [{name: a.service, command: start}, {name: c.service, command: start}]}\n";
        for document in [ignition, cloud_config] {
            let user = vec![PayloadPart::whole("user-data", document)];
            let reading =
                reading::read(&UserDataInput { user, ..UserDataInput::default() }, &PlanFacts::default());
            let mut found = Diagnostics::default();

            warn_missing_units(&reading.plan, &mut found);

            let messages: Vec<&str> = found.list().iter().map(|one| one.message.as_str()).collect();
            assert_eq!(
                messages,
                ["the image has no unit c.service, and nothing here writes it"],
                "{document}"
            );
        }
    }

    #[test]
    fn instances_and_what_systemd_makes_itself_are_known() {
        for name in ["getty@tty2.service", "systemd-timesyncd.service", "multi-user.target", "srv-data.mount"]
        {
            assert!(is_brought(name), "{name}");
        }
        for name in ["cron.service", "web.service", "web@1.service", "backup.timer"] {
            assert!(!is_brought(name), "{name}");
        }
    }
}
