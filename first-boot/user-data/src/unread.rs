//! Files that nothing on this system reads, and what does what their author wants.
//!
//! Knows the places of programs that the image does not have, whichever format names them. Refuses to
//! refuse: the file is written, since a container or a program of the author's own may read it.
//! Invariant: who writes to such a place is told what to do instead.

use std::collections::HashSet;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use crate::plan::{FirstBootPlan, script_folders};

const NETWORK: &str =
    "write a `.network` unit in `coreos.units`, or hand over `network-config` beside user-data";
const AS_UNIT: &str = "write a unit in `coreos.units`, or use `runcmd`";
const AS_TIMER: &str = "write a `.timer` unit and its `.service` in `coreos.units`";
const EACH_BOOT: &str = "use `bootcmd`, or a unit that is enabled in `coreos.units`";
const ONCE: &str = "use `runcmd`, or hand over a `#!` script";
const NO_PACKAGES: &str =
    "there is no package manager: run it as a container, or put a static program into /opt/bin";
const BOOT_PATH: &str =
    "the kernel's command line is part of the verified boot; use sysctl or a module's options";
const JOURNAL: &str = "the journal keeps the logs; forward it from a unit in `coreos.units`";
const CLOUD_INIT: &str = "say it in user-data: this system reads no configuration of cloud-init's";
const TIME: &str = "use `ntp`, or write a file into /etc/systemd/timesyncd.conf.d";
const FIREWALL: &str = "bring the program, and load its rules from a unit in `coreos.units`";
const NO_PROGRAM: &str = "the image has no such program: run it as a container from a unit in `coreos.units`";

/// Files, or folders where they end in a slash.
///
/// The image has systemd with few of its generators (none for rc.local, none for init scripts), networkd, timesyncd and the
/// journal; no cron, no package manager, no other network manager. Debian's systemd reads /etc/sysctl.d
/// and no longer /etc/sysctl.conf.
// Programs that documents for other distributions configure. cloud-init's folders are among them, since it is
// not here.
const UNREAD: [(&str, &str); 49] = [
    ("/etc/NetworkManager/", NETWORK),
    ("/etc/anacrontab", AS_TIMER),
    ("/etc/apt/", NO_PACKAGES),
    ("/etc/chrony.conf", TIME),
    ("/etc/chrony/", TIME),
    ("/etc/cloud/", CLOUD_INIT),
    ("/etc/conf.d/net", NETWORK),
    ("/etc/cron.d/", AS_TIMER),
    ("/etc/cron.daily/", AS_TIMER),
    ("/etc/cron.hourly/", AS_TIMER),
    ("/etc/cron.monthly/", AS_TIMER),
    ("/etc/cron.weekly/", AS_TIMER),
    ("/etc/crontab", AS_TIMER),
    ("/etc/crypttab", "the image holds no cryptsetup; use a disk that its platform encrypts"),
    ("/etc/default/grub", BOOT_PATH),
    ("/etc/default/grub.d/", BOOT_PATH),
    ("/etc/default/keyboard", "the console keeps the kernel's keymap"),
    ("/etc/dhcp/", NETWORK),
    ("/etc/dhcpcd.conf", NETWORK),
    ("/etc/firewalld/", FIREWALL),
    ("/etc/fail2ban/", NO_PROGRAM),
    ("/etc/grub.d/", BOOT_PATH),
    ("/etc/init.d/", AS_UNIT),
    ("/etc/init/", AS_UNIT),
    ("/etc/inittab", AS_UNIT),
    ("/etc/iptables/", FIREWALL),
    ("/etc/local.d/", EACH_BOOT),
    ("/etc/logrotate.conf", JOURNAL),
    ("/etc/logrotate.d/", JOURNAL),
    ("/etc/mdadm/", "the image holds no mdadm; use a disk that its platform mirrors"),
    ("/etc/netplan/", NETWORK),
    ("/etc/network/", NETWORK),
    ("/etc/ntp.conf", TIME),
    ("/etc/ntpsec/", TIME),
    ("/etc/rc.d/", AS_UNIT),
    ("/etc/rc.local", EACH_BOOT),
    ("/etc/rc.local.d/", EACH_BOOT),
    ("/etc/rsyslog.conf", JOURNAL),
    ("/etc/rsyslog.d/", JOURNAL),
    ("/etc/supervisor/", AS_UNIT),
    ("/etc/sysconfig/network", NETWORK),
    ("/etc/sysconfig/network-scripts/", NETWORK),
    ("/etc/sysctl.conf", "write a file into /etc/sysctl.d"),
    ("/etc/ufw/", FIREWALL),
    ("/etc/xinetd.d/", "write a `.socket` unit and its `.service` in `coreos.units`"),
    ("/etc/yum.repos.d/", NO_PACKAGES),
    ("/var/lib/cloud/scripts/", ONCE),
    ("/var/lib/cloud/", CLOUD_INIT),
    ("/var/spool/cron/", AS_TIMER),
];

/// What does what the author of a file at this path wants; `None` for a file that is read, or may be.
#[must_use]
pub fn replacement_hint(path: &str) -> Option<&'static str> {
    let is_at = |place: &str| match place.strip_suffix('/') {
        Some(_) => path.starts_with(place),
        None => path == place,
    };
    // Below a folder of the list, but run all the same.
    if script_folders::holds_script(path) {
        return None;
    }
    UNREAD.iter().find(|(place, _)| is_at(place)).map(|(_, instead)| *instead)
}

/// Warns of each file of a plan that nothing reads.
pub fn warn_unread_files(plan: &FirstBootPlan, found: &mut Diagnostics) {
    let mut seen = HashSet::new();
    for planned in &plan.steps {
        let Some(path) = planned.step.written_path() else { continue };
        let (Some(at), Some(instead)) = (planned.origin.at, replacement_hint(path)) else { continue };
        // Ignition may append to one file many times. One warning is enough.
        if seen.insert((at, path.to_owned())) {
            let message = format!("nothing on this system reads {path}");
            let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, at, message).with_help(instead);
            found.push(diagnostic.with_key(planned.origin.key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::replacement_hint;

    #[test]
    fn places_of_programs_that_are_not_here_are_known() {
        for path in [
            "/etc/netplan/60-site.yaml",
            "/etc/network/interfaces.d/eth0",
            "/etc/rc.local",
            "/etc/crontab",
            "/etc/cron.d/site",
            "/var/spool/cron/crontabs/root",
            "/var/lib/cloud/scripts/vendor/10-site.sh",
            "/var/lib/cloud/scripts/per-boot/deeper/10-site.sh",
            "/etc/cloud/cloud.cfg.d/99-site.cfg",
            "/etc/sysctl.conf",
            "/etc/default/grub",
        ] {
            assert!(replacement_hint(path).is_some(), "{path}");
        }
        for path in [
            "/etc/systemd/network/10-site.network",
            "/etc/sysctl.d/10-site.conf",
            "/etc/crontab.bak",
            "/etc/profile.d/site.sh",
            "/opt/etc/netplan/site.yaml",
            "/var/lib/cloud/scripts/per-boot/10-site.sh",
            "/etc/modules-load.d/site.conf",
            "/etc/sysconfig/docker",
        ] {
            assert_eq!(replacement_hint(path), None, "{path}");
        }
    }
}
