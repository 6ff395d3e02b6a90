//! The phases of an update, and the transitions between them.
//!
//! ```text
//! Steady → Fetching → Written → Armed → Trial → Steady
//!             ↓          ↓        ↓       ↓
//!             └──────────┴────────┴───────┴──→ Steady, with what failed or who gave it up
//! ```
//!
//! A soft trial (`TrialKind::Soft`) goes from `Trial` to `Armed` once more: what has proven itself without a restart
//! of the kernel still has to start from the disk, and that boot is a trial as every other is.
//!
//! One struct per phase; a transition consumes the phase that it leaves, so that an order of steps that would
//! cost a machine its slot does not compile. [`Phase`] exists for storage only. Nothing here touches a disk: a
//! transition returns the `Action`s to carry out, and [`crate::update::resume`] says what follows from a phase after a
//! cut. Invariant: no action ever concerns the running slot before that slot is on trial.

use image_format::digest::Sha256;
use image_format::slot::Slot;
use image_format::version::Version;
use serde::{Deserialize, Serialize};

/// Boots that one trial may take. Three counted boots are the table's limit; an orderly restart gives its try
/// back, so a unit that restarts the machine in order (`FailureAction=reboot`) would otherwise do so for ever.
pub(crate) const MAX_TRIAL_BOOTS: usize = 10;

/// The release that an update brings, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The slot that is written: never the one that runs.
    pub(crate) slot: Slot,
    /// What its manifest says.
    pub(crate) version: Version,
    /// By this, and not by its version, a release is known again: a version can be built twice.
    pub(crate) root_hash: Sha256,
    /// Its signed manifest, by which a channel knows it.
    pub(crate) manifest: ManifestDigest,
    /// The mirror, folder or file it comes from.
    pub(crate) source: String,
}

/// A signed manifest, known by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestDigest {
    /// How many there are.
    pub(crate) bytes: u64,
    /// Their digest.
    pub(crate) sha256: Sha256,
}

/// What was well before the update, and has to be well after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Required units that were active.
    pub(crate) active_units: Vec<String>,
    /// Units that had failed already: their failure is nothing new.
    pub(crate) failed_units: Vec<String>,
    /// Whether the machine had a way to other networks.
    pub(crate) has_route: bool,
    /// The channel file of the update server, if the server answered.
    pub(crate) update_server: Option<String>,
    /// Whether the etcd member of this machine was healthy.
    pub(crate) etcd_is_healthy: bool,
}

/// How a new slot comes to run.
// An agent that knows no soft trials ignores it: on the old slot it sees a release whose boots were lost, and that is
// what became of the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TrialKind {
    /// By the boot loader, after a soft trial has passed: the slot runs already.
    AfterSoft,
    /// By the boot loader, which counts its boots.
    #[default]
    Restart,
    /// By systemd's soft-reboot. The slot table knows nothing of it, so that every accident ends on the old slot.
    Soft,
}

/// How the machine ends what runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BootEnd {
    /// The kernel ends, too.
    Restart,
    /// Another root takes over under the same kernel.
    SoftReboot,
}

/// How a release is to be tried, noted when its slot is whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TrialPlan {
    /// What is well now.
    pub(crate) baseline: Baseline,
    /// How the slot comes to run.
    pub(crate) kind: TrialKind,
}

/// No update is under way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Steady {}

/// The idle slot is being written. The slot table does not start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetching {
    /// What is written.
    pub(crate) target: Target,
    /// Attempts that failed.
    pub(crate) attempts: u32,
    /// Why the last of them failed.
    pub(crate) last_error: Option<String>,
}

/// The idle slot holds the release, read back and verified. The slot table does not start it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// What was written.
    pub(crate) target: Target,
    /// Noted before the slot is armed, since a cut in the next moment may already start it.
    pub(crate) baseline: Baseline,
    /// How it is to be tried.
    #[serde(default)]
    pub(crate) kind: TrialKind,
}

/// The next boot starts the new slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Armed {
    /// What was written.
    pub(crate) target: Target,
    /// What was well before.
    pub(crate) baseline: Baseline,
    /// The boot in which it was armed: as long as it lasts, the new slot has not had its turn.
    pub(crate) boot: String,
    /// How it comes to run.
    #[serde(default)]
    pub(crate) kind: TrialKind,
}

