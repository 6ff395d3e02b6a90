//! What a plan is made of: the network that is up, what was handed over, and the facts of the machine.
//!
//! Knows in which order they are had: user-data may refer to what is fetched, and that needs the network. Refuses to
//! read user-data. Invariant: the network is planned once, and its steps are kept with their results.

use std::mem;
use std::time::Duration;

use platform::{BootKind, InstanceMetadata};
use user_data::cloudconfig::order::PlanFacts;
use user_data::plan::step::PlanStep;
use user_data::reading::{self, ReadResult, UserDataInput};

use super::boot_facts::{InstanceFacts, store_metadata};
use crate::apply::{self, ApplyContext};
use crate::facts;
use crate::instance_data::Names;
use crate::machine::MachineAccess;
use crate::outcome::RunErrors;
use crate::root::MachineRoot;
use crate::step_result::{ResultItem, StepResult};

/// How long a document that names an address may wait for an interface to have one: DHCP takes some seconds, and
/// without an answer the document is still of use.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// The network, once it was brought up.
#[derive(Debug)]
pub(super) struct NetworkRun {
    pub(super) items: Vec<ResultItem>,
    /// What was wrong with its description; the rest is read behind it.
    pub(super) reading: ReadResult,
}

impl NetworkRun {
    /// Brings it up before anything that may need it: what user-data refers to, addresses, keys elsewhere.
    ///
    /// At each boot, since a platform may attach an interface meanwhile.
    pub(super) fn bring_up(metadata: &InstanceMetadata, host: &ApplyContext<'_>) -> Self {
        let mut reading = reading::read_network(facts::network_part(metadata).as_ref());
        let mut items: Vec<ResultItem> = Vec::new();
        for planned in mem::take(&mut reading.plan).steps {
            // What runs is left alone if nothing changed.
            let is_idle = planned.step == PlanStep::RestartNetwork
                && !items.iter().any(|item| item.done == StepResult::Changed);
            if is_idle {
                items.push(ResultItem { planned, done: StepResult::Unchanged });
            } else {
                items.extend(apply::carry_out(vec![planned], host));
            }
        }
        Self { items, reading }
    }
}

/// What is read and planned.
#[derive(Debug)]
pub(super) struct BootInput {
    pub(super) handed: UserDataInput,
    pub(super) facts: PlanFacts,
    pub(super) errors: RunErrors,
}

impl BootInput {
    /// Unpacks what was handed over, with what it refers to.
    pub(super) fn gather(instance: &mut InstanceFacts, machine: &MachineAccess) -> Self {
        let root = &machine.root;
        let mut errors = RunErrors::default();
        let handed = facts::gather_input(&instance.metadata, machine);
        if root.is_running() && facts::ask_for_addresses(&handed) {
            let addresses = mem::take(&mut instance.metadata.addresses);
            instance.metadata.addresses = addresses.or_interfaces(ADDRESS_TIMEOUT);
            errors.append(store_metadata(root, &instance.metadata));
        }
        let (names, kept) = names_of(instance, root);
        errors.append(kept);
        let facts = facts::plan_facts(&instance.metadata, instance.is_clone, &names);
        Self { handed, facts, errors }
    }
}

/// What templates may name: of an instance that is configured, as it was then.
fn names_of(instance: &InstanceFacts, root: &MachineRoot) -> (Names, RunErrors) {
    if let Some(kept) = Names::read_kept(root).filter(|_| instance.boot == BootKind::Later) {
        return (kept, RunErrors::default());
    }
    let names = Names::from_metadata(&instance.metadata, &instance.identity.id, root);
    let kept = names
        .keep_names(root)
        .map_err(|error| format!("cannot keep the names that templates may use: {}", error.error_chain()));
    (names, RunErrors::from_problem(kept))
}
