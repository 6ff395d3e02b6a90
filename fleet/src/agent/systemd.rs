//! systemd over D-Bus: orders out, news in, and no polling.
//!
//! Knows the calls of `org.freedesktop.systemd1.Manager` and the two signals that tell how units fare.
//! Refuses to know why a unit is started. Invariants: news is read all the time, whatever else is asked,
//! so that a flood of it never blocks an answer; it is read in the order in which it was told; and when
//! the bus or systemd was another one for a while, that is the first news of the new one.
//!
//! systemd's own socket would spare the bus its work, but on it systemd signs with its well-known name,
//! which zbus does not take for a sender.

use std::{collections::HashMap, future::poll_fn, num::NonZeroUsize, task::Poll, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, Variant, connection};

use crate::{model::unit_name::UnitName, store::etcd::chain};

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit";
const ACTIVATING: &str = "activating";
/// How long systemd may think about a call; reading all units anew takes it a while.
const PATIENCE: Duration = Duration::from_mins(1);
/// Calls that may be under way at once.
const AT_ONCE: usize = 64;
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";
/// What the bus passes on: how units are, which jobs ended, and that systemd is another one. Each change
/// of a unit is told once for what all units have and once, longer, for what the kind has: only the first
/// is wanted.
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
const QUEUE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// How long to wait before a broken connection is made again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// systemd refused or could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("systemd did not {call}")]
pub struct SystemdError {
    call: String,
    source: Box<zbus::Error>,
}

impl SystemdError {
    fn of(call: impl Into<String>) -> impl FnOnce(zbus::Error) -> Self {
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
pub struct Activity {
    /// `LoadState`.
    pub load: String,
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
}

impl Activity {
    /// Whether it is on its way up.
    #[must_use]
    pub fn is_activating(&self) -> bool {
        self.active == ACTIVATING
    }

    /// Whether there is still something to stop.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed" | "")
    }
}

/// What systemd tells unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The connection is another one: any news may have been missed.
    Anew,
    /// A unit's state changed.
    Changed {
        /// The unit.
        unit: UnitName,
        /// Its new `ActiveState`.
        active: Option<String>,
        /// Its new `SubState`.
        sub: Option<String>,
    },
    /// A job ended, well or not.
    JobDone {
        /// The unit it was about.
        unit: UnitName,
        /// How it ended, if not well: `failed`, `dependency`, `timeout`.
        trouble: Option<String>,
    },
}

/// A connection to systemd that outlives its other end.
#[derive(Debug, Clone)]
pub struct Systemd {
    connection: watch::Receiver<Connection>,
}

/// One row of `ListUnitsByNames`.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
type Changes = Vec<(String, String, String)>;

impl Systemd {
    /// Connects to the machine's systemd, or to the user's; all it tells from now on comes out of the
    /// channel.
    pub async fn connect(user: bool) -> Result<(Self, mpsc::UnboundedReceiver<News>), SystemdError> {
        let (connection, messages) = dial(user).await?;
        let (current, connection) = watch::channel(connection);
        let (sender, news) = mpsc::unbounded_channel();
        tokio::spawn(listen(user, messages, current, sender));
        Ok((Self { connection }, news))
    }

    async fn call<B>(&self, method: &'static str, body: &B) -> Result<Message, SystemdError>
    where
        B: serde::Serialize + zbus::Type,
    {
        let connection = self.connection.borrow().clone();
        ask(&connection, method, body).await
    }

    /// Makes unit files known, and those in `enable` part of the targets they name.
    pub async fn link(&self, paths: &[String], enable: &[String]) -> Result<(), SystemdError> {
        self.call("LinkUnitFiles", &(paths, true, true)).await?;
        if !enable.is_empty() {
            self.call("EnableUnitFiles", &(enable, true, true)).await?;
        }
        Ok(())
    }

    /// Makes a unit unknown again.
    pub async fn unlink(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let reply = self.call("DisableUnitFiles", &(&[unit.as_str()], true)).await?;
        let _: Changes = reply.body().deserialize().unwrap_or_default();
        // A failed unit would stay in memory with its old content.
        match self.call("ResetFailedUnit", &unit.as_str()).await {
            Err(error) if !error.is_unknown_unit() => Err(error),
            _ => Ok(()),
        }
    }

    /// Has systemd read all unit files anew.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.call("Reload", &()).await.map(drop)
    }

    /// Starts a unit; returns when the job is queued.
    pub async fn start(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.call("StartUnit", &(unit.as_str(), "replace")).await.map(drop)
    }

    /// Stops a unit; returns when the job is queued.
    pub async fn stop(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.call("StopUnit", &(unit.as_str(), "replace")).await.map(drop)
    }

    /// Restarts a unit; returns when the job is queued.
    pub async fn restart(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.call("RestartUnit", &(unit.as_str(), "replace")).await.map(drop)
    }

    /// Starts a unit of any name anew.
    pub async fn restart_named(&self, unit: &str) -> Result<(), SystemdError> {
        self.call("RestartUnit", &(unit, "replace")).await.map(drop)
    }

    /// Stops a unit of any name.
    pub async fn stop_named(&self, unit: &str) -> Result<(), SystemdError> {
        self.call("StopUnit", &(unit, "replace")).await.map(drop)
    }

    /// Kills all processes of a unit, at once.
    pub async fn kill(&self, unit: &UnitName) -> Result<(), SystemdError> {
        const SIGKILL: i32 = 9;
        self.call("KillUnit", &(unit.as_str(), "all", SIGKILL)).await.map(drop)
    }

