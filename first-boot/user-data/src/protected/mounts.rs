//! Where nothing may be mounted: what is mounted hides what lay there.
//!
//! Knows places by their path, whether `mounts`, a `.mount` or `.automount` unit, a drop-in of one or
//! Ignition asks for it, and what fstab's options do to other units. Refuses to know devices. Invariant:
//! no mount hides what people get in by; a mount below a read-only directory is refused, since systemd
//! could not make its mount point.
//!
//! Documentation: systemd.mount(5), systemd.automount(5), fstab(5).

use std::collections::BTreeSet;
use std::path::Path;

use super::{PolicyObjection, denied_path};
use crate::plan::step::PlanStep;
use crate::plan::{FirstBootPlan, PlannedStep};
use crate::systemd::mount_path;

/// Where one may mount, for messages.
const INSTEAD: &str = "mount it on /mnt, or on a directory below /srv, /opt or /var";
/// The image's links to directories: a mount on one is a mount on what it leads to.
// tmpfiles makes them on each Debian. Links that a document makes are judged on the machine.
const LINKS: [(&str, &str); 2] = [("/var/lock", "/run/lock"), ("/var/run", "/run")];

/// Of a plan, the homes that lie elsewhere than below /home, where [`mount_objection`] would not look for keys.
pub(super) fn foreign_homes(plan: &FirstBootPlan) -> BTreeSet<String> {
    let home = |planned: &PlannedStep| match &planned.step {
        PlanStep::CreateUser(user) => user.home.as_deref().map(normalize_place),
        _ => None,
    };
    plan.steps.iter().filter_map(home).collect()
}

/// Why a step may not mount over one of these homes.
///
/// Lines of fstab are mounted before homes are made, so that they may hold homes, as `/srv/people` does;
/// units are started after that.
pub(super) fn over_homes(step: &PlanStep, homes: &BTreeSet<String>) -> Option<PolicyObjection> {
    let units = |name: &str| mount_path(name).map(|place| normalize_place(&place)).into_iter().collect();
    let (places, is_late): (Vec<String>, bool) = match step {
        PlanStep::AddMounts(mounts) => {
            (mounts.iter().map(|mount| normalize_place(&mount.fields[1])).collect(), false)
        }
        PlanStep::WriteUnit { name, .. } => (units(name), true),
        step => (step.written_path()?.rsplit('/').next().map(units).unwrap_or_default(), true),
    };
    let hides = |place: &&String| is_home(place, homes) || (is_late && holds_home(place, homes));
    let place = places.iter().find(hides)?;
    let message = format!("nothing can be mounted on {place}: it would hide the keys of a user of this plan");
    Some(PolicyObjection::new(message, INSTEAD))
}

/// Whether a place is a home, or lies where its keys do.
fn is_home(place: &str, homes: &BTreeSet<String>) -> bool {
    let above = Path::new(place).ancestors().filter(|above| above.ends_with(".ssh"));
    let owners = above.filter_map(|keys| keys.parent()?.to_str());
    homes.contains(place) || owners.into_iter().any(|home| homes.contains(home))
}

/// Whether a home lies below a place: it is the first that sorts behind it.
fn holds_home(place: &str, homes: &BTreeSet<String>) -> bool {
    let inside = format!("{}/", place.trim_end_matches('/'));
    // Each mount was compared with each home before, which grew with the product of both.
    homes.range(inside.clone()..).next().is_some_and(|home| home.starts_with(&inside))
}

