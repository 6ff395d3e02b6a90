//! What a unit, or a drop-in of one, does to the units by which people get in.
//!
//! Knows the settings by which a unit stops another, waits for it or takes its place. Refuses to know
//! what a command does: a program that root runs may do anything. Invariants: of the way in, a drop-in
//! changes only what cannot keep it from starting; no other unit holds it up without an end.
//!
//! Documentation: systemd.unit(5), systemd.service(5), systemd.special(7), bootup(7).

use super::{PolicyObjection, mounts};
use crate::systemd::{mount_path, unescape_name};

/// Units without which nobody gets in, or the slot is never found good.
// What ssh.service needs or waits for, what carries the console's logins, and what marks the slot good.
const WAY_IN: [&str; 34] = [
    "-.slice",
    "basic.target",
    "catamaran-boot-complete.service",
    "catamaran-boot-settled.service",
    "catamaran-boot-settled.timer",
    "catamaran-first-boot.service",
    "catamaran-host-keys.service",
    "catamaran-logins.service",
    "catamaran-update-resume.service",
    "catamaran-update-trial.service",
    "dbus.service",
    "dbus.socket",
    "default.target",
    "etc.mount",
    "getty.target",
    "graphical.target",
    "local-fs.target",
    "multi-user.target",
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "sysinit.target",
    "system.slice",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-user-sessions.service",
    "var.mount",
];

/// Of those, what may fail without keeping anybody out.
const MAY_FAIL: [&str; 4] = ["default.target", "getty.target", "graphical.target", "multi-user.target"];

/// What comes after everything that lets people in.
// Behind them nothing is waited for. A unit before ssh and behind one of these closes a circle, which systemd
// breaks by leaving out a unit: in a machine that was ssh.
const LATE: [&str; 3] = ["default.target", "graphical.target", "multi-user.target"];

/// What the way in waits for, besides itself.
// Targets of systemd.special(7) that ssh.service, or what it needs, is ordered after.
const AWAITED: [&str; 5] = [
    "local-fs-pre.target",
    "network-pre.target",
    "network.target",
    "nss-user-lookup.target",
    "sockets.target",
];

/// What ends the machine as soon as it starts.
// They stop all other units by `Conflicts=`.
const ENDS: [&str; 12] = [
    "emergency.target",
    "exit.target",
    "final.target",
    "halt.target",
    "kexec.target",
    "poweroff.target",
    "reboot.target",
    "rescue.target",
    "shutdown.target",
    "soft-reboot.target",
    "systemd-reboot.service",
    "umount.target",
];

/// What the way in may be ordered after: all of it comes to an end by itself.
const ENDING: [&str; 6] = [
    "local-fs.target",
    "network-online.target",
    "network.target",
    "nss-lookup.target",
    "remote-fs.target",
    "time-sync.target",
];

/// Settings that a drop-in of the way in may change whatever their value.
// A list of what is allowed: systemd has hundreds of settings and gets new ones, and most can stop a service.
const HARMLESS: [&str; 32] = [
    "CPUAccounting",
    "CPUShares",
    "CPUWeight",
    "Description",
    "Documentation",
    "IOAccounting",
    "IOSchedulingPriority",
    "IOWeight",
    "IPAccounting",
    "LogExtraFields",
    "LogLevelMax",
    "LogRateLimitBurst",
    "LogRateLimitIntervalSec",
    "MemoryAccounting",
    "MemoryLow",
    "MemoryMin",
    "Nice",
    "OOMScoreAdjust",
    "OnFailure",
    "OnSuccess",
    "Restart",
    "RestartMaxDelaySec",
    "RestartSec",
    "RestartSteps",
    "StartLimitInterval",
    "StartLimitIntervalSec",
    "SyslogFacility",
    "SyslogIdentifier",
    "SyslogLevel",
    "TasksAccounting",
    "TimeoutStopSec",
    "Wants",
];

