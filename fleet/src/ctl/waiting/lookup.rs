//! Reads units and their states anew while a verb waits.
//!
//! Knows when one list is cheaper than many questions. Refuses to judge what it reads.

use crate::api::schema::{ApiUnit, UnitState};
use crate::ctl::client::{ApiClient, ApiError};
use crate::ctl::session::{CommandSession, printable_chain};
use std::collections::BTreeSet;

/// Up to this many units are asked for one by one; beyond, whole lists are read. A list is one request but holds every
/// unit of the cluster, of which a person who names a few wants none.
pub(super) const FEW: usize = 8;

/// The named units that are in the registry: one by one if they are few, else from the whole list.
pub fn current_units(client: &ApiClient, names: &[String]) -> Result<Vec<ApiUnit>, ApiError> {
    if names.len() <= FEW {
        return names.iter().filter_map(|name| client.find_unit(name).transpose()).collect();
    }
    let wanted: BTreeSet<&String> = names.iter().collect();
    Ok(client.list_units()?.into_iter().filter(|unit| wanted.contains(&unit.name)).collect())
}

pub(super) fn current_states(client: &ApiClient, names: &[String]) -> Result<Vec<UnitState>, ApiError> {
    if names.len() <= FEW {
        let states: Result<Vec<_>, _> = names.iter().map(|name| client.states_of(name)).collect();
        return Ok(states?.into_iter().flatten().collect());
    }
    let wanted: BTreeSet<&String> = names.iter().collect();
    Ok(client.unit_states()?.into_iter().filter(|state| wanted.contains(&state.name)).collect())
}

/// A server that cannot answer now is asked again later: waiting outlives a change of leader.
pub(super) fn retry_later<T>(session: &mut CommandSession<'_>, outcome: Result<T, ApiError>) -> Option<T> {
    outcome.map_err(|error| session.print_trace(printable_chain(&error))).ok()
}

/// The names, each once, in the order given.
pub(super) fn unique_names(names: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| seen.insert(*name)).cloned().collect()
}
