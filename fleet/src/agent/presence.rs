//! The place of a machine in the cluster: one lease, kept alive, and what the machine says of itself.
//!
//! Knows how to come back after a restart of the daemon without anybody noticing, and after a lost lease
//! as if new; and that a machine ID belongs to the machine that is there, so that a clone stays out.
//! Refuses to know what the machine runs. Invariant: [`crate::store::etcd::EtcdStore::watch_registration`] is true
//! only while the presence in the picture is ours.

mod exclusion;
pub mod former;

use error_text::error_chain;
use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    model::machine::Machine,
    store::{
        etcd::{EtcdStore, StoreError, lease::HeldLease},
        keys::StoreKey,
        records::PresenceRecord,
        registry::{ClusterChange, Registry},
        revision::{LeaseId, Revision},
        writes::{self, StoreWrite, WriteCondition},
    },
};
use exclusion::Exclusion;
use former::{FormerRegistration, LeaseFile};

/// A machine that wants to be seen.
#[derive(Debug)]
pub struct MachinePresence {
    store: Arc<EtcdStore>,
    /// What the machine says of itself; it may change at any time.
    record: watch::Sender<PresenceRecord>,
    ttl: Duration,
    /// Where the registration survives a restart of the daemon.
    lease_file: PathBuf,
    lease: watch::Sender<Option<HeldLease>>,
}

/// What came of an attempt to register.
#[derive(Debug)]
enum Registration {
    /// The machine was there for a while, until this happened.
    Ended(&'static str),
    /// Somebody else is there under the same machine ID, or was a moment ago.
    Occupied(Option<PresenceRecord>),
}

impl MachinePresence {
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
    pub fn watch_lease(&self) -> watch::Receiver<Option<HeldLease>> {
        self.lease.subscribe()
    }

    /// The machine says something else of itself from now on.
    pub fn update_machine(&self, machine: &Machine) {
        self.record.send_if_modified(|record| {
            let changed = record.machine != *machine;
            record.machine.clone_from(machine);
            changed
        });
    }

    fn own_record(&self) -> PresenceRecord {
        self.record.borrow().clone()
    }

