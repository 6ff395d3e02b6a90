//! The border between the API and the store: a picture to read, commands to write, changes to follow.
//!
//! Knows what may be asked for and how it can fail; refuses to know who asks. The real implementation
//! keeps a watched picture of etcd, the one for tests a plain [`Cluster`]. Invariant: when a command
//! returns, the picture of this machine shows its effect.

use std::future::Future;

use tokio::sync::broadcast;

use crate::{
    model::{machine::MachineId, state::DesiredState, unit_file::UnitFile, unit_name::UnitName},
    store::cluster::Cluster,
};

/// What happens to the drain of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainChange {
    /// Its units move away, and others stay away.
    Begin,
    /// It is taken back.
    End,
}

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryCommand {
    /// Adds a unit; fails when it exists.
    Create {
        /// Its name.
        name: UnitName,
        /// Its content.
        file: UnitFile,
        /// What is wanted of it.
        desired: DesiredState,
    },
    /// Removes a unit; fails when it does not exist.
    Destroy {
        /// Its name.
        name: UnitName,
    },
    /// Has a machine's units moved away and keeps others off it, or ends that.
    Drain {
        /// The machine; it may be absent.
        machine: MachineId,
        /// Which of the two.
        drain: DrainChange,
    },
    /// Moves units from crowded machines to idle ones, at most this many.
    Rebalance {
        /// The most moves.
        budget: u32,
    },
    /// Lets the engine move units although more machines vanished than its brake allows.
    ReleaseBrake,
    /// Gives a unit another content and sets what is wanted of it. A launched unit that stays launched
    /// keeps its machine and is changed by the rules of its rollout.
    Replace {
        /// Its name.
        name: UnitName,
        /// Its new content.
        file: UnitFile,
        /// What is wanted of it.
        desired: DesiredState,
    },
    /// Restarts a unit where it runs, on every machine if it is global.
    Restart {
        /// Its name.
        name: UnitName,
    },
    /// Sets what is wanted of a unit; fails when it does not exist.
    SetDesired {
        /// Its name.
        name: UnitName,
        /// What is wanted of it.
        desired: DesiredState,
    },
    /// Sets metadata over a machine's own; `None` hides the key.
    SetMetadata {
        /// The machine; it may be absent.
        machine: MachineId,
        /// The key.
        key: String,
        /// The value.
        value: Option<String>,
    },
}

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum CommandError {
    #[error(
        "the text of unit {0} has the SHA-1 of another text that is stored already; change a character of it"
    )]
    Collision(UnitName),
    #[error("unit {0} exists already")]
    Exists(UnitName),
    #[error("unit {0} does not exist")]
    NotFound(UnitName),
    #[error("cannot {action}: others changed the same at the same time, again and again; try once more")]
    Contended { action: String },
    #[error("cannot {action}: the store did not take it")]
    Store { action: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Whether the picture can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// Another machine has this one's ID; the reason in words.
    Excluded(String),
    /// The machine is registered and hears the store.
    Serving,
    /// The machine is not registered yet.
    Registering,
    /// The store has not been heard from for too long; the reason.
    StoreLost(String),
}

/// What changed; look at the picture for its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterChange {
    /// A machine came, went, or says something else.
    Machine(MachineId),
    /// A unit was submitted, changed, destroyed, or scheduled elsewhere.
    Unit(UnitName),
    /// A machine says something else of a unit.
    State(UnitName, MachineId),
    /// Somebody gave the engine an order.
    Order,
    /// The picture was read anew: look at everything.
    Everything,
}

/// What the API needs of the cluster.
pub trait Registry: Send + Sync + 'static {
    /// Reads the picture, at one revision. `read` must not wait for anything.
    fn read<T>(&self, read: impl FnOnce(&Cluster) -> T) -> T
    where
        Self: Sized;

    /// Carries out a command, atomically, and returns when the picture shows it.
    fn execute_command(
        &self,
        command: RegistryCommand,
    ) -> impl Future<Output = Result<(), CommandError>> + Send
    where
        Self: Sized;

    /// Follows changes from now on. A receiver that lags must look at everything.
    fn subscribe_changes(&self) -> broadcast::Receiver<ClusterChange>;

    /// Whether the picture can be trusted.
    fn health(&self) -> StoreHealth;
}
