//! The places, one file and one row each.

mod aws;
mod azure;
mod digitalocean;
mod gce;
mod hetzner;
mod hyperv;
mod linode;
mod openstack;
mod oracle;
mod ovh;
mod proxmox;
mod scaleway;
mod upcloud;
mod vmware;
mod vultr;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::rules::PlaceRule;

/// A place where images run.
#[derive(Debug)]
pub(crate) struct Place {
    /// What a person types.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) rules: &'static [PlaceRule],
    /// To copy; `{FILE}` is the artefact.
    pub(crate) commands: &'static str,
    /// How this row was tried, for docs/formats.md.
    pub(crate) tested: &'static str,
}

/// All of them, by name.
pub(crate) const PLACES: [&Place; 15] = [
    &aws::PLACE,
    &azure::PLACE,
    &digitalocean::PLACE,
    &gce::PLACE,
    &hetzner::PLACE,
    &hyperv::PLACE,
    &linode::PLACE,
    &openstack::PLACE,
    &oracle::PLACE,
    &ovh::PLACE,
    &proxmox::PLACE,
    &scaleway::PLACE,
    &upcloud::PLACE,
    &vmware::PLACE,
    &vultr::PLACE,
];

/// A place as it is typed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceName(pub(crate) &'static Place);

impl ValueEnum for PlaceName {
    fn value_variants<'a>() -> &'a [Self] {
        const NAMES: [PlaceName; PLACES.len()] = {
            let mut names = [PlaceName(PLACES[0]); PLACES.len()];
            let mut index = 0;
            while index < PLACES.len() {
                names[index] = PlaceName(PLACES[index]);
                index += 1;
            }
            names
        };
        &NAMES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name).help(self.0.title))
    }
}
