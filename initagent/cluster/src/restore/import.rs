//! Writes the keys of a backup into a cluster that lives.
//!
//! Knows which keys are a person's, and which a running program's. Refuses to remove any. Invariant: a key with a
//! lease is left out: it says that a program of that day was alive.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    RestoreError, RestoreRun, RestoredMember, ScratchMember, ScratchStart, count_written, restore_snapshot,
};
use crate::backup::classic::{EntryOutcome, write_entry};
use crate::backup::{Backup, MODERN_FILE, kept_entries};
use crate::etcd_client::{CallError, EtcdClient, decode_bytes, decode_number, encode_bytes};

/// Keys of one question; with values of 1.5 MiB at most, an answer stays below the client's limit.
const PAGE: u64 = 100;

/// What came of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// Keys of version 3 that are written, or would be.
    pub modern_written: usize,
    /// Keys of version 3 that have the backup's value.
    pub modern_same: usize,
    /// Keys of version 3 with a lease, which are left out.
    pub leased: usize,
    /// Keys and folders of version 2 that are written, or would be.
    pub classic_written: usize,
    /// Keys and folders of version 2 that are as in the backup.
    pub classic_same: usize,
}

/// Writes the keys of a backup to the cluster of `endpoint`. A member on the backup's data runs meanwhile, in `work`.
pub fn import_keys(
    client: &EtcdClient,
    endpoint: &str,
    backup: &Backup,
    (member, work): (&RestoredMember, &Path),
    run: RestoreRun,
) -> Result<ImportReport, RestoreError> {
    let data = work.join("import");
    restore_snapshot(&backup.folder.join(MODERN_FILE), member, &data)?;
    let scratch = ScratchMember::start(client, &data, &member.keys, ScratchStart::AsWritten)?;
    let mut report = ImportReport::default();
    let mut next = vec![0];
    loop {
        let page = read_page(client, &scratch.endpoint, &next)?;
        let keys = page["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        for key in keys {
            import_key(client, endpoint, key, run, &mut report)?;
        }
        match keys.last() {
            Some(last) if page["more"].as_bool() == Some(true) => {
                next = decode_bytes(&last["key"]);
                next.push(0);
            }
            _ => break,
        }
    }
    let entries = kept_entries(backup)?;
    if run == RestoreRun::Dry {
        report.classic_written = entries.len();
        return Ok(report);
    }
    let outcomes: Result<Vec<EntryOutcome>, CallError> =
        entries.iter().map(|entry| write_entry(client, endpoint, entry)).collect();
    report.classic_written = count_written(&outcomes?);
    report.classic_same = entries.len() - report.classic_written;
    Ok(report)
}

fn read_page(client: &EtcdClient, endpoint: &str, from: &[u8]) -> Result<Value, CallError> {
    let arguments = json!({ "key": encode_bytes(from), "range_end": encode_bytes(b"\0"), "limit": PAGE });
    client.call(endpoint, "kv/range", &arguments)
}

fn import_key(
    client: &EtcdClient,
    endpoint: &str,
    kept: &Value,
    run: RestoreRun,
    report: &mut ImportReport,
) -> Result<(), CallError> {
    if decode_number(&kept["lease"]) != 0 {
        report.leased += 1;
        return Ok(());
    }
    let now = client.call(endpoint, "kv/range", &json!({ "key": kept["key"] }))?;
    let now = &now["kvs"][0];
    if !now.is_null() && decode_bytes(&now["value"]) == decode_bytes(&kept["value"]) {
        report.modern_same += 1;
        return Ok(());
    }
    report.modern_written += 1;
    if run == RestoreRun::Real {
        client.call(endpoint, "kv/put", &json!({ "key": kept["key"], "value": kept["value"] }))?;
    }
    Ok(())
}
