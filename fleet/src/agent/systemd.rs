//! systemd over D-Bus: orders out, news in, and no polling.
//!
//! Knows when which call is made; [`calls`] says how, [`links`] does without one, and `news` reads what is
//! told unasked. Refuses to know why a unit is started. Invariants: news is read all the time, whatever else
//! is asked, so that a flood of it never blocks an answer; it is read in the order in which it was told; and when
//! the bus or systemd was another one for a while, that is the first news of the new one.
//!
//! systemd's own socket would spare the bus its work, but on it systemd signs with its well-known name,
//! which zbus does not take for a sender.

pub mod calls;
pub mod links;
mod news;

use error_text::error_chain;
use std::{future::poll_fn, num::NonZeroUsize, path::Path, task::Poll, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use zbus::{Connection, MessageStream, connection};

use crate::{model::unit_name::UnitName, settings::SystemdInstance};
use calls::{
    AddMatch, Call, DisableUnitFiles, EnableUnitFiles, GetUnit, KillUnit, ListUnitsByNames, ListedUnit,
    Reload, ResetFailedUnit, RestartUnit, StartUnit, StopUnit, Subscribe,
};
use links::Links;
pub use news::News;

const ACTIVATING: &str = "activating";
/// How long systemd may think about a call; reading all units anew takes it a while.
// zbus would wait for ever. A reload of some thousand units takes systemd seconds on a slow disk.
const PATIENCE: Duration = Duration::from_mins(1);
/// Calls that may be under way at once.
// The bus keeps track of each reply that is still to come, and bounds those of one connection
// (`max_replies_per_connection` in dbus-daemon(1)).
const AT_ONCE: usize = 64;
/// What the bus passes on: how units are, which jobs ended, and that systemd is another one. Each change
/// of a unit is told once for what all units have and once, longer, for what the kind has: only the first
/// is wanted.
// Rules that the bus applies, and not a filter here: what the bus does not send wakes nobody.
const MATCHES: [&str; 3] = [
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',path_namespace='/org/freedesktop/systemd1/unit',\
     arg0='org.freedesktop.systemd1.Unit'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',\
     member='JobRemoved',path='/org/freedesktop/systemd1'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];
/// Messages that may wait to be read.
// A start of a thousand units is some thousand signals. A full queue blocks the connection, and with it
// every answer.
const QUEUE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// How long to wait before a broken connection is made again, at first and at most.
// Short at first, since a re-execution of systemd takes milliseconds; and bounded, so that units are minded
// again soon.
const AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// systemd refused or could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("systemd did not {call}")]
pub struct SystemdError {
    call: String,
    source: Box<zbus::Error>,
}

impl SystemdError {
    fn in_call(call: impl Into<String>) -> impl FnOnce(zbus::Error) -> Self {
        let call = call.into();
        move |source| Self { call, source: Box::new(source) }
    }

    /// Whether systemd has no such unit.
    #[must_use]
    pub fn is_unknown_unit(&self) -> bool {
        matches!(
            &*self.source,
            zbus::Error::MethodError(name, ..)
                if matches!(name.as_str(), "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.systemd1.LoadFailed")
        )
    }
}

/// How a unit is, in systemd's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitActivity {
    /// `LoadState`.
    pub load: String,
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
}

impl UnitActivity {
    /// Whether it is on its way up.
    #[must_use]
    pub fn is_activating(&self) -> bool {
        self.active == ACTIVATING
    }

    /// Whether it will be in another state soon, unasked.
    #[must_use]
    pub fn is_in_transition(&self) -> bool {
        matches!(self.active.as_str(), ACTIVATING | "deactivating" | "reloading" | "refreshing")
    }

    /// Whether there is still something to stop.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed" | "")
    }
}

/// A connection to systemd that outlives its other end.
#[derive(Debug, Clone)]
pub struct SystemdClient {
    connection: watch::Receiver<Connection>,
    links: Links,
}

impl SystemdClient {
    /// Connects to the machine's systemd, or to the user's; all it tells from now on comes out of the
    /// channel.
    pub async fn connect(
        instance: SystemdInstance,
    ) -> Result<(Self, mpsc::UnboundedReceiver<News>), SystemdError> {
        let (connection, messages) = connect_bus(instance).await?;
        let (current, connection) = watch::channel(connection);
        // Unbounded: the reader of the bus must never wait for the agent, which may itself be waiting for
        // an answer of the bus.
        let (sender, news) = mpsc::unbounded_channel();
        tokio::spawn(forward_signals(instance, messages, current, sender));
        Ok((Self { connection, links: Links::of_systemd(instance) }, news))
    }

