//! The engine: one machine's is elected, and tells the others' agents what to hold.
//!
//! Knows how to win and keep the leadership, when to ask the mind ([`crate::plan::converge`]) and how to
//! write what it wants. Refuses to decide. Invariant: every write holds only if the leadership was not
//! lost, so a leader that was frozen changes nothing when it wakes.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

pub mod writes;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use crate::{
    metrics::DaemonMetrics,
    model::{machine::MachineId, unit_name::UnitName},
    plan::converge::{ClusterConverger, EnginePlan, SafetyLimits},
    store::{
        boot_time::BootTime,
        etcd::{EtcdStore, StoreError, lease::HeldLease},
        keys::OperatorOrder,
        registry::{ClusterChange, Registry},
        writes::{MAX_TRANSACTION_OPERATIONS, StoreWrite},
    },
};

/// Up to this many decisions of one plan stand in the log one by one.
const DECISIONS_TOLD: usize = 16;
/// How often unused unit files are looked for.
const SWEEP: Duration = Duration::from_mins(1);

/// How an engine behaves.
#[derive(Debug, Clone, Copy)]
pub struct EngineSettings {
    /// How careful it is.
    pub caution: SafetyLimits,
    /// How long leadership lasts without renewal.
    pub leader_ttl: Duration,
}

/// An engine that takes part in elections.
#[derive(Debug)]
pub struct FleetEngine {
    me: MachineId,
    store: Arc<EtcdStore>,
    /// They may change at any time.
    settings: watch::Receiver<EngineSettings>,
    metrics: Arc<DaemonMetrics>,
}

impl FleetEngine {
    /// The engine of a machine.
    #[must_use]
    pub fn new(
        me: MachineId,
        store: Arc<EtcdStore>,
        settings: watch::Receiver<EngineSettings>,
        metrics: Arc<DaemonMetrics>,
    ) -> Self {
        Self { me, store, settings, metrics }
    }

    fn settings(&self) -> EngineSettings {
        *self.settings.borrow()
    }

