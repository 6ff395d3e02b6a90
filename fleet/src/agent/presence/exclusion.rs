//! Why a machine is kept out of the cluster, in words, and since when.
//!
//! Refuses to keep it out. Invariant: the same words are logged once.

use std::time::Duration;

use crate::store::{boot_time::BootTime, records::PresenceRecord};

/// Since when a machine is kept out, and by whom.
#[derive(Debug, Default)]
pub(super) struct Exclusion {
    since: Option<BootTime>,
    logged: String,
}

impl Exclusion {
    /// Says by whom `me` is kept out, and logs it if that is news.
    pub(super) fn explain_exclusion(
        &mut self,
        me: &PresenceRecord,
        other: &PresenceRecord,
        ttl: Duration,
    ) -> String {
        let since = *self.since.get_or_insert_with(BootTime::now);
        let reason = explain_exclusion(me, other, ttl, since.elapsed());
        if self.logged != reason {
            tracing::error!("{reason}");
            self.logged.clone_from(&reason);
        }
        reason
    }
}

/// Why a machine is kept out. Within the first TTL nobody can know whether the other one is alive or is
/// what a power cut left of this machine.
fn explain_exclusion(me: &PresenceRecord, other: &PresenceRecord, ttl: Duration, waited: Duration) -> String {
    let id = &me.machine.id;
    let address = if other.machine.public_ip.is_empty() { "unknown" } else { &other.machine.public_ip };
    let seen = format!("machine ID {id} is registered already, by a machine with the address {address}");
    // A power cut leaves the former registration for the rest of its TTL. To speak of a clone before that
    // would send people after the wrong cause.
    if waited < ttl {
        return format!(
            "this machine waits outside the cluster: {seen}; if that was this machine before it lost power, its \
             registration ends within {} s",
            ttl.as_secs()
        );
    }
    format!(
        "this machine stays outside the cluster: {seen} and alive; two machines have one ID, mostly because a disk \
         was cloned; give this one its own: remove /etc/machine-id, run systemd-machine-id-setup, reboot"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::machine::{Machine, MachineId};

    fn record(address: &str) -> PresenceRecord {
        let mut machine = Machine::new(MachineId::parse("m1").unwrap());
        machine.public_ip = address.to_owned();
        PresenceRecord { machine, boot: String::new() }
    }

    #[test]
    fn a_machine_that_is_kept_out_says_by_whom_and_what_to_do() {
        let ttl = Duration::from_secs(30);
        let explain = |waited| explain_exclusion(&record("10.0.0.2"), &record("10.0.0.1"), ttl, waited);

        let (first, later) = (explain(Duration::ZERO), explain(ttl));

        assert!(
            first.contains("machine ID m1") && first.contains("10.0.0.1") && first.contains("within 30 s")
        );
        assert!(
            later.contains("10.0.0.1 and alive") && later.contains("systemd-machine-id-setup"),
            "{later}"
        );
    }
}
