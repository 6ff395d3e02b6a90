//! Does the same to many things at once, a few at a time: a thousand units are a thousand requests.

use std::sync::Mutex;
use std::thread;

/// How many are under way at once: a server commits together what comes together.
// Commands that arrive together share a transaction of the server. Eight were tried first; with 32 a
// thousand units need thirty round trips.
const AT_ONCE: usize = 32;
/// Up to this many are done one after the other: a person sees them placed in the order they were typed.
const FEW: usize = 8;

/// What `act` makes of each item, in the order of the items.
pub fn map_parallel<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() <= FEW {
        return items.iter().map(act).collect();
    }
    // One list for all workers and no equal shares: a slow request holds up only itself.
    let waiting = Mutex::new(items.iter().enumerate());
    let next = || waiting.lock().ok()?.next();
    let work = || {
        let mut done = Vec::new();
        while let Some((index, item)) = next() {
            done.push((index, act(item)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(items.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();

        assert_eq!(
            map_parallel(&items, |item| item * 2),
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        assert!(map_parallel(&[] as &[u32], |item| *item).is_empty());
    }
}