/// A service with fewer files or processes than this could not work.
// The kernel's usual soft limit of open files, with which sshd runs everywhere.
const FEWEST: u64 = 1024;
/// By this one, CoreOS lets people in; here nobody would answer for it.
// Documents for CoreOS change the port by a drop-in of it.
const FOREIGN_SOCKET: &str = "sshd.socket";
/// The port that people expect sshd on.
const SSH_PORT: &str = "22";

/// What to do with a unit that may not be replaced.
const BY_DROP_IN: &str = "people get in by this unit; change it by a drop-in";
const LEAVE_IT_OUT: &str =
    "leave that out of the unit: ssh must be able to start before the boot has ended, and to stay";
const ONLY_SAFE: &str = "leave it out: of what people get in by, only resources, logs and restarts may be changed; sshd's own \
     settings belong into /etc/ssh/sshd_config.d, other work into a unit of its own";

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnitTextKind<'a> {
    /// A drop-in of this name.
    DropIn(&'a str),
    /// The unit itself.
    Whole,
}

/// Whether nobody gets in without this unit.
pub(super) fn is_way_in(name: &str) -> bool {
    WAY_IN.contains(&name)
}

/// Why a unit may not be masked, stopped or disabled.
pub(super) fn check_disable(name: &str) -> Option<PolicyObjection> {
    is_way_in(name).then(|| {
        PolicyObjection::new(
            format!("{name} cannot be masked, stopped or disabled: nobody could get in any more"),
            "leave it as it is",
        )
    })
}

/// Why a unit may not be started or enabled.
pub(super) fn check_start(name: &str) -> Option<PolicyObjection> {
    ENDS.contains(&name).then(|| {
        PolicyObjection::new(
            format!("{name} would end this machine at each of its boots"),
            "use `power_state`, which is done once",
        )
    })
}

/// Why a unit may not be replaced by anything, whatever that is.
pub(super) fn check_replace(name: &str) -> Option<PolicyObjection> {
    if name == FOREIGN_SOCKET {
        let message =
            "sshd.socket cannot be made: here sshd listens by itself, and would be kept from its port";
        return Some(PolicyObjection::new(
            message,
            "write `Port 2222` into a file below /etc/ssh/sshd_config.d",
        ));
    }
    is_way_in(name).then(|| PolicyObjection::new(format!("{name} cannot be replaced"), BY_DROP_IN))
}

/// Why nothing may be put beside a unit's name in another's `.wants` or `.requires`.
pub(super) fn check_dependency(to: &str, kind: &str, name: &str) -> Option<PolicyObjection> {
    if is_way_in(name) {
        let message = format!("what is called {name} cannot be put there: people get in by that unit");
        return Some(PolicyObjection::new(message, "leave it out: it is started as it is"));
    }
    (kind == "requires" && access_unit_of(to).is_some_and(|unit| !MAY_FAIL.contains(&unit)))
        .then(|| needed_by(name, to))
}

fn needed_by(name: &str, by: &str) -> PolicyObjection {
    PolicyObjection::new(
        format!("{by} would not start where {name} fails"),
        "use WantedBy= instead of RequiredBy=",
    )
}

/// The unit of the way in that a drop-in of this name is for: `ssh.service`, but also `service` and
/// `systemd-.service`, which are for many.
pub(super) fn access_unit_of(name: &str) -> Option<&'static str> {
    let applies = |unit: &&&str| {
        let (stem, kind) = unit.rsplit_once('.').unwrap_or_default();
        // systemd.unit(5): `service.d` is for all services, `systemd-.service.d` for all whose name begins
        // so.
        let prefix = name.strip_suffix(kind).and_then(|rest| rest.strip_suffix('.'));
        name == **unit
            || name == kind
            || prefix.is_some_and(|prefix| prefix.ends_with('-') && stem.starts_with(prefix) && prefix != "-")
    };
    // Of those that a drop-in is for, the best known one is named.
    let known = ["ssh.service", "ssh.socket"];
    let mut units = known.iter().chain(WAY_IN.iter());
    units.find(applies).copied()
}

