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
mod partitions;
mod reach;
mod scripts;
mod settings;
mod storage;
mod units;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use user_data::plan::step::PlanStep;
use user_data::plan::{PlanStage, PlannedStep};

use crate::files::Change;
use crate::machine::Machine;
use crate::programs::Programs;
use crate::root::Root;
use crate::step_error::StepError;
use crate::systemd::Manager;
use crate::web::Web;

pub(crate) use access::retain_platform_keys;

/// What steps act on.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) root: &'a Root,
    pub(crate) programs: &'a dyn Programs,
    pub(crate) web: &'a dyn Web,
    pub(crate) manager: &'a dyn Manager,
    pub(crate) instance_id: &'a str,
    /// Units that were written since the manager was last told.
    pub(crate) changed_units: RefCell<Vec<String>>,
    /// What sshd's files held before this run, so that it can be put back.
    pub(crate) before: RefCell<Vec<guard::Before>>,
    /// Where files were placed, by the paths that links on the way lead to.
    pub(crate) placed: RefCell<HashMap<String, String>>,
    /// What was put back, and why.
    pub(crate) taken_back: RefCell<Vec<(PathBuf, String)>>,
}

impl<'a> Host<'a> {
    pub(crate) fn new(machine: &'a Machine, instance_id: &'a str) -> Self {
        let Machine { root, programs, web, manager } = machine;
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

/// What became of a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Done {
    Changed,
    Failed(String),
    Unchanged,
}

impl Done {
    fn of(fate: Result<Change, StepError>) -> Self {
        match fate {
            Ok(Change::Made) => Self::Changed,
            Ok(Change::None) => Self::Unchanged,
            Err(error) => Self::Failed(error.chain()),
        }
    }
}

/// Does the steps in their order; neighbours that share a file or a conversation are done together.
pub(crate) fn carry_out(steps: &[PlannedStep], host: &Host<'_>) -> Vec<Done> {
    let mut fates = Vec::with_capacity(steps.len());
    for batch in steps.chunk_by(|one, next| company(one).is_some_and(|first| Some(first) == company(next))) {
        fates.extend(match company(&batch[0]) {
            Some(Company::Accounts) => accounts::carry_out(batch, host, one),
            Some(Company::Units) => units::carry_out(batch, host),
            None => batch.iter().map(|planned| one(planned, host)).collect(),
        });
    }
    // A path that a link leads to sshd's files is not seen in a plan.
    if !host.before.borrow().is_empty() {
        // Whatever is taken back is told where it was asked for, below.
        let _ = guard::guard(host);
    }
    for (planned, fate) in steps.iter().zip(&mut fates) {
        let path = match &planned.step {
            PlanStep::PlaceFile(file) => &file.path,
            PlanStep::WriteFile(file) => &file.path,
            _ => continue,
        };
        if let Some(reason) = guard::taken_back(path, host) {
            *fate = Done::Failed(reason);
        }
    }
    fates
}

/// With whom a step is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Company {
    Accounts,
    Units,
}

fn company(planned: &PlannedStep) -> Option<Company> {
    match planned.stage {
        PlanStage::Accounts => Some(Company::Accounts),
        _ if units::is_request(&planned.step) => Some(Company::Units),
        _ => None,
    }
}

fn one(planned: &PlannedStep, host: &Host<'_>) -> Done {
    Done::of(act(&planned.step, host))
}

fn act(step: &PlanStep, host: &Host<'_>) -> Result<Change, StepError> {
    match step {
        PlanStep::AddMounts(mounts) => storage::add_mounts(mounts, host),
        PlanStep::AuthorizeKeys { user, keys } => access::authorize(user, keys, host),
        PlanStep::ChangePower(power) => closing::change_power(power, host),
        // The manager is asked for these in company, if only of one.
        PlanStep::CommandUnit { .. }
        | PlanStep::EnableUnit { .. }
        | PlanStep::ReloadUnits
        | PlanStep::RestartNetwork => Ok(Change::None),
        PlanStep::CreateGroup(_) | PlanStep::CreateUser(_) | PlanStep::SetPassword { .. } => {
            accounts::one(step, host)
        }
        PlanStep::EditPartitions(wanted) => partitions::edit(wanted, host),
        PlanStep::GuardAccess => guard::guard(host),
        PlanStep::ImportKeys { user, from } => access::import(user, from, host),
        PlanStep::MakeDirectory(directory) => files::make_directory(directory, host),
        PlanStep::MakeFilesystem(filesystem) => filesystems::make_filesystem(filesystem, host),
        PlanStep::MakeLink(link) => files::make_link(link, host),
        PlanStep::MakeSwap { path, size } => storage::make_swap(path, *size, host),
        PlanStep::MaskUnit { name, mask, runtime } => units::mask(name, *mask, *runtime, host),
        PlanStep::MergeEnvironment { path, template, variables } => {
            settings::merge_environment(path, template.as_deref(), variables, host)
        }
        PlanStep::PartitionDisk(partitioning) => storage::partition(partitioning, host),
        PlanStep::PhoneHome(home) => closing::phone_home(home, host),
        PlanStep::PlaceFile(file) => files::place_file(file, host),
        PlanStep::PrepareHostKeys(keys) => access::prepare_host_keys(keys, host),
        PlanStep::RunScript(script) => scripts::run(script, host),
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
