//! Carries a plan out, step by step.
//!
//! Knows which function does which step. Refuses to decide: order and content come with the plan.
//! Invariant: a step that fails costs the others nothing, and is told with its cause.

mod access;
mod accounts;
mod closing;
mod content;
mod files;
mod filesystems;
mod guard;
mod key_files;
mod own_disk;
mod partitions;
mod reach;
mod scripts;
mod settings;
mod snapshot;
mod storage;
mod units;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use user_data::plan::step::PlanStep;
use user_data::plan::{PlanStage, PlannedStep};

use crate::files::FileChange;
use crate::machine::MachineAccess;
use crate::programs::ProgramRunner;
use crate::root::MachineRoot;
use crate::step_error::StepError;
use crate::step_result::{ResultItem, StepResult};
use crate::systemd::UnitManager;
use crate::web::WebClient;

pub(crate) use access::retain_platform_keys;

/// What steps act on.
#[derive(Debug)]
pub(crate) struct ApplyContext<'a> {
    pub(crate) root: &'a MachineRoot,
    pub(crate) programs: &'a dyn ProgramRunner,
    pub(crate) web: &'a dyn WebClient,
    pub(crate) manager: &'a dyn UnitManager,
    pub(crate) instance_id: &'a str,
    /// Units that were written since the manager was last told.
    pub(crate) changed_units: RefCell<Vec<String>>,
    /// What sshd's files held before this run, so that it can be put back.
    pub(crate) before: RefCell<Vec<snapshot::FileSnapshot>>,
    /// Where files were placed, by the paths that links on the way lead to.
    pub(crate) placed: RefCell<HashMap<String, String>>,
    /// What was put back, and why.
    pub(crate) taken_back: RefCell<Vec<(PathBuf, String)>>,
}

impl<'a> ApplyContext<'a> {
    pub(crate) fn new(machine: &'a MachineAccess, instance_id: &'a str) -> Self {
        let MachineAccess { root, programs, web, manager } = machine;
        Self {
            root,
            programs: &**programs,
            web: &**web,
            manager: &**manager,
            instance_id,
            before: RefCell::default(),
            changed_units: RefCell::default(),
            placed: RefCell::default(),
            taken_back: RefCell::default(),
        }
    }
}

/// Does the steps in their order, and keeps each with its result.
pub(crate) fn carry_out(steps: Vec<PlannedStep>, host: &ApplyContext<'_>) -> Vec<ResultItem> {
    let mut fates = carry_out_batches(&steps, host);
    // A path that a link leads to sshd's files is not seen in a plan.
    if !host.before.borrow().is_empty() {
        // Whatever is taken back is told where it was asked for, below.
        let _ = guard::check_lockout(host);
    }
    for (planned, fate) in steps.iter().zip(&mut fates) {
        let path = match &planned.step {
            PlanStep::PlaceFile(file) => &file.path,
            PlanStep::WriteFile(file) => &file.path,
            _ => continue,
        };
        if let Some(reason) = guard::taken_back(path, host) {
            *fate = StepResult::Failed(reason);
        }
    }
    steps.into_iter().zip(fates).map(|(planned, done)| ResultItem { planned, done }).collect()
}

/// One result a step; neighbours that share a file or a conversation are done together.
fn carry_out_batches(steps: &[PlannedStep], host: &ApplyContext<'_>) -> Vec<StepResult> {
    let mut fates = Vec::with_capacity(steps.len());
    // Measured: twenty runs of useradd and three of systemctl took nearly all the time of a plan, and now
    // they are one change and one conversation. Only neighbours are put together, so that the plan's order
    // holds.
    for batch in
        steps.chunk_by(|one, next| batch_kind(one).is_some_and(|first| Some(first) == batch_kind(next)))
    {
        fates.extend(match batch_kind(&batch[0]) {
            Some(BatchKind::Accounts) => accounts::carry_out(batch, host, run_step),
            Some(BatchKind::Units) => units::carry_out(batch, host),
            None => batch.iter().map(|planned| run_step(planned, host)).collect(),
        });
    }
    fates
}

/// With whom a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchKind {
    Accounts,
    Units,
}

fn batch_kind(planned: &PlannedStep) -> Option<BatchKind> {
    match planned.stage {
        // The whole stage, also keys between two users: else each of them would end a batch.
        PlanStage::Accounts => Some(BatchKind::Accounts),
        _ if units::is_request(&planned.step) => Some(BatchKind::Units),
        _ => None,
    }
}

fn run_step(planned: &PlannedStep, host: &ApplyContext<'_>) -> StepResult {
    StepResult::from_result(execute_step(&planned.step, host))
}

fn execute_step(step: &PlanStep, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    match step {
        PlanStep::AddMounts(mounts) => storage::add_mounts(mounts, host),
        PlanStep::AuthorizeKeys { user, keys } => access::authorize_keys(user, keys, host),
        PlanStep::ChangePower(power) => closing::change_power(power, host),
        // The manager is asked for these in company, if only of one.
        PlanStep::CommandUnit { .. }
        | PlanStep::EnableUnit { .. }
        | PlanStep::ReloadUnits
        | PlanStep::RestartNetwork => Ok(FileChange::None),
        PlanStep::CreateGroup(_) | PlanStep::CreateUser(_) | PlanStep::SetPassword { .. } => {
            accounts::run_account_step(step, host)
        }
        PlanStep::EditPartitions(wanted) => partitions::edit_table(wanted, host),
        PlanStep::GuardAccess => guard::check_lockout(host),
        PlanStep::ImportKeys { user, from } => access::import_keys(user, from, host),
        PlanStep::MakeDirectory(directory) => files::make_directory(directory, host),
        PlanStep::MakeFilesystem(filesystem) => filesystems::make_filesystem(filesystem, host),
        PlanStep::MakeLink(link) => files::make_link(link, host),
        PlanStep::MakeSwap { path, size } => storage::make_swap(path, *size, host),
        PlanStep::MaskUnit { name, mask, runtime } => units::mask_unit(name, *mask, *runtime, host),
        PlanStep::MergeEnvironment { path, template, variables } => {
            settings::merge_environment(path, template.as_deref(), variables, host)
        }
        PlanStep::PartitionDisk(partitioning) => storage::partition_disk(partitioning, host),
        PlanStep::PhoneHome(home) => closing::phone_home(home, host),
        PlanStep::PlaceFile(file) => files::place_file(file, host),
        PlanStep::PrepareHostKeys(keys) => access::prepare_host_keys(keys, host),
        PlanStep::RunScript(script) => scripts::run_script(script, host),
        PlanStep::SetHosts { fqdn, hostname, style } => {
            settings::set_hosts(fqdn.as_deref(), hostname.as_deref(), *style, host)
        }
        PlanStep::SetHostname(name) => settings::set_hostname(name, host),
        PlanStep::SetPlatformKeys { user, keys } => access::set_platform_keys(user, keys, host),
        PlanStep::SetTimezone(zone) => settings::set_timezone(zone, host),
        PlanStep::ShowMessage(text) => closing::show_message(text, host),
        PlanStep::TrustCertificates { trusted, remove_defaults } => {
            settings::trust_certificates(trusted, *remove_defaults, host)
        }
        PlanStep::WriteDropIn { unit, name, content, runtime } => {
            units::write_drop_in(unit, name, content.reveal(), *runtime, host)
        }
        PlanStep::WriteFile(file) => files::write_file(file, host),
        PlanStep::WriteUnit { name, content, runtime } => {
            units::write_unit(name, content.reveal(), *runtime, host)
        }
    }
}
