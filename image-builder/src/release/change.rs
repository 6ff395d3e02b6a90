//! What each verb changes in a channel's metadata.
//!
//! Pure: the metadata and a wish in, the changed metadata out. Refuses to know files, keys and the clock.
//! Invariants: the counter grows with each change; what a machine needs as a step to the newest release stays.

use std::time::Duration;

use image_format::release::channel::{self, ChannelMetadata, FileReference, MAX_RELEASES, OfferedRelease};
use image_format::release::paths::ChannelName;
use image_format::release::time::UnixTime;
use image_format::release::wave::{Share, Wave};
use image_format::version::Version;

/// How many releases that are no floors a channel keeps: what a pin or a withdrawal goes back to. More would make
/// each check of each machine larger: four of them keep it below 4 KiB.
pub(super) const KEPT_RELEASES: usize = 4;

/// The part of a channel's metadata that is the same for each change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// The newest root.
    pub(super) root: u64,
    /// Now.
    pub(super) written: UnixTime,
    /// How long it holds.
    pub(super) lifetime: Duration,
}

/// What may be said about a release when it is offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OfferTerms {
    pub(super) waves: Vec<Wave>,
    pub(super) floor: bool,
    pub(super) least_agent: Option<Version>,
    pub(super) least_free_bytes: u64,
}

/// A release as it lies in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRelease {
    pub(super) image: String,
    pub(super) architecture: String,
    pub(super) version: Version,
    pub(super) security_epoch: u32,
    pub(super) manifest: FileReference,
    pub(super) index: FileReference,
    pub(super) sbom: FileReference,
}

/// A change of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChannelChange {
    /// No machine may pass a release by, or it may again.
    Floor { version: Version, floor: bool },
    /// Nothing below this security epoch is offered to any machine.
    LowestEpoch { security_epoch: u32 },
    /// Nothing is installed by itself.
    Pause { reason: String },
    /// A release is offered.
    Promote { release: Box<StoredRelease>, terms: OfferTerms },
    /// The same again, for longer; with a counter that is at least this one.
    Renew { counter: u64 },
    /// A pause ends.
    Resume,
    /// A release is offered no more.
    Withdraw { version: Version, reason: String },
}

/// A channel that offers nothing yet.
pub(super) fn empty_channel(name: &ChannelName, release: &StoredRelease) -> ChannelMetadata {
    ChannelMetadata {
        format: channel::FORMAT,
        channel: name.clone(),
        image: release.image.clone(),
        architecture: release.architecture.clone(),
        root: 0,
        counter: 0,
        written: UnixTime::default(),
        expires: UnixTime::default(),
        paused: None,
        security_epoch: 0,
        releases: Vec::new(),
    }
}

/// The metadata after a change.
pub(super) fn change_channel(
    mut channel: ChannelMetadata,
    change: ChannelChange,
    stamp: Stamp,
) -> Result<ChannelMetadata, ChangeChannelError> {
    match change {
        ChannelChange::Floor { version, floor } => find_release(&mut channel, &version)?.floor = floor,
        ChannelChange::LowestEpoch { security_epoch } => raise_epoch(&mut channel, security_epoch)?,
        ChannelChange::Pause { reason } => channel.paused = Some(reason),
        ChannelChange::Promote { release, terms } => offer_release(&mut channel, *release, terms)?,
        // The next number is what the caller asked for, so one less is where it goes on.
        ChannelChange::Renew { counter } => channel.counter = channel.counter.max(counter.saturating_sub(1)),
        ChannelChange::Resume => channel.paused = None,
        ChannelChange::Withdraw { version, reason } => {
            find_release(&mut channel, &version)?.withdrawn = Some(reason);
        }
    }
    let same_root = channel.root == stamp.root;
    channel.counter = channel.counter.checked_add(1).ok_or(ChangeChannelError::CounterEnds)?;
    channel.root = stamp.root;
    // The publisher's clock may be behind, and times of one root do not go back either. Under a new root they may:
    // that is the way out for one whose clock was ahead.
    channel.written = if same_root { stamp.written.max(channel.written) } else { stamp.written };
    channel.expires = channel.written.saturating_add(stamp.lifetime);
    Ok(channel)
}

fn find_release<'a>(
    channel: &'a mut ChannelMetadata,
    version: &Version,
) -> Result<&'a mut OfferedRelease, ChangeChannelError> {
    let offered: Vec<String> = channel.releases.iter().map(|release| release.version.to_string()).collect();
    let name = channel.channel.clone();
    let found = channel.releases.iter_mut().find(|release| release.version == *version);
    found.ok_or_else(|| ChangeChannelError::NotOffered { version: version.clone(), name, offered })
}

fn raise_epoch(channel: &mut ChannelMetadata, security_epoch: u32) -> Result<(), ChangeChannelError> {
    let known = channel.releases.iter().map(|release| release.security_epoch).max().unwrap_or_default();
    if security_epoch > known {
        let name = channel.channel.clone();
        return Err(ChangeChannelError::EpochUnknown { name, security_epoch, known });
    }
    channel.security_epoch = channel.security_epoch.max(security_epoch);
    Ok(())
}

