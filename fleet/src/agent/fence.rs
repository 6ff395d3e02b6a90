//! Keeps the promise of `Fence=yes`: out of the cluster's reach for a TTL, and the unit is down.
//!
//! Two guards. This process stops fenced units when two thirds of the lease have passed without a
//! renewal, and kills what is left when nine tenths have. And because this process may itself be frozen
//! or dead, systemd holds a timer that does the same; every renewal winds it up again. Refuses to know
//! where the units start next. Invariant: counted from the last renewal that etcd surely saw, a fenced
//! unit is dead before the lease is.
//!
//! A machine that was suspended stops them at once when it wakes up, if the time has come by then: a lease
//! counts suspended time. Only systemd's timer does not, so a suspended machine whose fleetd is frozen or
//! dead besides may hold them after waking for as long as the timer had left.

use error_text::error_chain;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
    time::Duration,
};

use super::systemd::{SystemdClient, SystemdError};
use crate::{
    agent::replace_file,
    model::{state::JobState, unit_name::UnitName},
    plan::machine_units::{ActualUnit, DesiredUnit},
    store::{boot_time::BootTime, etcd::lease::HeldLease},
};

// One timer for all fenced units: each renewal winds it up, however many there are.
const TIMER: &str = "fleet-fence.timer";
const SERVICE: &str = "fleet-fence.service";

/// The guards of this machine.
#[derive(Debug)]
pub struct FenceTimers {
    directory: PathBuf,
    /// The units the timer would stop, and after how long.
    covered: Option<(BTreeSet<UnitName>, Duration)>,
    ttl: Option<Duration>,
    /// The renewal the timer was last wound up for.
    wound: Option<BootTime>,
    stopped_for: Option<BootTime>,
    killed_for: Option<BootTime>,
}

fn stop_after(ttl: Duration) -> Duration {
    // A renewal is due each third of the TTL. Two thirds mean that one was missed and the next one is late,
    // too.
    ttl * 2 / 3
}

fn kill_after(ttl: Duration) -> Duration {
    // The rest is room for a clock that runs slow: a machine whose clock is less than a tenth too slow
    // kills in time.
    ttl * 9 / 10
}

/// The units to guard: the fenced ones, and of those guarded before the ones that are still on their way
/// out. A slow `ExecStop=` may take longer than the lease lives.
fn units_to_guard(
    before: Option<&BTreeSet<UnitName>>,
    wanted: &BTreeMap<UnitName, DesiredUnit>,
    held: &BTreeMap<UnitName, ActualUnit>,
) -> BTreeSet<UnitName> {
    let stays = |unit: &&UnitName| {
        let wish = wanted.get(*unit).map(|wish| wish.file.hash());
        held.get(*unit).is_some_and(|held| Some(held.hash) != wish)
    };
    let mut units = fenced_units(wanted, held);
    units.extend(before.into_iter().flatten().filter(stays).cloned());
    units
}

fn fenced_units(
    wanted: &BTreeMap<UnitName, DesiredUnit>,
    held: &BTreeMap<UnitName, ActualUnit>,
) -> BTreeSet<UnitName> {
    wanted
        .iter()
        .filter(|(unit, wish)| wish.fence && held.contains_key(*unit))
        .map(|(unit, _)| unit.clone())
        .collect()
}

