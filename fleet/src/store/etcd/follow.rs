//! Keeps the picture up with the store.
//!
//! ```text
//!  read everything at revision R --> watch from R+1 --(stream breaks)--> watch from the last revision+1
//!        ^                                                                        |
//!        +------------------------(history compacted away)------------------------+
//! ```

use std::{sync::PoisonError, sync::atomic::Ordering, time::Duration};

use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse};

use super::{EtcdStore, StoreError};
use crate::store::{
    keys::StoreKey,
    picture::{KeyEvent, UnreadableValue},
    records::{FORMAT, SchemaRecord, decode_record},
    registry::ClusterChange,
    revision::Revision,
};
use error_text::error_chain;

/// Keys read with one request.
// gRPC bounds one message, and a tree of ten thousand units is larger than that. A page of a thousand keys
// is some hundred KiB of usual records.
const PAGE: i64 = 1000;
/// The largest answer: a page of the largest records would be larger, but nobody stores those.
const LARGEST_ANSWER: usize = 256 << 20;

impl EtcdStore {
    /// Follows the store for ever.
    pub async fn follow_store(&self) {
        let mut pause = Duration::from_millis(50);
        let mut read_anew = true;
        loop {
            let error = match self.follow_once(&mut read_anew).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // What was not taken in is not known: the next reading must be a complete one.
            read_anew |= matches!(error, StoreError::TooOld { .. });
            let worked = self.hearing.borrow().lost.is_none();
            self.mark_disconnected(&error);
            // One quick try elsewhere, then ever slower.
            pause = if worked { Duration::from_millis(50) } else { (pause * 2).min(Duration::from_secs(2)) };
            tokio::time::sleep(pause).await;
        }
    }

    fn mark_disconnected(&self, error: &StoreError) {
        let reason = error_chain(error);
        tracing::warn!(%reason, "lost the store; units keep running");
        self.hearing.send_modify(|hearing| {
            hearing.lost = Some(reason);
            hearing.steady_since = self.now();
        });
    }

    async fn follow_once(&self, read_anew: &mut bool) -> Result<std::convert::Infallible, StoreError> {
        if *read_anew {
            self.read_everything().await?;
            *read_anew = false;
        }
        let (client, at) = self.current_client().await?;
        let endpoint = self.shown_endpoint(at);
        // From the revision behind the one shown: what is shown was read completely, so no event comes
        // twice and none is left out.
        let from = self.revision.borrow().next();
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(from.0)
            .with_progress_notify()
            .with_fragment();
        let prefix = self.with_view(|picture| picture.key_space().key_prefix().to_owned());
        let mut watch = client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
        let limit = self.settings.request_timeout;
        let etcd = |action, source| StoreError::Etcd {
            action,
            endpoint: endpoint.clone(),
            source: Box::new(source),
        };
        let result = async {
            let opened = tokio::time::timeout(limit, watch.watch(prefix, Some(options))).await;
            let timeout = || StoreError::Timeout { action: "watch", endpoint: endpoint.clone(), limit };
            let mut stream = opened.map_err(|_| timeout())?.map_err(|source| etcd("watch", source))?;
            // The answer says when all that happened before now has been told.
            stream.request_progress().await.map_err(|source| etcd("watch", source))?;
            loop {
                let message = if self.hearing.borrow().lost.is_some() {
                    tokio::time::timeout(limit, stream.message()).await.map_err(|_| timeout())?
                } else {
                    stream.message().await
                };
                let Some(message) = message.map_err(|source| etcd("watch", source))? else {
                    return Err(StoreError::WatchEnded {
                        endpoint: endpoint.clone(),
                        reason: "no reason".to_owned(),
                    });
                };
                if message.canceled() {
                    // etcd forgets old revisions (`--auto-compaction`). A watch from one of those ends with
                    // this number, and nothing but reading everything helps.
                    *read_anew |= message.compact_revision() != 0;
                    let reason = message.cancel_reason().to_owned();
                    return Err(StoreError::WatchEnded { endpoint: endpoint.clone(), reason });
                }
                self.apply_response(&message)?;
            }
        }
        .await;
        self.fail_over(at).await;
        result
    }