/// Why a unit or a drop-in of this content may not be.
pub(super) fn check_content(name: &str, part: UnitTextKind<'_>, content: &str) -> Option<PolicyObjection> {
    if name == FOREIGN_SOCKET {
        return check_replace(name);
    }
    let text = UnitText::new(content);
    match (part, access_unit_of(name)) {
        (UnitTextKind::DropIn(file), Some(victim)) => {
            let (key, _) = text.unit_settings().find(|(key, value)| !is_harmless(key, value))?;
            // The circle is the clearer reason where both hold.
            let circle = check_ordering(name, &text);
            let message = format!(
                "`{key}` in {file} of {name} may keep {victim} from starting, by which people get in"
            );
            Some(circle.unwrap_or_else(|| PolicyObjection::new(message, ONLY_SAFE)))
        }
        (UnitTextKind::Whole, Some(_)) if is_way_in(name) => check_replace(name),
        _ => check_conflicts(name, &text)
            .or_else(|| check_ordering(name, &text))
            .or_else(|| taken_over(name, &text))
            .or_else(|| held_up(name, part, &text)),
    }
}

/// Whether a unit is refused only because it does not say when it ends. One that says "never" means it.
pub(super) fn lacks_bound(name: &str, content: &str) -> bool {
    let text = UnitText::new(content);
    // Only silence is mended. `infinity` is what its author wants.
    let is_silent = text.last_value("TimeoutStartSec").or_else(|| text.last_value("TimeoutSec")).is_none();
    let is_flawed = || {
        is_way_in(name)
            || check_conflicts(name, &text).is_some()
            || check_ordering(name, &text).is_some()
            || taken_over(name, &text).is_some()
    };
    // Mounts and swaps have a limit by default, `DefaultTimeoutStartSec=`.
    name.ends_with(".service")
        && is_silent
        && held_up(name, UnitTextKind::Whole, &text).is_some()
        && !is_flawed()
}

/// Of one that the way in gives way to.
fn check_conflicts(name: &str, text: &UnitText) -> Option<PolicyObjection> {
    let is_needed = |other: &&str| is_way_in(other) || mounts::removal_objection(other).is_some();
    let victim = text.setting_words(&["Conflicts", "PropagatesStopTo"]).find(is_needed)?;
    let message = format!("{name} conflicts with {victim}, so nobody could get in while it runs");
    Some(PolicyObjection::new(message, LEAVE_IT_OUT))
}

/// Of one that makes the way in wait for the end of the boot.
fn check_ordering(name: &str, text: &UnitText) -> Option<PolicyObjection> {
    if !text.setting_words(&["After"]).any(|other| LATE.contains(&other)) {
        return None;
    }
    let own = is_way_in(name).then_some(name).into_iter();
    let victim =
        text.setting_words(&["Before"]).chain(own).find(|other| is_way_in(other) && !LATE.contains(other))?;
    let message = format!(
        "{victim} would wait for the end of the boot, which waits for it; systemd may then not start it"
    );
    Some(PolicyObjection::new(message, LEAVE_IT_OUT))
}

/// Of one that takes the way in's name, its port, or its life when it fails.
fn taken_over(name: &str, text: &UnitText) -> Option<PolicyObjection> {
    if let Some(alias) = text.setting_words(&["Alias"]).find(|alias| is_way_in(alias)) {
        let message = format!("{name} would stand in the place of {alias}, by which people get in");
        return Some(PolicyObjection::new(message, "leave the Alias= out"));
    }
    let fatal = |unit: &&str| is_way_in(unit) && !MAY_FAIL.contains(unit);
    if let Some(victim) = text.setting_words(&["RequiredBy"]).find(fatal) {
        return Some(needed_by(name, victim));
    }
    let is_ssh_port = |address: &str| address.rsplit(':').next() == Some(SSH_PORT);
    text.setting_words(&["ListenStream"]).any(is_ssh_port).then(|| {
        let message = format!("{name} listens on port 22, so sshd could not");
        PolicyObjection::new(message, "let it listen elsewhere")
    })
}

