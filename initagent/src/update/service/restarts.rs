//! The restart into a release that is ready: when it may happen, who is asked, and by which way it goes.
//!
//! Refuses to decide by itself: strategy and window are `reboot`'s, the lock is its server's, and etcd's votes are the
//! cluster's.

use error_text::error_chain;
use first_boot::{ProgramCall, ProgramRunner as _};

use super::super::notices;
use super::super::phase::{Armed, TrialKind};
use super::super::reboot::{LockCall, RebootDecision, ask_lock, decide_reboot};
use super::super::window::WeekTime;
use super::{UpdateError, UpdateService};

impl UpdateService {
    /// Restarts into an armed slot, when strategy, window and lock server allow it.
    pub(crate) fn consider_reboot(&self, armed: &Armed) -> Result<String, UpdateError> {
        let version = &armed.target.version;
        let decision = decide_reboot(&self.settings, self.week_time());
        // Before the lock, for which the machine is emptied.
        let is_due = matches!(decision, RebootDecision::AskLock(_) | RebootDecision::Restart);
        if let Some(why) = is_due.then(|| self.etcd_objection()).flatten() {
            return Ok(format!("release {version} is ready; {why}"));
        }
        match decision {
            RebootDecision::Leave(why) => Ok(format!("release {version} is ready; {why}")),
            RebootDecision::Wait(time) => {
                Ok(format!("release {version} is ready; the window opens in {} minutes", time.as_secs() / 60))
            }
            RebootDecision::Restart => self.restart_into(armed),
            RebootDecision::AskLock(server) => {
                match ask_lock(&server, LockCall::PreReboot, &self.machine_id()) {
                    Ok(()) => {
                        // Another voter may have had its slot, or fallen, while this machine was emptied.
                        if let Some(why) = self.etcd_objection() {
                            self.release_lock();
                            return Ok(format!("release {version} is ready; {why}"));
                        }
                        self.machine.write_run_file("lock-held", "")?;
                        self.restart_into(armed)
                    }
                    Err(error) => Ok(format!("release {version} is ready; {}", error_chain(&error))),
                }
            }
        }
    }

    /// Why etcd of the cluster cannot do without this machine now.
    fn etcd_objection(&self) -> Option<String> {
        cluster::restart::find_objection(&cluster::site::Site::at_root(&self.machine.root))
    }

    fn restart_into(&self, armed: &Armed) -> Result<String, UpdateError> {
        let version = &armed.target.version;
        let (said, verb) = match armed.kind {
            TrialKind::Soft => {
                (format!("the machine switches to release {version} without a restart"), "soft-reboot")
            }
            TrialKind::AfterSoft | TrialKind::Restart => {
                (format!("the machine restarts into release {version}"), "reboot")
            }
        };
        notices::print_to_console(&self.machine.root, &said);
        self.programs.run_program(&ProgramCall::new("systemctl", [verb]))?;
        Ok(said)
    }

    pub(super) fn restart_machine(&self) -> Result<(), UpdateError> {
        self.programs
            .run_program(&ProgramCall::new("systemctl", ["reboot"]))
            .map(drop)
            .map_err(UpdateError::from)
    }

    /// Lets other machines restart. Asked at each end of an update: the server forgives a lock that was not held.
    pub(crate) fn release_lock(&self) {
        let Some(server) = &self.settings.lock_server else { return };
        if let Err(error) = ask_lock(server, LockCall::SteadyState, &self.machine_id()) {
            notices::print_to_console(&self.machine.root, &error_chain(&error));
        }
    }

    /// The time of the week where the machine is, which only the C library's time zones know.
    fn week_time(&self) -> Option<WeekTime> {
        let said = self.programs.run_program(&ProgramCall::new("date", ["+%w %H %M %S"])).ok()?;
        WeekTime::parse(&String::from_utf8_lossy(&said))
    }
}
