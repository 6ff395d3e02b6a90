//! Who may say what this machine is to be, once somebody has said it.
//!
//! Knows the source that configured this machine, what offers itself now, and the switch. Refuses to look
//! anywhere: all of it is handed in. Invariant: on the machine that was configured, nothing that can be
//! attached to it takes the place of what configured it, unless its owner switched that on.

use platform::{DetectedPlatform, Place};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::digits::to_hex;

/// Whether a machine that is configured may be configured again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// By any source, if the one that configured it is gone.
    Always,
    /// Never, not even as another instance.
    Locked,
    /// Once an instance, by the source that configured the first.
    #[default]
    Once,
}

impl Switch {
    /// Every switch, by the words that people write.
    pub const ALL: [Self; 3] = [Self::Locked, Self::Once, Self::Always];

    /// The word.
    #[must_use]
    pub fn switch_word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Locked => "locked",
            Self::Once => "once",
        }
    }

    /// By its word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|switch| switch.switch_word() == word)
    }
}

/// Something that says what a machine is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) platform: String,
    /// How it was found, for people; device names change from boot to boot.
    pub(crate) evidence: String,
    /// Of a volume, the digest of all that would be obeyed; `None` if it is none.
    pub(crate) volume: Option<String>,
}

/// The source that configured this disk, and the machine that the disk was in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) source: Source,
    /// As the firmware names the machine; `None` where it does not.
    pub(crate) machine: Option<String>,
}

/// What is asked, and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Choice {
    /// Which of the offers is asked; `None` means that what was said before still holds.
    pub(crate) asked: Option<usize>,
    /// Which offers are turned away.
    pub(crate) refused: Vec<usize>,
}

/// What is known when one is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// What configured this disk.
    pub(crate) remembered: Option<&'a Remembered>,
    /// Whether this disk is configured, by whatever.
    pub(crate) is_settled: bool,
    /// As the firmware names the machine that the disk is in now.
    pub(crate) machine: Option<&'a str>,
    pub(crate) switch: Switch,
}

impl Source {
    pub(crate) fn from_detected(detected: &DetectedPlatform) -> Self {
        let volume = match &detected.place {
            Place::Volume { content, .. } => Some(to_hex(&Sha256::digest(content.as_bytes()))),
            Place::CommandLine | Place::Firmware | Place::OwnDisk => None,
        };
        Self { platform: detected.platform.to_string(), evidence: detected.evidence.clone(), volume }
    }

    /// Whether this is the other one at another boot. A volume is known by what is on it: labels and instance
    /// ids can be guessed. What is no volume nobody can attach, so the platform's name is enough.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.platform == other.platform && self.volume == other.volume
    }

    /// For people.
    pub(crate) fn source_text(&self) -> String {
        format!("{} ({})", self.platform, self.evidence)
    }
}

impl Circumstances<'_> {
    /// A copy of the disk in another machine. Who only attaches a volume cannot change what the firmware says.
    fn is_copy(&self) -> bool {
        let before = self.remembered.and_then(|remembered| remembered.machine.as_deref());
        before.zip(self.machine).is_some_and(|(before, now)| before != now)
    }

    /// Whether an offer may take the place of what is remembered, which is gone.
    fn allows_offer(&self, offer: &Source, remembered: &Source) -> bool {
        match self.switch {
            Switch::Always => true,
            Switch::Locked => false,
            Switch::Once => self.is_copy() && offer.platform == remembered.platform,
        }
    }
}

/// Chooses among what offers itself, the first of which goes before the others.
pub(crate) fn choose_source(offers: &[Source], known: Circumstances<'_>) -> Choice {
    let asked = match known.remembered.map(|remembered| &remembered.source) {
        // What configured itself without being told anything takes the first word, unless it is closed.
        None if known.is_settled && known.switch == Switch::Locked => None,
        None => (!offers.is_empty()).then_some(0),
        Some(before) => {
            // Before all others, wherever it stands in the list: the order is for machines that are new.
            let same = offers.iter().position(|offer| offer.is_same(before));
            same.or_else(|| offers.iter().position(|offer| known.allows_offer(offer, before)))
        }
    };
    let is_first = known.remembered.is_none() && asked.is_some();
    // A cloud beside the drive that speaks for it is no surprise; a volume is.
    let is_turned_away = |(number, offer): &(usize, &Source)| {
        Some(*number) != asked && !is_first && (offer.volume.is_some() || asked.is_none())
    };
    let refused = offers.iter().enumerate().filter(is_turned_away).map(|(number, _)| number).collect();
    Choice { asked, refused }
}

/// Why an offer was turned away, and what to do if it was meant.
pub(crate) fn refusal_reason(offer: &Source, known: Circumstances<'_>) -> String {
    let before = known.remembered.map_or_else(
        || "it was configured without any source".to_owned(),
        |remembered| format!("it was configured by {}", remembered.source.source_text()),
    );
    let way_on = match known.switch {
        Switch::Locked => "`provision` is locked; see `initagent provision`",
        Switch::Always | Switch::Once => {
            "if it was meant, take the other source away and run `initagent provision always`, then reboot"
        }
    };
    format!("{} does not say what this machine is to be: {before}; {way_on}", offer.source_text())
}

impl Remembered {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "platform": self.source.platform,
            "evidence": self.source.evidence,
            "volume": self.source.volume,
            "machine": self.machine,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
        let source =
            Source { platform: text("platform")?, evidence: text("evidence")?, volume: text("volume") };
        Some(Self { source, machine: text("machine") })
    }
}

#[cfg(test)]
mod tests;