/// Of one that the way in waits for, and that may never end.
fn held_up(name: &str, part: UnitTextKind<'_>, text: &UnitText) -> Option<PolicyObjection> {
    let is_early = text
        .last_value("DefaultDependencies")
        .is_some_and(|word| ["no", "false", "off", "0"].contains(&word));
    let wanted = text.setting_words(&["WantedBy", "RequiredBy"]).filter(|_| is_early);
    let victim = text.setting_words(&["Before"]).chain(wanted).find(|other| login_waits_for(other))?;
    let may_hang = match text.last_value("Type") {
        // systemd.service(5): `TimeoutStartSec=` is off for oneshots, and 90 s for all other types.
        Some(kind) => kind == "oneshot",
        // What the unit itself says is not known here.
        None => matches!(part, UnitTextKind::DropIn(_)),
    };
    let limit = text.last_value("TimeoutStartSec").or_else(|| text.last_value("TimeoutSec"));
    let is_bounded = limit.is_some_and(|limit| !["", "0", "infinity"].contains(&limit));
    (may_hang && !is_bounded).then(|| {
        let message = format!("{victim} would wait for {name}, which may take for ever");
        PolicyObjection::new(
            message,
            "add `TimeoutStartSec=30` to its [Service] section, or leave the order out",
        )
    })
}

/// Whether the way in waits for what comes before this unit.
pub(super) fn login_waits_for(unit: &str) -> bool {
    AWAITED.contains(&unit) || (is_way_in(unit) && !LATE.contains(&unit))
}

/// Where a unit says that it mounts.
pub(super) fn mount_places(name: &str, content: &str) -> Vec<String> {
    if mount_path(name).is_none() {
        return Vec::new();
    }
    let text = UnitText::new(content);
    text.unit_settings()
        .filter(|(key, value)| *key == "Where" && !value.is_empty())
        .map(|(_, value)| unescape_name(value))
        .collect()
}

/// Whether a drop-in changes what is mounted, or how.
pub(super) fn changes_mount(content: &str) -> bool {
    let keys = ["Options", "SloppyOptions", "Type", "What", "Where"];
    UnitText::new(content).unit_settings().any(|(key, _)| keys.contains(&key))
}

/// Whether a limit of files or processes leaves a service enough to work: one number, or two.
pub(super) fn is_limit(value: &str) -> bool {
    let is_enough = |one: &str| one == "infinity" || one.parse::<u64>().is_ok_and(|number| number >= FEWEST);
    value.split(':').all(is_enough)
}

fn is_harmless(key: &str, value: &str) -> bool {
    let all = |is_fine: &dyn Fn(&str) -> bool| value.split_whitespace().all(is_fine);
    match key {
        "After" => all(&|unit| ENDING.contains(&unit)),
        "Before" => all(&|unit| !is_way_in(unit) && !AWAITED.contains(&unit)),
        "Environment" => !value.contains("SSHD_OPTS") && !value.contains("LD_"),
        "LimitNOFILE" | "LimitNPROC" | "TasksMax" => is_limit(value),
        "LimitCORE" => true,
        key => key.starts_with("X-") || HARMLESS.contains(&key),
    }
}

/// A unit's text, its long lines joined as systemd does.
struct UnitText {
    joined: String,
}

impl UnitText {
    fn new(content: &str) -> Self {
        // systemd.syntax(7): a backslash at the end joins two lines by a blank.
        Self { joined: content.replace("\r\n", "\n").replace("\\\n", " ") }
    }

