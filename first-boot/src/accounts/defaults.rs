//! What a new account is like where nobody says otherwise: login.defs.
//!
//! Knows the settings that useradd and groupadd read there, and their own defaults for those that are
//! missing. Invariant: a range is never empty.
//!
//! Documentation: login.defs(5), useradd(8).

use std::fs;
use std::ops::RangeInclusive;

use crate::root::MachineRoot;

const FILE: &str = "/etc/login.defs";

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginDefaults {
    pub(super) uids: RangeInclusive<u32>,
    pub(super) gids: RangeInclusive<u32>,
    pub(super) system_uids: RangeInclusive<u32>,
    pub(super) system_gids: RangeInclusive<u32>,
    pub(super) sub_uids: RangeInclusive<u32>,
    pub(super) sub_gids: RangeInclusive<u32>,
    pub(super) sub_uid_count: u32,
    pub(super) sub_gid_count: u32,
    /// Days of a password: least, most, and of warning, as shadow has them.
    pub(super) password_days: [String; 3],
    /// The mode of a home directory.
    pub(crate) home_mode: u32,
}

impl LoginDefaults {
    /// Those of a machine.
    pub(crate) fn of_machine(root: &MachineRoot) -> Self {
        Self::parse(&fs::read_to_string(root.path_of(FILE)).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let word = |name: &str| {
            text.lines().find_map(|line| {
                let mut words = line.split_ascii_whitespace();
                if words.next() == Some(name) { words.next() } else { None }
            })
        };
        let number = |name, default: u32| word(name).and_then(|word| word.parse().ok()).unwrap_or(default);
        let range = |least, first, most, last| {
            let (first, last) = (number(least, first), number(most, last));
            first..=last.max(first)
        };
        let octal = |name| u32::from_str_radix(word(name)?, 8).ok();
        let days = |name, default: &str| word(name).unwrap_or(default).to_owned();
        let (uids, gids) =
            (range("UID_MIN", 1000, "UID_MAX", 60000), range("GID_MIN", 1000, "GID_MAX", 60000));
        Self {
            // From 101: login.defs(5) says so for a file that is silent.
            system_uids: range("SYS_UID_MIN", 101, "SYS_UID_MAX", uids.start().saturating_sub(1)),
            system_gids: range("SYS_GID_MIN", 101, "SYS_GID_MAX", gids.start().saturating_sub(1)),
            uids,
            gids,
            // The defaults of login.defs(5). A range of 65536 is a whole set of numbers for one container.
            sub_uids: range("SUB_UID_MIN", 100_000, "SUB_UID_MAX", 600_100_000),
            sub_gids: range("SUB_GID_MIN", 100_000, "SUB_GID_MAX", 600_100_000),
            sub_uid_count: number("SUB_UID_COUNT", 65536),
            sub_gid_count: number("SUB_GID_COUNT", 65536),
            password_days: [
                // Debian's own values: 99999 days are 273 years, so that no password grows old.
                days("PASS_MIN_DAYS", "0"),
                days("PASS_MAX_DAYS", "99999"),
                days("PASS_WARN_AGE", "7"),
            ],
            // login.defs(5): HOME_MODE goes before UMASK, whose default is 022.
            home_mode: octal("HOME_MODE").or_else(|| Some(0o777 & !octal("UMASK")?)).unwrap_or(0o755) & 0o777,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_as_useradd_has_it() {
        let defaults =
            LoginDefaults::parse("# UID_MIN 5\nUID_MIN\t\t 2000\nHOME_MODE 0700\nGID_MAX nonsense\n");

        assert_eq!((defaults.uids, defaults.gids), (2000..=60000, 1000..=60000));
        assert_eq!((defaults.system_uids, defaults.home_mode), (101..=1999, 0o700));
        assert_eq!(LoginDefaults::parse("UMASK 027").home_mode, 0o750);
    }
}