/// Why nothing may be mounted on a place.
#[must_use]
pub fn mount_objection(place: &str) -> Option<PolicyObjection> {
    if !place.starts_with('/') || place.split('/').any(|part| part == "..") {
        return Some(PolicyObjection::new("a mount needs an absolute path without `..`", INSTEAD));
    }
    let real = normalize_place(place);
    let parts: Vec<&str> = real.split('/').skip(1).filter(|part| !part.is_empty()).collect();
    let objection = |because: &str| {
        Some(PolicyObjection::new(format!("nothing can be mounted on {place}: {because}"), INSTEAD))
    };
    match parts[..] {
        // The root's own directories that hold no file system, see `WRITABLE`.
        ["mnt" | "media", _, ..] => Some(PolicyObjection::new(
            format!("{place} is on the read-only root, so its directory cannot be made"),
            "mount on /mnt or /media itself, or below /srv",
        )),
        [] => objection("it would hide the whole system"),
        ["etc", ..] => objection("it would hide settings by which the machine is reached"),
        // D-Bus, udev and sshd's privilege separation (/run/sshd) have their sockets and folders there.
        ["run", ..] => objection("it would hide what the running programs need there"),
        ["home"] => objection("it would hide the homes, and with them the keys of all people"),
        _ if is_key_place(&parts) => objection("it would hide the keys that people get in by"),
        // /var/lib/catamaran holds the record of the instance. What lies deeper, as /var/lib/docker, may be
        // mounted on.
        ["var"] | ["var", "lib"] => objection("it would hide what the machine keeps"),
        _ => denied_path(&real).and_then(objection),
    }
}

/// Whether keys lie at or below this place of a home.
fn is_key_place(parts: &[&str]) -> bool {
    matches!(parts, ["root"] | ["home", _] | ["root", ".ssh", ..] | ["home", _, ".ssh", ..])
}

/// A place as it is written in one way only.
fn normalize_place(place: &str) -> String {
    let parts: Vec<&str> = place.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let clean = format!("/{}", parts.join("/"));
    let followed = LINKS.iter().find_map(|(link, target)| {
        let rest = clean.strip_prefix(link)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{target}{rest}"))
    });
    followed.unwrap_or(clean)
}

/// Why a unit of this name may not be: by its name, systemd knows where it mounts.
pub(super) fn unit_objection(name: &str) -> Option<PolicyObjection> {
    mount_objection(&mount_path(name)?)
}

/// Why a unit may not be stopped, masked or conflicted with: what is mounted there would be gone.
pub(super) fn removal_objection(name: &str) -> Option<PolicyObjection> {
    unit_objection(name).map(|_| {
        let message =
            format!("{name} cannot be masked, stopped or disabled: people get in by what it mounts");
        PolicyObjection::new(message, "leave it as it is")
    })
}

/// Why a mount unit may not say this; its drop-in may say it too.
pub(super) fn text_objection<'a>(mut places: impl Iterator<Item = &'a str>) -> Option<PolicyObjection> {
    places.find_map(mount_objection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_what_people_get_in_by() {
        for bad in [
            "/",
            "//",
            "/etc",
            "/etc/",
            "/etc/ssh",
            "/etc/ssh/sshd_config.d",
            "/etc/systemd/system",
            "/home",
            "/home/core",
            "/home/./core/",
            "/home/ana",
            "/home/core/.ssh",
            "/home/core/.ssh/authorized_keys",
            "/root",
            "/root/.ssh",
            "/run",
            "/run/sshd",
            "/var",
            "/var/lib",
            "/var/lib/catamaran",
            "/var/run",
            "/var/run/sshd",
            "/usr",
            "/usr/local",
            "/boot",
            "/dev/shm",
            "/proc/sys",
            "/sys/fs/cgroup",
            "/data",
            "/media/scratch",
            "/mnt/data",
            "data",
            "/srv/../etc",
        ] {
            assert!(mount_objection(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn everything_else_is_free() {
        for free in [
            "/mnt",
            "/media",
            "/srv",
            "/srv/data",
            "/opt",
            "/tmp",
            "/var/lib/docker",
            "/var/log",
            "/var/running",
            "/home/core/data",
            "/home/ana/.sshd",
            "/root/backup",
        ] {
            assert_eq!(mount_objection(free), None, "{free}");
        }
    }
}
