//! One term of a leader: plan, write, look again, until the leadership is lost.
//!
//! Knows when to ask the scheduler ([`crate::plan::converge`]) and how to write what it wants. Refuses to decide, and
//! to win elections ([`crate::engine`]). Invariant: every write holds only if the leadership was not lost, so a leader
//! that was frozen changes nothing when it wakes.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use error_text::error_chain;
use std::time::{Duration, Instant};

use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::{FleetEngine, writes};
use crate::{
    model::{moment::MonotonicTime, unit_name::UnitName},
    plan::converge::{ClusterConverger, EnginePlan},
    store::{
        boot_time::BootTime,
        etcd::lease::HeldLease,
        keys::OperatorOrder,
        registry::{ClusterChange, Registry},
        revision::Revision,
        writes::{MAX_TRANSACTION_OPERATIONS, StoreWrite},
    },
};

/// Up to this many decisions of one plan stand in the log one by one.
// A machine that vanishes may hold hundreds of units. journald limits what one service may log, and would
// drop the lines that say why.
const DECISIONS_TOLD: usize = 16;
/// How often unused unit files are looked for.
// Leftovers hurt nobody, they only take space.
const SWEEP: Duration = Duration::from_mins(1);

/// An elected engine.
#[derive(Debug)]
pub(super) struct LeaderTerm<'a> {
    pub(super) engine: &'a FleetEngine,
    /// When the key of the leader came into being: as long as it lives, nobody else was elected.
    pub(super) created: Revision,
}

