//! Carries a verb out.
//!
//! Knows which module does what. Refuses to print. Invariant: one call a verb.

use std::path::Path;

use crate::boot_complete::{self, BootCompleteError};
use crate::cli::{UsageError, Verb};
use crate::host_keys::{self, MakeHostKeysError};
use crate::slots::{self, SlotsError};

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    BootComplete(#[from] BootCompleteError),
    #[error(transparent)]
    HostKeys(#[from] MakeHostKeysError),
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// Carries it out.
pub(crate) fn run(verb: Verb) -> Result<String, RunError> {
    Ok(match verb {
        Verb::BootComplete => boot_complete::run()?,
        Verb::Help(text) => text.to_owned(),
        Verb::HostKeys => host_keys::run(Path::new(host_keys::FOLDER))?,
        Verb::Slots(request) => slots::run(&request)?,
        Verb::Version => concat!("initagent ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}
