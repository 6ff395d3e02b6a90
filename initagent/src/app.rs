//! Carries a verb out.
//!
//! Knows which module does what. Refuses to print. Invariant: one call a verb.

#![expect(clippy::disallowed_methods, reason = "`status --wait` waits")]

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use cluster::etcdctl;
use cluster::request::{ClusterError, FAIL};
use first_boot::{MachineAccess, MachineRoot, OfflineReport, OutputFormat, RunOutcome, RunStatus, Switch};

use crate::boot_complete::{self, BootCompleteError};
use crate::cli::Verb;
use crate::cluster_verb::{ClusterCall, own_environment};
use crate::host_keys;
use crate::install;
use crate::network_cards;
use crate::report::{VerbReport, announce_line};
use crate::run_error::RunError;
use crate::slots;
use crate::update;
use error_text::error_chain;

/// How long sshd waits for the keys of a new machine.
// On a machine without any key yet, sshd refused whoever asked early. After four times its
// `PerSourcePenalties` let nobody in from there for 20 seconds. Longer than this, something else is wrong,
// and people must get in to see it.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Carries it out.
pub(crate) fn run_verb(verb: Verb) -> Result<VerbReport, RunError> {
    Ok(match verb {
        Verb::Apply { file, format } => {
            report_outcome(&first_boot::apply_file(&file, &MachineAccess::this_machine()), format)
        }
        Verb::AwaitLogins => VerbReport::done(await_logins(&MachineRoot::this_machine())),
        Verb::BootComplete => VerbReport::done(complete_boot()?),
        Verb::BootSettled => VerbReport::done(boot_complete::confirm_run()?),
        Verb::Cluster(call) => run_cluster(call)?,
        Verb::Etcdctl(words) => run_etcdctl(&words)?,
        Verb::FirstBoot { options, format } => {
            report_outcome(&first_boot::run_first_boot(options, &MachineAccess::this_machine()), format)
        }
        Verb::Help(text) => VerbReport::done(text),
        Verb::HostKeys => VerbReport::done(host_keys::make_host_keys(Path::new(host_keys::FOLDER))?),
        Verb::Install(order) => VerbReport::done(install::install_system(&order, &announce_line)?),
        Verb::NetworkCards => VerbReport::done(network_cards::start_network_cards()?),
        Verb::Plan { file, listing } => report_offline(first_boot::plan_file(&file, listing)),
        Verb::Provision { to } => VerbReport::done(provision_switch(to, &MachineRoot::this_machine())?),
        Verb::Recur { recurrence, name, command } => {
            let exit_code =
                first_boot::run_recurring(&MachineRoot::this_machine(), recurrence, &name, &command)?;
            VerbReport { text: String::new(), exit_code }
        }
        Verb::Update(request) => VerbReport::done(update::orders::run_request(&request)?),
        Verb::Slots(request) => VerbReport::done(slots::run_request(&request)?),
        Verb::Status { format, wait: false } => {
            report_status(first_boot::last_status(&MachineRoot::this_machine()), format)
        }
        // cloud-init's flag: Packer and Terraform wait so.
        Verb::Status { format, wait: true } => {
            report_status(end_of_first_boot(&MachineRoot::this_machine()), format)
        }
        Verb::Validate { files, style } => report_offline(first_boot::validate_files(&files, style)),
        Verb::Version => VerbReport::done(concat!("initagent ", env!("CARGO_PKG_VERSION"))),
    })
}

/// A slot that an update has brought is left to its trial, which sees more than that the boot is complete.
fn complete_boot() -> Result<String, BootCompleteError> {
    match update::slot_on_trial() {
        Some(slot) => Ok(format!("slot {slot} is on trial: its checks decide")),
        None => boot_complete::complete_boot(),
    }
}

/// A unit whose condition this is starts, is skipped or fails, and never the one for the other.
fn run_cluster(call: ClusterCall) -> Result<VerbReport, ClusterError> {
    let is_condition = call.is_condition();
    match call.carry_out(&mut |line| announce_line(&line)) {
        Ok(answer) => Ok(VerbReport { text: answer.text, exit_code: answer.exit_code }),
        // To `ExecCondition=` an exit code of 1 means that all is well without the unit.
        Err(error) if is_condition => {
            announce_line(&error_chain(&error));
            Ok(VerbReport { text: String::new(), exit_code: FAIL })
        }
        Err(error) => Err(error),
    }
}

/// Runs etcdctl with what the words mean.
fn run_etcdctl(words: &[OsString]) -> Result<VerbReport, RunError> {
    let exit_code = etcdctl::run_etcdctl(words, &own_environment());
    let exit_code = exit_code.map_err(|source| RunError::Etcdctl { source })?;
    Ok(VerbReport { text: String::new(), exit_code })
}

/// Sets the switch, if it is to be set, and says how it stands.
fn provision_switch(to: Option<Switch>, root: &MachineRoot) -> Result<String, RunError> {
    if let Some(switch) = to {
        first_boot::set_switch(root, switch)?;
    }
    Ok(first_boot::describe_switch(root))
}

fn report_outcome(outcome: &RunOutcome, format: OutputFormat) -> VerbReport {
    let text = match format {
        OutputFormat::Json => format!("{:#}", outcome.to_json()),
        OutputFormat::Text => outcome.journal_text(),
    };
    VerbReport { text, exit_code: outcome.exit_code() }
}

fn report_offline(judgement: OfflineReport) -> VerbReport {
    VerbReport { text: judgement.text, exit_code: judgement.verdict.exit_code() }
}

/// Whatever holds the first boot up must not keep people out who want to know what it is.
fn await_logins(root: &MachineRoot) -> &'static str {
    if first_boot::await_logins(root, LOGIN_PATIENCE) {
        "whoever may log in can"
    } else {
        "the first boot takes its time: sshd starts without what it may bring"
    }
}

fn end_of_first_boot(root: &MachineRoot) -> RunStatus {
    loop {
        // Of this boot only: on a clone of a configured disk the kept result is that of another machine.
        if let Some(status) = first_boot::ended_status(root) {
            return status;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A machine that has not ended its first boot is not well yet.
fn report_status(status: RunStatus, format: OutputFormat) -> VerbReport {
    let text = match format {
        OutputFormat::Json => status.json,
        OutputFormat::Text => status.text,
    };
    VerbReport { text, exit_code: status.verdict.map_or(1, first_boot::Verdict::exit_code) }
}
