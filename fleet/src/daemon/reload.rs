//! What a hang-up signal changes in a daemon that runs: the configuration is read anew.
//!
//! Knows which options can change live: what the machine says of itself, how careful the engine is, how
//! much is logged. Refuses to touch the rest, and names it. Invariant: a configuration that makes no
//! sense changes nothing.

use error_text::error_chain;
use std::{error::Error, fmt, sync::Arc};

use tokio::sync::watch;

use crate::{
    agent::presence::MachinePresence, engine::EngineSettings, model::machine::Machine,
    settings::DaemonSettings,
};

/// Where the configuration comes from, and where its verbosity goes.
pub struct SettingsSource {
    /// Reads it anew.
    pub read: Box<dyn Fn() -> Result<DaemonSettings, Box<dyn Error>>>,
    /// Sets how much is logged.
    pub log: Box<dyn Fn(i64)>,
}

impl fmt::Debug for SettingsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// A running daemon, as far as it can be changed.
pub(super) struct RunningDaemon {
    pub(super) source: SettingsSource,
    /// What it was started with, and what was changed since.
    pub(super) settings: DaemonSettings,
    /// What settings make the machine say of itself, and to whom.
    pub(super) describe: Box<dyn Fn(&DaemonSettings) -> Machine>,
    pub(super) presence: Arc<MachinePresence>,
    /// How careful settings make the engine.
    pub(super) caution: fn(&DaemonSettings) -> EngineSettings,
    pub(super) engine: watch::Sender<EngineSettings>,
}

impl RunningDaemon {
    /// Takes in the configuration as it is written now.
    pub(super) fn reload_settings(&mut self) {
        // The original's words, for those whose alerts wait for them.
        tracing::info!("Reloading configuration");
        let new = match (self.source.read)() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(reason = %error_chain(&*error), "the configuration stays as it was");
                return;
            }
        };
        let fixed = self.settings.adopt_changes(&new);
        (self.source.log)(self.settings.verbosity);
        self.engine.send_replace((self.caution)(&self.settings));
        self.presence.update_machine(&(self.describe)(&self.settings));
        if fixed.is_empty() {
            tracing::info!("the configuration was read anew");
        } else {
            tracing::warn!(
                options = %fixed.join(" "),
                "these options change at the next start; systemctl restart fleet stops no unit"
            );
        }
    }
}
