//! The trial of a new slot: checks, a soak, and a verdict that is journalled before it is carried out.
//!
//! Knows when the checks count and how long they must hold. Refuses to know what is checked ([`crate::update::health`]).
//! The agent owns the deadline: a timer of its own restarts the machine without a verdict, and a hardware watchdog
//! does where nothing runs any more. Invariant: a slot becomes good by `TrialVerdict::Good` alone, and leaves by
//! a failure that stands in the journal.

use std::time::Duration;

use super::health::{CheckResult, first_failure};
use super::phase::{Cause, Failure};

/// How long between two looks.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrialVerdict {
    /// It goes back.
    Bad(Failure),
    /// It stays. What was not well and does not decide is shown.
    Good {
        /// Names and words of checks that failed and were only wanted.
        remarks: Vec<String>,
    },
}

/// Who looks at the machine, and lets time pass.
pub(crate) trait TrialWorld {
    /// Runs every check once.
    fn check(&self) -> Vec<CheckResult>;
    /// Lets so much time pass.
    fn pause(&self, duration: Duration);
    /// The time since the trial began.
    fn elapsed(&self) -> Duration;
}

/// Waits until the checks pass, and sees that they go on passing.
pub(crate) fn judge_trial(world: &dyn TrialWorld, patience: Duration, soak: Duration) -> TrialVerdict {
    loop {
        let results = world.check();
        let Some((name, details)) = first_failure(&results) else { break };
        // Much of a machine comes up late; what is not well by then is not.
        if world.elapsed() >= patience {
            return TrialVerdict::Bad(Failure::new(Cause::Check(name.to_owned()), details));
        }
        world.pause(PAUSE);
    }
    let passed = world.elapsed();
    while world.elapsed() < passed + soak {
        world.pause(PAUSE.min((passed + soak).saturating_sub(world.elapsed())));
    }
    let results = world.check();
    match first_failure(&results) {
        Some((name, details)) => {
            let details = format!("after it had passed: {details}");
            TrialVerdict::Bad(Failure::new(Cause::Check(name.to_owned()), details))
        }
        None => TrialVerdict::Good { remarks: failed_remarks(&results) },
    }
}

fn failed_remarks(results: &[CheckResult]) -> Vec<String> {
    let failed = results.iter().filter_map(|one| Some(format!("{}: {}", one.name, one.failure.as_deref()?)));
    failed.collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::health::Weight;
    use super::*;

    /// A machine whose one check is well in these seconds.
    struct Script {
        is_well: fn(u64) -> bool,
        clock: Cell<Duration>,
    }

    impl TrialWorld for Script {
        fn check(&self) -> Vec<CheckResult> {
            let failure = (!(self.is_well)(self.clock.get().as_secs())).then(|| "it is dead".to_owned());
            let wanted =
                CheckResult { name: "meh".into(), weight: Weight::Wanted, failure: Some("no".into()) };
            vec![wanted, CheckResult { name: "sshd".into(), weight: Weight::Required, failure }]
        }

        fn pause(&self, duration: Duration) {
            assert!(!duration.is_zero());
            self.clock.set(self.clock.get() + duration);
        }

        fn elapsed(&self) -> Duration {
            self.clock.get()
        }
    }

    fn judge(is_well: fn(u64) -> bool) -> (TrialVerdict, u64) {
        let script = Script { is_well, clock: Cell::default() };
        let verdict = judge_trial(&script, Duration::from_mins(1), Duration::from_secs(22));
        (verdict, script.clock.get().as_secs())
    }

    fn details(verdict: TrialVerdict) -> String {
        match verdict {
            TrialVerdict::Bad(failure) => failure.failure_sentence(),
            TrialVerdict::Good { .. } => panic!("it was good"),
        }
    }

    #[test]
    fn what_comes_up_late_is_waited_for() {
        let (verdict, seconds) = judge(|second| second >= 30);

        assert_eq!(verdict, TrialVerdict::Good { remarks: vec!["meh: no".into()] });
        assert_eq!(seconds, 52);
    }

    #[test]
    fn what_does_not_come_up_in_time_is_bad_with_its_reason() {
        let (verdict, seconds) = judge(|_| false);

        assert_eq!(details(verdict), "the check \"sshd\" failed: it is dead");
        assert_eq!(seconds, 60);
    }

    #[test]
    fn what_dies_after_it_had_passed_is_bad() {
        let (verdict, _) = judge(|second| second < 20);

        assert_eq!(details(verdict), "the check \"sshd\" failed: after it had passed: it is dead");
    }
}
