//! Reboot slots in etcd: read in the picture, changed by compare and swap.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{ATTEMPTS, EtcdStore, StoreError};
use crate::{
    lock::{
        LockError, RebootLocks,
        semaphore::{GroupName, GroupSemaphore, LockHolder, NoFreeSlot},
    },
    store::writes,
};

impl EtcdStore {
    /// Changes the slots of a group until nobody else was faster. `change` returns the slots as they
    /// should be, or why not.
    async fn change_slots(
        &self,
        action: &'static str,
        group: &GroupName,
        change: impl Fn(GroupSemaphore) -> Result<GroupSemaphore, LockError>,
    ) -> Result<GroupSemaphore, LockError> {
        let failed =
            |source: StoreError| LockError::Store { action, group: group.clone(), source: Box::new(source) };
        let mut failures = 0;
        for _ in 0..ATTEMPTS {
            let (before, revision) = self.with_view(|picture| picture.reboot_lock(group));
            // Even a refusal has to be sure that it looked at the latest slots: an unchanged write is one.
            let wanted = change(before.clone());
            let after = wanted.as_ref().unwrap_or(&before).clone();
            match self.commit_write(&writes::semaphore_write(group, &after, revision)).await {
                Ok(committed) => {
                    self.wait_for_revision(committed.revision).await;
                    if committed.succeeded {
                        return wanted.map(|_| before);
                    }
                }
                Err(error) if failures == 2 => return Err(failed(error)),
                Err(_) => failures += 1,
            }
        }
        Err(LockError::Contended { action, group: group.clone() })
    }
}

fn slots_full(group: &GroupName, slots: &GroupSemaphore) -> LockError {
    let holders: Vec<&str> = slots.holders.iter().map(|holder| holder.id.as_str()).collect();
    LockError::Full { group: group.clone(), max: slots.max, holders: holders.join(", ") }
}

impl RebootLocks for EtcdStore {
    async fn acquire(&self, group: &GroupName, id: &str, reason: &str) -> Result<(), LockError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let holder = LockHolder { id: id.to_owned(), since, reason: reason.to_owned() };
        let take = |slots: GroupSemaphore| {
            slots.clone().acquire_slot(holder.clone()).map_err(|NoFreeSlot| slots_full(group, &slots))
        };
        self.change_slots("take a slot of", group, take).await.map(drop)
    }

    async fn release(&self, group: &GroupName, id: &str) -> Result<bool, LockError> {
        let before =
            self.change_slots("release a slot of", group, |slots| Ok(slots.release_slot(id))).await?;
        Ok(before.slot_holder(id).is_some())
    }

    async fn set_max(&self, group: &GroupName, max: u32) -> Result<u32, LockError> {
        let before = self
            .change_slots("set the maximum of", group, |slots| Ok(GroupSemaphore { max, ..slots }))
            .await?;
        Ok(before.max)
    }

    async fn group(&self, group: &GroupName) -> Result<GroupSemaphore, LockError> {
        Ok(self.with_view(|picture| picture.reboot_lock(group).0))
    }

    async fn groups(&self) -> Result<Vec<(GroupName, GroupSemaphore)>, LockError> {
        Ok(self.with_view(|picture| {
            picture.reboot_locks().map(|(group, slots)| (group.clone(), slots.clone())).collect()
        }))
    }
}
