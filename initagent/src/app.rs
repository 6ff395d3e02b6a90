//! Carries a verb out.
//!
//! Knows which module does what. Refuses to print. Invariant: one call a verb.

#![expect(clippy::disallowed_methods, reason = "`status --wait` waits")]

use std::path::Path;
use std::time::Duration;

use first_boot::{
    MachineAccess, MachineRoot, OfflineReport, RecurError, RunOutcome, RunStatus, Switch, SwitchError,
};

use crate::boot_complete::{self, BootCompleteError};
use crate::cli::{Format, UsageError, Verb};
use crate::host_keys::{self, MakeHostKeysError};
use crate::network_cards::{self, NetworkCardsError};
use crate::report::Report;
use crate::slots::{self, SlotsError};

/// How long sshd waits for the keys of a new machine.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    BootComplete(#[from] BootCompleteError),
    #[error(transparent)]
    HostKeys(#[from] MakeHostKeysError),
    #[error(transparent)]
    NetworkCards(#[from] NetworkCardsError),
    #[error(transparent)]
    Provision(#[from] SwitchError),
    #[error(transparent)]
    Recur(#[from] RecurError),
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// Carries it out.
pub(crate) fn run(verb: Verb) -> Result<Report, RunError> {
    Ok(match verb {
        Verb::Apply { file, format } => {
            outcome(&first_boot::apply_file(&file, &MachineAccess::this_machine()), format)
        }
        Verb::AwaitLogins => Report::done(await_logins(&MachineRoot::this_machine())),
        Verb::BootComplete => Report::done(boot_complete::complete()?),
        Verb::BootSettled => Report::done(boot_complete::settle()?),
        Verb::FirstBoot { options, format } => {
            outcome(&first_boot::run_first_boot(options, &MachineAccess::this_machine()), format)
        }
        Verb::Help(text) => Report::done(text),
        Verb::HostKeys => Report::done(host_keys::run(Path::new(host_keys::FOLDER))?),
        Verb::NetworkCards => Report::done(network_cards::run()?),
        Verb::Plan { file, listing } => judgement(first_boot::plan_file(&file, listing)),
        Verb::Provision { to } => Report::done(provision(to, &MachineRoot::this_machine())?),
        Verb::Recur { recurrence, name, command } => {
            let exit_code =
                first_boot::run_recurring(&MachineRoot::this_machine(), recurrence, &name, &command)?;
            Report { text: String::new(), exit_code }
        }
        Verb::Slots(request) => Report::done(slots::run(&request)?),
        Verb::Status { format, wait: false } => {
            status(first_boot::last_status(&MachineRoot::this_machine()), format)
        }
        Verb::Status { format, wait: true } => {
            status(end_of_first_boot(&MachineRoot::this_machine()), format)
        }
        Verb::Validate { files, style } => judgement(first_boot::validate_files(&files, style)),
        Verb::Version => Report::done(concat!("initagent ", env!("CARGO_PKG_VERSION"))),
    })
}

/// Sets the switch, if it is to be set, and says how it stands.
fn provision(to: Option<Switch>, root: &MachineRoot) -> Result<String, RunError> {
    if let Some(switch) = to {
        first_boot::set_switch(root, switch)?;
    }
    Ok(first_boot::describe_switch(root))
}

fn outcome(outcome: &RunOutcome, format: Format) -> Report {
    let text = match format {
        Format::Json => format!("{:#}", outcome.to_json()),
        Format::Text => outcome.journal_text(),
    };
    Report { text, exit_code: outcome.exit_code() }
}

fn judgement(judgement: OfflineReport) -> Report {
    Report { text: judgement.text, exit_code: judgement.verdict.exit_code() }
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
        if let Some(status) = first_boot::ended_status(root) {
            return status;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A machine that has not ended its first boot is not well yet.
fn status(status: RunStatus, format: Format) -> Report {
    let text = match format {
        Format::Json => status.json,
        Format::Text => status.text,
    };
    Report { text, exit_code: status.verdict.map_or(1, first_boot::Verdict::exit_code) }
}
