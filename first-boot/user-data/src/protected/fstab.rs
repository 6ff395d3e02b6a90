//! What a line of fstab may not say: where it mounts, and what its options do to other units.
//!
//! Documentation: fstab(5), and "FSTAB" in systemd.mount(5).

use super::{PolicyObjection, mounts, units};
use crate::plan::step::MountStep;

/// Why a line of fstab may not be.
pub(super) fn check_line(mount: &MountStep) -> Option<PolicyObjection> {
    let [_, place, _, options, ..] = &mount.fields;
    // Swap has `none` in this field.
    // A mount upon a folder hides what is in it, also the keys in a home.
    let objection = if place.starts_with('/') { mounts::mount_objection(place) } else { None };
    objection.or_else(|| check_options(options))
}

/// fstab's options may tie the mount to other units (systemd.mount(5)): as `RequiredBy=` and `Before=` do.
#[must_use]
pub fn check_options(options: &str) -> Option<PolicyObjection> {
    let values = |name: &'static str| {
        let words = options.split(',').filter_map(|option| option.trim().split_once('='));
        words.filter(move |(known, _)| *known == name).map(|(_, value)| value)
    };
    let fatal = |unit: &&str| units::check_dependency(unit, "requires", "a mount").is_some();
    if let Some(unit) = values("x-systemd.required-by").find(fatal) {
        let message = format!("{unit} would not start where this mount fails");
        return Some(PolicyObjection::new(message, "write `x-systemd.wanted-by=` instead"));
    }
    let endless = ["x-systemd.device-timeout", "x-systemd.mount-timeout"];
    let is_endless =
        endless.iter().any(|name| options.split(',').any(|option| is_unbounded(option.trim(), name)));
    let victim = values("x-systemd.before").find(|unit| is_endless && units::login_waits_for(unit))?;
    let message = format!("{victim} would wait for this mount, which may take for ever");
    Some(PolicyObjection::new(message, "leave the timeout out, or the `x-systemd.before=`"))
}

fn is_unbounded(option: &str, name: &str) -> bool {
    option.split_once('=').is_some_and(|(known, value)| known == name && matches!(value, "0" | "infinity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_tie_no_mount_to_the_way_in() {
        for bad in [
            "defaults,x-systemd.required-by=ssh.service",
            "x-systemd.required-by=local-fs.target",
            "x-systemd.before=ssh.service,x-systemd.device-timeout=0",
            "x-systemd.mount-timeout=infinity, x-systemd.before=network.target",
        ] {
            assert!(check_options(bad).is_some(), "{bad}");
        }
        for good in [
            "defaults,nofail",
            "x-systemd.required-by=docker.service",
            "x-systemd.device-timeout=0",
            "x-systemd.before=ssh.service",
        ] {
            assert_eq!(check_options(good), None, "{good}");
        }
    }
}
