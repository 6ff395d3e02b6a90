//! Which release is for this machine now, or why none is.
//!
//! Pure: what a channel offers and facts about a machine in, a [`ReleaseChoice`] out. Refuses to know how a
//! release is fetched and when one asks again. Invariant: nothing is chosen that is withdrawn, below the
//! security epoch, or beyond a floor that the machine has not passed; not even when a person asks for it.
//!
//! Order of the rules: what concerns the channel as a whole, then a pin, then the newest release that nothing
//! speaks against, then the floors on the way to it. Every release that is passed over keeps its reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::channel::{ChannelMetadata, FileReference, OfferedRelease};
use super::time::UnixTime;
use super::wave::{WavePlace, opening_time};
use crate::bytes::Bytes;
use crate::version::Version;

/// Who wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskedBy {
    /// A person at this machine: waves, a pause and failures of the past do not stop one.
    Person,
    /// The service, by itself.
    Service,
}

/// A release that did not prove itself on this machine, or that a person went back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRelease {
    /// Its version.
    pub version: Version,
    /// Its manifest: another one with the same version is another release, and is tried.
    pub manifest: FileReference,
    /// What happened, as a clause: `the unit sshd.service failed`.
    pub reason: String,
}

/// What is known of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// The name of the image that runs.
    pub image: String,
    /// Its architecture.
    pub architecture: String,
    /// Its version.
    pub version: Version,
    /// The version of the agent.
    pub agent: Version,
    /// The machine's place among all.
    pub place: WavePlace,
    /// The highest security epoch that proved itself here: [`super::trust::TrustState::security_epoch`].
    pub security_epoch: u32,
    /// Bytes free on STATE.
    pub free_bytes: u64,
    /// The version to stay at or go to.
    pub pin: Option<Version>,
    /// What failed here.
    pub failed: Vec<FailedRelease>,
    /// Who asks.
    pub asked_by: AskedBy,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseChoice<'a> {
    /// Install this one.
    Install {
        /// The release.
        release: &'a OfferedRelease,
        /// The release that follows it, if this one is a floor on the way.
        on_the_way_to: Option<&'a OfferedRelease>,
        /// Newer ones that are not for this machine now.
        passed_over: Vec<PassedOver>,
    },
    /// Stay with what runs.
    Stay {
        /// Why.
        reason: StayReason,
        /// Newer ones that are not for this machine now.
        passed_over: Vec<PassedOver>,
    },
}

impl ReleaseChoice<'_> {
    /// The earliest moment at which a wave will open for this machine, if one of those that were passed over waits
    /// for that.
    #[must_use]
    pub fn next_opening(&self) -> Option<UnixTime> {
        let (Self::Install { passed_over, .. } | Self::Stay { passed_over, .. }) = self;
        let opens = passed_over.iter().filter_map(|passed| match passed.reason {
            PassReason::WaveOpens { at, .. } => Some(at),
            _ => None,
        });
        opens.min()
    }
}

/// As `status` and the journal say it.
impl fmt::Display for ReleaseChoice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed_over = match self {
            Self::Install { release, on_the_way_to, passed_over } => {
                write!(f, "release {} is for this machine", release.version)?;
                if let Some(next) = on_the_way_to {
                    write!(f, ", on the way to {}", next.version)?;
                }
                passed_over
            }
            Self::Stay { reason, passed_over } => {
                write!(f, "{reason}")?;
                passed_over
            }
        };
        passed_over.iter().try_for_each(|passed| write!(f, "; {passed}"))
    }
}

/// A release that is not for this machine now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The release.
    pub version: Version,
    /// Why.
    pub reason: PassReason,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release {} {}", self.version, self.reason)
    }
}

