//! When the machine restarts into the new slot, and who is asked before.
//!
//! Deciding is pure: strategy, window and lock give a `RebootDecision`. Asking is FleetLock
//! (<https://coreos.github.io/zincati/development/fleetlock/protocol/>), which fleetd and others serve.
//! Refuses to restart: the caller does. Invariant: a lock server that is down or says no delays a restart, and
//! never causes one.

use std::path::Path;
use std::time::Duration;

use ureq::Agent;

use super::local_lock::post_json;
use super::settings::{LockServer, RebootStrategy, UpdateSettings};
use super::window::WeekTime;

/// How long the lock server may take; fleetd empties a machine for twenty seconds before it answers.
const LOCK_PATIENCE: Duration = Duration::from_mins(1);

/// What is to be done about a restart that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebootDecision {
    /// Ask this lock server, and restart if it agrees.
    AskLock(LockServer),
    /// Restart.
    Restart,
    /// Leave it to a person, for this reason.
    Leave(&'static str),
    /// Try again after this time at the latest.
    Wait(Duration),
}

/// What the lock server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockCall {
    /// This machine wants to restart.
    PreReboot,
    /// This machine has restarted and is well.
    SteadyState,
}

/// Why the lock server did not agree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskLockError {
    #[error("cannot ask the lock server {url}")]
    Ask { url: String, source: Box<ureq::Error> },
    #[error("cannot ask fleetd of this machine for the lock at {url}; 'systemctl status fleet' says more")]
    AskLocal { url: String, source: std::io::Error },
    #[error("the lock server {url} says no ({status}): {said}")]
    Refused { url: String, status: u16, said: String },
}

/// Decides about a restart that is due.
pub(crate) fn decide_reboot(settings: &UpdateSettings, now: Option<WeekTime>) -> RebootDecision {
    if settings.strategy == RebootStrategy::Off {
        return RebootDecision::Leave("REBOOT_STRATEGY is off: restart the machine to finish the update");
    }
    if let Some(window) = &settings.window {
        // A machine that cannot tell the time does not know that it is night.
        let wait = now.map_or(Duration::from_hours(1), |now| window.wait_until_open(now));
        if !wait.is_zero() {
            return RebootDecision::Wait(wait);
        }
    }
    match (settings.strategy, &settings.lock_server) {
        (RebootStrategy::BestEffort | RebootStrategy::EtcdLock, Some(server)) => {
            RebootDecision::AskLock(server.clone())
        }
        (RebootStrategy::EtcdLock, None) => {
            RebootDecision::Leave("REBOOT_STRATEGY is etcd-lock, but FLEET_LOCK_URL names no lock server")
        }
        (RebootStrategy::BestEffort | RebootStrategy::Reboot, _) => RebootDecision::Restart,
        (RebootStrategy::Off, _) => RebootDecision::Leave("REBOOT_STRATEGY is off"),
    }
}

/// Asks the lock server, as the machine with this id.
pub(crate) fn ask_lock(server: &LockServer, call: LockCall, id: &str) -> Result<(), AskLockError> {
    let word = match call {
        LockCall::PreReboot => "pre-reboot",
        LockCall::SteadyState => "steady-state",
    };
    let url = format!("{}/v1/{word}", server.url.trim_end_matches('/'));
    if let Some(socket) = server.url.strip_prefix("unix://") {
        return ask_local_lock(server, socket, word, id);
    }
    let config =
        Agent::config_builder().http_status_as_error(false).timeout_global(Some(LOCK_PATIENCE)).build();
    let agent: Agent = config.into();
    let body = lock_message(server, id);
    let asked =
        agent.post(&url).header("fleet-lock-protocol", "true").header("content-type", "application/json");
    let mut answer = asked
        .send(body.as_bytes())
        .map_err(|source| AskLockError::Ask { url: url.clone(), source: Box::new(source) })?;
    if answer.status().is_success() {
        return Ok(());
    }
    let said = answer.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
    Err(AskLockError::Refused { url, status: answer.status().as_u16(), said: one_line(&said) })
}

/// Asks fleetd of this machine, whose socket knows root.
fn ask_local_lock(server: &LockServer, socket: &str, word: &str, id: &str) -> Result<(), AskLockError> {
    let url = server.url.clone();
    let answer =
        post_json(Path::new(socket), &format!("/v1/{word}"), &lock_message(server, id), LOCK_PATIENCE);
    match answer {
        Ok((200..=299, _)) => Ok(()),
        Ok((status, said)) => Err(AskLockError::Refused { url, status, said: one_line(&said) }),
        Err(source) => Err(AskLockError::AskLocal { url, source }),
    }
}

fn lock_message(server: &LockServer, id: &str) -> String {
    serde_json::json!({ "client_params": { "id": id, "group": server.group } }).to_string()
}

fn one_line(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::super::transport::tests::{Server, answer};
    use super::super::window::RebootWindow;
    use super::*;

    fn settings(strategy: RebootStrategy, lock: bool, window: bool) -> UpdateSettings {
        let lock_server = LockServer { url: "http://lock".into(), group: "g".into() };
        UpdateSettings {
            strategy,
            lock_server: lock.then_some(lock_server),
            window: window.then(|| RebootWindow::parse("04:00", "1h").unwrap()),
            ..UpdateSettings::default()
        }
    }

    fn at(hour: u32) -> Option<WeekTime> {
        WeekTime::parse(&format!("3 {hour} 30 00"))
    }

    #[test]
    fn each_strategy_has_its_decision() {
        use RebootStrategy::{BestEffort, EtcdLock, Off, Reboot};
        let decide = |strategy, lock| decide_reboot(&settings(strategy, lock, false), at(4));

        assert!(matches!(decide(Off, true), RebootDecision::Leave(_)));
        assert_eq!(decide(Reboot, true), RebootDecision::Restart);
        assert!(matches!(decide(EtcdLock, true), RebootDecision::AskLock(_)));
        assert!(matches!(decide(EtcdLock, false), RebootDecision::Leave(_)));
        assert!(matches!(decide(BestEffort, true), RebootDecision::AskLock(_)));
        assert_eq!(decide(BestEffort, false), RebootDecision::Restart);
    }

    #[test]
    fn outside_of_its_window_a_machine_waits() {
        let settings = settings(RebootStrategy::Reboot, false, true);

        assert_eq!(decide_reboot(&settings, at(4)), RebootDecision::Restart);
        assert_eq!(decide_reboot(&settings, at(3)), RebootDecision::Wait(Duration::from_mins(30)));
        assert!(matches!(decide_reboot(&settings, None), RebootDecision::Wait(_)));
    }

    /// Case 55: the server is down, or says no.
    #[test]
    fn a_lock_is_had_only_from_a_server_that_says_so() {
        let server = Server::start(Box::new(|path, _, stream| match path {
            "/yes/v1/pre-reboot" => answer(stream, "200 OK", "", b""),
            _ => answer(stream, "423 Locked", "", b"{\"kind\":\"failed_lock\",\"value\":\"m2 has it\"}"),
        }));
        let ask = |path: &str| {
            let url = format!("{}{path}", server.address);
            ask_lock(&LockServer { url, group: "g".into() }, LockCall::PreReboot, "m1")
                .map_err(|error| error.to_string())
        };

        assert_eq!(ask("/yes/"), Ok(()));
        assert!(ask("/no").unwrap_err().contains("m2 has it"));
        let down = LockServer { url: "http://127.0.0.1:1".into(), group: "g".into() };
        assert!(ask_lock(&down, LockCall::SteadyState, "m1").is_err());
    }
}
