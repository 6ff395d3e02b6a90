//! Carries a plan out, step by step.
//!
//! Knows which function does which step. Refuses to decide: order and content come with the plan.
//! Invariant: a step that fails costs the others nothing, and is told with its cause.

mod access;
mod accounts;
mod closing;
mod content;
mod files;
mod scripts;
mod settings;
mod storage;
mod units;

use std::cell::RefCell;
use std::path::PathBuf;

use user_data::plan::Planned;
use user_data::plan::step::Step;

use crate::files::Change;
use crate::programs::Programs;
use crate::root::Root;
use crate::step_error::StepError;
use crate::web::Web;

/// What steps act on.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) root: &'a Root,
    pub(crate) programs: &'a dyn Programs,
    pub(crate) web: &'a dyn Web,
    pub(crate) instance_id: &'a str,
    /// What sshd's files held before this run, so that it can be put back.
    pub(crate) before: RefCell<Vec<(PathBuf, Option<Vec<u8>>)>>,
}

impl<'a> Host<'a> {
    pub(crate) fn new(
        root: &'a Root,
        programs: &'a dyn Programs,
        web: &'a dyn Web,
        instance_id: &'a str,
    ) -> Self {
        Self { root, programs, web, instance_id, before: RefCell::new(Vec::new()) }
    }
}

/// What became of a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Done {
    Changed,
    Failed(String),
    Unchanged,
}

/// Does the steps in their order.
pub(crate) fn carry_out(steps: &[Planned], host: &Host<'_>) -> Vec<Done> {
    let mut fates = Vec::with_capacity(steps.len());
    for batch in steps.chunk_by(|one, next| units::go_together(&one.step, &next.step)) {
        match units::all_at_once(batch, host) {
            Some(done) => fates.extend(batch.iter().map(|_| done.clone())),
            None => fates.extend(batch.iter().map(|planned| one(planned, host))),
        }
    }
    fates
}

fn one(planned: &Planned, host: &Host<'_>) -> Done {
    match act(&planned.step, host) {
        Ok(Change::Made) => Done::Changed,
        Ok(Change::None) => Done::Unchanged,
        Err(error) => Done::Failed(error.chain()),
    }
}

fn act(step: &Step, host: &Host<'_>) -> Result<Change, StepError> {
    match step {
        Step::AddMounts(mounts) => storage::add_mounts(mounts, host),
        Step::AuthorizeKeys { user, keys } => access::authorize(user, keys, host),
        Step::ChangePower(power) => closing::change_power(power, host),
        Step::CommandUnit { name, verb } => units::command(name, *verb, host),
        Step::CreateGroup(group) => accounts::create_group(group, host),
        Step::CreateUser(user) => accounts::create_user(user, host),
        Step::EnableUnit { name, enable, runtime } => units::enable(name, *enable, *runtime, host),
        Step::GuardAccess => access::guard(host),
        Step::ImportKeys { user, from } => access::import(user, from, host),
        Step::MakeDirectory(directory) => files::make_directory(directory, host),
        Step::MakeFilesystem(filesystem) => storage::make_filesystem(filesystem, host),
        Step::MakeLink(link) => files::make_link(link, host),
        Step::MakeSwap { path, size } => storage::make_swap(path, *size, host),
        Step::MaskUnit { name, mask, runtime } => units::mask(name, *mask, *runtime, host),
        Step::MergeEnvironment { path, template, variables } => {
            settings::merge_environment(path, template.as_deref(), variables, host)
        }
        Step::PartitionDisk(partitioning) => storage::partition(partitioning, host),
        Step::PhoneHome(home) => closing::phone_home(home, host),
        Step::PrepareHostKeys(keys) => access::prepare_host_keys(keys, host),
        Step::ReloadUnits => units::reload(host),
        Step::RestartNetwork => units::restart_network(host),
        Step::RunScript(script) => scripts::run(script, host),
        Step::SetHosts { fqdn, hostname, style } => {
            settings::set_hosts(fqdn.as_deref(), hostname, *style, host)
        }
        Step::SetHostname(name) => settings::set_hostname(name, host),
        Step::SetPassword { user, password, expire } => accounts::set_password(user, password, *expire, host),
        Step::SetTimezone(zone) => settings::set_timezone(zone, host),
        Step::ShowMessage(text) => closing::show_message(text, host),
        Step::TrustCertificates { trusted, remove_defaults } => {
            settings::trust_certificates(trusted, *remove_defaults, host)
        }
        Step::WriteDropIn { unit, name, content, runtime } => {
            units::write_drop_in(unit, name, content.reveal(), *runtime, host)
        }
        Step::WriteFile(file) => files::write_file(file, host),
        Step::WriteUnit { name, content, runtime } => {
            units::write_unit(name, content.reveal(), *runtime, host)
        }
    }
}