/// Why a release is not for this machine now. Each reads on after the release's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PassReason {
    #[error("needs agent {needed} or newer, but this one is {agent}")]
    Agent { needed: Version, agent: Version },
    #[error("has security epoch {given}, but nothing below {lowest} may be installed here")]
    Epoch { given: u32, lowest: u32 },
    #[error("failed on this machine: {reason}; it is not tried again by itself")]
    Failed { reason: String },
    #[error("must be reached by way of release {floor}, which {because}")]
    Floor { floor: Version, because: Box<Self> },
    #[error("needs {} free for it on STATE, but there are {}", Bytes::new(*needed), Bytes::new(*free))]
    Space { needed: u64, free: u64 },
    #[error("is not yet offered to machines at place {} of 1000", u16::from(*place))]
    WaveClosed { place: WavePlace },
    #[error("is offered to this machine from {at} on (place {} of 1000)", u16::from(*place))]
    WaveOpens { at: UnixTime, place: WavePlace },
    #[error("was withdrawn: {reason}")]
    Withdrawn { reason: String },
}

/// Why a machine stays with what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum StayReason {
    #[error("the channel has machines of architecture {offered}, but this one is {machine}")]
    Architecture { offered: String, machine: String },
    #[error("the channel has releases of image {offered}, but this machine runs image {machine}")]
    Image { offered: String, machine: String },
    #[error("release {running} is the newest that the channel has")]
    Newest { running: Version },
    #[error("no newer release than {running} is for this machine now")]
    NotNow { running: Version },
    #[error("the channel is paused: {reason}")]
    Paused { reason: String },
    #[error("the machine is pinned to release {running}, which it runs")]
    Pinned { running: Version },
    #[error("the machine is pinned to release {pin}, which is not for it now")]
    PinNotNow { pin: Version },
    #[error("the machine is pinned to release {pin}, which the channel does not offer")]
    PinUnknown { pin: Version },
    #[error(
        "release {running} runs, which was withdrawn ({reason}), and there is no newer one for this machine"
    )]
    RunsWithdrawn { running: Version, reason: String },
}

/// Chooses. `now` is the moment that [`super::trust::TrustState::judged_time`] names.
#[must_use]
pub fn choose_release<'a>(
    channel: &'a ChannelMetadata,
    facts: &MachineFacts,
    now: UnixTime,
) -> ReleaseChoice<'a> {
    let stay = |reason| ReleaseChoice::Stay { reason, passed_over: Vec::new() };
    if let Some(reason) = refuse_channel(channel, facts) {
        return stay(reason);
    }
    match &facts.pin {
        Some(pin) if *pin == facts.version => stay(StayReason::Pinned { running: pin.clone() }),
        Some(pin) => match channel.find_release(pin) {
            Some(release) => choose_pinned(channel, release, facts),
            None => stay(StayReason::PinUnknown { pin: pin.clone() }),
        },
        None => choose_newest(channel, facts, now),
    }
}

/// What speaks against the channel as a whole.
fn refuse_channel(channel: &ChannelMetadata, facts: &MachineFacts) -> Option<StayReason> {
    if channel.image != facts.image {
        return Some(StayReason::Image { offered: channel.image.clone(), machine: facts.image.clone() });
    }
    if channel.architecture != facts.architecture {
        let (offered, machine) = (channel.architecture.clone(), facts.architecture.clone());
        return Some(StayReason::Architecture { offered, machine });
    }
    match (&channel.paused, facts.asked_by) {
        // A pause stops what happens by itself. A person who asks has seen the reason.
        (Some(reason), AskedBy::Service) => Some(StayReason::Paused { reason: reason.clone() }),
        _ => None,
    }
}

/// A pin is a person's word: waves do not hold it up, and it may go back as far as the security epoch allows.
fn choose_pinned<'a>(
    channel: &'a ChannelMetadata,
    release: &'a OfferedRelease,
    facts: &MachineFacts,
) -> ReleaseChoice<'a> {
    match choose_step(channel, release, facts) {
        Ok((release, on_the_way_to)) => {
            ReleaseChoice::Install { release, on_the_way_to, passed_over: Vec::new() }
        }
        Err(reason) => {
            let version = release.version.clone();
            let reason_to_stay = StayReason::PinNotNow { pin: version.clone() };
            ReleaseChoice::Stay { reason: reason_to_stay, passed_over: vec![PassedOver { version, reason }] }
        }
    }
}

