//! A bus of the test's own, and a client on it.
#![expect(clippy::disallowed_methods, reason = "starts a bus")]

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use super::*;

/// A bus on which everybody may do everything; who may what on a machine is in the file of the image.
const CONFIG: &str = r#"<busconfig>
 <listen>unix:dir=FOLDER</listen>
 <policy context="default">
  <allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow user="*"/>
 </policy>
</busconfig>"#;

struct Bus {
    daemon: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Bus {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bus.conf");
        std::fs::write(&config, CONFIG.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned(), folder }
    }

    /// The runtime of the test has one thread for the service and its client.
    async fn client(&self) -> Connection {
        connection::Builder::address(self.address.as_str()).build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// An update whose status a test sets, and that notes what it is told to do.
#[derive(Clone, Default)]
struct Script {
    done: Rc<RefCell<u64>>,
    calls: Rc<RefCell<Vec<&'static str>>>,
}

impl UpdateEngine for Script {
    fn read_status(&self) -> Result<EngineStatus, String> {
        Ok(EngineStatus::of_download(7, *self.done.borrow(), 4, "1.1.0"))
    }

    fn attempt_update(&self) -> Result<(), String> {
        self.calls.borrow_mut().push("attempt");
        Ok(())
    }

    fn reset_status(&self) -> Result<(), String> {
        self.calls.borrow_mut().push("reset");
        Err("nothing is under way".to_owned())
    }
}

type Arguments = (i64, f64, String, String, i64);

async fn call(client: &Connection, method: &str) -> Result<Message, zbus::Error> {
    client.call_method(Some(NAME), PATH, Some(INTERFACE), method, &()).await
}

/// Carries a test out beside the service.
fn with_service(test: impl AsyncFnOnce(Connection, Script, &Path)) {
    let bus = Bus::start();
    let script = Script::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = connection::Builder::address(bus.address.as_str());
        let service = serve_bus(builder, &script, bus.folder.path());
        let checks = async {
            let client = bus.client().await;
            while call(&client, "GetStatus").await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            test(client.clone(), script.clone(), bus.folder.path()).await;
        };
        tokio::select! {
            ended = service => panic!("the service ended: {ended:?}"),
            ended = tokio::time::timeout(Duration::from_mins(1), checks) => ended.unwrap(),
        }
    });
}

#[test]
fn the_status_is_the_one_of_update_engine() {
    with_service(async |client, script, _| {
        *script.done.borrow_mut() = 1;

        let answer = call(&client, "GetStatus").await.unwrap();

        let body = answer.body();
        assert_eq!(body.signature().to_string_no_parens(), "xdssx");
        let arguments: Arguments = body.deserialize().unwrap();
        let downloading = "UPDATE_STATUS_DOWNLOADING".to_owned();
        assert_eq!(arguments, (7, 0.25, downloading, "1.1.0".to_owned(), 4));
    });
}

#[test]
fn orders_are_begun_and_what_they_refuse_is_said() {
    with_service(async |client, script, _| {
        call(&client, "AttemptUpdate").await.unwrap();
        let refused = call(&client, "ResetStatus").await.unwrap_err();
        let unknown = call(&client, "SetChannel").await.unwrap_err();

        assert_eq!(*script.calls.borrow(), ["attempt", "reset"]);
        assert!(refused.to_string().contains("nothing is under way"), "{refused}");
        assert!(unknown.to_string().contains("UnknownMethod"), "{unknown}");
    });
}

#[test]
fn who_listens_is_told_of_each_change_and_of_nothing_else() {
    with_service(async |client, script, folder| {
        let rule = format!("type='signal',interface='{INTERFACE}',path='{PATH}'");
        let bus = "org.freedesktop.DBus";
        client.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), "AddMatch", &rule).await.unwrap();
        let mut signals = MessageStream::from(&client);
        let replace_file = || {
            std::fs::write(folder.join("status.new"), "").unwrap();
            std::fs::rename(folder.join("status.new"), folder.join("status.json")).unwrap();
        };

        // A file that says the same again, and then another one.
        replace_file();
        tokio::time::sleep(2 * PAUSE).await;
        *script.done.borrow_mut() = 2;
        replace_file();

        let signal = loop {
            let message = signals.next().await.unwrap().unwrap();
            if message.message_type() == Type::Signal
                && message.header().path().is_some_and(|path| path.as_str() == PATH)
            {
                break message;
            }
        };
        let arguments: Arguments = signal.body().deserialize().unwrap();
        assert_eq!((signal.header().member().unwrap().as_str(), arguments.1), ("StatusUpdate", 0.5));
    });
}

#[test]
fn introspection_names_the_methods() {
    with_service(async |client, _, _| {
        let answer =
            client.call_method(Some(NAME), PATH, Some(INTROSPECTABLE), "Introspect", &()).await.unwrap();

        let text: String = answer.body().deserialize().unwrap();
        assert!(
            ["AttemptUpdate", "ResetStatus", "GetStatus", "StatusUpdate"]
                .iter()
                .all(|word| text.contains(word))
        );
    });
}

/// Everybody may read, and only root may change: the bus judges by this file.
#[test]
fn only_root_may_change_anything() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../overlays/base/usr/share/dbus-1/system.d/com.coreos.update1.conf"
    );
    let policy = std::fs::read_to_string(path).unwrap();
    let (root, everybody) = policy.split_once("context=\"default\"").unwrap();

    assert!(root.contains("<policy user=\"root\">") && root.contains("<allow own=\"com.coreos.update1\"/>"));
    assert!(!everybody.contains("own=") && everybody.contains("send_member=\"GetStatus\""));
    let allowed: Vec<&str> = everybody.lines().filter(|line| line.contains("<allow")).collect();
    for line in allowed {
        let is_bounded = line.contains("send_member=") || line.contains("\"org.freedesktop.DBus.");
        assert!(is_bounded && !line.contains("AttemptUpdate") && !line.contains("ResetStatus"), "{line}");
    }
}