    async fn call<C: Call>(&self, body: C::Body<'_>) -> Result<C::Answer, SystemdError> {
        let connection = self.connection.borrow().clone();
        call_manager::<C>(&connection, body).await
    }

    /// Makes a unit file known.
    pub fn link_units(&self, file: &Path) -> std::io::Result<()> {
        self.links.link_unit(file)
    }

    /// Removes the link to a unit file, if it is still there.
    pub fn unlink_unit(&self, file: &Path) -> std::io::Result<()> {
        self.links.unlink_unit(file)
    }

    /// The units whose links lead to files in this directory that are gone.
    #[must_use]
    pub fn dangling_units(&self, files: &Path) -> Vec<UnitName> {
        self.links.dangling_units(files)
    }

    /// Makes units part of the targets that their files name.
    pub async fn enable_units(&self, paths: &[&str]) -> Result<(), SystemdError> {
        // For this boot only (`runtime`), since fleetd makes the links again after each.
        self.call::<EnableUnitFiles>((paths, true, true)).await.map(drop)
    }

    /// Removes all links to units. systemd refuses all of a call for one name that it does not like, so
    /// each is then tried alone: one bad unit must not keep the others linked.
    pub async fn disable_units(&self, units: &[UnitName]) -> Result<(), SystemdError> {
        let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
        let Err(error) = self.call::<DisableUnitFiles>((&names, true)).await else { return Ok(()) };
        // One bad name makes systemd refuse the whole call. Then each is tried alone, so that the others go
        // all the same.
        if names.len() == 1 {
            return Err(error);
        }
        let alone = names.iter().map(|name| async move {
            let one = [*name];
            self.call::<DisableUnitFiles>((&one, true)).await
        });
        join_all(alone.collect()).await.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    }