    /// Stands for election for ever, and leads whenever it is elected.
    pub async fn run_elections(&self) {
        loop {
            self.wait_for_vacancy().await;
            match self.campaign().await {
                Ok(Some((lease, created))) => Box::pin(self.run_as_leader(lease, created)).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot stand for election yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Waits until nobody leads and this machine could.
    async fn wait_for_vacancy(&self) {
        let mut revisions = self.store.watch_revision();
        let mut registered = self.store.watch_registration();
        let mut hearing = self.store.watch_connectivity();
        loop {
            revisions.mark_unchanged();
            hearing.mark_unchanged();
            let vacant = self.store.with_view(|picture| picture.leader().is_none());
            let heard = self.store.watch_connectivity().borrow().lost.is_none();
            if vacant && heard && *registered.borrow_and_update() {
                return;
            }
            tokio::select! {
                _ = revisions.changed() => {}
                _ = registered.changed() => {}
                _ = hearing.changed() => {}
            }
        }
    }

    async fn campaign(&self) -> Result<Option<(HeldLease, i64)>, StoreError> {
        let lease = self.store.grant_lease(self.settings().leader_ttl).await?;
        self.store.set_leader_lease(lease.id);
        let committed = self.store.commit_write(&writes::claim_leadership(&self.me)).await?;
        if !committed.succeeded {
            self.store.wait_for_revision(committed.revision).await;
            // Nothing lives by it; it would run out by itself.
            let _ = self.store.revoke_lease(lease.id).await;
            return Ok(None);
        }
        Ok(Some((lease, committed.revision)))
    }

    async fn run_as_leader(&self, lease: HeldLease, created: i64) {
        let id = lease.id;
        let (renewals, mut renewed) = watch::channel(lease);
        tracing::info!("this engine leads");
        self.metrics.set_leading(true);
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
        tokio::select! {
            error = self.store.keep_alive(&renewals) => tracing::warn!(%error, "this engine leads no longer"),
            () = frozen => tracing::warn!("this engine leads no longer: its lease ran out"),
            () = self.lead_cluster(created) => tracing::warn!("this engine leads no longer: the store says so"),
        }
        self.metrics.set_leading(false);
        let _ = self.store.revoke_lease(id).await;
    }

    /// Converges the cluster until the leadership is found lost.
    async fn lead_cluster(&self, created: i64) {
        self.store.wait_for_revision(created).await;
        let mut changes = self.store.subscribe_changes();
        let mut hearing = self.store.watch_connectivity();
        let mut mind =
            ClusterConverger::new(self.settings().caution, hearing.borrow_and_update().steady_since);
        let mut settings = self.settings.clone();
        let mut shown_brake = None;
        self.observe_change(&mut mind, &ClusterChange::Everything);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.obey_orders(&mut mind, created).await;
            let started = Instant::now();
            let plan = self.store.with_view(|picture| mind.plan_changes(picture.cluster(), self.store.now()));
            self.metrics.count_plan(started.elapsed());
            let wake = plan.wake;
            self.show_brake(&plan, &mut shown_brake, created).await;
            if !self.write_plan(&mut mind, plan, created).await {
                return;
            }
            tokio::select! {
                change = changes.recv() => self.take_in(&mut mind, change),
                _ = hearing.changed() => mind.note_interruption(hearing.borrow_and_update().steady_since),
                () = self.sleep_until(wake) => {}
                Ok(()) = settings.changed() => mind.set_limits(self.settings().caution),
                _ = sweep.tick() => self.remove_leftovers(created).await,
            }
            self.drain_changes(&mut mind, &mut changes);
        }
    }

    async fn sleep_until(&self, wake: Option<crate::model::moment::MonotonicTime>) {
        match wake {
            Some(wake) => tokio::time::sleep_until(self.store.instant_of(wake).into()).await,
            None => std::future::pending().await,
        }
    }

    fn take_in(&self, mind: &mut ClusterConverger, change: Result<ClusterChange, RecvError>) {
        match change {
            Ok(change) => self.observe_change(mind, &change),
            Err(_) => self.observe_change(mind, &ClusterChange::Everything),
        }
    }

    fn drain_changes(&self, mind: &mut ClusterConverger, changes: &mut broadcast::Receiver<ClusterChange>) {
        loop {
            match changes.try_recv() {
                Ok(change) => self.observe_change(mind, &change),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.observe_change(mind, &ClusterChange::Everything);
                }
                Err(_) => return,
            }
        }
    }

    fn observe_change(&self, mind: &mut ClusterConverger, change: &ClusterChange) {
        self.store.with_view(|picture| mind.observe_change(picture.cluster(), change, self.store.now()));
    }

    async fn obey_orders(&self, mind: &mut ClusterConverger, created: i64) {
        let orders: Vec<_> = self.store.with_view(|picture| {
            picture
                .operator_orders()
                .map(|(order, record, revision)| (order, record.budget, revision))
                .collect()
        });
        for (order, budget, revision) in orders {
            tracing::info!(?order, "obeying an order");
            match order {
                OperatorOrder::Rebalance => {
                    let decisions = mind.rebalance_units(budget);
                    let plan = EnginePlan { decisions, ..EnginePlan::default() };
                    self.write_plan(mind, plan, created).await;
                }
                OperatorOrder::ReleaseBrake => mind.release_brake(),
            }
            self.commit_and_wait(&writes::fulfil_write(order, revision), created).await;
        }
    }

    async fn show_brake(&self, plan: &EnginePlan, shown: &mut Option<String>, created: i64) {
        if plan.brake == *shown {
            return;
        }
        if let Some(brake) = &plan.brake {
            tracing::error!(%brake, "the brake is on");
        } else {
            tracing::info!("the brake is off");
        }
        self.commit_and_wait(&writes::brake_write(plan.brake.as_deref()), created).await;
        shown.clone_from(&plan.brake);
    }

    /// Writes what the mind wants; `false` when the leadership is lost.
    async fn write_plan(&self, mind: &mut ClusterConverger, plan: EnginePlan, created: i64) -> bool {
        let mut wishes: Vec<(UnitName, Option<StoreWrite>)> = Vec::new();
        // A flood of decisions must not become a flood in the journal.
        let few = plan.decisions.len() <= DECISIONS_TOLD;
        if !few {
            tracing::info!(count = plan.decisions.len(), first = %plan.decisions[0].unit, "decided on many units");
        }
        self.store.with_view(|picture| {
            for decision in &plan.decisions {
                let (unit, from, to, reason) =
                    (&decision.unit, &decision.from, &decision.to, &decision.reason);
                if few {
                    tracing::info!(%unit, ?from, ?to, %reason, "decided");
                } else {
                    tracing::debug!(%unit, ?from, ?to, %reason, "decided");
                }
                self.metrics.count_decision(&decision.reason, decision.to.is_some());
                wishes.push((decision.unit.clone(), writes::decision_write(picture, decision)));
            }
            for step in &plan.rollout {
                tracing::info!(?step, "rolling out");
                wishes.push((step.unit().clone(), writes::rollout_step(picture, step)));
            }
        });
        let mut undone = Vec::new();
        for batch in pack_batches(wishes, &mut undone) {
            if !self.write_batch(batch, created, &mut undone).await {
                return false;
            }
        }
        // What was not written is looked at anew, as it really is.
        for unit in undone {
            self.observe_change(mind, &ClusterChange::Unit(unit));
        }
        true
    }

    /// Writes several units' changes at once, and one by one if that fails.
    async fn write_batch(
        &self,
        batch: Vec<(UnitName, StoreWrite)>,
        created: i64,
        undone: &mut Vec<UnitName>,
    ) -> bool {
        let mut all = StoreWrite::default();
        for (_, write) in &batch {
            all.join_with(write.clone());
        }
        let mut rest = match self.commit_and_wait(&all, created).await {
            Some(true) => return true,
            Some(false) => batch.into_iter(),
            None => {
                undone.extend(batch.into_iter().map(|(unit, _)| unit));
                return self.pause_if_leading(created).await;
            }
        };
        while let Some((unit, write)) = rest.next() {
            let outcome = self.commit_and_wait(&write, created).await;
            if outcome != Some(true) {
                undone.push(unit);
            }
            if outcome.is_none() {
                undone.extend(rest.map(|(unit, _)| unit));
                return self.pause_if_leading(created).await;
            }
        }
        self.still_leads(created)
    }

    /// Gives a store that does not answer a moment, so that no plan is made over and over.
    async fn pause_if_leading(&self, created: i64) -> bool {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.still_leads(created)
    }

    fn still_leads(&self, created: i64) -> bool {
        self.store.with_view(|picture| {
            picture.leader().is_some_and(|leader| leader.machine == self.me && leader.created == created)
        })
    }

    /// Commits as leader and waits until the picture shows it: the next plan must see its effect.
    /// `None` when the store did not answer.
    async fn commit_and_wait(&self, write: &StoreWrite, created: i64) -> Option<bool> {
        match self.store.commit_write(&writes::as_leader(write.clone(), created)).await {
            Ok(committed) => {
                self.store.wait_for_revision(committed.revision).await;
                Some(committed.succeeded)
            }
            Err(error) => {
                tracing::warn!(reason = %crate::error_text::error_chain(&error), "a decision could not be written yet");
                None
            }
        }
    }

    /// Removes what nothing needs any more.
    async fn remove_leftovers(&self, created: i64) {
        for write in self.store.with_view(writes::sweep_writes) {
            self.commit_and_wait(&write, created).await;
        }
    }
}

/// Packs writes into transactions that etcd takes; units without a write are undone already.
fn pack_batches(
    wishes: Vec<(UnitName, Option<StoreWrite>)>,
    undone: &mut Vec<UnitName>,
) -> Vec<Vec<(UnitName, StoreWrite)>> {
    let mut batches: Vec<Vec<(UnitName, StoreWrite)>> = Vec::new();
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