impl LeaderTerm<'_> {
    /// Leads until the lease or the leadership is lost, and gives the lease back.
    pub(super) async fn run_term(&self, lease: HeldLease) {
        let id = lease.id;
        let (renewals, mut renewed) = watch::channel(lease);
        tracing::info!("this engine leads");
        self.engine.metrics.set_leading(true);
        // The renewal asks the network, and answers that were on the way before a suspension still arrive
        // afterwards. The clock of the lease counts suspended time, so it knows better.
        let frozen = async {
            // A leader whose lease ran out while it slept must not go on for even one decision.
            loop {
                let deadline = renewed.borrow_and_update().deadline();
                deadline.sleep_until().await;
                if BootTime::now() >= renewed.borrow().deadline() {
                    return;
                }
            }
        };
        // No branch plans: each only takes in what changed, and the loop plans once for all that came
        // together.
        tokio::select! {
            error = self.engine.store.keep_alive(&renewals) => tracing::warn!(%error, "this engine leads no longer"),
            () = frozen => tracing::warn!("this engine leads no longer: its lease ran out"),
            () = self.lead_cluster() => tracing::warn!("this engine leads no longer: the store says so"),
        }
        self.engine.metrics.set_leading(false);
        let _ = self.engine.store.revoke_lease(id).await;
    }

    /// Converges the cluster until the leadership is found lost.
    async fn lead_cluster(&self) {
        self.engine.store.wait_for_revision(self.created).await;
        let mut changes = self.engine.store.subscribe_changes();
        let mut hearing = self.engine.store.watch_connectivity();
        let mut scheduler = ClusterConverger::new(
            self.engine.engine_settings().caution,
            hearing.borrow_and_update().steady_since,
        );
        let mut settings = self.engine.settings.clone();
        let mut shown_brake = None;
        self.observe_change(&mut scheduler, &ClusterChange::Everything);
        let mut sweep = tokio::time::interval(SWEEP);
        // Missed sweeps are not made up for: one after a pause does the work of all.
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.obey_orders(&mut scheduler).await;
            let started = Instant::now();
            let plan = self
                .engine
                .store
                .with_view(|picture| scheduler.plan_changes(picture.cluster(), self.engine.store.now()));
            self.engine.metrics.count_plan(started.elapsed());
            let wake = plan.wake;
            self.show_brake(&plan, &mut shown_brake).await;
            if !self.write_plan(&mut scheduler, plan).await {
                return;
            }
            tokio::select! {
                change = changes.recv() => self.take_in(&mut scheduler, change),
                _ = hearing.changed() => scheduler.note_interruption(hearing.borrow_and_update().steady_since),
                () = self.sleep_until(wake) => {}
                Ok(()) = settings.changed() => scheduler.set_limits(self.engine.engine_settings().caution),
                _ = sweep.tick() => self.remove_leftovers().await,
            }
            self.drain_changes(&mut scheduler, &mut changes);
        }
    }

    async fn sleep_until(&self, wake: Option<MonotonicTime>) {
        match wake {
            Some(wake) => tokio::time::sleep_until(self.engine.store.instant_of(wake).into()).await,
            None => std::future::pending().await,
        }
    }

    fn take_in(&self, scheduler: &mut ClusterConverger, change: Result<ClusterChange, RecvError>) {
        match change {
            Ok(change) => self.observe_change(scheduler, &change),
            Err(_) => self.observe_change(scheduler, &ClusterChange::Everything),
        }
    }

    fn drain_changes(
        &self,
        scheduler: &mut ClusterConverger,
        changes: &mut broadcast::Receiver<ClusterChange>,
    ) {
        loop {
            match changes.try_recv() {
                Ok(change) => self.observe_change(scheduler, &change),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.observe_change(scheduler, &ClusterChange::Everything);
                }
                Err(_) => return,
            }
        }
    }

    fn observe_change(&self, scheduler: &mut ClusterConverger, change: &ClusterChange) {
        self.engine.store.with_view(|picture| {
            scheduler.observe_change(picture.cluster(), change, self.engine.store.now());
        });
    }

    async fn obey_orders(&self, scheduler: &mut ClusterConverger) {
        let orders: Vec<_> = self.engine.store.with_view(|picture| {
            picture
                .operator_orders()
                .map(|(order, record, revision)| (order, record.budget, revision))
                .collect()
        });
        for (order, budget, revision) in orders {
            tracing::info!(?order, "obeying an order");
            match order {
                OperatorOrder::Rebalance => {
                    let decisions = scheduler.rebalance_units(budget);
                    let plan = EnginePlan { decisions, ..EnginePlan::default() };
                    self.write_plan(scheduler, plan).await;
                }
                OperatorOrder::ReleaseBrake => scheduler.release_brake(),
            }
            self.commit_and_wait(&writes::fulfil_write(order, revision)).await;
        }
    }

    async fn show_brake(&self, plan: &EnginePlan, shown: &mut Option<String>) {
        if plan.brake == *shown {
            return;
        }
        if let Some(brake) = &plan.brake {
            tracing::error!(%brake, "the brake is on");
        } else {
            tracing::info!("the brake is off");
        }
        self.commit_and_wait(&writes::brake_write(plan.brake.as_deref())).await;
        shown.clone_from(&plan.brake);
    }

    /// Writes what the scheduler wants; `false` when the leadership is lost.
    async fn write_plan(&self, scheduler: &mut ClusterConverger, plan: EnginePlan) -> bool {
        let mut wishes: Vec<(UnitName, Option<StoreWrite>)> = Vec::new();
        // A flood of decisions must not become a flood in the journal.
        let few = plan.decisions.len() <= DECISIONS_TOLD;
        if !few {
            tracing::info!(count = plan.decisions.len(), first = %plan.decisions[0].unit, "decided on many units");
        }
        self.engine.store.with_view(|picture| {
            for decision in &plan.decisions {
                let (unit, from, to, reason) =
                    (&decision.unit, &decision.from, &decision.to, &decision.reason);
                if few {
                    tracing::info!(%unit, ?from, ?to, %reason, "decided");
                } else {
                    tracing::debug!(%unit, ?from, ?to, %reason, "decided");
                }
                self.engine.metrics.count_decision(decision);
                wishes.push((decision.unit.clone(), writes::decision_write(picture, decision)));
            }
            for step in &plan.rollout {
                tracing::info!(?step, "rolling out");
                wishes.push((step.changed_unit().clone(), writes::rollout_step(picture, step)));
            }
        });
        let mut undone = Vec::new();
        for batch in pack_batches(wishes, &mut undone) {
            if !self.write_batch(batch, &mut undone).await {
                return false;
            }
        }
        // What was not written is looked at anew, as it really is.
        for unit in undone {
            self.observe_change(scheduler, &ClusterChange::Unit(unit));
        }
        true
    }

    /// Writes several units' changes at once, and one by one if that fails.
    async fn write_batch(&self, batch: Vec<(UnitName, StoreWrite)>, undone: &mut Vec<UnitName>) -> bool {
        let mut all = StoreWrite::default();
        for (_, write) in &batch {
            all.join_with(write.clone());
        }
        // One unit that moved on fails the whole transaction. Then each is tried alone, which is slow and
        // rare.
        let mut rest = match self.commit_and_wait(&all).await {
            Some(true) => return true,
            Some(false) => batch.into_iter(),
            None => {
                undone.extend(batch.into_iter().map(|(unit, _)| unit));
                return self.pause_if_leading().await;
            }
        };
        while let Some((unit, write)) = rest.next() {
            let outcome = self.commit_and_wait(&write).await;
            if outcome != Some(true) {
                undone.push(unit);
            }
            if outcome.is_none() {
                undone.extend(rest.map(|(unit, _)| unit));
                return self.pause_if_leading().await;
            }
        }
        self.still_leads()
    }

    /// Gives a store that does not answer a moment, so that no plan is made over and over.
    async fn pause_if_leading(&self) -> bool {
        // The plan would be the same at once. A fifth of a second is short against a lease, and spares a
        // store that starts anew.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.still_leads()
    }

    fn still_leads(&self) -> bool {
        self.engine.store.with_view(|picture| {
            picture
                .current_leader()
                .is_some_and(|leader| leader.machine == self.engine.me && leader.created == self.created)
        })
    }

    /// Commits as leader and waits until the picture shows it: the next plan must see its effect.
    /// `None` when the store did not answer.
    async fn commit_and_wait(&self, write: &StoreWrite) -> Option<bool> {
        match self.engine.store.commit_write(&writes::as_leader(write.clone(), self.created)).await {
            Ok(committed) => {
                // A plan made on the view before this write would decide the same once more.
                self.engine.store.wait_for_revision(committed.revision).await;
                Some(committed.succeeded)
            }
            Err(error) => {
                tracing::warn!(reason = %error_chain(&error), "a decision could not be written yet");
                None
            }
        }
    }

    /// Removes what nothing needs any more.
    async fn remove_leftovers(&self) {
        for write in self.engine.store.with_view(writes::sweep_writes) {
            self.commit_and_wait(&write).await;
        }
    }
}

