//! What programs for `CoreOS` ask over D-Bus: `com.coreos.update1`, as its `update_engine` offered it.
//!
//! Knows the interface: `GetStatus`, `AttemptUpdate`, `ResetStatus`, and the signal `StatusUpdate`
//! (<https://github.com/flatcar/update_engine>, `update_engine.xml`). Refuses to judge who may call what: the bus does,
//! by /usr/share/dbus-1/system.d/com.coreos.update1.conf. Invariant: nothing here waits for an update: what is asked for
//! is begun by systemd, and an answer is what the files of the update say at that moment.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use zbus::message::Type;
use zbus::names::{InterfaceName, MemberName};
use zbus::{Connection, Message, MessageStream, connection};

use super::status::EngineStatus;

/// The name on the bus.
const NAME: &str = "com.coreos.update1";
const PATH: &str = "/com/coreos/update1";
const INTERFACE: &str = "com.coreos.update1.Manager";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
/// How long the bus may take to let this program in.
const PATIENCE: Duration = Duration::from_secs(30);
/// Progress changes with every block. Who shows a bar needs no more.
const PAUSE: Duration = Duration::from_millis(500);

/// For tools that ask what there is, such as `busctl introspect`.
const INTROSPECTION: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
 <interface name="com.coreos.update1.Manager">
  <method name="AttemptUpdate"/>
  <method name="ResetStatus"/>
  <method name="GetStatus">
   <arg type="x" name="last_checked_time" direction="out"/>
   <arg type="d" name="progress" direction="out"/>
   <arg type="s" name="current_operation" direction="out"/>
   <arg type="s" name="new_version" direction="out"/>
   <arg type="x" name="new_size" direction="out"/>
  </method>
  <signal name="StatusUpdate">
   <arg type="x" name="last_checked_time"/>
   <arg type="d" name="progress"/>
   <arg type="s" name="current_operation"/>
   <arg type="s" name="new_version"/>
   <arg type="x" name="new_size"/>
  </signal>
 </interface>
</node>
"#;

/// Why nobody is answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeBusError {
    #[error("cannot offer {NAME} on the bus")]
    Bus(#[source] Box<zbus::Error>),
    #[error("cannot watch the files of the update")]
    Watch(#[from] std::io::Error),
}

impl From<zbus::Error> for ServeBusError {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(Box::new(error))
    }
}

/// What is behind the interface. What it refuses, it says in a sentence.
pub(crate) trait UpdateEngine {
    /// How it stands.
    fn read_status(&self) -> Result<EngineStatus, String>;
    /// Begins to look for a release and to install it.
    fn attempt_update(&self) -> Result<(), String>;
    /// Gives up what is under way.
    fn reset_status(&self) -> Result<(), String>;
}

/// Answers on the system's bus until it goes away.
pub(crate) fn serve_system_bus(engine: &dyn UpdateEngine, folder: &Path) -> Result<(), ServeBusError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_bus(connection::Builder::system(), engine, folder))
}

async fn serve_bus(
    builder: connection::Builder<'_>,
    engine: &dyn UpdateEngine,
    folder: &Path,
) -> Result<(), ServeBusError> {
    let connection = builder.method_timeout(PATIENCE).build().await?;
    // Before the name is taken: a call that came in between would find nobody.
    let messages = MessageStream::from(&connection);
    let changes = watch_folder(folder)?;
    connection.request_name(NAME).await?;
    tokio::select! {
        answered = answer_calls(&connection, messages, engine) => answered,
        sent = send_changes(&connection, changes, engine) => sent,
    }
}

/// Answers one call after the other; each takes no longer than reading some files.
async fn answer_calls(
    connection: &Connection,
    mut messages: MessageStream,
    engine: &dyn UpdateEngine,
) -> Result<(), ServeBusError> {
    while let Some(message) = messages.next().await {
        let message = message?;
        if message.message_type() == Type::MethodCall {
            answer_call(connection, &message, engine).await?;
        }
    }
    Ok(())
}

async fn answer_call(
    connection: &Connection,
    message: &Message,
    engine: &dyn UpdateEngine,
) -> Result<(), zbus::Error> {
    let header = message.header();
    let member = header.member().map(MemberName::as_str).unwrap_or_default();
    // D-Bus: a call may leave its interface out.
    let interface = header.interface().map(InterfaceName::as_str);
    let is_ours = interface.is_none_or(|interface| interface == INTERFACE);
    let outcome = match member {
        "Introspect" if interface.is_none_or(|interface| interface == INTROSPECTABLE) => {
            return connection.reply(&header, &INTROSPECTION).await;
        }
        "Ping" => return connection.reply(&header, &()).await,
        "GetStatus" if is_ours => match engine.read_status() {
            Ok(status) => return connection.reply(&header, &status.to_arguments()).await,
            Err(error) => Err(error),
        },
        "AttemptUpdate" if is_ours => engine.attempt_update(),
        "ResetStatus" if is_ours => engine.reset_status(),
        _ => {
            let name = "org.freedesktop.DBus.Error.UnknownMethod";
            return connection.reply_error(&header, name, &format!("there is no method {member:?}")).await;
        }
    };
    match outcome {
        Ok(()) => connection.reply(&header, &()).await,
        Err(said) => connection.reply_error(&header, "org.freedesktop.DBus.Error.Failed", &said).await,
    }
}

/// Tells who listens whenever the status is another one.
async fn send_changes(
    connection: &Connection,
    changes: Arc<Notify>,
    engine: &dyn UpdateEngine,
) -> Result<(), ServeBusError> {
    let mut told = engine.read_status().ok();
    loop {
        // What changed does not matter: the status is read anew.
        changes.notified().await;
        let now = engine.read_status().ok();
        if let Some(status) = now.as_ref().filter(|status| Some(*status) != told.as_ref()) {
            let arguments = status.to_arguments();
            connection.emit_signal(None::<&str>, PATH, INTERFACE, "StatusUpdate", &arguments).await?;
        }
        told = now;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The files of the update are replaced by renames. A thread of its own waits for them: the runtime's own way to wait
/// for a descriptor is unsafe, and this needs nothing but to be woken.
fn watch_folder(folder: &Path) -> Result<Arc<Notify>, std::io::Error> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(folder, AddWatchFlags::IN_MOVED_TO)?;
    let changed = Arc::new(Notify::new());
    let waker = Arc::clone(&changed);
    thread::Builder::new().name("watch".to_owned()).spawn(move || {
        while inotify.read_events().is_ok() {
            waker.notify_one();
        }
    })?;
    Ok(changed)
}

#[cfg(test)]
mod tests;