    /// Has systemd forget that units failed. A failed unit stays in memory, and its machine `degraded`, even
    /// when its file is gone.
    pub async fn reset_failed(&self, units: &[UnitName]) -> Result<(), SystemdError> {
        let mut outcome = Ok(());
        for chunk in units.chunks(AT_ONCE) {
            let asked = chunk.iter().map(|unit| self.call::<ResetFailedUnit>((unit.as_str(),)));
            for answer in join_all(asked.collect()).await {
                // Most have not failed, and systemd has dropped them from memory already.
                if let Err(error) = answer
                    && !error.is_unknown_unit()
                {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Has systemd read all unit files anew.
    pub async fn reload_manager(&self) -> Result<(), SystemdError> {
        self.call::<Reload>(()).await
    }

    /// Starts a unit; returns when the job is queued.
    pub async fn start_unit(&self, unit: &UnitName) -> Result<(), SystemdError> {
        // `replace`: a stop that is still queued was asked for before, and the last word counts.
        self.call::<StartUnit>((unit.as_str(), "replace")).await.map(drop)
    }

    /// Stops a unit; returns when the job is queued.
    pub async fn stop_unit(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.stop_named(unit.as_str()).await
    }

    /// Restarts a unit; returns when the job is queued.
    pub async fn restart_unit(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.restart_named(unit.as_str()).await
    }

    /// Starts a unit of any name anew.
    pub async fn restart_named(&self, unit: &str) -> Result<(), SystemdError> {
        self.call::<RestartUnit>((unit, "replace")).await.map(drop)
    }

    /// Stops a unit of any name.
    pub async fn stop_named(&self, unit: &str) -> Result<(), SystemdError> {
        self.call::<StopUnit>((unit, "replace")).await.map(drop)
    }

    /// Kills all processes of a unit, at once.
    pub async fn kill_unit(&self, unit: &UnitName) -> Result<(), SystemdError> {
        const SIGKILL: i32 = 9;
        self.call::<KillUnit>((unit.as_str(), "all", SIGKILL)).await
    }

    /// Starts units in this order. The calls go out together, so that a thousand units do not wait for a
    /// thousand answers one after the other.
    pub async fn start_all(&self, units: &[UnitName]) -> Vec<Result<(), SystemdError>> {
        let mut outcomes = Vec::with_capacity(units.len());
        for chunk in units.chunks(AT_ONCE) {
            outcomes.extend(join_all(chunk.iter().map(|unit| self.start_unit(unit)).collect()).await);
        }
        outcomes
    }

    /// Whether systemd has one of the units in memory, so that its content would survive a new file.
    pub async fn knows_any(&self, units: &[UnitName]) -> Result<bool, SystemdError> {
        for chunk in units.chunks(AT_ONCE) {
            let asked = chunk.iter().map(|unit| self.call::<GetUnit>((unit.as_str(),)));
            for answer in join_all(asked.collect()).await {
                match answer {
                    Ok(_) => return Ok(true),
                    Err(error) if error.is_unknown_unit() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(false)
    }

    /// How units are.
    pub async fn list_activities(
        &self,
        units: &[UnitName],
    ) -> Result<Vec<(UnitName, UnitActivity)>, SystemdError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
        let rows = self.call::<ListUnitsByNames>((&names,)).await?;
        let read = |row: ListedUnit| {
            let unit = UnitName::parse(&row.0).ok()?;
            // A unit whose start waits for its turn is on its way, not down.
            let is_queued = row.8 == "start" && matches!(row.3.as_str(), "inactive" | "failed");
            let active = if is_queued { ACTIVATING.to_owned() } else { row.3 };
            Some((unit, UnitActivity { load: row.2, active, sub: row.4 }))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

/// Polls all futures in order until each is done.
// A dozen lines instead of the crate `futures` for one function.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut all_done = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => all_done = false,
                }
            }
        }
        if all_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

async fn call_manager<C: Call>(
    connection: &Connection,
    body: C::Body<'_>,
) -> Result<C::Answer, SystemdError> {
    let reply = connection
        .call_method(Some(C::SERVICE), C::PATH, Some(C::INTERFACE), C::NAME, &body)
        .await
        .map_err(SystemdError::in_call(C::NAME))?;
    reply.body().deserialize().map_err(SystemdError::in_call(C::NAME))
}

/// Connects, so that everything that is told from now on comes out of the stream.
async fn connect_bus(instance: SystemdInstance) -> Result<(Connection, MessageStream), SystemdError> {
    let builder = match instance {
        SystemdInstance::System => connection::Builder::system(),
        SystemdInstance::User => connection::Builder::session(),
    };
    let connection =
        builder.method_timeout(PATIENCE).build().await.map_err(SystemdError::in_call("answer on D-Bus"))?;
    // Listens before it subscribes: what is told between the two would be lost otherwise.
    let mut messages = MessageStream::from(&connection);
    messages.set_max_queued(QUEUE);
    for rule in MATCHES {
        call_manager::<AddMatch>(&connection, (rule,)).await?;
    }
    call_manager::<Subscribe>(&connection, ()).await?;
    Ok((connection, messages))
}

/// Reads what is told for ever, from one connection after the other, as long as somebody wants the news.
async fn forward_signals(
    instance: SystemdInstance,
    mut messages: MessageStream,
    current: watch::Sender<Connection>,
    sender: mpsc::UnboundedSender<News>,
) {
    loop {
        while let Some(Ok(message)) = messages.next().await {
            let news = news::read(&message);
            if news == Some(News::Anew) {
                // What the one before had promised to tell, this one may not know.
                break;
            }
            if news.is_some_and(|news| sender.send(news).is_err()) {
                return;
            }
        }
        tracing::info!("systemd or its bus is another one; connecting anew");
        let connection;
        (connection, messages) = dial_until_answered(instance).await;
        drop(current.send_replace(connection));
        if sender.send(News::Anew).is_err() {
            return;
        }
    }
}

async fn dial_until_answered(instance: SystemdInstance) -> (Connection, MessageStream) {
    let (mut pause, most) = AGAIN;
    let mut said = None;
    loop {
        match connect_bus(instance).await {
            Ok(answered) => return answered,
            Err(error) => {
                let reason = error_chain(&error);
                // A bus that is gone for minutes would say the same some dozen times.
                if said.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "systemd does not answer; units are left as they are until it does");
                }
                said = Some(reason);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}
