//! Why a step could not be carried out.

use std::io;
use std::path::PathBuf;

use crate::edit_error::EditError;
use crate::programs::RunError;
use crate::systemd::ManagerError;
use crate::web::WebError;

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Account(#[from] EditError),
    #[error("nothing answered that holds a public key for {user}")]
    NoKeys { user: String },
    #[error("there is no {kind} {name}")]
    NoAccount { kind: &'static str, name: String },
    #[error("cannot link {}", path.display())]
    Link { path: PathBuf, source: io::Error },
    #[error("cannot lock the files of accounts")]
    LockAccounts { source: io::Error },
    #[error("cannot make directory {}", path.display())]
    MakeDirectory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error("{path} {reason}")]
    Path { path: String, reason: String },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Web(#[from] WebError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl StepError {
    /// The error and all its causes on one line.
    pub(crate) fn error_chain(&self) -> String {
        error_text::error_chain(self)
    }
}
