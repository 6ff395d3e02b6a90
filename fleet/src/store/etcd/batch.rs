//! Joins changes that are asked for at the same time into one transaction.
//!
//! While one transaction is under way the next one gathers, so that a thousand commands at once cost etcd
//! a few rounds, and a single one waits for nobody. Knows that each stays its own: it lies in the joint
//! transaction as a nested one, and fails alone when its conditions do not hold. Invariant: of two
//! changes of one key, the one asked for first is committed first, in a transaction before the other's.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use etcd_client::{Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::sync::oneshot;

use super::{CommitResult, EtcdStore, StoreError};
use crate::store::{
    keys::{KeySpace, StoreKey},
    revision::Revision,
    writes::{MAX_TRANSACTION_OPERATIONS, StoreWrite, WriteOperation},
};

/// A third of the 1.5 MiB that etcd takes in one request (`--max-request-bytes`): conditions and keys are not counted.
// A larger transaction would be refused as a whole, and with it the changes of others that only shared it.
const MAX_BATCH_BYTES: usize = 512 * 1024;

type CommitAnswer = Result<CommitResult, Arc<StoreError>>;

/// Changes that wait for their transaction.
#[derive(Debug, Default)]
pub(super) struct WriteBatcher {
    waiting: Mutex<VecDeque<WaitingWrite>>,
    // One transaction at a time: those who come while it is under way are gathered for the next one. A
    // timer was no alternative, since a single command would always wait for it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct WaitingWrite {
    write: StoreWrite,
    answer: oneshot::Sender<CommitAnswer>,
}

impl WriteBatcher {
    fn add(&self, write: StoreWrite) -> oneshot::Receiver<CommitAnswer> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(WaitingWrite { write, answer });
        answered
    }

    /// As many from the front as one transaction can hold.
    fn take_batch(&self) -> Vec<WaitingWrite> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Who does not wait any more does not want it any more.
        waiting.retain(|each| !each.answer.is_closed());
        let count = count_fitting(waiting.iter().map(|each| &each.write));
        waiting.drain(..count).collect()
    }
}

/// How many of these, from the first on, one transaction can hold: at least one.
fn count_fitting<'a>(writes: impl Iterator<Item = &'a StoreWrite>) -> usize {
    let (mut operations, mut bytes, mut changed) = (0, 0, BTreeSet::new());
    let mut count = 0;
    for write in writes {
        let (files, own) = split_write(write);
        operations += files.len() + 1;
        bytes += write.then.iter().map(operation_size).sum::<usize>();
        let fits = operations <= MAX_TRANSACTION_OPERATIONS && bytes <= MAX_BATCH_BYTES;
        let apart = own.iter().all(|operation| changed.insert(operation_key(operation)));
        if count > 0 && !(fits && apart) {
            break;
        }
        count += 1;
    }
    count
}

/// The unit files a change brings, which no condition needs to guard (equal key, equal value), and the rest.
fn split_write(write: &StoreWrite) -> (Vec<&WriteOperation>, Vec<&WriteOperation>) {
    write.then.iter().partition(|operation| matches!(operation, WriteOperation::Put(StoreKey::File(_), ..)))
}

fn operation_key(operation: &WriteOperation) -> &StoreKey {
    match operation {
        WriteOperation::Delete(key) | WriteOperation::Put(key, ..) => key,
    }
}

fn operation_size(operation: &WriteOperation) -> usize {
    match operation {
        WriteOperation::Delete(_) => 0,
        WriteOperation::Put(_, value, _) => value.len(),
    }
}

impl EtcdStore {
    /// Carries out a transaction, together with others that are asked for meanwhile.
    pub(super) async fn commit_among_others(&self, write: StoreWrite) -> Result<CommitResult, StoreError> {
        let mut answered = self.gathering.add(write);
        loop {
            let turn = self.gathering.turn.lock().await;
            match answered.try_recv() {
                Ok(answer) => return answer.map_err(StoreError::Joint),
                Err(oneshot::error::TryRecvError::Closed) => return Err(StoreError::Abandoned),
                Err(oneshot::error::TryRecvError::Empty) => self.commit_gathered().await,
            }
            drop(turn);
        }
    }

