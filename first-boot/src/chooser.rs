//! Finds who may say what this machine is to be, and keeps in mind who did.
//!
//! Knows what is remembered, the switch and what offers itself. Refuses to decide: [`crate::source`] does.
//! Invariant: a source is asked only after it was chosen, so that one that is turned away says nothing.

use platform::{DetectedPlatform, InstanceMetadata};

use crate::root::MachineRoot;
use crate::source::{self, Choice, Circumstances, Remembered, Source, Switch};
use crate::step_error::StepError;
use crate::{facts, record, switch};

/// The machine as the platforms look at it.
pub(crate) fn platform_host(root: &MachineRoot) -> platform::Host {
    if root.is_running() {
        platform::Host::this_machine()
    } else {
        platform::Host::at_directory(&root.path_of("/"))
    }
}

/// What is known before anybody is asked.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    root: &'a MachineRoot,
    remembered: Option<Remembered>,
    is_settled: bool,
    machine: Option<String>,
    switch: Switch,
    /// Who was turned away, as sentences.
    refused: Vec<String>,
}

impl<'a> Chooser<'a> {
    /// `by_hand` is what root asks for now, whatever the switch says for each boot.
    pub(crate) fn for_machine(
        root: &'a MachineRoot,
        place: &platform::Host,
        by_hand: Option<Switch>,
    ) -> Self {
        let (switch, problem) = switch::read(root);
        let switch = by_hand.unwrap_or(switch);
        let (remembered, is_settled) = (record::source(root), record::configured_instance(root).is_some());
        let refused = problem.into_iter().collect();
        Self { root, remembered, is_settled, machine: place.machine_name(), switch, refused }
    }

    /// The one that is asked, if any.
    pub(crate) fn choose_platform(&mut self, place: &platform::Host) -> Option<DetectedPlatform> {
        let at_once = self.detect_platforms(place);
        let (offers, choice) = if self.is_enough(&at_once) {
            let choice = self.choose_offer(&at_once);
            (at_once, choice)
        } else {
            // Up to two minutes on a busy machine, so only where something slow could still change the
            // choice.
            place.settle_devices();
            let offers = self.detect_platforms(place);
            let choice = self.choose_offer(&offers);
            (offers, choice)
        };
        self.refuse_others(&offers, &choice);
        choice.asked.and_then(|number| offers.into_iter().nth(number))
    }

    /// Whether nothing better can come while slow disks are still looked for: a disk goes before a cloud, and
    /// what is remembered before all.
    fn is_enough(&self, offers: &[DetectedPlatform]) -> bool {
        match &self.remembered {
            Some(remembered) => {
                offers.iter().any(|offer| Source::from_detected(offer).is_same(&remembered.source))
            }
            None => offers.first().is_some_and(|offer| !offer.needs_network),
        }
    }

    /// Refuses those that came later than the choice.
    pub(crate) fn refuse_late_offers(&mut self) {
        // Anew, since what was found of disks before is kept; a volume that is used by nobody is no surprise
        // to a machine that is new.
        if self.remembered.is_some() {
            let offers = self.detect_platforms(&platform_host(self.root));
            let choice = self.choose_offer(&offers);
            self.refuse_others(&offers, &choice);
        }
    }

    fn detect_platforms(&self, place: &platform::Host) -> Vec<DetectedPlatform> {
        let before = self.remembered.as_ref().map(|remembered| remembered.source.platform.as_str());
        platform::detect_platforms(place, before)
    }

    fn choose_offer(&self, offers: &[DetectedPlatform]) -> Choice {
        let offers: Vec<Source> = offers.iter().map(Source::from_detected).collect();
        source::choose_source(&offers, self.known_circumstances())
    }

    fn known_circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            remembered: self.remembered.as_ref(),
            is_settled: self.is_settled,
            machine: self.machine.as_deref(),
            switch: self.switch,
        }
    }

    fn refuse_others(&mut self, offers: &[DetectedPlatform], choice: &Choice) {
        for offer in choice.refused.iter().filter_map(|number| offers.get(*number)) {
            let refusal = source::refusal_reason(&Source::from_detected(offer), self.known_circumstances());
            if !self.refused.contains(&refusal) {
                self.refused.push(refusal);
            }
        }
    }

    /// Remembers who was asked, and in which machine.
    pub(crate) fn remember_platform(&self, asked: &DetectedPlatform) -> Result<(), StepError> {
        let source = Remembered { source: Source::from_detected(asked), machine: self.machine.clone() };
        record::remember_source(self.root, &source)
    }

    /// What a locked machine stays, if its platform says now that it is another instance.
    pub(crate) fn turn_away_instance(&mut self, said: &InstanceMetadata) -> Option<InstanceMetadata> {
        let (known, now) = (record::configured_instance(self.root)?, facts::instance_identity(said).id);
        if self.switch != Switch::Locked || known == now {
            return None;
        }
        self.refused.push(format!(
            "{} says that this machine is instance {now} now; it stays {known}, since `provision` is locked: see \
             `initagent provision`",
            said.platform
        ));
        Some(record::load_metadata(self.root).unwrap_or_default())
    }

    /// Who was turned away, and why.
    pub(crate) fn into_refused(self) -> Vec<String> {
        self.refused
    }
}