    /// Starts units in this order. The calls go out together, so that a thousand units do not wait for a
    /// thousand answers one after the other.
    pub async fn start_all(&self, units: &[UnitName]) -> Vec<Result<(), SystemdError>> {
        let mut outcomes = Vec::with_capacity(units.len());
        for chunk in units.chunks(AT_ONCE) {
            outcomes.extend(together(chunk.iter().map(|unit| self.start(unit)).collect()).await);
        }
        outcomes
    }

    /// Whether systemd has one of the units in memory, so that its content would survive a new file.
    pub async fn knows_any(&self, units: &[UnitName]) -> Result<bool, SystemdError> {
        for chunk in units.chunks(AT_ONCE) {
            let asked = chunk.iter().map(|unit| async move { self.call("GetUnit", &unit.as_str()).await });
            for answer in together(asked.collect()).await {
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
    pub async fn activities(&self, units: &[UnitName]) -> Result<Vec<(UnitName, Activity)>, SystemdError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
        let reply = self.call("ListUnitsByNames", &names).await?;
        let rows: Vec<Listed> =
            reply.body().deserialize().map_err(SystemdError::of("list units readably"))?;
        let read = |row: Listed| {
            let unit = UnitName::parse(&row.0).ok()?;
            // A unit whose start waits for its turn is on its way, not down.
            let is_queued = row.8 == "start" && matches!(row.3.as_str(), "inactive" | "failed");
            let active = if is_queued { ACTIVATING.to_owned() } else { row.3 };
            Some((unit, Activity { load: row.2, active, sub: row.4 }))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

/// Polls all futures in order until each is done.
async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
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

async fn ask<B>(connection: &Connection, method: &'static str, body: &B) -> Result<Message, SystemdError>
where
    B: serde::Serialize + zbus::Type,
{
    connection
        .call_method(Some(SERVICE), MANAGER_PATH, Some(MANAGER), method, body)
        .await
        .map_err(SystemdError::of(method))
}

/// Connects, so that everything that is told from now on comes out of the stream.
async fn dial(user: bool) -> Result<(Connection, MessageStream), SystemdError> {
    let builder = if user { connection::Builder::session() } else { connection::Builder::system() };
    let connection =
        builder.method_timeout(PATIENCE).build().await.map_err(SystemdError::of("answer on D-Bus"))?;
    let mut messages = MessageStream::from(&connection);
    messages.set_max_queued(QUEUE);
    for rule in MATCHES {
        connection
            .call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &rule)
            .await
            .map_err(SystemdError::of("take a match rule"))?;
    }
    ask(&connection, "Subscribe", &()).await?;
    Ok((connection, messages))
}

/// Reads what is told for ever, from one connection after the other, as long as somebody wants the news.
async fn listen(
    user: bool,
    mut messages: MessageStream,
    current: watch::Sender<Connection>,
    sender: mpsc::UnboundedSender<News>,
) {
    loop {
        while let Some(Ok(message)) = messages.next().await {
            let news = read(&message);
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
        (connection, messages) = dial_until_answered(user).await;
        drop(current.send_replace(connection));
        if sender.send(News::Anew).is_err() {
            return;
        }
    }
}

async fn dial_until_answered(user: bool) -> (Connection, MessageStream) {
    let (mut pause, most) = AGAIN;
    loop {
        match dial(user).await {
            Ok(answered) => return answered,
            Err(error) => tracing::debug!(reason = %chain(&error), "systemd does not answer yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}

fn read(message: &Message) -> Option<News> {
    let header = message.header();
    match (header.interface()?.as_str(), header.member()?.as_str()) {
        (PROPERTIES, "PropertiesChanged") => unit_changed(message),
        (MANAGER, "JobRemoved") => job_removed(message),
        (BUS, "NameOwnerChanged") => owner_changed(message),
        _ => None,
    }
}

fn owner_changed(message: &Message) -> Option<News> {
    let body = message.body();
    let (_, _, new): (&str, &str, &str) = body.deserialize().ok()?;
    (!new.is_empty()).then_some(News::Anew)
}

fn unit_changed(message: &Message) -> Option<News> {
    let header = message.header();
    let unit = unit_of_path(header.path()?.as_str())?;
    let body = message.body();
    let (_, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize().ok()?;
    let text = |property: &str| changed.get(property)?.downcast_ref::<String>().ok();
    let (active, sub) = (text("ActiveState"), text("SubState"));
    (active.is_some() || sub.is_some()).then_some(News::Changed { unit, active, sub })
}

fn job_removed(message: &Message) -> Option<News> {
    let body = message.body();
    let (_, _, unit, result): (u32, OwnedObjectPath, String, String) = body.deserialize().ok()?;
    let unit = UnitName::parse(&unit).ok()?;
    let trouble =
        (!matches!(result.as_str(), "done" | "canceled" | "skipped" | "collected")).then_some(result);
    Some(News::JobDone { unit, trouble })
}

/// The unit of an object path, where systemd writes `_xx` for each byte that is no letter or digit.
fn unit_of_path(path: &str) -> Option<UnitName> {
    let escaped = path.strip_prefix(UNIT_PATH)?.strip_prefix('/')?;
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'_' {
            let digits = [bytes.next()?, bytes.next()?];
            name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    UnitName::parse(std::str::from_utf8(&name).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths_name_units() {
        let unit = |path: &str| unit_of_path(&format!("{UNIT_PATH}/{path}")).map(|unit| unit.to_string());

        assert_eq!(unit("mongo_401_2eservice").as_deref(), Some("mongo@1.service"));
        assert_eq!(unit("a_2").as_deref(), None);
        assert_eq!(unit("_2e_2e_2fx_2eservice"), None);
    }
}
