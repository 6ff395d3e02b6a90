//! The engine: one machine's is elected, and tells the others' agents what to hold.
//!
//! Knows how to win the leadership, and when to stand for election. Refuses to decide, and to act as leader
//! (`engine/term.rs`).

mod term;
pub mod writes;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    metrics::DaemonMetrics,
    model::machine::MachineId,
    plan::converge::SafetyLimits,
    store::{
        etcd::{EtcdStore, StoreError, lease::HeldLease},
        revision::Revision,
    },
};
use term::LeaderTerm;

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

    fn engine_settings(&self) -> EngineSettings {
        *self.settings.borrow()
    }

    /// Stands for election for ever, and leads whenever it is elected.
    pub async fn run_elections(&self) {
        loop {
            self.wait_for_vacancy().await;
            match self.campaign_leadership().await {
                Ok(Some((lease, created))) => {
                    Box::pin(LeaderTerm { engine: self, created }.run_term(lease)).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot stand for election yet");
                    // Nobody leads while all candidates wait, so the pause is short; units run on without a
                    // leader.
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
            // Marked before looking and not after it: a change in between wakes us once too often, and
            // never too seldom. Engines that do not lead used to ask ten times a second instead.
            revisions.mark_unchanged();
            hearing.mark_unchanged();
            let vacant = self.store.with_view(|picture| picture.current_leader().is_none());
            // Who does not hear the store would win and then decide on an old view, or on an empty one.
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

    async fn campaign_leadership(&self) -> Result<Option<(HeldLease, Revision)>, StoreError> {
        let lease = self.store.grant_lease(self.engine_settings().leader_ttl).await?;
        // Before the claim: the key that it writes has to live by this lease.
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
}
