//! Why a verb was not carried out: one case for each part that can fail.

use cluster::request::ClusterError;
use first_boot::{RecurError, SwitchError};

use crate::boot_complete::BootCompleteError;
use crate::cli::UsageError;
use crate::host_keys::MakeHostKeysError;
use crate::install::InstallSystemError;
use crate::network_cards::NetworkCardsError;
use crate::slots::SlotsError;
use crate::update::service::UpdateError;

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    BootComplete(#[from] BootCompleteError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot run etcdctl")]
    Etcdctl { source: std::io::Error },
    #[error(transparent)]
    HostKeys(#[from] MakeHostKeysError),
    #[error(transparent)]
    Install(#[from] InstallSystemError),
    #[error(transparent)]
    NetworkCards(#[from] NetworkCardsError),
    #[error(transparent)]
    Provision(#[from] SwitchError),
    #[error(transparent)]
    Recur(#[from] RecurError),
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error(transparent)]
    Usage(#[from] UsageError),
}
