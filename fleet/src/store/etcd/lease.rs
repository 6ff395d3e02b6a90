//! A lease of etcd, kept alive as long as somebody answers.
//!
//! Knows when the lease was last renewed for sure, by the clock of this machine that a suspension does not
//! stop, since the store counts on meanwhile: the store cannot have
//! dropped it before that plus the TTL. Invariant: [`HeldLease::deadline`] never claims more than etcd
//! granted.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::sync::watch;

use super::{EtcdStore, StoreError};
use crate::store::{boot_time::BootTime, revision::LeaseId};

/// A lease that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    /// Its number.
    pub id: LeaseId,
    /// How long it lives without renewal.
    pub ttl: Duration,
    /// When the last renewal that succeeded was asked for.
    pub renewed: BootTime,
}

impl HeldLease {
    /// Until when etcd keeps it at least.
    #[must_use]
    pub fn deadline(&self) -> BootTime {
        self.renewed + self.ttl
    }
}

impl EtcdStore {
    /// Asks for a lease.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<HeldLease, StoreError> {
        let renewed = BootTime::now();
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let answer = self
            .call_member("get a lease", async |mut client| client.lease_grant(seconds, None).await)
            .await?;
        let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(1));
        Ok(HeldLease { id: LeaseId(answer.id()), ttl, renewed })
    }

    /// Takes up a lease from before, if it is still alive.
    pub async fn take_up(&self, id: LeaseId) -> Result<Option<HeldLease>, StoreError> {
        let renewed = BootTime::now();
        let answer = self
            .call_member("look up a lease", async |mut client| client.lease_time_to_live(id.0, None).await)
            .await?;
        let left = u64::try_from(answer.ttl()).unwrap_or(0);
        if left == 0 {
            return Ok(None);
        }
        // What is left is what is known; the first renewal brings the full time.
        let ttl = Duration::from_secs(u64::try_from(answer.granted_ttl()).unwrap_or(1));
        let spent = ttl.saturating_sub(Duration::from_secs(left));
        Ok(Some(HeldLease { id, ttl, renewed: renewed.minus(spent) }))
    }

    /// Gives a lease back, with all that lives by it.
    pub async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.call_member("revoke a lease", async |mut client| client.lease_revoke(id.0).await).await.map(drop)
    }

    /// Gives the leadership back, if this process has it, so that another one need not wait for its end.
    pub async fn resign_leadership(&self) {
        let lease = LeaseId(self.leader_lease.swap(LeaseId::NONE.0, Ordering::Relaxed));
        if lease != LeaseId::NONE
            && let Err(error) = self.revoke_lease(lease).await
        {
            tracing::debug!(reason = %error_text::error_chain(&error), "the leadership ends with its lease");
        }
    }

    /// Renews a lease every third of its time; returns when etcd says it is gone, or when nobody
    /// answered for so long that it must be.
    pub async fn keep_alive(&self, lease: &watch::Sender<HeldLease>) -> StoreError {
        loop {
            let Err(error) = self.keep_alive_once(lease).await;
            let deadline = lease.borrow().deadline();
            if matches!(error, StoreError::LeaseGone) || BootTime::now() >= deadline {
                return StoreError::LeaseGone;
            }
            tracing::debug!(reason = %error_text::error_chain(&error), "cannot renew the lease yet");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn keep_alive_once(
        &self,
        lease: &watch::Sender<HeldLease>,
    ) -> Result<std::convert::Infallible, StoreError> {
        let (mut client, at) = self.current_client().await?;
        let endpoint = self.shown_endpoint(at);
        let HeldLease { id, ttl, .. } = *lease.borrow();
        let limit = self.settings.request_timeout;
        let timeout = || StoreError::Timeout { action: "renew the lease", endpoint: endpoint.clone(), limit };
        let etcd = |source| StoreError::Etcd {
            action: "renew the lease",
            endpoint: endpoint.clone(),
            source: Box::new(source),
        };
        let result = async {
            let mut asked = BootTime::now();
            let opened =
                tokio::time::timeout(limit, client.lease_keep_alive(id.0)).await.map_err(|_| timeout())?;
            let (mut keeper, mut answers) = opened.map_err(|source| match source {
                etcd_client::Error::LeaseKeepAliveError(_) => StoreError::LeaseGone,
                source => etcd(source),
            })?;
            loop {
                keeper.keep_alive().await.map_err(etcd)?;
                let answer = tokio::time::timeout(limit, answers.message()).await.map_err(|_| timeout())?;
                let Some(answer) = answer.map_err(etcd)? else { return Err(timeout()) };
                if answer.ttl() <= 0 {
                    return Err(StoreError::LeaseGone);
                }
                self.heard_term(answer.header().map_or(0, etcd_client::ResponseHeader::raft_term));
                lease.send_modify(|lease| lease.renewed = asked);
                tokio::time::sleep(ttl / 3).await;
                asked = BootTime::now();
            }
        }
        .await;
        if !matches!(result, Err(StoreError::LeaseGone)) {
            self.fail_over(at).await;
        }
        result
    }
}
