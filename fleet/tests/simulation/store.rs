//! A store that can be away, forgets its history and lets leases end.

use std::collections::BTreeMap;

use fleet::{
    model::moment::MonotonicTime,
    store::{
        keys::{DEFAULT_PREFIX, KeySpace, StoreKey},
        picture::KeyEvent,
        revision::Revision,
        writes::{KeyLifetime, StoreWrite, WriteCondition, WriteOperation},
    },
};

#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    pub(crate) created: Revision,
    pub(crate) changed: Revision,
    lease: Option<usize>,
}

/// What etcd does, as far as fleet relies on it.
pub(crate) struct Store {
    pub(crate) keys: KeySpace,
    pub(crate) data: BTreeMap<String, Stored>,
    pub(crate) revision: Revision,
    pub(crate) log: Vec<KeyEvent>,
    /// Events below this revision were compacted away.
    pub(crate) compacted: Revision,
    /// When each lease ends; machine `n` has lease `2n`, its engine `2n + 1`.
    pub(crate) leases: BTreeMap<usize, MonotonicTime>,
    pub(crate) up: bool,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            keys: KeySpace::with_prefix(DEFAULT_PREFIX),
            data: BTreeMap::new(),
            revision: Revision(1),
            log: Vec::new(),
            compacted: Revision::NEVER,
            leases: BTreeMap::new(),
            up: true,
        }
    }

    fn holds(&self, condition: &WriteCondition) -> bool {
        let find = |key: &StoreKey| self.data.get(&self.keys.key_path(key));
        match condition {
            WriteCondition::Absent(key) => find(key).is_none(),
            WriteCondition::Present(key) => find(key).is_some(),
            WriteCondition::Unchanged(key, revision) => {
                find(key).is_some_and(|stored| stored.changed == *revision)
            }
            WriteCondition::SameLife(key, created) => {
                find(key).is_some_and(|stored| stored.created == *created)
            }
            WriteCondition::LivesBy(key, lease) => find(key).is_some_and(|stored| {
                stored.lease.and_then(|lease| i64::try_from(lease).ok()) == Some(lease.0)
            }),
        }
    }

    /// `None` when the store is away; otherwise whether the conditions held.
    pub(crate) fn commit(&mut self, write: &StoreWrite, writer: usize) -> Option<bool> {
        if !self.up {
            return None;
        }
        if !write.when.iter().all(|condition| self.holds(condition)) {
            return Some(false);
        }
        self.revision = self.revision.next();
        for operation in &write.then {
            match operation {
                WriteOperation::Put(key, value, life) => {
                    let lease = match life {
                        KeyLifetime::Unlimited => None,
                        KeyLifetime::OfMachine => Some(2 * writer),
                        KeyLifetime::OfLeader => Some(2 * writer + 1),
                    };
                    if lease.is_some_and(|lease| !self.leases.contains_key(&lease)) {
                        continue;
                    }
                    self.put(self.keys.key_path(key), value.clone(), lease);
                }
                WriteOperation::Delete(key) => self.delete(&self.keys.key_path(key)),
            }
        }
        Some(true)
    }

    /// As several commands at once are committed: the unit files they bring are guarded by nothing.
    pub(crate) fn commit_among_others(&mut self, write: &StoreWrite, writer: usize) {
        let is_file =
            |operation: &WriteOperation| matches!(operation, WriteOperation::Put(StoreKey::File(_), ..));
        let (files, then) = write.then.iter().cloned().partition(is_file);
        self.commit(&StoreWrite { when: Vec::new(), then: files }, writer);
        self.commit(&StoreWrite { when: write.when.clone(), then }, writer);
    }

    fn put(&mut self, key: String, value: Vec<u8>, lease: Option<usize>) {
        let revision = self.revision;
        let created = self.data.get(&key).map_or(revision, |stored| stored.created);
        self.log.push(KeyEvent {
            key: key.clone().into_bytes(),
            value: Some(value.clone()),
            revision,
            created,
        });
        self.data.insert(key, Stored { value, created, changed: revision, lease });
    }

    fn delete(&mut self, key: &str) {
        if self.data.remove(key).is_some() {
            self.log.push(KeyEvent {
                key: key.as_bytes().to_vec(),
                value: None,
                revision: self.revision,
                created: Revision::NEVER,
            });
        }
    }

    /// Leases end only while somebody counts; after an outage each gets its full time anew.
    pub(crate) fn tick(&mut self, now: MonotonicTime) {
        if !self.up {
            return;
        }
        let ended: Vec<usize> =
            self.leases.iter().filter(|(_, end)| **end <= now).map(|(lease, _)| *lease).collect();
        for lease in ended {
            self.leases.remove(&lease);
            self.revision = self.revision.next();
            let keys: Vec<String> = self
                .data
                .iter()
                .filter(|(_, stored)| stored.lease == Some(lease))
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                self.delete(&key);
            }
        }
    }

    pub(crate) fn since(&self, revision: Revision) -> &[KeyEvent] {
        &self.log[self.log.partition_point(|event| event.revision <= revision)..]
    }

    pub(crate) fn everything(&self) -> Vec<KeyEvent> {
        let entry = |(key, stored): (&String, &Stored)| KeyEvent {
            key: key.clone().into_bytes(),
            value: Some(stored.value.clone()),
            revision: stored.changed,
            created: stored.created,
        };
        self.data.iter().map(entry).collect()
    }
}