fn choose_newest<'a>(channel: &'a ChannelMetadata, facts: &MachineFacts, now: UnixTime) -> ReleaseChoice<'a> {
    let mut passed_over = Vec::new();
    // The newest first: older ones are asked about only if something speaks against it.
    for release in channel.releases.iter().rev().filter(|release| release.version > facts.version) {
        let step = check_wave(release, facts, now).and_then(|()| choose_step(channel, release, facts));
        match step {
            Ok((release, on_the_way_to)) => {
                return ReleaseChoice::Install { release, on_the_way_to, passed_over };
            }
            Err(reason) => passed_over.push(PassedOver { version: release.version.clone(), reason }),
        }
    }
    let running = facts.version.clone();
    let withdrawn = channel.find_release(&running).and_then(|release| release.withdrawn.clone());
    let reason = match withdrawn {
        Some(reason) => StayReason::RunsWithdrawn { running, reason },
        None if passed_over.is_empty() => StayReason::Newest { running },
        None => StayReason::NotNow { running },
    };
    ReleaseChoice::Stay { reason, passed_over }
}

/// The next step towards a release: the first floor that lies between, or the release itself.
fn choose_step<'a>(
    channel: &'a ChannelMetadata,
    target: &'a OfferedRelease,
    facts: &MachineFacts,
) -> Result<(&'a OfferedRelease, Option<&'a OfferedRelease>), PassReason> {
    // A release that may never be installed is not worth the way to it. What the agent lacks, a floor may bring.
    check_forever(channel, target, facts)?;
    let between = |floor: &&OfferedRelease| {
        floor.floor
            && floor.version > facts.version
            && floor.version < target.version
            // A floor that was withdrawn must not be installed, nor may it bar the way for ever.
            && floor.withdrawn.is_none()
    };
    let Some(floor) = channel.releases.iter().find(between) else {
        return check_machine(target, facts).map(|()| (target, None));
    };
    let step = check_forever(channel, floor, facts).and_then(|()| check_machine(floor, facts));
    step.map(|()| (floor, Some(target)))
        .map_err(|because| PassReason::Floor { floor: floor.version.clone(), because: Box::new(because) })
}

fn check_wave(release: &OfferedRelease, facts: &MachineFacts, now: UnixTime) -> Result<(), PassReason> {
    if facts.asked_by == AskedBy::Person {
        return Ok(());
    }
    let place = facts.place;
    match opening_time(&release.waves, place) {
        None => Err(PassReason::WaveClosed { place }),
        Some(at) if at > now => Err(PassReason::WaveOpens { at, place }),
        Some(_) => Ok(()),
    }
}

/// What no time and no other agent changes.
fn check_forever(
    channel: &ChannelMetadata,
    release: &OfferedRelease,
    facts: &MachineFacts,
) -> Result<(), PassReason> {
    if let Some(reason) = &release.withdrawn {
        return Err(PassReason::Withdrawn { reason: reason.clone() });
    }
    // The machine's own counts, too: a mirror may show an old channel, and a channel's key may be stolen.
    let lowest = channel.security_epoch.max(facts.security_epoch);
    if release.security_epoch < lowest {
        return Err(PassReason::Epoch { given: release.security_epoch, lowest });
    }
    let same =
        // The same version built again is another release, and may well work.
        |failed: &&FailedRelease| failed.version == release.version && failed.manifest == release.manifest;
    match facts.failed.iter().find(same) {
        Some(failed) if facts.asked_by == AskedBy::Service => {
            Err(PassReason::Failed { reason: failed.reason.clone() })
        }
        _ => Ok(()),
    }
}

/// What this machine lacks now.
fn check_machine(release: &OfferedRelease, facts: &MachineFacts) -> Result<(), PassReason> {
    if let Some(needed) = release.least_agent.as_ref().filter(|needed| **needed > facts.agent) {
        return Err(PassReason::Agent { needed: needed.clone(), agent: facts.agent.clone() });
    }
    if release.least_free_bytes > facts.free_bytes {
        return Err(PassReason::Space { needed: release.least_free_bytes, free: facts.free_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