/// The new slot runs, and has to prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// What runs.
    pub(crate) target: Target,
    /// What was well before.
    pub(crate) baseline: Baseline,
    /// Every boot of the trial, in order.
    pub(crate) boots: Vec<TrialBoot>,
    /// Why it goes back, noted before the slot table is changed.
    pub(crate) failure: Option<Failure>,
    /// How it came to run the last time.
    #[serde(default)]
    pub(crate) kind: TrialKind,
}

/// One boot of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrialBoot {
    /// What the kernel calls it.
    pub(crate) boot: String,
    /// Whether it was shut down in order. If not, the power failed, or the slot did.
    pub(crate) ended_in_order: bool,
}

/// Where an update stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// The next boot starts the new slot.
    Armed(Armed),
    /// The idle slot is being written.
    Fetching(Fetching),
    /// No update is under way.
    Steady(Steady),
    /// The new slot runs.
    Trial(Trial),
    /// The idle slot holds the release.
    Written(Written),
}

/// Why an update came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What kind of thing went wrong.
    pub(crate) cause: Cause,
    /// What the check, the disk or the lost boot said.
    pub(crate) details: String,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// A health check of the trial failed; its name.
    Check(String),
    /// A person went back, or took the update back.
    Person,
    /// The release came as far as the agent, but its boots ended without a word.
    LostBoots,
    /// The trial or the install went round too often.
    Loop,
    /// No verdict within the time of the trial.
    NoVerdict,
    /// The boot loader gave it its tries, but it never came as far as the agent.
    NotStarted,
    /// The slot could not be written, or kept something else than what was written.
    Write,
}

/// One change outside of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Boot this slot next, with all its tries.
    Arm(Slot),
    /// Never boot this slot: it is about to be overwritten, or came to nothing.
    Disarm(Slot),
    /// The slot has proven itself.
    MarkGood(Slot),
    /// Restart the machine.
    Restart,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Other events overtook it; nothing is held against the release.
    Abandoned(String),
    /// It is not tried again until something has changed.
    Failed(Failure),
    /// It runs and is good.
    Succeeded,
}

impl Steady {
    /// Begins to write the idle slot, which must not start from now on.
    #[must_use = "a slot that is not disarmed may start half written"]
    pub(crate) fn begin_fetching(self, target: Target) -> (Fetching, Action) {
        let Self {} = self;
        let disarm = Action::Disarm(target.slot);
        (Fetching { target, attempts: 0, last_error: None }, disarm)
    }
}

impl Fetching {
    /// The slot was read back, and every block of it is the signed one.
    pub(crate) fn complete_write(self, plan: TrialPlan) -> Written {
        Written { target: self.target, baseline: plan.baseline, kind: plan.kind }
    }

    /// An attempt failed. What was written stays: the next attempt uses it again.
    pub(crate) fn note_error(self, error: String) -> Self {
        Self { attempts: self.attempts.saturating_add(1), last_error: Some(error), ..self }
    }
}

impl Written {
    /// Lets the boot loader start the slot: the commit point of an update. A soft-reboot needs no leave of the boot
    /// loader, and has none.
    #[must_use = "an armed phase without its action is a restart into the old slot"]
    pub(crate) fn arm_slot(self, boot: String) -> (Armed, Option<Action>) {
        let arm = (self.kind != TrialKind::Soft).then_some(Action::Arm(self.target.slot));
        (Armed { target: self.target, baseline: self.baseline, boot, kind: self.kind }, arm)
    }
}

impl Armed {
    /// The new slot runs.
    pub(crate) fn start_trial(self, boot: String) -> Trial {
        // The boot in which it was armed still lasts, so no boot loader started it.
        let is_soft = self.kind == TrialKind::Soft && self.boot == boot;
        let kind = if is_soft { TrialKind::Soft } else { TrialKind::Restart };
        let first = TrialBoot { boot, ended_in_order: false };
        Trial { target: self.target, baseline: self.baseline, boots: vec![first], failure: None, kind }
    }

    /// The machine is shut down in order before the slot had its soft trial: it is tried as the boot loader does it.
    /// Whoever restarts a machine to finish an update would wonder otherwise.
    #[must_use = "an armed phase without its action is a restart into the old slot"]
    pub(crate) fn end_boot(self, end: BootEnd) -> (Self, Option<Action>) {
        match (self.kind, end) {
            (TrialKind::Soft, BootEnd::Restart) => self.give_up_soft(),
            _ => (self, None),
        }
    }

    /// The slot could not be brought to run without a restart, so that one is due.
    #[must_use = "an armed phase without its action is a restart into the old slot"]
    pub(crate) fn give_up_soft(self) -> (Self, Option<Action>) {
        let arm = Action::Arm(self.target.slot);
        (Self { kind: TrialKind::Restart, ..self }, Some(arm))
    }
}

