//! Brings up network cards while systemd starts, before udev looks at all devices.
//!
//! Knows how a driver is loaded and how udev is told of a card. Refuses to configure one: that is networkd's.
//! Invariant: nothing depends on it; what it leaves undone, udev does when it looks at everything.
//!
//! Documentation: modprobe(8), <https://docs.kernel.org/core-api/kobject.html>, and netlink(7).
#![expect(clippy::disallowed_methods, reason = "runs modprobe; effects live here")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::devices;

/// The root's own, which knows what the machine's owner wants of drivers.
const MODPROBE: &str = "/usr/sbin/modprobe";
/// The netlink sockets of all programs, as of Linux 2.6.
const NETLINK: &str = "/proc/net/netlink";
const CARDS: &str = "/sys/class/net";
/// How long udev may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why udev was not told of the cards.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkCardsError {
    #[error("cannot read {path} to see network cards and who is told of them; udev finds them later")]
    Read { path: &'static str, source: io::Error },
}

/// Loads the drivers, and tells udev of the cards once it listens.
pub(crate) fn start_network_cards() -> Result<String, NetworkCardsError> {
    let likely = |name: &String| devices::is_paravirtual(name) || devices::is_network_card(name);
    let names: BTreeSet<String> = devices::device_names(Path::new(devices::BUSES)).filter(likely).collect();
    if !names.is_empty() {
        let mut modprobe = Command::new(MODPROBE);
        // As udev calls it: what the owner has forbidden in modprobe.d(5) stays out.
        modprobe.args(["--all", "--use-blacklist", "--quiet", "--"]).args(names);
        // It fails if only one name has no driver, of which most have none that is a module; and what it can't
        // load, udev asks for again.
        let _ = modprobe.stderr(Stdio::null()).status();
    }
    let began = Instant::now();
    let read = |path| move |source| NetworkCardsError::Read { path, source };
    while !hears_of_devices(&fs::read_to_string(NETLINK).map_err(read(NETLINK))?) {
        if began.elapsed() > PATIENCE {
            return Ok("network cards: udev does not listen".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut told = Vec::new();
    for card in fs::read_dir(CARDS).map_err(read(CARDS))?.flatten() {
        // A card may be pulled out meanwhile.
        // What `udevadm trigger` does, for these devices alone. To trigger all would bring the rest of the
        // machine in between.
        if fs::write(card.path().join("uevent"), "add").is_ok() {
            told.push(card.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(format!("network cards: told udev of {}", told.join(", ")))
}

/// Whether any program is told by the kernel of devices that come: it has a socket of
/// `NETLINK_KOBJECT_UEVENT`, 15, in the first group (netlink(7), `lib/kobject_uevent.c` of Linux).
fn hears_of_devices(sockets: &str) -> bool {
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace();
        let protocol = words.nth(1);
        let groups = words.nth(1).and_then(|groups| u32::from_str_radix(groups, 16).ok());
        protocol == Some("15") && groups.is_some_and(|groups| groups & 1 == 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udev_listens_to_the_kernel_and_others_to_udev() {
        let head =
            "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
        let route =
            "00000000a3c5e6f1 0   1          00000551 0        0        0     2        0        4711\n";
        let others =
            "0000000057a6a5a3 15  -4149      00000002 0        0        0     2        0        4712\n";
        let udev =
            "00000000fd5ae4f3 15  1          00000001 0        0        0     2        0        4713\n";

        assert!(!hears_of_devices(&format!("{head}{route}{others}")));
        assert!(hears_of_devices(&format!("{head}{route}{others}{udev}")));
        assert!(!hears_of_devices("nonsense 15\n"));
    }
}