    fn unit_settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
        lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim_end(), value.trim()))
    }

    fn setting_words(&self, keys: &'static [&str]) -> impl Iterator<Item = &str> {
        self.unit_settings()
            .filter(|(key, _)| keys.contains(key))
            .flat_map(|(_, value)| value.split_whitespace())
    }

    fn last_value(&self, name: &str) -> Option<&str> {
        self.unit_settings().filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, part: UnitTextKind<'_>, content: &str) -> bool {
        check_content(name, part, content).is_some()
    }

    #[test]
    fn a_unit_that_keeps_the_way_in_from_starting_is_told() {
        for content in [
            "[Unit]\nConflicts = x.service \\\n  ssh.service\n",
            "[Unit]\r\nPropagatesStopTo=sshd.service\r\n",
            "[Unit]\nAfter=network.target multi-user.target\nBefore=ssh.service\n",
            "[Install]\nAlias=ssh.service\n",
            "[Install]\nRequiredBy=ssh.service\n",
            "[Socket]\nListenStream=22\n",
            "[Socket]\nListenStream=0.0.0.0:22\n",
            "[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n",
            "[Unit]\nBefore=network-pre.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\n",
            "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n[Install]\nWantedBy=sysinit.target\n",
        ] {
            assert!(refused("a.service", UnitTextKind::Whole, content), "{content}");
        }
        assert!(refused("a.service", UnitTextKind::DropIn("b.conf"), "[Unit]\nBefore=ssh.service\n"));
    }

    #[test]
    fn a_unit_that_minds_its_own_business_is_not() {
        for content in [
            "[Unit]\nConflicts=shutdown.target\nBefore=ssh.service\nAfter=network.target\n",
            "[Unit]\nAfter=multi-user.target\nBefore=b.service\n# Conflicts=ssh.service\n",
            "[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nTimeoutStartSec=30\n",
            "[Unit]\nBefore=network-pre.target\n[Service]\nExecStart=/opt/bin/firewall\n",
            "[Service]\nType=oneshot\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
            "[Install]\nRequiredBy=multi-user.target\n",
            "[Socket]\nListenStream=2222\nListenStream=[::]:2223\n",
        ] {
            assert_eq!(check_content("a.service", UnitTextKind::Whole, content), None, "{content}");
        }
    }

    #[test]
    fn of_the_way_in_a_drop_in_changes_only_what_is_safe() {
        for content in [
            "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\n",
            "[Service]\nExecStartPre=/bin/false\n",
            "[Service]\nType=oneshot\n",
            "[Service]\nUser=nobody\n",
            "[Service]\nEnvironment=SSHD_OPTS=--nonsense\n",
            "[Service]\nEnvironmentFile=/etc/missing\n",
            "[Service]\nTasksMax=1\n",
            "[Service]\nMemoryMax=1M\n",
            "[Unit]\nConditionPathExists=/nowhere\n",
            "[Unit]\nConflicts=web.service\n",
            "[Unit]\nRequires=web.service\n",
            "[Unit]\nAfter=vpn.service\n",
            "[Unit]\n  After=graphical.target  \n",
            "[Socket]\nListenStream=127.0.0.1:22\n",
        ] {
            for name in ["ssh.service", "sshd.service", "service", "systemd-.service", "basic.target"] {
                assert!(refused(name, UnitTextKind::DropIn("a.conf"), content), "{name}: {content}");
            }
        }
        for content in [
            "[Service]\n",
            "[Unit]\nAfter=network-online.target\nWants=network-online.target\nBefore=web.service\n",
            "[Service]\nRestart=always\nRestartSec=1\nOOMScoreAdjust=-1000\nCPUWeight=1000\n",
            "[Service]\nEnvironment=HTTPS_PROXY=http://proxy:3128\nLimitNOFILE=1024:infinity\n",
            "; ExecStart=\n[X-Site]\nX-Owner=ada\n",
        ] {
            assert_eq!(
                check_content("ssh.service", UnitTextKind::DropIn("a.conf"), content),
                None,
                "{content}"
            );
        }
    }

    #[test]
    fn a_drop_in_for_many_units_is_one_for_the_way_in() {
        assert_eq!(access_unit_of("service"), Some("ssh.service"));
        assert_eq!(access_unit_of("socket"), Some("ssh.socket"));
        assert_eq!(access_unit_of("systemd-.service"), Some("systemd-logind.service"));
        assert_eq!(access_unit_of("catamaran-boot-.service"), Some("catamaran-boot-complete.service"));
        for own in ["web.service", "docker.service", "timers", "web-.service", "ssh", "user.slice"] {
            assert_eq!(access_unit_of(own), None, "{own}");
        }
    }
}
