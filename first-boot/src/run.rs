//! One run, from the platform to the result, in five phases: facts, input, plan, execution, outcome.
//!
//! Knows what happens once and what at each boot. Refuses to know any format. Invariant: the instance
//! is remembered as configured only after its files are on the disk and its scripts were started.
//!
//! ```text
//! BootFacts ─► NetworkRun ─► BootInput ─► ReadResult ─► BootPlan ─► ResultItems ─► RunOutcome
//!  (asks)       (acts)        (fetches)    (decides)     (decides)    (acts)        (reports)
//! ```

mod boot_facts;
mod boot_plan;
mod input;
mod lock;
mod status;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use platform::BootKind;
use user_data::cloudconfig::order::PlanFacts;
use user_data::reading::{self, UserDataInput};

use crate::apply::{self, ApplyContext};
use crate::facts;
use crate::instance_data::Names;
use crate::machine::MachineAccess;
use crate::outcome::{RunErrors, RunOutcome};
use crate::record;
use crate::root::MachineRoot;
use crate::step_result::ResultItem;
use boot_facts::{BootFacts, InstanceFacts};
use boot_plan::BootPlan;
use input::{BootInput, NetworkRun};
use lock::{LOCK_TIMEOUT, lock_run};
pub use status::{RunStatus, await_logins, ended_status, last_status};

/// A file that is applied by hand is read up to here: Ignition carries the contents of files.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// How a run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// Configures again what was configured before.
    pub force: bool,
}

/// The verb of each boot: finds the platform, asks it, does what is asked for.
#[must_use]
pub fn run_first_boot(options: RunOptions, machine: &MachineAccess) -> RunOutcome {
    let root = &machine.root;
    let lock = lock_run(root, LOCK_TIMEOUT);
    let mut facts = BootFacts::gather(options, root);
    let mut outcome = match facts.instance.take() {
        Some(instance) => configure_instance(instance, &mut facts, machine),
        None => keep_access(machine),
    };
    let mut errors = lock_errors(&lock);
    errors.append(facts.errors);
    errors.append(std::mem::take(&mut outcome.errors));
    errors.refused = facts.chooser.into_refused();
    status::write_result(root, RunOutcome { platform: facts.platform, errors, ..outcome })
}

/// Does what is asked for of an instance whose platform speaks, or spoke.
fn configure_instance(
    mut instance: InstanceFacts,
    facts: &mut BootFacts<'_>,
    machine: &MachineAccess,
) -> RunOutcome {
    let id = instance.identity.id.clone();
    let host = ApplyContext::new(machine, &id);
    let network = NetworkRun::bring_up(&instance.metadata, &host);
    let input = BootInput::gather(&mut instance, machine);
    let reading = reading::read_user_data(network.reading, &input.handed, &input.facts);
    let plan = BootPlan::of(reading.plan, instance.boot);
    let (items, executed) = execute_plan(plan, &instance, facts, &host);
    let mut errors = input.errors;
    errors.append(executed);
    RunOutcome {
        is_first: instance.boot == BootKind::First,
        items: network.items.into_iter().chain(items).collect(),
        found: reading.found,
        sources: reading.sources,
        instance_id: id,
        errors,
        ..RunOutcome::default()
    }
}

/// Carries the groups of a plan out, and between them what must come before the next one.
fn execute_plan(
    plan: BootPlan,
    instance: &InstanceFacts,
    facts: &mut BootFacts<'_>,
    host: &ApplyContext<'_>,
) -> (Vec<ResultItem>, RunErrors) {
    let root = host.root;
    // Before keys are written: who is not named any more must be out, also if the run fails behind this.
    apply::retain_platform_keys(root, &plan.platform_users());
    let mut items = apply::carry_out(plan.access, host);
    let mut errors = status::open_logins(root);
    items.extend(apply::carry_out(plan.services, host));
    errors.append(remember_instance(instance, facts, root));
    if let Some(detected) = facts.detected.as_ref().filter(|_| root.is_running()) {
        errors.append(boot_facts::check_in(detected, instance.boot));
    }
    facts.chooser.refuse_late_offers();
    items.extend(apply::carry_out(plan.closing, host));
    (items, errors)
}

/// What could not be had is asked for again at the next boot, so without user-data nothing is remembered.
fn remember_instance(instance: &InstanceFacts, facts: &BootFacts<'_>, root: &MachineRoot) -> RunErrors {
    let mut errors = RunErrors::default();
    if instance.metadata.lacks_item("user-data") {
        return errors;
    }
    if let Some(detected) = facts.detected.as_ref().filter(|_| instance.is_fresh) {
        let remembered = facts.chooser.remember_platform(detected);
        errors.append(RunErrors::from_failure(remembered.map_err(|error| {
            format!("cannot remember what configured this machine: {}", error.error_chain())
        })));
    }
    if instance.boot == BootKind::First {
        let id = &instance.identity.id;
        errors.append(RunErrors::from_failure(record::mark_configured(root, id).map_err(|error| {
            format!("cannot remember that instance {id} is configured: {}", error.error_chain())
        })));
    }
    errors
}

/// Nobody says what to do: the machine still gets its host keys.
fn keep_access(machine: &MachineAccess) -> RunOutcome {
    let plan = reading::read(&UserDataInput::default(), &PlanFacts::default()).plan;
    let items = apply::carry_out(plan.steps, &ApplyContext::new(machine, "unknown"));
    RunOutcome {
        instance_id: record::configured_instance(&machine.root).unwrap_or_else(|| "unknown".to_owned()),
        items,
        errors: status::open_logins(&machine.root),
        ..RunOutcome::default()
    }
}

/// `apply --from-file`: does what a file asks for, now.
#[must_use]
pub fn apply_file(file: &Path, machine: &MachineAccess) -> RunOutcome {
    let root = &machine.root;
    let lock = lock_run(root, LOCK_TIMEOUT);
    let metadata = record::load_metadata(root).unwrap_or_default();
    let instance_id = facts::instance_identity(&metadata).id;
    let mut outcome = RunOutcome {
        platform: "a file".to_owned(),
        is_first: true,
        errors: lock_errors(&lock),
        instance_id: instance_id.clone(),
        ..RunOutcome::default()
    };
    let bytes = match read_file(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            outcome.errors.failures.push(format!("cannot read {}: {error}", file.display()));
            return outcome;
        }
    };
    let user = facts::unpack_with(&file.display().to_string(), &bytes, machine);
    let handed = UserDataInput { user, ..UserDataInput::default() };
    let names = Names::read_kept(root).unwrap_or_else(|| Names::from_metadata(&metadata, &instance_id, root));
    let facts = PlanFacts { hostname: None, keys: Vec::new(), ..facts::plan_facts(&metadata, false, &names) };
    let reading = reading::read(&handed, &facts);
    let items = apply::carry_out(reading.plan.steps, &ApplyContext::new(machine, &instance_id));
    record::sync_file_systems(root);
    RunOutcome { items, found: reading.found, sources: reading.sources, ..outcome }
}

/// A run goes on without its lock, and says so.
fn lock_errors(lock: &Result<File, String>) -> RunErrors {
    RunErrors::from_failure(lock.as_ref().map(|_| ()).map_err(Clone::clone))
}

fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