fn offer_release(
    channel: &mut ChannelMetadata,
    release: StoredRelease,
    terms: OfferTerms,
) -> Result<(), ChangeChannelError> {
    let StoredRelease { image, architecture, version, security_epoch, manifest, index, sbom } = release;
    if (&image, &architecture) != (&channel.image, &channel.architecture) {
        let name = channel.channel.clone();
        let (has, given) = (
            format!("{} for {}", channel.image, channel.architecture),
            format!("{image} for {architecture}"),
        );
        return Err(ChangeChannelError::OtherImage { name, has, given });
    }
    let newer_with_less = channel.releases.iter().find(|other| {
        (other.version < version) != (other.security_epoch <= security_epoch)
            && other.security_epoch != security_epoch
    });
    if let Some(other) = newer_with_less {
        let (other, other_epoch) = (other.version.clone(), other.security_epoch);
        return Err(ChangeChannelError::EpochOrder { version, security_epoch, other, other_epoch });
    }
    let OfferTerms { waves, floor, least_agent, least_free_bytes } = terms;
    // A floor stays one when its waves are changed: `release floor --remove` is for the rest.
    let floor = floor || channel.find_release(&version).is_some_and(|old| old.floor);
    let offered = OfferedRelease {
        version,
        manifest,
        index,
        sbom,
        security_epoch,
        floor,
        waves,
        least_agent,
        least_free_bytes,
        withdrawn: None,
    };
    channel.releases.retain(|other| other.version != offered.version);
    channel.releases.push(offered);
    channel.releases.sort_by(|one, other| one.version.cmp(&other.version));
    forget_old(channel);
    if channel.releases.len() > MAX_RELEASES {
        return Err(ChangeChannelError::TooManyFloors);
    }
    Ok(())
}

/// Leaves the floors and the newest. A withdrawn one stays as long as it is among them, for the machines that run it
/// to say so.
fn forget_old(channel: &mut ChannelMetadata) {
    let plain = |release: &OfferedRelease| !release.floor;
    let count = channel.releases.iter().filter(|release| plain(release)).count();
    let mut too_many = count.saturating_sub(KEPT_RELEASES);
    channel.releases.retain(|release| {
        let forget = plain(release) && too_many > 0;
        too_many -= usize::from(forget);
        !forget
    });
}

/// Named ways to roll out, as a share of the machines and hours from now. The first three are Bottlerocket's.
const PRESETS: [(&str, &[(u16, u64)]); 4] = [
    ("all", &[]),
    ("careful", &[(10, 60), (50, 240), (150, 1440), (400, 2880), (600, 5760), (900, 7200), (1000, 8640)]),
    ("quick", &[(30, 60), (120, 240), (400, 480), (800, 960), (1000, 1440)]),
    ("urgent", &[(50, 30), (250, 60), (500, 120), (900, 150), (1000, 180)]),
];

/// Reads waves: a preset's name, or a list such as `1%@0h,25%@12h,100%@3d`.
pub(super) fn parse_waves(text: &str, now: UnixTime) -> Result<Vec<Wave>, ParseWavesError> {
    if let Some((_, preset)) = PRESETS.iter().find(|(name, _)| *name == text) {
        let wave = |(thousandths, minutes): &(u16, u64)| {
            let not_before = now.saturating_add(Duration::from_secs(minutes * 60));
            Share::per_mille(*thousandths).map(|machines| Wave { machines, not_before })
        };
        return Ok(preset.iter().filter_map(wave).collect());
    }
    let wrong = |part: &str| ParseWavesError { part: part.chars().take(64).collect() };
    let parse = |part: &str| {
        let (share, delay) = part.trim().split_once('@').ok_or_else(|| wrong(part))?;
        let machines: Share = share.parse().map_err(|_| wrong(part))?;
        let delay = parse_delay(delay).ok_or_else(|| wrong(part))?;
        Ok(Wave { machines, not_before: now.saturating_add(delay) })
    };
    text.split(',').map(parse).collect()
}

/// A number of minutes, hours or days, such as `30m`, `12h` or `3d`.
pub(super) fn parse_delay(text: &str) -> Option<Duration> {
    let text = text.trim().trim_start_matches('+');
    let unit = text.chars().last()?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let digits = !number.is_empty() && number.len() <= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()).flatten().map(|number| Duration::from_secs(number * seconds))
}

/// A text that says no waves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is no wave: write all, careful, quick, urgent, or shares with a delay of minutes, hours or days each, \
     such as 1%@0h,25%@12h,100%@3d"
)]
pub(crate) struct ParseWavesError {
    part: String,
}

/// Why a channel cannot be changed so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeChannelError {
    #[error(
        "the channel's counter cannot grow any more: somebody who had its key ended it. Take the key away with \
         `keys revoke`, and continue from your own copy of the channel"
    )]
    CounterEnds,
    #[error(
        "release {version} has security epoch {security_epoch}, but {other} has {other_epoch}: the epoch of a newer \
         release is never lower"
    )]
    EpochOrder { version: Version, security_epoch: u32, other: Version, other_epoch: u32 },
    #[error("channel {name} has no release of security epoch {security_epoch}: its highest is {known}")]
    EpochUnknown { name: ChannelName, security_epoch: u32, known: u32 },
    #[error("channel {name} does not offer {version}, but {}", list_versions(offered))]
    NotOffered { version: Version, name: ChannelName, offered: Vec<String> },
    #[error("channel {name} has releases of image {has}, and this one is of {given}: use another channel")]
    OtherImage { name: ChannelName, has: String, given: String },
    #[error(
        "the channel would offer more than {MAX_RELEASES} releases: remove floors that no machine needs any more with \
         `release floor --remove`"
    )]
    TooManyFloors,
}

fn list_versions(versions: &[String]) -> String {
    if versions.is_empty() { "nothing".to_owned() } else { versions.join(", ") }
}

#[cfg(test)]
mod tests;