impl Trial {
    /// The new slot runs once more, without a verdict so far.
    pub(crate) fn start_again(mut self, boot: String) -> Self {
        self.boots.push(TrialBoot { boot, ended_in_order: false });
        Self { kind: TrialKind::Restart, ..self }
    }

    /// The machine is shut down in order, by a person or a program: no verdict, so the try is given back, unless
    /// that has gone on too long.
    #[must_use = "a try that is not given back is a verdict against the slot"]
    pub(crate) fn end_boot(mut self, end: BootEnd) -> (Self, Option<Action>) {
        // The kernel goes on, so no try was spent and none is lost.
        if end == BootEnd::SoftReboot {
            return (self, None);
        }
        let may_return = self.boots.len() < MAX_TRIAL_BOOTS && self.failure.is_none();
        if let Some(last) = self.boots.last_mut() {
            last.ended_in_order = true;
        }
        let slot = self.target.slot;
        (self, may_return.then_some(Action::Arm(slot)))
    }

    /// A check failed. The reason is journalled before the slot table is changed: a cut between the two must not
    /// lose it.
    #[must_use = "an action not performed is a rollback lost"]
    pub(crate) fn fail_check(self, failure: Failure) -> (Self, [Action; 2]) {
        let actions = [Action::Disarm(self.target.slot), Action::Restart];
        (Self { failure: Some(failure), ..self }, actions)
    }

    /// The soft trial has passed. The slot goes first from now on, and its first boot from the disk is the next trial:
    /// until that, nothing has shown that the boot loader can read it.
    #[must_use = "an armed phase without its action is a restart into the old slot"]
    pub(crate) fn pass_soft(self, boot: String) -> (Armed, Action) {
        let arm = Action::Arm(self.target.slot);
        let armed = Armed { target: self.target, baseline: self.baseline, boot, kind: TrialKind::AfterSoft };
        (armed, arm)
    }

    /// Boots that ended neither in order nor with a verdict, the one that runs not counted.
    pub(crate) fn lost_boots(&self) -> usize {
        let past = self.boots.len().saturating_sub(1);
        self.boots.iter().take(past).filter(|boot| !boot.ended_in_order).count()
    }
}

impl Phase {
    /// The release that is under way.
    pub(crate) fn update_target(&self) -> Option<&Target> {
        match self {
            Self::Armed(armed) => Some(&armed.target),
            Self::Fetching(fetching) => Some(&fetching.target),
            Self::Steady(_) => None,
            Self::Trial(trial) => Some(&trial.target),
            Self::Written(written) => Some(&written.target),
        }
    }

    /// Its word in the journal and in `status`.
    pub(crate) fn phase_word(&self) -> &'static str {
        match self {
            Self::Armed(_) => "armed",
            Self::Fetching(_) => "fetching",
            Self::Steady(_) => "steady",
            Self::Trial(_) => "trial",
            Self::Written(_) => "written",
        }
    }

    /// How the release is tried, if it has come so far.
    pub(crate) fn trial_kind(&self) -> Option<TrialKind> {
        match self {
            Self::Armed(armed) => Some(armed.kind),
            Self::Trial(trial) => Some(trial.kind),
            Self::Written(written) => Some(written.kind),
            Self::Fetching(_) | Self::Steady(_) => None,
        }
    }
}

impl Default for Phase {
    fn default() -> Self {
        Self::Steady(Steady::default())
    }
}

impl Failure {
    /// A failure and what is known of it.
    pub(crate) fn new(cause: Cause, details: impl Into<String>) -> Self {
        Self { cause, details: details.into() }
    }

    /// One sentence for people.
    pub(crate) fn failure_sentence(&self) -> String {
        let what = match &self.cause {
            Cause::Check(name) => format!("the check {name:?} failed"),
            Cause::LostBoots => "its boots ended without a word: a panic, a hang or the mains".to_owned(),
            Cause::Loop => "it went round too often".to_owned(),
            Cause::NoVerdict => "the checks came to no verdict in time".to_owned(),
            Cause::NotStarted => {
                "it never came as far as the agent: its kernel did not load, panicked, or was \
                                  refused by the initramfs"
                    .to_owned()
            }
            Cause::Person => "a person went back".to_owned(),
            Cause::Write => "it could not be written to the disk".to_owned(),
        };
        let first = self.details.lines().next().unwrap_or_default();
        if first.is_empty() { what } else { format!("{what}: {first}") }
    }
}