    /// Stays present for ever; who stops polling ends it without leaving.
    pub async fn stay_registered(&self) {
        // Doubled up to five seconds: a cluster whose etcd comes back must not be met by all its machines
        // at once, over and over.
        let mut pause = Duration::from_millis(100);
        let mut exclusion = Exclusion::default();
        loop {
            match Box::pin(self.be_present(&mut exclusion)).await {
                Ok(Registration::Ended(reason)) => {
                    // The original's words, for those whose alerts wait for them.
                    tracing::error!("Server monitor triggered: {reason}");
                    pause = Duration::from_millis(100);
                }
                Ok(Registration::Occupied(occupant)) => {
                    self.stay_out(occupant, &mut exclusion).await;
                    continue;
                }
                Err(error) => {
                    tracing::debug!(reason = %error_chain(&error), "cannot register yet");
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
            self.store.set_registered(false);
            tokio::time::sleep(pause).await;
        }
    }

    /// Leaves the cluster at once.
    pub async fn leave_cluster(&self) {
        self.store.set_registered(false);
        let lease = *self.lease.borrow();
        match lease {
            None => {}
            Some(lease) => match self.store.revoke_lease(lease.id).await {
                Ok(()) => tracing::info!("this machine has left the cluster"),
                Err(error) => {
                    tracing::warn!(reason = %error_chain(&error), "the cluster will notice the leave only after the TTL");
                }
            },
        }
        // Nothing to come back to; without the file there is none either.
        let _ = std::fs::remove_file(&self.lease_file);
    }

    async fn be_present(&self, exclusion: &mut Exclusion) -> Result<Registration, StoreError> {
        let file = LeaseFile::read(&self.lease_file);
        // First, so that a machine whose ID changed is never there under both names.
        self.end_another(&file).await?;
        let mut revisions = self.record.subscribe();
        let Some((lease, revision)) = self.register_machine(&file).await? else {
            return Ok(Registration::Occupied(self.find_occupant()));
        };
        *exclusion = Exclusion::default();
        self.store.set_excluded(None);
        // Registered means that the view shows it. An agent that acted before would take its own absence
        // for a removal.
        if !self.store.wait_for_revision(revision).await {
            return Ok(Registration::Ended("the picture of the cluster does not follow"));
        }
        let renewals = watch::Sender::new(lease);
        self.lease.send_replace(Some(lease));
        self.store.set_registered(true);
        tracing::info!(machine = %self.own_record().machine.id, lease = %lease.id, "this machine is registered");
        Ok(Registration::Ended(tokio::select! {
            _ = self.store.keep_alive(&renewals) => "Monitor timed out before successful heartbeat",
            () = self.pass_on(renewals.subscribe()) => "Monitor timed out before successful heartbeat",
            () = self.republish_changes(&mut revisions) => "somebody removed this machine from the cluster",
        }))
    }

    /// Ends the registration under a machine ID or a prefix that this machine had before.
    async fn end_another(&self, file: &LeaseFile) -> Result<(), StoreError> {
        let me = self.own_record().machine.id;
        let Some(former) = file.clone().of_another(&me, &self.store.key_prefix()) else { return Ok(()) };
        if self.store.take_up(former.lease).await?.is_some() {
            self.store.revoke_lease(former.lease).await?;
        }
        tracing::info!(machine = %former.machine, prefix = former.prefix, "the former registration of this machine is ended");
        Ok(())
    }

    /// Registers if nobody is there, or if who is there is an earlier process of this machine; by which
    /// lease, and in which revision.
    async fn register_machine(&self, file: &LeaseFile) -> Result<Option<(HeldLease, Revision)>, StoreError> {
        let me = self.own_record().machine.id;
        if let Some(former) = file.lease_of(&me, &self.store.key_prefix()) {
            // A changed `agent_ttl` needs a lease of its own: etcd cannot change that of one that exists.
            let lease = match self.store.take_up(former).await?.filter(|lease| lease.ttl == self.ttl) {
                Some(lease) => lease,
                None => self.store.grant_lease(self.ttl).await?,
            };
            // By the lease and not by the boot ID: two clones of a running virtual machine have one boot
            // ID, too.
            let own = WriteCondition::LivesBy(StoreKey::Presence(me.clone()), former);
            if let Some(revision) = self.claim_presence(lease, own).await? {
                return Ok(Some((lease, revision)));
            }
        }
        // Only where nobody is. The original wrote over the machine that was there, and two machines of one ID took
        // turns.
        let lease = self.store.grant_lease(self.ttl).await?;
        let revision = self.claim_presence(lease, WriteCondition::Absent(StoreKey::Presence(me))).await?;
        Ok(revision.map(|revision| (lease, revision)))
    }

    /// Says that this machine is there if the condition holds, in which revision; gives the lease back if it
    /// does not, with whatever else lives by it: that is nobody's any more.
    async fn claim_presence(
        &self,
        lease: HeldLease,
        condition: WriteCondition,
    ) -> Result<Option<Revision>, StoreError> {
        self.store.set_machine_lease(lease.id);
        let write =
            StoreWrite { when: vec![condition], then: vec![writes::presence_operation(&self.own_record())] };
        let committed = self.store.commit_write(&write).await?;
        if committed.succeeded {
            self.remember_lease(lease);
            return Ok(Some(committed.revision));
        }
        self.store.set_machine_lease(LeaseId::NONE);
        self.lease.send_replace(None);
        // The file may name a registration that went to a clone while this machine was away.
        let _ = std::fs::remove_file(&self.lease_file);
        self.store.revoke_lease(lease.id).await?;
        self.store.wait_for_revision(committed.revision).await;
        Ok(None)
    }

    fn remember_lease(&self, lease: HeldLease) {
        let registration = FormerRegistration {
            lease: lease.id,
            machine: self.own_record().machine.id,
            prefix: self.store.key_prefix(),
        };
        if let Err(error) = registration.write(&self.lease_file) {
            tracing::warn!(path = %self.lease_file.display(), %error, "a restart of fleetd will be noticed by the cluster");
        }
    }

    fn find_occupant(&self) -> Option<PresenceRecord> {
        let me = self.own_record().machine.id;
        self.store.with_view(|picture| picture.presence_of(&me).cloned())
    }

    /// Says why this machine is not in the cluster, and waits until it may be.
    async fn stay_out(&self, occupant: Option<PresenceRecord>, exclusion: &mut Exclusion) {
        self.store.set_registered(false);
        let mut changes = self.store.subscribe_changes();
        let Some(occupant) = occupant else {
            // It went meanwhile, or its record cannot be read.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return;
        };
        let reason = exclusion.explain_exclusion(&self.own_record(), &occupant, self.ttl);
        self.store.set_excluded(Some(reason));
        let me = occupant.machine.id;
        let vacated = async {
            loop {
                match changes.recv().await {
                    Ok(ClusterChange::Machine(id)) if id != me => {}
                    Ok(ClusterChange::Machine(_) | ClusterChange::Everything) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        // A change of the words is due when the TTL is over, whether or not anything happens.
        let _ = tokio::time::timeout(self.ttl, vacated).await;
    }

    /// Shows every renewal to those who watch the lease; ends when renewals stay out for a full TTL.
    async fn pass_on(&self, mut renewals: watch::Receiver<HeldLease>) {
        loop {
            let lease = *renewals.borrow_and_update();
            self.lease.send_replace(Some(lease));
            tokio::select! {
                changed = renewals.changed() => if changed.is_err() { return },
                // The fence works with what is left of a lease; past its end there is nothing to guard.
                () = lease.deadline().sleep_until() => return,
            }
        }
    }

    /// Says anew what the machine is whenever that changes; ends when somebody else says something else.
    async fn republish_changes(&self, revisions: &mut watch::Receiver<PresenceRecord>) {
        loop {
            tokio::select! {
                // A change of ours first: it changes the record that the other branch compares with.
                biased;
                Ok(()) = revisions.changed() => self.write_record().await,
                () = self.forget_presence() => return,
            }
        }
    }

    async fn write_record(&self) {
        let lease = self.lease.borrow().map_or(LeaseId::NONE, |lease| lease.id);
        loop {
            let record = self.own_record();
            // A clone that came while this machine was cut off is not overwritten either.
            let when = vec![WriteCondition::LivesBy(StoreKey::Presence(record.machine.id.clone()), lease)];
            let write = StoreWrite { when, then: vec![writes::presence_operation(&record)] };
            match self.store.commit_write(&write).await {
                Ok(committed) if self.store.wait_for_revision(committed.revision).await => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(reason = %error_chain(&error), "cannot say yet what this machine is now");
                }
            }
            // What changed is only what the machine says of itself. Half a second later is early enough.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn forget_presence(&self) {
        let mut changes = self.store.subscribe_changes();
        let me = self.own_record().machine.id;
        loop {
            let ours = self.store.with_view(|picture| picture.presence_of(&me) == Some(&self.own_record()));
            if !ours {
                return;
            }
            while let Ok(change) = changes.recv().await {
                if matches!(&change, ClusterChange::Machine(id) if *id == me)
                    || change == ClusterChange::Everything
                {
                    break;
                }
            }
        }
    }
}
