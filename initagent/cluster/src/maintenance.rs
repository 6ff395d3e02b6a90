//! The daily care of etcd on one machine: who the members are by now, a backup, and room in its store.
//!
//! Knows when each is due. Refuses to wait: what fails today is done tomorrow. Invariants: a member is made to rewrite
//! its store only while all others answer, since it serves nobody meanwhile; and only its own machine does that.

use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use crate::backup::{BackupError, remove_oldest, take_backup};
use crate::condition::{ClusterHealth, MemberRole, observe_condition};
use crate::etcd::LOCAL;
use crate::etcd_client::{CallError, EtcdClient, decode_number};

/// Backups that the daily care keeps.
pub const DAYS_KEPT: usize = 7;
/// A store that is half empty and wastes less than this is left alone.
const LEAST_WASTE: u64 = 32 << 20;

/// Why the care was not taken.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum MaintenanceError {
    /// No backup.
    Backup(#[from] BackupError),
    /// etcd did not do it.
    Call(#[from] CallError),
}

/// What one member needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreState {
    /// How large its store is.
    pub store_bytes: u64,
    /// How much of that is used.
    pub used_bytes: u64,
    /// Whether it has raised the alarm that there is no space.
    pub is_full: bool,
    /// Whether all members answer.
    pub others: OtherMembers,
}

/// Whether the others go on while this one is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherMembers {
    /// All answer.
    Answer,
    /// Some do not.
    Missing,
}

/// Whether a store is to be rewritten without its gaps.
///
/// With the alarm nothing is written anywhere, so that there is nothing to lose by it.
#[must_use]
pub fn needs_defragmentation(store: &StoreState) -> bool {
    let waste = store.store_bytes.saturating_sub(store.used_bytes);
    let is_wasteful = waste >= LEAST_WASTE && waste > store.store_bytes / 2;
    store.is_full || (is_wasteful && store.others == OtherMembers::Answer)
}

/// Takes care of this machine's member. Says what was done.
pub fn maintain_member(
    client: &EtcdClient,
    members: &[SocketAddr],
    backups: &Path,
    now: Timestamp,
) -> Result<Vec<String>, MaintenanceError> {
    let endpoint = format!("https://{LOCAL}");
    let status = client.call(&endpoint, "maintenance/status", &json!({}))?;
    let own = decode_number(&status["header"]["member_id"]);
    let condition = observe_condition(client, members);
    let mut done = Vec::new();
    let is_full = condition.members.iter().any(|member| member.alarms.iter().any(|alarm| alarm == "NOSPACE"));
    let is_missing = condition.members.iter().any(|member| member.role == MemberRole::Silent);
    let store = StoreState {
        store_bytes: decode_number(&status["dbSize"]),
        used_bytes: decode_number(&status["dbSizeInUse"]),
        is_full,
        others: if is_missing { OtherMembers::Missing } else { OtherMembers::Answer },
    };
    if condition.health != ClusterHealth::NoQuorum {
        let taken = take_backup(client, &endpoint, backups, now)?;
        done.push(format!("backup at {}", taken.folder.display()));
        remove_oldest(backups, DAYS_KEPT)?;
    }
    if needs_defragmentation(&store) {
        done.extend(make_room(client, &endpoint, own, store)?);
    }
    Ok(done)
}

/// Compaction, defragmentation, and the end of the alarm: the order of etcd's own manual.
fn make_room(
    client: &EtcdClient,
    endpoint: &str,
    own: u64,
    store: StoreState,
) -> Result<Vec<String>, CallError> {
    if store.is_full {
        let status = client.call(endpoint, "maintenance/status", &json!({}))?;
        let revision = status["header"]["revision"].clone();
        // It may be compacted already, which is as good.
        let _ = client.call(endpoint, "kv/compaction", &json!({ "revision": revision, "physical": true }));
    }
    client.call(endpoint, "maintenance/defragment", &json!({}))?;
    let status = client.call(endpoint, "maintenance/status", &json!({}))?;
    let after = decode_number(&status["dbSize"]);
    let mut done =
        vec![format!("store rewritten: {} MiB became {} MiB", store.store_bytes >> 20, after >> 20)];
    if store.is_full {
        let alarm = json!({ "action": "DEACTIVATE", "memberID": own.to_string(), "alarm": "NOSPACE" });
        client.call(endpoint, "maintenance/alarm", &alarm)?;
        done.push("the alarm NOSPACE of this member is off".to_owned());
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_rewritten_when_it_is_full_or_half_empty_and_nobody_is_missing() {
        let store = |store_mib: u64, used_mib: u64, is_full, others| {
            needs_defragmentation(&StoreState {
                store_bytes: store_mib << 20,
                used_bytes: used_mib << 20,
                is_full,
                others,
            })
        };

        assert!(store(100, 10, false, OtherMembers::Answer));
        assert!(!store(100, 10, false, OtherMembers::Missing));
        assert!(!store(100, 60, false, OtherMembers::Answer));
        assert!(!store(20, 1, false, OtherMembers::Answer));
        assert!(store(512, 511, true, OtherMembers::Missing));
    }
}
