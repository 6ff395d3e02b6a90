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

use super::{Committed, EtcdStore, StoreError};
use crate::store::{
    keys::{Key, Keys},
    writes::{Operation, Write},
};

/// The most operations etcd takes in one transaction is 128.
const MOST_OPERATIONS: usize = 120;
/// The most bytes it takes is three times as much.
const MOST_BYTES: usize = 512 * 1024;

type Answer = Result<Committed, Arc<StoreError>>;

/// Changes that wait for their transaction.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    waiting: Mutex<VecDeque<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Waiting {
    write: Write,
    answer: oneshot::Sender<Answer>,
}

impl Gathering {
    fn add(&self, write: Write) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(Waiting { write, answer });
        answered
    }

    /// As many from the front as one transaction can hold.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Who does not wait any more does not want it any more.
        waiting.retain(|each| !each.answer.is_closed());
        let count = fitting(waiting.iter().map(|each| &each.write));
        waiting.drain(..count).collect()
    }
}

/// How many of these, from the first on, one transaction can hold: at least one.
fn fitting<'a>(writes: impl Iterator<Item = &'a Write>) -> usize {
    let (mut operations, mut bytes, mut changed) = (0, 0, BTreeSet::new());
    let mut count = 0;
    for write in writes {
        let (files, own) = parts(write);
        operations += files.len() + 1;
        bytes += write.then.iter().map(size).sum::<usize>();
        let fits = operations <= MOST_OPERATIONS && bytes <= MOST_BYTES;
        let apart = own.iter().all(|operation| changed.insert(key(operation)));
        if count > 0 && !(fits && apart) {
            break;
        }
        count += 1;
    }
    count
}

/// The unit files a change brings, which no condition needs to guard (equal key, equal value), and the rest.
fn parts(write: &Write) -> (Vec<&Operation>, Vec<&Operation>) {
    write.then.iter().partition(|operation| matches!(operation, Operation::Put(Key::File(_), ..)))
}

fn key(operation: &Operation) -> &Key {
    match operation {
        Operation::Delete(key) | Operation::Put(key, ..) => key,
    }
}

fn size(operation: &Operation) -> usize {
    match operation {
        Operation::Delete(_) => 0,
        Operation::Put(_, value, _) => value.len(),
    }
}

impl EtcdStore {
    /// Carries out a transaction, together with others that are asked for meanwhile.
    pub(super) async fn commit_among_others(&self, write: Write) -> Result<Committed, StoreError> {
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
        let batch = self.gathering.take();
        if let [one] = batch.as_slice() {
            let outcome = self.commit(&one.write).await.map_err(Arc::new);
            for each in batch {
                answer(each, outcome.clone());
            }
            return;
        }
        let (txn, files) = self.look(|picture| self.joint(picture.keys(), &batch));
        match self.request("write", async |mut client| client.txn(txn).await).await {
            Ok(response) => {
                let committed = self.committed(&response);
                let each_succeeded = response.op_responses().into_iter().skip(files).map(succeeded);
                for (each, succeeded) in batch.into_iter().zip(each_succeeded) {
                    answer(each, Ok(Committed { succeeded, ..committed }));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for each in batch {
                    answer(each, Err(error.clone()));
                }
            }
        }
    }

    /// The transaction of all, and how many of its operations are unit files.
    fn joint(&self, keys: &Keys, batch: &[Waiting]) -> (Txn, usize) {
        let (mut files, mut own, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for each in batch {
            let (brought, rest) = parts(&each.write);
            let new = brought.into_iter().filter(|operation| seen.insert(key(operation)));
            files.extend(new.map(|operation| self.operation(keys, operation)));
            let rest = Write { when: each.write.when.clone(), then: rest.into_iter().cloned().collect() };
            own.push(TxnOp::txn(self.txn(keys, &rest)));
        }
        let count = files.len();
        files.extend(own);
        (Txn::new().and_then(files), count)
    }

    /// What a transaction came to.
    pub(super) fn committed(&self, response: &TxnResponse) -> Committed {
        let header = response.header();
        self.heard_term(header.map_or(0, etcd_client::ResponseHeader::raft_term));
        Committed {
            succeeded: response.succeeded(),
            revision: header.map_or(0, etcd_client::ResponseHeader::revision),
        }
    }
}

fn answer(waiting: Waiting, answer: Answer) {
    // Who went away in the meantime does not hear of it.
    let _ = waiting.answer.send(answer);
}

fn succeeded(response: TxnOpResponse) -> bool {
    matches!(response, TxnOpResponse::Txn(txn) if txn.succeeded())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{unit_file::UnitHash, unit_name::UnitName},
        store::writes::Life,
    };

    fn write(unit: &str, file: &str) -> Write {
        let unit = Key::Unit(UnitName::parse(unit).unwrap());
        let put = |key, value: &str| Operation::Put(key, value.as_bytes().to_vec(), Life::Unlimited);
        Write { when: Vec::new(), then: vec![put(Key::File(UnitHash::of(file)), file), put(unit, "{}")] }
    }

    #[test]
    fn units_of_one_text_go_together_and_changes_of_one_unit_do_not() {
        let writes = [write("a.service", "x"), write("b.service", "x"), write("a.service", "y")];

        assert_eq!(fitting(writes.iter()), 2);
    }

    #[test]
    fn what_is_too_much_waits_for_the_next_but_the_first_always_goes() {
        let many: Vec<Write> = (0..200).map(|number| write(&format!("u{number}.service"), "x")).collect();
        let large = [write("a.service", &"x".repeat(MOST_BYTES)), write("b.service", "x")];

        assert_eq!(fitting(many.iter()), MOST_OPERATIONS / 2);
        assert_eq!(fitting(large.iter()), 1);
    }
}
