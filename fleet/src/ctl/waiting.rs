//! Waits until units are where they should be.
//!
//! The server's watch wakes us, so that a unit which is up in milliseconds is reported in milliseconds;
//! what we believe is always read anew, so that a watch which says too much, too little or nothing (an old
//! fleet has none) costs time, not truth. Without a watch we look every 250 ms, as the original does.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

pub mod activity;
pub mod content;
pub mod disappearance;
pub mod lookup;
pub mod notifier;
pub mod unit_state;

use super::arguments::WaitArguments;
use super::session::{CommandError, CommandSession};
use notifier::ChangeNotifier;
use std::time::{Duration, Instant};

/// One "attempt" of `--block-attempts`, and how long a unit may be launched without becoming active.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long a verb waits for its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitLimit {
    /// Until it happens.
    Endless,
    /// Not at all.
    None,
    /// This many times two seconds.
    Attempts(u32),
    /// At most this long.
    AtMost(Duration),
}

impl From<WaitArguments> for WaitLimit {
    fn from(arguments: WaitArguments) -> Self {
        if arguments.no_block { Self::None } else { Self::of_attempts(arguments.block_attempts) }
    }
}

impl WaitLimit {
    /// The meaning of `--block-attempts=N`.
    #[must_use]
    pub fn of_attempts(attempts: i64) -> Self {
        match u32::try_from(attempts) {
            Ok(attempts @ 1..) => Self::Attempts(attempts),
            Ok(0) => Self::Endless,
            Err(_) => {
                if attempts > 0 {
                    Self::Endless
                } else {
                    Self::None
                }
            }
        }
    }

    fn deadline(self, from: Instant) -> Option<Instant> {
        match self {
            Self::Attempts(attempts) => from.checked_add(ATTEMPT.saturating_mul(attempts)),
            Self::AtMost(length) => from.checked_add(length),
            Self::Endless => None,
            Self::None => Some(from),
        }
    }
}

/// Something that a verb waits for.
trait Awaited {
    /// How it ended.
    type Outcome;

    /// Looks once. `None` if it is not over.
    fn look(&mut self, session: &mut CommandSession<'_>) -> Result<Option<Self::Outcome>, CommandError>;

    /// What is said when it is not over in time.
    fn timeout_text(&self, session: &mut CommandSession<'_>) -> String;

    /// What is done before each sleep, and when to look again at the latest.
    fn before_sleep(
        &mut self,
        _session: &mut CommandSession<'_>,
        _now: Instant,
    ) -> Result<Option<Instant>, CommandError> {
        Ok(None)
    }
}

/// The loop of every wait. The deadline comes after a look, so that what is there at once never times out; and before
/// [`Awaited::before_sleep`], so that a verb which ends anyway gives no hints.
fn wait_for<A: Awaited>(
    session: &mut CommandSession<'_>,
    awaited: impl FnOnce(Instant) -> A,
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<A::Outcome, CommandError> {
    notifier.reset_pause();
    // One instant for all that is counted from the start, so that limits of one length end together.
    let started = Instant::now();
    let mut awaited = awaited(started);
    let deadline = limit.deadline(started);
    loop {
        if let Some(outcome) = awaited.look(session)? {
            return Ok(outcome);
        }
        let now = Instant::now();
        if deadline.is_some_and(|at| at <= now) {
            return Err(CommandError::new(awaited.timeout_text(session)));
        }
        let look_again = awaited.before_sleep(session, now)?;
        notifier.wait_for_change([deadline, look_again].into_iter().flatten().min());
    }
}

/// Sleeps this long.
pub fn sleep_for(notifier: &mut ChangeNotifier, length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until {
        notifier.wait_for_change(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::{ApiUnit, UnitOption, UnitState};

    pub(super) fn unit(kind: &str) -> ApiUnit {
        let option = UnitOption { name: "Type".into(), section: "Service".into(), value: kind.into() };
        ApiUnit { name: "a.service".into(), options: vec![option], ..ApiUnit::default() }
    }

    pub(super) fn state(load: &str, active: &str) -> UnitState {
        UnitState {
            name: "a.service".into(),
            systemd_load_state: load.into(),
            systemd_active_state: active.into(),
            systemd_sub_state: "x".into(),
            ..UnitState::default()
        }
    }

    #[test]
    fn attempts_are_counted_in_twos() {
        let now = Instant::now();

        assert_eq!(WaitLimit::of_attempts(0), WaitLimit::Endless);
        assert_eq!(WaitLimit::of_attempts(-1), WaitLimit::None);
        assert_eq!(WaitLimit::Attempts(3).deadline(now), Some(now + Duration::from_secs(6)));
        assert_eq!(WaitLimit::Endless.deadline(now), None);
    }
}
