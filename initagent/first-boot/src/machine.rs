//! The machine that is configured: its files, its programs, its network and its manager.
//!
//! Knows nothing but these four. Refuses to act: each of them does.

use crate::programs::{self, Programs};
use crate::root::Root;
use crate::systemd::{self, Manager};
use crate::web::{self, Web};

/// The machine that is configured.
#[derive(Debug)]
pub struct Machine {
    /// Its files.
    pub root: Root,
    /// Its programs.
    pub programs: Box<dyn Programs>,
    /// Its network.
    pub web: Box<dyn Web>,
    /// The manager of its units.
    pub manager: Box<dyn Manager>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn real() -> Self {
        Self {
            root: Root::real(),
            programs: Box::new(programs::Real),
            web: Box::new(web::Real::default()),
            manager: Box::new(systemd::Real),
        }
    }
}
