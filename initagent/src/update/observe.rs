//! Looks at the machine, before an update and during its trial.
//!
//! Knows whom to ask. Refuses to judge ([`crate::update::health`] does). Invariant: a question that is not answered in time
//! counts as "not well", never as a wait without an end.

use first_boot::ProgramRunner;

use super::health::{Observation, REQUIRED_UNITS, active_units, boot_is_complete, failed_units, has_route};
use super::machine::UpdateMachine;
use super::phase::Baseline;
use super::settings::UpdateSettings;
use super::transport::{FetchFileError, Mirrors};

/// The member of this machine, without TLS on loopback; where it needs certificates, it is not asked.
const ETCD: &str = "http://127.0.0.1:2379";
/// Far more than a signed channel or an answer about health has.
const MAX_ANSWER: u64 = 128 << 10;

/// Who is asked.
#[derive(Debug)]
pub(crate) struct Observer<'a> {
    /// The machine.
    pub(crate) machine: &'a UpdateMachine,
    /// Its programs.
    pub(crate) programs: &'a dyn ProgramRunner,
    /// Its settings.
    pub(crate) settings: &'a UpdateSettings,
    /// Its update servers.
    pub(crate) mirrors: &'a Mirrors,
    /// The channel that it follows.
    pub(crate) channel: String,
}

impl Observer<'_> {
    /// What is well now, and has to be after the update.
    pub(crate) fn note_baseline(&self) -> Baseline {
        let own = REQUIRED_UNITS.iter().map(ToString::to_string);
        let required: Vec<String> = own.chain(self.settings.required_units.iter().cloned()).collect();
        let server = (self.mirrors.count_mirrors() > 0).then(|| format!("channel/{}", self.channel));
        Baseline {
            active_units: active_units(self.programs, &required),
            failed_units: failed_units(self.programs),
            has_route: has_route(&self.machine.root),
            update_server: server.filter(|path| self.ask_server(path).is_none()),
            etcd_is_healthy: ask_etcd().is_none(),
        }
    }

    /// What is seen now of what was noted.
    pub(crate) fn observe_machine(&self, before: &Baseline) -> Observation {
        Observation {
            active_units: active_units(self.programs, &before.active_units),
            failed_units: failed_units(self.programs),
            boot_is_complete: boot_is_complete(self.programs),
            has_route: has_route(&self.machine.root),
            update_server_failure: before.update_server.as_ref().and_then(|path| self.ask_server(path)),
            etcd_failure: if before.etcd_is_healthy { ask_etcd() } else { None },
        }
    }

    /// Why no update server answers, if none does. That the server has no such file is an answer, too.
    fn ask_server(&self, path: &str) -> Option<String> {
        let mut failure = None;
        for mirror in 0..self.mirrors.count_mirrors() {
            match self.mirrors.fetch_from(mirror, path, MAX_ANSWER) {
                Ok(_) | Err(FetchFileError::Missing { .. }) => return None,
                Err(error) => failure = Some(error_text::error_chain(&error)),
            }
        }
        failure
    }
}

/// Why the member is not healthy, if it is not.
fn ask_etcd() -> Option<String> {
    let etcd = Mirrors::new(&[ETCD.to_owned()], &[("NO_PROXY".to_owned(), "*".to_owned())].into());
    match etcd.and_then(|etcd| etcd.fetch_from(0, "health", MAX_ANSWER)) {
        Ok(answer) if String::from_utf8_lossy(&answer).contains("\"true\"") => None,
        Ok(answer) => Some(String::from_utf8_lossy(&answer).chars().take(200).collect()),
        Err(error) => Some(error_text::error_chain(&error)),
    }
}
