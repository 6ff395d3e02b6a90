//! Wakes a waiting verb when the cluster changed.
//!
//! Knows the server's watch and its absence. Refuses to know what is waited for: a wake-up says that something changed,
//! not what.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use super::{ATTEMPT, WaitLimit};
use crate::ctl::client::ApiClient;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often to look where there is no watch: as often as the original did.
const POLL: Duration = Duration::from_millis(250);
// How long events are gathered before the next look. A start of a thousand units is thousands of events: a look at
// each would keep server and client busy with nothing else. In between, a look that takes long is taken seldom, so that
// at most a fifth of the time is spent on looking.
/// So short that nobody sees it, and long enough that the events of one change come together.
const MIN_GATHER: Duration = Duration::from_millis(5);
/// Longer than that, and a person would wonder whether anything happens.
const MAX_GATHER: Duration = Duration::from_millis(500);

/// Wakes us when something in the cluster changed.
#[derive(Debug)]
pub struct ChangeNotifier {
    changes: Option<Receiver<()>>,
    /// When the last wait ended: a look began then.
    woke: Instant,
}

impl ChangeNotifier {
    /// One that fits how long the verb waits: who does not wait needs no watch.
    #[must_use]
    pub fn for_limit(client: &ApiClient, limit: WaitLimit) -> Self {
        if limit == WaitLimit::None { Self::polling_only() } else { Self::start_listening(client) }
    }

    /// Starts to listen. Open it before the change is asked for, and no wake-up is missed.
    #[must_use]
    pub fn start_listening(client: &ApiClient) -> Self {
        let Ok(events) = client.watch_events() else { return Self::polling_only() };
        let (sender, receiver) = channel();
        // The thread ends with the stream, with the receiver, or with the process.
        std::thread::spawn(move || events.map(|_| sender.send(())).find(Result::is_err));
        Self { changes: Some(receiver), woke: Instant::now() }
    }

    /// Never rings: looks every 250 ms.
    #[must_use]
    pub fn polling_only() -> Self {
        Self { changes: None, woke: Instant::now() }
    }

    /// The first look begins now.
    pub(super) fn reset_pause(&mut self) {
        self.woke = Instant::now();
    }

    /// Sleeps until something changed, at most until `deadline`.
    pub fn wait_for_change(&mut self, deadline: Option<Instant>) {
        let looked = self.woke.elapsed();
        let longest = if self.changes.is_some() { ATTEMPT } else { POLL };
        let left = deadline.map_or(longest, |at| at.saturating_duration_since(Instant::now()).min(longest));
        let outcome = self.changes.as_ref().map(|changes| changes.recv_timeout(left));
        match outcome {
            None => std::thread::sleep(left),
            Some(Err(RecvTimeoutError::Disconnected)) => self.changes = None,
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Ok(())) => {
                let pause = (looked * 4).clamp(MIN_GATHER, MAX_GATHER);
                std::thread::sleep(pause.min(left.max(MIN_GATHER)));
                self.changes.iter().flat_map(Receiver::try_iter).for_each(drop);
            }
        }
        self.woke = Instant::now();
    }
}
