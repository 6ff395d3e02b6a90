//! The rules of placement in their plain form: one unit, one machine, no index.
//!
//! Knows what a unit may ask of a machine, and the words in which a machine refuses. Refuses to know
//! the cluster. [`super::place`] applies the same rules fast; tests hold the two against each other.
//! Invariant: asking changes nothing.

use std::fmt;

use crate::{
    model::{
        glob,
        machine::{Machine, MachineId, Resources},
        requirements::UnitRequirements,
        state::JobState,
        unit_name::UnitName,
    },
    store::cluster::SubmittedUnit,
};

/// Why a machine cannot take a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementRefusal {
    /// `MachineID=` names another machine.
    OtherMachine {
        /// The machine that refuses.
        machine: MachineId,
        /// The machine asked for.
        required: String,
    },
    /// `MachineMetadata=` is not met.
    Metadata,
    /// A `MachineOf=` unit is not on it.
    PeerElsewhere(String),
    /// It holds a unit that conflicts with this one, either way.
    Conflict(UnitName),
    /// It holds a unit that replaces this one.
    Replaced(UnitName),
    /// It is being emptied.
    Draining,
    /// It holds as many units as it may.
    Full(u32),
    /// It has less left than is asked for.
    Resources {
        /// What is left of its capacity.
        left: Resources,
        /// What the unit reserves.
        asked: Resources,
    },
}

impl PlacementRefusal {
    /// Whether the machine is merely too full: no reason to move what runs there already.
    #[must_use]
    pub fn is_want_of_room(&self) -> bool {
        // What runs stays: a machine whose `max_units` was lowered must not throw units out, only take no
        // more.
        matches!(self, Self::Full(_) | Self::Resources { .. })
    }
}

impl fmt::Display for PlacementRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMachine { machine, required } => {
                write!(f, "agent ID {:?} does not match required {required:?}", machine.as_str())
            }
            Self::Metadata => f.write_str("local Machine metadata insufficient"),
            Self::PeerElsewhere(peer) => write!(f, "required peer Unit({peer}) is not scheduled locally"),
            Self::Conflict(unit) => write!(f, "found conflict with locally-scheduled Unit([{unit}])"),
            Self::Replaced(unit) => write!(f, "replaced by locally-scheduled Unit({unit})"),
            Self::Draining => f.write_str("machine is draining"),
            Self::Full(most) => write!(f, "machine holds {most} units, the most it takes"),
            Self::Resources { left, asked } => write!(
                f,
                "machine has {} MiB and {}% CPU left, unit reserves {} MiB and {}%",
                left.memory_mib, left.cpu_percent, asked.memory_mib, asked.cpu_percent
            ),
        }
    }
}

/// What a machine holds when a unit knocks: the units it runs or should, without the one that knocks.
#[derive(Debug, Clone, Default)]
pub struct MachineGuests<'a> {
    /// Their names and requirements.
    pub units: Vec<(&'a UnitName, &'a UnitRequirements)>,
}

impl MachineGuests<'_> {
    /// What they reserve together.
    #[must_use]
    pub fn reserved_resources(&self) -> Resources {
        self.units.iter().fold(Resources::default(), |sum, (_, wanted)| Resources {
            memory_mib: sum.memory_mib + wanted.reserve.memory_mib,
            cpu_percent: sum.cpu_percent + wanted.reserve.cpu_percent,
        })
    }
}

/// Whether `machine`, holding `guests`, can take the unit; the first rule broken is the one reported.
pub fn check_placement(
    name: &UnitName,
    wanted: &UnitRequirements,
    machine: &Machine,
    guests: &MachineGuests<'_>,
) -> Result<(), PlacementRefusal> {
    if let Some(required) = &wanted.machine_id
        && !machine.id.is_named_by(required)
    {
        return Err(PlacementRefusal::OtherMachine {
            machine: machine.id.clone(),
            required: required.clone(),
        });
    }
    if !wanted.accepts_metadata(&machine.metadata) {
        return Err(PlacementRefusal::Metadata);
    }
    if let Some(peer) = wanted
        .peers
        .iter()
        .find(|peer| !guests.units.iter().any(|(guest, _)| guest.as_str() == peer.as_str()))
    {
        return Err(PlacementRefusal::PeerElsewhere(peer.clone()));
    }
    // The order of the checks is that of the original, since the first refusal is the one that people see.
    // What is new (draining, room) comes last.
    check_company(name, wanted, guests)?;
    if machine.draining && !wanted.global {
        return Err(PlacementRefusal::Draining);
    }
    check_room(wanted, machine, guests)
}

fn check_company(
    name: &UnitName,
    wanted: &UnitRequirements,
    guests: &MachineGuests<'_>,
) -> Result<(), PlacementRefusal> {
    for (guest, theirs) in &guests.units {
        let hits = |patterns: &std::collections::BTreeSet<String>, name: &str| {
            patterns.iter().any(|pattern| glob::glob_matches(pattern, name))
        };
        if hits(&wanted.conflicts, guest.as_str()) || hits(&theirs.conflicts, name.as_str()) {
            return Err(PlacementRefusal::Conflict((*guest).clone()));
        }
        if hits(&theirs.replaces, name.as_str()) {
            return Err(PlacementRefusal::Replaced((*guest).clone()));
        }
    }
    Ok(())
}

fn check_room(
    wanted: &UnitRequirements,
    machine: &Machine,
    guests: &MachineGuests<'_>,
) -> Result<(), PlacementRefusal> {
    if let Some(most) = machine.max_units
        && guests.units.len() >= most as usize
    {
        return Err(PlacementRefusal::Full(most));
    }
    let Some(capacity) = machine.capacity else { return Ok(()) };
    let used = guests.reserved_resources();
    let left = Resources {
        memory_mib: capacity.memory_mib.saturating_sub(used.memory_mib),
        cpu_percent: capacity.cpu_percent.saturating_sub(used.cpu_percent),
    };
    let asked = wanted.reserve;
    // A unit that reserves nothing goes onto a machine that is overbooked: reservations bind only those who
    // make them.
    let fits = (asked.memory_mib == 0 || asked.memory_mib <= left.memory_mib)
        && (asked.cpu_percent == 0 || asked.cpu_percent <= left.cpu_percent);
    if fits { Ok(()) } else { Err(PlacementRefusal::Resources { left, asked }) }
}

/// Whether anything is to be done for the unit.
#[must_use]
pub fn is_wanted(unit: &SubmittedUnit) -> bool {
    unit.desired != JobState::Inactive && !unit.name.is_template()
}
