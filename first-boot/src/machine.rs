//! The machine that is configured: its files, its programs, its network and its manager.
//!
//! Knows nothing but these four. Refuses to act: each of them does.

use crate::programs::{self, ProgramRunner};
use crate::root::MachineRoot;
use crate::systemd::{self, UnitManager};
use crate::web::{self, WebClient};

/// The machine that is configured.
#[derive(Debug)]
pub struct MachineAccess {
    /// Its files.
    pub root: MachineRoot,
    /// Its programs.
    pub programs: Box<dyn ProgramRunner>,
    /// Its network.
    pub web: Box<dyn WebClient>,
    /// The manager of its units.
    pub manager: Box<dyn UnitManager>,
}

impl MachineAccess {
    /// This one.
    #[must_use]
    pub fn this_machine() -> Self {
        Self {
            root: MachineRoot::this_machine(),
            programs: Box::new(programs::HostPrograms),
            web: Box::new(web::HttpClient::default()),
            manager: Box::new(systemd::SystemdManager),
        }
    }
}
