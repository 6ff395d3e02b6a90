//! The place of a machine in the cluster: one lease, kept alive, and what the machine says of itself.
//!
//! Knows how to come back after a restart of the daemon without anybody noticing, and after a lost lease
//! as if new. Refuses to know what the machine runs. Invariant: [`crate::store::etcd::EtcdStore::registered`]
//! is true only while the presence in the picture is ours.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::replace_file;
use crate::{
    model::machine::Machine,
    store::{
        etcd::{EtcdStore, StoreError, chain, lease::Lease},
        records::PresenceRecord,
        registry::{Change, Registry},
        writes::{self, Write},
    },
};

/// A machine that wants to be seen.
#[derive(Debug)]
pub struct Presence {
    store: Arc<EtcdStore>,
    /// What the machine says of itself; it may change at any time.
    record: watch::Sender<PresenceRecord>,
    ttl: Duration,
    /// Where the number of the lease survives a restart of the daemon.
    lease_file: PathBuf,
    lease: watch::Sender<Option<Lease>>,
}

impl Presence {
    /// Prepares to announce `machine`, booted as `boot`.
    #[must_use]
    pub fn new(
        store: Arc<EtcdStore>,
        machine: Machine,
        boot: String,
        ttl: Duration,
        lease_file: PathBuf,
    ) -> Self {
        let record = watch::Sender::new(PresenceRecord { machine, boot });
        Self { store, record, ttl, lease_file, lease: watch::Sender::new(None) }
    }

    /// The lease by which the machine is present, while it is.
    #[must_use]
    pub fn lease(&self) -> watch::Receiver<Option<Lease>> {
        self.lease.subscribe()
    }

    /// The machine says something else of itself from now on.
    pub fn revise(&self, machine: &Machine) {
        self.record.send_if_modified(|record| {
            let changed = record.machine != *machine;
            record.machine.clone_from(machine);
            changed
        });
    }

    fn said(&self) -> PresenceRecord {
        self.record.borrow().clone()
    }

    /// Stays present for ever; `stop` ends it without leaving.
    pub async fn run(&self) {
        let mut pause = Duration::from_millis(100);
        loop {
            match Box::pin(self.stay()).await {
                Ok(reason) => {
                    tracing::warn!(reason, "this machine is not registered any more");
                    pause = Duration::from_millis(100);
                }
                Err(error) => {
                    tracing::debug!(reason = %chain(&error), "cannot register yet");
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
            self.store.set_registered(false);
            tokio::time::sleep(pause).await;
        }
    }

    /// Leaves the cluster at once.
    pub async fn leave(&self) {
        self.store.set_registered(false);
        let lease = *self.lease.borrow();
        if let Some(lease) = lease
            && let Err(error) = self.store.revoke(lease.id).await
        {
            tracing::warn!(reason = %chain(&error), "the cluster will notice the leave only after the TTL");
        }
        // Nothing to come back to; without the file there is none either.
        let _ = std::fs::remove_file(&self.lease_file);
    }

    async fn stay(&self) -> Result<&'static str, StoreError> {
        let lease = self.obtain().await?;
        self.store.set_machine_lease(lease.id);
        let mut revisions = self.record.subscribe();
        let write = Write { when: Vec::new(), then: vec![writes::presence(&self.said())] };
        let committed = self.store.commit(&write).await?;
        if !self.store.reached(committed.revision).await {
            return Ok("the picture does not follow");
        }
        let renewals = watch::Sender::new(lease);
        self.lease.send_replace(Some(lease));
        self.store.set_registered(true);
        tracing::info!(machine = %self.said().machine.id, lease = lease.id, "this machine is registered");
        Ok(tokio::select! {
            _ = self.store.keep_alive(&renewals) => "its lease ran out",
            () = self.pass_on(renewals.subscribe()) => "its lease ran out",
            () = self.defend(&mut revisions) => "another machine of the same ID came, or somebody removed it",
        })
    }

    async fn obtain(&self) -> Result<Lease, StoreError> {
        let before = std::fs::read_to_string(&self.lease_file).ok();
        if let Some(id) = before.and_then(|text| text.trim().parse().ok())
            && let Some(lease) = self.store.take_up(id).await?
            && lease.ttl == self.ttl
        {
            return Ok(lease);
        }
        let lease = self.store.grant(self.ttl).await?;
        if let Err(error) = replace_file(&self.lease_file, lease.id.to_string().as_bytes()) {
            tracing::warn!(path = %self.lease_file.display(), %error, "a restart of fleetd will be noticed by the cluster");
        }
        Ok(lease)
    }

    /// Shows every renewal to those who watch the lease; ends when renewals stay out for a full TTL.
    async fn pass_on(&self, mut renewals: watch::Receiver<Lease>) {
        loop {
            let lease = *renewals.borrow_and_update();
            self.lease.send_replace(Some(lease));
            tokio::select! {
                changed = renewals.changed() => if changed.is_err() { return },
                // The fence works with what is left of a lease; past its end there is nothing to guard.
                () = lease.deadline().reached() => return,
            }
        }
    }

    /// Says anew what the machine is whenever that changes; ends when somebody else says something else.
    async fn defend(&self, revisions: &mut watch::Receiver<PresenceRecord>) {
        loop {
            tokio::select! {
                biased;
                Ok(()) = revisions.changed() => self.announce().await,
                () = self.usurped() => return,
            }
        }
    }

    async fn announce(&self) {
        let write = Write { when: Vec::new(), then: vec![writes::presence(&self.said())] };
        loop {
            match self.store.commit(&write).await {
                Ok(committed) if self.store.reached(committed.revision).await => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(reason = %chain(&error), "cannot say yet what this machine is now");
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn usurped(&self) {
        let mut changes = self.store.changes();
        let me = self.said().machine.id;
        loop {
            let ours = self.store.look(|picture| picture.presence(&me) == Some(&self.said()));
            if !ours {
                return;
            }
            while let Ok(change) = changes.recv().await {
                if matches!(&change, Change::Machine(id) if *id == me) || change == Change::Everything {
                    break;
                }
            }
        }
    }
}