/// Packs writes into transactions that etcd takes; units without a write are undone already.
fn pack_batches(
    wishes: Vec<(UnitName, Option<StoreWrite>)>,
    undone: &mut Vec<UnitName>,
) -> Vec<Vec<(UnitName, StoreWrite)>> {
    let mut batches: Vec<Vec<(UnitName, StoreWrite)>> = Vec::new();
    // Full at the beginning, so that the first write opens the first batch by the same rule as all others.
    let (mut conditions, mut operations) = (MAX_TRANSACTION_OPERATIONS, MAX_TRANSACTION_OPERATIONS);
    for (unit, write) in wishes {
        let Some(write) = write else {
            undone.push(unit);
            continue;
        };
        conditions += write.when.len();
        operations += write.then.len();
        if conditions > MAX_TRANSACTION_OPERATIONS || operations > MAX_TRANSACTION_OPERATIONS {
            (conditions, operations) = (write.when.len(), write.then.len());
            batches.push(Vec::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push((unit, write));
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::unit_file::UnitHash,
        store::{
            keys::StoreKey,
            writes::{WriteCondition, WriteOperation},
        },
    };

    #[test]
    fn transactions_are_filled_but_not_overfilled() {
        let unit = |number: usize| UnitName::parse(&format!("u@{number}.service")).unwrap();
        let write = |number: usize| {
            let key = StoreKey::File(UnitHash::of_text(&number.to_string()));
            StoreWrite {
                when: vec![WriteCondition::Absent(key.clone()); 4],
                then: vec![WriteOperation::Delete(key)],
            }
        };
        let mut wishes: Vec<_> = (0..100).map(|number| (unit(number), Some(write(number)))).collect();
        wishes.push((unit(100), None));
        let mut undone = Vec::new();

        let batches = pack_batches(wishes, &mut undone);

        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30, 30, 10]);
        assert_eq!(undone, [unit(100)]);
    }
}