impl FenceTimers {
    /// No guards yet; their unit files will lie in this directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, covered: None, ttl: None, wound: None, stopped_for: None, killed_for: None }
    }

    /// When to look again at a lease that is not renewed.
    #[must_use]
    pub fn next_wakeup(&self, lease: Option<HeldLease>) -> Option<BootTime> {
        let lease = lease.filter(|_| self.covered.as_ref().is_some_and(|(units, _)| !units.is_empty()))?;
        let stop = lease.renewed + stop_after(lease.ttl);
        if self.stopped_for == Some(lease.renewed) {
            Some(lease.renewed + kill_after(lease.ttl))
        } else {
            Some(stop)
        }
        .filter(|_| self.killed_for != Some(lease.renewed))
    }

    /// Brings the timer in line with the units there are to guard.
    pub async fn update_timer(
        &mut self,
        systemd: &SystemdClient,
        wanted: &BTreeMap<UnitName, DesiredUnit>,
        held: &BTreeMap<UnitName, ActualUnit>,
    ) {
        let units = units_to_guard(self.covered.as_ref().map(|(units, _)| units), wanted, held);
        // The TTL is that of the lease that was granted, not of the settings: those may have changed since.
        let Some(ttl) = self.ttl else { return };
        if self.covered.as_ref() == Some(&(units.clone(), ttl)) || units.is_empty() && self.covered.is_none()
        {
            return;
        }
        if let Err(error) = self.rewrite_units(systemd, &units, ttl).await {
            tracing::error!(reason = %error_chain(&error), "fenced units are guarded by this process only");
        }
        self.covered = Some((units, ttl));
    }

    async fn rewrite_units(
        &self,
        systemd: &SystemdClient,
        units: &BTreeSet<UnitName>,
        ttl: Duration,
    ) -> Result<(), SystemdError> {
        let (service, timer) =
            (service_unit(units, kill_after(ttl).saturating_sub(stop_after(ttl))), timer_unit(ttl));
        let paths = [SERVICE, TIMER].map(|name| self.directory.join(name));
        for (path, text) in paths.iter().zip([service, timer]) {
            if let Err(error) = replace_file(path, text.as_bytes()).and_then(|()| systemd.link_units(path)) {
                tracing::error!(path = %path.display(), %error, "cannot write a guard");
            }
        }
        // A timer that systemd has in memory keeps its old times until then.
        systemd.reload_manager().await?;
        if units.is_empty() { systemd.stop_named(TIMER).await } else { systemd.restart_named(TIMER).await }
    }

    /// Winds the timer up after a renewal, and stops or kills fenced units when renewals stay out.
    /// Returns the units it stopped.
    pub async fn enforce_lease(
        &mut self,
        systemd: &SystemdClient,
        lease: Option<HeldLease>,
        wanted: &BTreeMap<UnitName, DesiredUnit>,
        held: &BTreeMap<UnitName, ActualUnit>,
    ) -> Vec<UnitName> {
        let Some(lease) = lease else { return Vec::new() };
        self.ttl = Some(lease.ttl);
        let guarded = self.covered.as_ref().is_some_and(|(units, _)| !units.is_empty());
        if guarded && self.wound != Some(lease.renewed) && lease.renewed.elapsed() < stop_after(lease.ttl) {
            self.wound = Some(lease.renewed);
            if let Err(error) = systemd.restart_named(TIMER).await {
                tracing::error!(reason = %error_chain(&error), "cannot end the guard of fenced units");
            }
        }
        self.stop_or_kill(systemd, lease, wanted, held).await
    }

    async fn stop_or_kill(
        &mut self,
        systemd: &SystemdClient,
        lease: HeldLease,
        wanted: &BTreeMap<UnitName, DesiredUnit>,
        held: &BTreeMap<UnitName, ActualUnit>,
    ) -> Vec<UnitName> {
        let silent = lease.renewed.elapsed();
        let running = |unit: &UnitName| held.get(unit).is_some_and(|held| held.job == JobState::Launched);
        let units = units_to_guard(self.covered.as_ref().map(|(units, _)| units), wanted, held);
        let mut stopped = Vec::new();
        if silent >= stop_after(lease.ttl) && self.stopped_for != Some(lease.renewed) {
            self.stopped_for = Some(lease.renewed);
            for unit in units.iter().filter(|unit| running(unit)) {
                tracing::error!(%unit, "stopping a fenced unit: the cluster is out of reach");
                if let Err(error) = systemd.stop_unit(unit).await {
                    tracing::error!(%unit, reason = %error_chain(&error), "cannot stop a fenced unit");
                }
                stopped.push(unit.clone());
            }
        }
        // SIGKILL, since a unit that ignores its ExecStop= for that long would ignore SIGTERM, too.
        if silent >= kill_after(lease.ttl) && self.killed_for != Some(lease.renewed) {
            self.killed_for = Some(lease.renewed);
            for unit in units {
                // Most are down by now, and systemd does not know them any more.
                if let Err(error) = systemd.kill_unit(&unit).await
                    && !error.is_unknown_unit()
                {
                    tracing::error!(%unit, reason = %error_chain(&error), "cannot kill a fenced unit");
                }
            }
        }
        stopped
    }
}

fn timer_unit(ttl: Duration) -> String {
    format!(
        "[Unit]\nDescription=Stops fenced units when the cluster has been out of reach for too long\n\n\
         [Timer]\nOnActiveSec={}ms\nAccuracySec=50ms\n",
        stop_after(ttl).as_millis()
    )
}

fn service_unit(units: &BTreeSet<UnitName>, patience: Duration) -> String {
    let mut text = "[Unit]\nDescription=Stops fenced units\n\n[Service]\nType=oneshot\n".to_owned();
    // In one service, so that the kill comes after the stop whatever delays the two.
    for (verb, pause) in [("stop --no-block", Some(patience)), ("kill --signal=KILL", None)] {
        for unit in units {
            // Names hold no quotes, spaces or dollars; a percent sign cannot be in them either, but a
            // backslash can, and a dash at the beginning: hence the two before the name.
            let name = unit.as_str().replace('\\', "\\\\");
            // The dash lets the next unit be stopped even if this one cannot be.
            let _ = writeln!(text, "ExecStart=-/usr/bin/systemctl {verb} -- {name}");
        }
        if let Some(pause) = pause {
            let _ = writeln!(text, "ExecStart=-/usr/bin/sleep {:.1}", pause.as_secs_f64());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::unit_file::UnitFile;

    #[test]
    fn a_unit_on_its_way_out_stays_guarded_until_it_is_gone() {
        let unit = UnitName::parse("a.service").unwrap();
        let file = UnitFile::parse("[Service]\nExecStart=1\n").unwrap();
        let here = ActualUnit { hash: file.hash(), job: JobState::Launched, restarts: 0 };
        let held = BTreeMap::from([(unit.clone(), here)]);
        let wish = DesiredUnit { file, job: JobState::Launched, restarts: 0, fence: true, global: false };
        let wanted = BTreeMap::from([(unit.clone(), wish)]);
        let nothing = BTreeMap::new();

        let before = units_to_guard(None, &wanted, &held);

        assert_eq!(before, BTreeSet::from([unit]));
        assert_eq!(units_to_guard(Some(&before), &nothing, &held), before);
        assert!(units_to_guard(None, &nothing, &held).is_empty(), "it was never fenced");
        assert!(units_to_guard(Some(&before), &nothing, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn the_guard_stops_then_kills_before_the_lease_ends() {
        let ttl = Duration::from_secs(30);
        let units = BTreeSet::from([UnitName::parse("a\\x2d.service").unwrap()]);

        let text = service_unit(&units, kill_after(ttl).saturating_sub(stop_after(ttl)));

        assert_eq!(
            text.lines().skip(5).collect::<Vec<_>>(),
            [
                "ExecStart=-/usr/bin/systemctl stop --no-block -- a\\\\x2d.service",
                "ExecStart=-/usr/bin/sleep 7.0",
                "ExecStart=-/usr/bin/systemctl kill --signal=KILL -- a\\\\x2d.service",
            ]
        );
        assert!(timer_unit(ttl).contains("OnActiveSec=20000ms\n"));
    }
}