    fn apply_response(&self, message: &WatchResponse) -> Result<(), StoreError> {
        let header = message.header();
        self.heard_term(header.map_or(0, etcd_client::ResponseHeader::raft_term));
        let mut changes = Vec::new();
        let reached = {
            let mut picture = self.picture.write().unwrap_or_else(PoisonError::into_inner);
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                let value = (event.event_type() == EventType::Put).then(|| kv.value().to_vec());
                let (revision, created) = (Revision(kv.mod_revision()), Revision(kv.create_revision()));
                let event = KeyEvent { key: kv.key().to_vec(), value, revision, created };
                log_unreadable(picture.apply_event(&event, &mut changes).err());
            }
            // Without events the answer is about progress: everything up to here has been told.
            if message.events().is_empty() && !message.created() {
                picture.advance_to(Revision(header.map_or(0, etcd_client::ResponseHeader::revision)));
            }
            Self::check_schema(picture.newer_schema())?;
            picture.cluster().revision
        };
        self.revision.send_if_modified(|current| std::mem::replace(current, reached) != reached);
        for change in changes {
            self.send_change(change);
        }
        if !message.created() {
            self.mark_connected();
        }
        Ok(())
    }

    /// Whether a newer fleetd has shut this one out: asked before everything is read, since it may be
    /// asked for a long time.
    async fn ask_for_schema(&self) -> Result<(), StoreError> {
        let key = self.with_view(|picture| picture.key_space().key_path(&StoreKey::Schema));
        let answer =
            self.call_member("read the schema", async |mut client| client.get(key, None).await).await?;
        Self::check_schema(answer.kvs().first().and_then(|kv| decode_record(kv.value()).ok()).as_ref())
    }

    fn check_schema(schema: Option<&SchemaRecord>) -> Result<(), StoreError> {
        match schema {
            Some(schema) if schema.oldest_reader > FORMAT => {
                Err(StoreError::TooOld { needed: schema.oldest_reader, known: FORMAT })
            }
            _ => Ok(()),
        }
    }

    fn mark_connected(&self) {
        self.hearing.send_if_modified(|hearing| {
            let regained = hearing.lost.take().is_some();
            if regained {
                hearing.steady_since = self.now();
                tracing::info!("the store answers");
            }
            regained
        });
    }

    /// Reads all keys, page by page, all at the revision of the first page.
    async fn read_everything(&self) -> Result<(), StoreError> {
        self.ask_for_schema().await?;
        let prefix = self.with_view(|picture| picture.key_space().key_prefix().as_bytes().to_vec());
        let mut end = prefix.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let mut entries = Vec::new();
        // All pages at the revision of the first: otherwise the view would mix two states of the store,
        // such as a unit that is on two machines.
        let (mut start, mut revision) = (prefix, Revision::NEVER);
        loop {
            let options =
                GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision.0);
            let from = start.clone();
            let mut answer = self
                .call_member("read everything", async |client| {
                    let mut kv = client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
                    kv.get(from, Some(options)).await
                })
                .await?;
            if let Some(header) = answer.header() {
                if revision == Revision::NEVER {
                    revision = Revision(header.revision());
                }
                self.term.fetch_max(i64::try_from(header.raft_term()).unwrap_or(i64::MAX), Ordering::Relaxed);
            }
            let more = answer.more();
            let page = answer.take_kvs();
            let Some(last) = page.last() else { break };
            start = [last.key(), &[0]].concat();
            entries.extend(page.into_iter().map(|kv| KeyEvent {
                revision: Revision(kv.mod_revision()),
                created: Revision(kv.create_revision()),
                key: kv.key().to_vec(),
                value: Some(kv.value().to_vec()),
            }));
            if !more {
                break;
            }
        }
        let count = entries.len();
        let mut picture = self.picture.write().unwrap_or_else(PoisonError::into_inner);
        picture.reset_to(&entries, revision).into_iter().for_each(|bad| log_unreadable(Some(bad)));
        Self::check_schema(picture.newer_schema())?;
        drop(picture);
        self.revision.send_replace(revision);
        self.send_change(ClusterChange::Everything);
        tracing::info!(%revision, keys = count, "read the store");
        Ok(())
    }
}

fn log_unreadable(unreadable: Option<UnreadableValue>) {
    if let Some(UnreadableValue { key, source }) = unreadable {
        tracing::warn!(%key, reason = %error_chain(&source), "ignoring what cannot be read");
    }
}
