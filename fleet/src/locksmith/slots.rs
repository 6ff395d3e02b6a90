//! The slots of one group, wherever they are kept.

use super::arguments::{EtcdPlace, LocksmithSettings, SlotPlace};
use crate::api::locks;
use crate::api::schema::LockGroup;
use crate::ctl::client::{ApiClient, ApiError};
use crate::ctl::dial::{self, DialError};
use crate::ctl::settings::ClientSettings;
use crate::lock::semaphore::GroupName;
use crate::lock::{LockError, RebootLocks};
use crate::store::etcd::{EtcdSettings, EtcdStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long etcd may take to answer at first, every endpoint tried.
// locksmithctl answers a script that waits. Longer than one election of etcd takes (a second by default).
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(2);

/// Why nothing was done with the slots.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot reach fleetd")]
    Dial(#[source] DialError),
    #[error("semaphore is at 0, held by {0}")]
    Full(String),
    #[error(transparent)]
    Lock(LockError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot start to talk to etcd")]
    Runtime(#[source] io::Error),
    #[error("cannot reach etcd at {endpoints}: {reason}")]
    Unreachable { endpoints: String, reason: String },
}

/// The slots of one group.
pub(super) struct RebootSlots {
    group: GroupName,
    keeper: SlotKeeper,
}

enum SlotKeeper {
    Etcd { runtime: Runtime, store: Arc<EtcdStore> },
    Fleetd(ApiClient),
}

impl RebootSlots {
    /// Finds the slots.
    pub(super) fn find_slots(settings: &LocksmithSettings) -> Result<Self, SlotError> {
        let keeper = match &settings.place {
            SlotPlace::Etcd(place) => open_etcd(place)?,
            SlotPlace::Fleetd(endpoint) => {
                let agent = dial::http_agent(endpoint, &ClientSettings::for_endpoint(endpoint.clone()));
                SlotKeeper::Fleetd(ApiClient::new(agent.map_err(SlotError::Dial)?, endpoint))
            }
        };
        Ok(Self { group: settings.group.clone(), keeper })
    }

    /// How things stand.
    pub(super) fn read_group(&self) -> Result<LockGroup, SlotError> {
        match &self.keeper {
            SlotKeeper::Etcd { runtime, store } => {
                let semaphore = runtime.block_on(store.group(&self.group)).map_err(lock_error)?;
                Ok(locks::to_wire(&self.group, &semaphore))
            }
            SlotKeeper::Fleetd(client) => Ok(client.lock_group(self.group.as_str())?),
        }
    }

    /// Takes a slot; it may be held already.
    pub(super) fn take_slot(&self, id: &str, reason: &str) -> Result<(), SlotError> {
        match &self.keeper {
            SlotKeeper::Etcd { runtime, store } => {
                let outcome = runtime.block_on(store.acquire(&self.group, id, reason));
                outcome.map_err(full_or)
            }
            SlotKeeper::Fleetd(client) => {
                client.take_lock(self.group.as_str(), id, reason).map_err(|error| self.refused_error(error))
            }
        }
    }

    /// Takes a slot as a machine does that will reboot: fleetd may empty it first, which takes its time.
    pub(super) fn take_to_reboot(&self, id: &str, reason: &str) -> Result<(), SlotError> {
        let SlotKeeper::Fleetd(client) = &self.keeper else { return self.take_slot(id, reason) };
        self.take_slot(id, reason)?;
        loop {
            match client.pre_reboot(self.group.as_str(), id) {
                Err(ApiError::Status { code: 503, message, .. }) if message.contains("drain_pending") => {}
                outcome => return outcome.map_err(|error| self.refused_error(error)),
            }
        }
    }

    /// Gives a slot back; whether it was held.
    pub(super) fn give_back(&self, id: &str) -> Result<bool, SlotError> {
        match &self.keeper {
            SlotKeeper::Etcd { runtime, store } => {
                runtime.block_on(store.release(&self.group, id)).map_err(lock_error)
            }
            SlotKeeper::Fleetd(client) => Ok(client.release_lock(self.group.as_str(), id)?),
        }
    }

    /// Sets the number of slots; the number there was.
    pub(super) fn set_max(&self, max: u32) -> Result<u32, SlotError> {
        match &self.keeper {
            SlotKeeper::Etcd { runtime, store } => {
                runtime.block_on(store.set_max(&self.group, max)).map_err(lock_error)
            }
            SlotKeeper::Fleetd(client) => {
                let old = client.lock_group(self.group.as_str())?.max;
                client.set_max(self.group.as_str(), max)?;
                Ok(old)
            }
        }
    }

    /// 423 means that no slot is free; who is in the way is worth a second question.
    fn refused_error(&self, error: ApiError) -> SlotError {
        let ApiError::Status { code: 423, .. } = error else { return SlotError::Api(error) };
        let holders = self.read_group().map(|group| group.holders).unwrap_or_default();
        SlotError::Full(holders.into_iter().map(|holder| holder.id).collect::<Vec<_>>().join(", "))
    }
}

fn full_or(error: LockError) -> SlotError {
    match error {
        LockError::Full { holders, .. } => SlotError::Full(holders),
        other => SlotError::Lock(other),
    }
}

fn lock_error(error: LockError) -> SlotError {
    SlotError::Lock(error)
}

fn open_etcd(place: &EtcdPlace) -> Result<SlotKeeper, SlotError> {
    let identity = match &place.identity {
        Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
        None => None,
    };
    let settings = EtcdSettings {
        endpoints: place.endpoints.clone(),
        prefix: place.prefix.clone(),
        request_timeout: REQUEST,
        ca: place.ca.as_deref().map(read).transpose()?,
        identity,
        user: place.user.clone(),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SlotError::Runtime)?;
    let store = Arc::new(EtcdStore::new(settings));
    let heard = runtime.block_on(async {
        let follower = store.clone();
        tokio::spawn(async move { follower.follow_store().await });
        let mut hearing = store.watch_connectivity();
        let heard = tokio::time::timeout(PATIENCE, hearing.wait_for(|hearing| hearing.lost.is_none())).await;
        matches!(heard, Ok(Ok(_)))
    });
    if heard {
        return Ok(SlotKeeper::Etcd { runtime, store });
    }
    let reason = store.watch_connectivity().borrow().lost.clone().unwrap_or_default();
    Err(SlotError::Unreachable { endpoints: place.endpoints.join(", "), reason })
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, SlotError> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|source| SlotError::Read { path: path.to_owned(), source })
}
