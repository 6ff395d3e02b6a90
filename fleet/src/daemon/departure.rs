//! What becomes of the units when the daemon is told to stop.
//!
//! systemd sends the same signal for a restart, for a stop and for a shutdown, but knows which it is: the
//! manager's state, and the type of the job of our own unit, say so (org.freedesktop.systemd1(5)). Refuses
//! to carry anything out. Invariant: when nobody knows, no unit is stopped.

use std::time::Duration;

use zbus::{Connection, Message, OwnedObjectPath, Variant, connection};

use crate::settings::SystemdInstance;
use crate::settings::UnitsOnExit;

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long systemd may think about it: of the 90 s that it grants a stop, the units need the most.
// systemd is busy when a machine shuts down. Without an answer the stop counts as a restart, which stops no
// unit.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the daemon is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// It is started again at once, or nobody knows: a signal by hand looks the same.
    Restart,
    /// It is to stay down.
    Stop,
    /// The machine goes down.
    Shutdown,
}

/// What becomes of the units of a daemon that stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// They run on, and the machine stays in the cluster until its lease ends.
    KeepUnits,
    /// They are stopped here before the machine leaves, and start elsewhere.
    StopUnits,
}

impl Departure {
    /// Units that run on while nobody minds them would run twice once the lease is over: only who comes
    /// back before that may leave them.
    #[must_use]
    pub const fn for_reason(reason: StopReason, units: UnitsOnExit) -> Self {
        match (units, reason) {
            (UnitsOnExit::Keep, _) | (UnitsOnExit::Auto, StopReason::Restart) => Self::KeepUnits,
            (UnitsOnExit::Stop, _) | (UnitsOnExit::Auto, StopReason::Stop | StopReason::Shutdown) => {
                Self::StopUnits
            }
        }
    }
}

/// Asks systemd why this process is told to stop; the user's systemd too if units run there.
pub async fn stop_reason(instance: SystemdInstance) -> StopReason {
    let ask = async {
        let system = of_manager(connection::Builder::system()).await;
        let own = match instance {
            SystemdInstance::System => None,
            SystemdInstance::User => of_manager(connection::Builder::session()).await,
        };
        // The graver of the two: either may be the one that stops us.
        system.max(own).unwrap_or(StopReason::Restart)
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or(StopReason::Restart)
}

/// What one manager knows; `None` if it cannot be asked or does not know this process.
async fn of_manager(builder: connection::Builder<'_>) -> Option<StopReason> {
    let manager = builder.method_timeout(PATIENCE).build().await.ok()?;
    if text_property(&manager, MANAGER_PATH, MANAGER, "SystemState").await? == "stopping" {
        return Some(StopReason::Shutdown);
    }
    let unit = manager
        .call_method(Some(SERVICE), MANAGER_PATH, Some(MANAGER), "GetUnitByPID", &std::process::id())
        .await
        .ok()?;
    let unit: OwnedObjectPath = unit.body().deserialize().ok()?;
    let job = read_property(&manager, unit.as_str(), UNIT, "Job").await?;
    let body = job.body();
    let (number, path): (u32, OwnedObjectPath) = body.deserialize::<Variant<'_>>().ok()?.downcast().ok()?;
    if number == 0 {
        return None;
    }
    // Of a restart the job keeps its type until the stop is over.
    let kind = text_property(&manager, path.as_str(), JOB, "JobType").await?;
    Some(if kind == "stop" { StopReason::Stop } else { StopReason::Restart })
}

async fn read_property(manager: &Connection, path: &str, interface: &str, name: &str) -> Option<Message> {
    manager.call_method(Some(SERVICE), path, Some(PROPERTIES), "Get", &(interface, name)).await.ok()
}

async fn text_property(manager: &Connection, path: &str, interface: &str, name: &str) -> Option<String> {
    let answer = read_property(manager, path, interface, name).await?;
    let body = answer.body();
    body.deserialize::<Variant<'_>>().ok()?.downcast().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_stay_only_where_the_daemon_comes_back() {
        for (reason, departure) in [
            (StopReason::Restart, Departure::KeepUnits),
            (StopReason::Stop, Departure::StopUnits),
            (StopReason::Shutdown, Departure::StopUnits),
        ] {
            assert_eq!(Departure::for_reason(reason, UnitsOnExit::Auto), departure);
            assert_eq!(Departure::for_reason(reason, UnitsOnExit::Keep), Departure::KeepUnits);
            assert_eq!(Departure::for_reason(reason, UnitsOnExit::Stop), Departure::StopUnits);
        }
    }
}