    async fn commit_gathered(&self) {
        let batch = self.gathering.take_batch();
        if let [one] = batch.as_slice() {
            let outcome = self.commit_write(&one.write).await.map_err(Arc::new);
            for each in batch {
                send_answer(each, outcome.clone());
            }
            return;
        }
        let (txn, files) = self.with_view(|picture| self.joint_txn(picture.key_space(), &batch));
        match self.call_member("write", async |mut client| client.txn(txn).await).await {
            Ok(response) => {
                let committed = self.commit_result(&response);
                let each_succeeded = response.op_responses().into_iter().skip(files).map(is_success);
                for (each, succeeded) in batch.into_iter().zip(each_succeeded) {
                    send_answer(each, Ok(CommitResult { succeeded, ..committed }));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for each in batch {
                    send_answer(each, Err(error.clone()));
                }
            }
        }
    }

    /// The transaction of all, and how many of its operations are unit files.
    fn joint_txn(&self, keys: &KeySpace, batch: &[WaitingWrite]) -> (Txn, usize) {
        let (mut files, mut own, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for each in batch {
            let (brought, rest) = split_write(&each.write);
            let new = brought.into_iter().filter(|operation| seen.insert(operation_key(operation)));
            files.extend(new.map(|operation| self.to_operation(keys, operation)));
            let rest =
                StoreWrite { when: each.write.when.clone(), then: rest.into_iter().cloned().collect() };
            own.push(TxnOp::txn(self.to_txn(keys, &rest)));
        }
        let count = files.len();
        files.extend(own);
        (Txn::new().and_then(files), count)
    }

    /// What a transaction came to.
    pub(super) fn commit_result(&self, response: &TxnResponse) -> CommitResult {
        let header = response.header();
        self.heard_term(header.map_or(0, etcd_client::ResponseHeader::raft_term));
        CommitResult {
            succeeded: response.succeeded(),
            revision: Revision(header.map_or(0, etcd_client::ResponseHeader::revision)),
        }
    }
}

fn send_answer(waiting: WaitingWrite, answer: CommitAnswer) {
    // Who went away in the meantime does not hear of it.
    let _ = waiting.answer.send(answer);
}

fn is_success(response: TxnOpResponse) -> bool {
    matches!(response, TxnOpResponse::Txn(txn) if txn.succeeded())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{unit_file::UnitHash, unit_name::UnitName},
        store::writes::KeyLifetime,
    };

    fn write(unit: &str, file: &str) -> StoreWrite {
        let unit = StoreKey::Unit(UnitName::parse(unit).unwrap());
        let put =
            |key, value: &str| WriteOperation::Put(key, value.as_bytes().to_vec(), KeyLifetime::Unlimited);
        StoreWrite {
            when: Vec::new(),
            then: vec![put(StoreKey::File(UnitHash::of_text(file)), file), put(unit, "{}")],
        }
    }

    #[test]
    fn units_of_one_text_go_together_and_changes_of_one_unit_do_not() {
        let writes = [write("a.service", "x"), write("b.service", "x"), write("a.service", "y")];

        assert_eq!(count_fitting(writes.iter()), 2);
    }

    #[test]
    fn what_is_too_much_waits_for_the_next_but_the_first_always_goes() {
        let many: Vec<StoreWrite> =
            (0..200).map(|number| write(&format!("u{number}.service"), "x")).collect();
        let large = [write("a.service", &"x".repeat(MAX_BATCH_BYTES)), write("b.service", "x")];

        assert_eq!(count_fitting(many.iter()), MAX_TRANSACTION_OPERATIONS / 2);
        assert_eq!(count_fitting(large.iter()), 1);
    }
}
