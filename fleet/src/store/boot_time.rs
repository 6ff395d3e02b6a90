//! Time as it passes for others: what the monotonic clock counts, and how long this machine was suspended.
//!
//! Knows how to wait for a moment so that a machine that wakes up too late notices at once. Refuses to know
//! dates. Invariant: it never goes back while the machine is up.

use std::{ops::Add, os::fd::OwnedFd, time::Duration};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A moment, by the time since the machine booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

// CLOCK_BOOTTIME and not CLOCK_MONOTONIC: etcd's leases run on while this machine is suspended
// (clock_gettime(2)).
impl BootTime {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        // Linux has this clock since 2.6.39, and reading it into valid memory cannot fail.
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
    }

    /// So long before; not before the boot.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }

    /// How long ago it was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// Returns when it has come; after a suspension at once, if it came meanwhile.
    pub async fn sleep_until(self) {
        loop {
            let left = self.0.saturating_sub(Self::now().0);
            if left.is_zero() {
                return;
            }
            match timer_after(left) {
                Ok(alarm) => {
                    // Whatever woke it up: the clock decides.
                    let _ = alarm.readable().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no alarm that counts suspensions");
                    tokio::time::sleep(left).await;
                }
            }
        }
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

fn timer_after(span: Duration) -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(TimerClock::CLOCK_BOOTTIME, flags)?;
    timer.set(Expiration::OneShot(TimeSpec::from(span)), TimerSetTimeFlags::empty())?;
    #[expect(unsafe_code, reason = "the runtime takes no descriptor of this kind in another way")]
    // SAFETY: the descriptor belongs to the value that is registered, which opens no other in its place,
    // so it is the same one, and open, until the registration ends.
    Ok(unsafe { AsyncFd::register_with_interest(OwnedFd::from(timer), Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_moment_is_reached_when_it_has_come_and_not_before() {
        let soon = BootTime::now() + Duration::from_millis(30);

        soon.sleep_until().await;

        assert!(BootTime::now() >= soon);
        BootTime::now().minus(Duration::from_secs(1)).sleep_until().await;
    }
}
