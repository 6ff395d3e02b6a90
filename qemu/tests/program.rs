//! The program `vm` as a person uses it: words, help, exit codes, and a machine from start to removal.

#![expect(clippy::disallowed_methods, reason = "effects live here")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them too")]

mod guest;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// None where the tools are missing.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("guest.raw"), guest::disk()).unwrap();
        guest::can_run().then_some(Self { folder })
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("guest.raw")
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vm"));
        command.arg("--state").arg(self.folder.path().join("state"));
        command.args(words.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    fn boot(&self, words: &str) -> std::process::Child {
        let mut command = self.command("run --accel tcg --memory 64");
        command.args(words.split_whitespace()).arg(self.image());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The machines, as `vm ls --json` shows them.
    fn machines(&self) -> Vec<serde_json::Value> {
        serde_json::from_slice(&self.run("ls --json").stdout).unwrap()
    }

    fn wait_until(&self, name: &str, state: &str) {
        for _ in 0..900 {
            let list = self.run("list --json");
            let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
            let machines = list.as_array().unwrap();
            if machines.iter().any(|machine| machine["name"] == name && machine["state"] == state) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("{name} is not {state} after 90 seconds");
    }
}

/// A terminal with nobody but the test before it.
struct Terminal {
    person: fs::File,
    program: fs::File,
}

impl Terminal {
    fn new() -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        Self { person: pty.master.into(), program: pty.slave.into() }
    }

    fn stdin(&self) -> Stdio {
        self.program.try_clone().unwrap().into()
    }

    fn settings(&self) -> nix::sys::termios::Termios {
        nix::sys::termios::tcgetattr(&self.program).unwrap()
    }

    fn press(&mut self, keys: &[u8]) {
        self.person.write_all(keys).unwrap();
    }
}

/// Reads until `words` came.
fn read_until(from: &mut impl Read, words: &str) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while !text(&said).contains(words) {
        let length = from.read(&mut byte).unwrap();
        assert!(length > 0, "the end came before {words:?}: {}", text(&said));
        said.extend_from_slice(&byte);
    }
    text(&said)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn each_verb_has_help_and_examples_are_in_it() {
    let Some(desk) = Desk::new() else { return };

    for verb in [
        "run",
        "start",
        "ssh",
        "console",
        "stop",
        "kill",
        "list",
        "remove",
        "up",
        "down",
        "cut",
        "heal",
        "link",
        "bench-boot",
        "completions",
    ] {
        let output = desk.run(&format!("{verb} --help"));
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(text(&output.stdout).contains("Usage: vm"), "{verb}");
    }
    let help = text(&desk.run("--help").stdout);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}

#[test]
fn wrong_words_exit_with_2_and_missing_machines_with_3() {
    let Some(desk) = Desk::new() else { return };

    for (words, code, message) in [
        ("run", 2, "<IMAGE>"),
        ("run x.raw --firmware coreboot", 2, "possible values: bios, uefi, secure"),
        ("run x.raw --disk-size 20", 2, "a size needs a unit"),
        ("stop Web", 2, "cannot name a machine"),
        ("stop web", 3, "there is no machine called web; there is none"),
        ("ssh", 3, "say which machine: there is none"),
        ("up 0 x.raw", 2, "a cluster of 0 machines cannot be made; it has 1 to 64, proxies among them"),
        ("up 60 x.raw --proxies 5", 2, "a cluster of 65 machines cannot be made"),
        ("up 2 x.raw --update-port 80", 2, "--update-server <DIR>"),
        ("up 2 x.raw --isolate --update-server /tmp", 2, "cannot be used with"),
        ("up 2 /nowhere/x.raw", 1, "cannot open the image /nowhere/x.raw: No such file or directory"),
        ("up 2 x.raw --update-server /nowhere", 1, "cannot serve /nowhere as updates: No such file"),
        ("ssh 2", 3, "there is no cluster here; make one with: vm up 3 IMAGE"),
        ("cut 2", 3, "there is no cluster here"),
        ("heal", 3, "there is no cluster here"),
        ("down", 3, "there is no cluster here"),
        ("run /nowhere/x.raw", 1, "cannot open the image /nowhere/x.raw: No such file or directory"),
    ] {
        let output = desk.run(words);
        assert_eq!(output.status.code(), Some(code), "{words}");
        assert!(text(&output.stderr).contains(message), "{words}: {}", text(&output.stderr));
    }
    assert!(text(&desk.run("list").stdout).lines().count() == 1, "a failed run must leave no machine");
}

#[test]
fn completions_know_the_verbs() {
    let Some(desk) = Desk::new() else { return };

    let output = desk.run("completions bash");

    assert!(text(&output.stdout).contains("bench-boot"));
}

#[test]
fn a_machine_runs_is_kept_starts_again_and_is_removed() {
    let Some(desk) = Desk::new() else { return };
    let before = fs::read(desk.image()).unwrap();

    let first = desk.boot("--name web --keep --disk-size 8M");
    desk.wait_until("web", "on");
    assert_eq!(desk.run("remove web").status.code(), Some(3), "it is on");
    assert_eq!(desk.run("start web").status.code(), Some(3), "it is on");
    assert_eq!(desk.run("stop --timeout 0").status.code(), Some(0));
    let first = first.wait_with_output().unwrap();
    desk.wait_until("web", "off");
    let mut second = desk.command("start web").stdout(Stdio::piped()).spawn().unwrap();
    desk.wait_until("web", "on");
    thread::sleep(Duration::from_secs(3));
    desk.run("stop --timeout 0");
    let status = second.wait().unwrap();
    let second = std::io::read_to_string(second.stdout.take().unwrap()).unwrap();

    assert!(text(&first.stderr).contains("web: BIOS on TCG (asked for)"), "{}", text(&first.stderr));
    assert_eq!(status.code(), Some(0));
    assert!(second.contains("this is boot"), "{second}");
    assert_eq!(desk.run("ssh web").status.code(), Some(3), "it is off");
    assert_eq!(desk.run("remove web").status.code(), Some(0));
    assert_eq!(desk.run("remove web").status.code(), Some(3));
    assert!(fs::read(desk.image()).unwrap() == before, "the image was written");
}

#[test]
fn a_kept_machine_does_not_start_over_another_image() {
    let Some(desk) = Desk::new() else { return };
    let machine = desk.boot("--name web --keep");
    desk.wait_until("web", "on");
    desk.run("stop --timeout 0");
    machine.wait_with_output().unwrap();
    fs::write(desk.image(), guest::disk()).unwrap();

    let output = desk.run("start web");

    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("guest.raw was changed"), "{}", text(&output.stderr));
}

#[test]
fn an_unkept_machine_goes_with_its_process() {
    let Some(desk) = Desk::new() else { return };
    let process = desk.boot("--name brief");
    desk.wait_until("brief", "on");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).unwrap());

    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    desk.wait_until("brief", "on");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = process.wait_with_output().unwrap();

    // The guest ignores the power button, so the second signal pulls the plug.
    assert!(text(&output.stderr).contains("the plug is pulled"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&desk.run("list --json").stdout), "[]\n");
}

#[test]
fn a_detached_machine_without_ssh_stays_on_and_says_so() {
    let Some(desk) = Desk::new() else { return };
    let mut command = desk.command("run --accel tcg --memory 64 --name quiet --detach --timeout 3");

    let output = command.arg(desk.image()).output().unwrap();

    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stderr);
    assert!(said.contains("quiet stays on; look at it with: vm console quiet"), "{said}");
    desk.wait_until("quiet", "on");
    assert_eq!(desk.run("stop quiet --timeout 0").status.code(), Some(0));
    assert_eq!(text(&desk.run("list --json").stdout), "[]\n");
}

#[test]
fn a_detached_machine_that_cannot_start_says_why() {
    let Some(desk) = Desk::new() else { return };
    let mut command = desk.command("run --accel tcg --memory 64 --name bad --detach");

    let output = command.arg(desk.image()).args(["--", "-device", "nonsense"]).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nonsense"), "{}", text(&output.stderr));
    assert_eq!(text(&desk.run("list --json").stdout), "[]\n");
}

#[test]
fn a_person_types_on_the_console_and_leaves_a_terminal_as_it_was() {
    let Some(desk) = Desk::new() else { return };
    let mut terminal = Terminal::new();
    let before = terminal.settings();
    let mut command = desk.command("run --accel tcg --memory 64 --name web");
    let command = command.arg(desk.image()).stdin(terminal.stdin());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = process.stdout.take().unwrap();
    read_until(&mut output, "this is boot 1\n");
    let during = terminal.settings();

    terminal.press(b"hello\x03");
    read_until(&mut output, "hello\x03");
    terminal.press(b"\x1d");
    read_until(process.stderr.as_mut().unwrap(), "Ctrl-] pulls the plug");
    terminal.press(b"\x1d");
    let status = process.wait().unwrap();

    assert_eq!(status.code(), Some(0));
    assert_ne!(during, before, "the terminal was not in raw mode");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_console_is_joined_followed_and_left() {
    let Some(desk) = Desk::new() else { return };
    let mut machine = desk.boot("--name web");
    desk.wait_until("web", "on");
    let mut said = machine.stdout.take().unwrap();
    read_until(&mut said, "this is boot 1\n");

    // The terminal that runs the machine has the console, so another may only look.
    let mut looking = desk.command("console").stdout(Stdio::piped()).spawn().unwrap();
    read_until(looking.stdout.as_mut().unwrap(), "this is boot 1\n");
    let status = {
        desk.run("stop --timeout 0");
        looking.wait().unwrap()
    };
    machine.wait().unwrap();

    assert_eq!(status.code(), Some(0), "looking ends with the machine");
}

#[test]
fn a_console_of_a_machine_in_the_background_takes_what_is_typed() {
    let Some(desk) = Desk::new() else { return };
    let mut command = desk.command("run --accel tcg --memory 64 --name web --detach --timeout 2");
    assert_eq!(command.arg(desk.image()).output().unwrap().status.code(), Some(4));
    let mut terminal = Terminal::new();
    let mut command = desk.command("console web");
    let mut process = command.stdin(terminal.stdin()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = process.stdout.take().unwrap();
    read_until(&mut output, "this is boot 1\n");

    terminal.press(b"typed");
    read_until(&mut output, "typed");
    terminal.press(b"\x1d");
    let status = process.wait().unwrap();

    assert_eq!(status.code(), Some(0));
    desk.wait_until("web", "on");
    desk.run("stop --timeout 0");
}

/// A cluster whose guests know neither ssh nor a network: all but what happens inside of them.
#[test]
fn a_cluster_is_brought_up_cut_healed_and_taken_down() {
    let Some(desk) = Desk::new() else { return };
    fs::write(desk.folder.path().join("user-data"), "#cloud-config\nhostname: @NAME@\n# @UPDATE_SERVER@\n")
        .unwrap();
    let up = || {
        let mut command = desk.command("up 2 --accel tcg --memory 64 --timeout 2 --proxies 1");
        command.arg("--user-data").arg(desk.folder.path().join("user-data"));
        command.arg("--update-server").arg(desk.folder.path()).arg(desk.image());
        command.output().unwrap()
    };

    let output = up();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("updates are served to the machines at http://169.254.169.2:"), "{said}");
    assert!(said.contains("the others stay on; vm down ends them"), "{said}");
    let seen = desk.machines();
    let of = |field: &str| seen.iter().map(|one| one[field].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["core-01", "core-02", "core-03"]);
    assert_eq!(of("address"), ["10.23.0.11", "10.23.0.12", "10.23.0.13"]);
    assert_eq!((of("state"), of("link")), (vec!["on"; 3], vec!["whole"; 3]));
    let seed = fs::read(desk.folder.path().join("state/core-02/seed.img")).unwrap();
    assert!(
        text(&seed).contains("hostname: core-02\n# http://169.254.169.2:"),
        "the template is not filled in"
    );
    assert!(text(&up().stderr).contains("there is a cluster already; end it with: vm down"));

    assert_eq!(desk.run("cut 2 core-03").status.code(), Some(0));
    assert_eq!(desk.run("link 1 --delay 20 --loss 1.5").status.code(), Some(0));
    let links = |machines: &[serde_json::Value]| {
        machines.iter().map(|one| one["link"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(links(&desk.machines()), ["20 ms, 1.5 % lost", "cut", "cut"]);
    assert_eq!(desk.run("heal 2").status.code(), Some(0));
    assert_eq!(links(&desk.machines()), ["20 ms, 1.5 % lost", "whole", "cut"]);
    assert_eq!(desk.run("heal").status.code(), Some(0));
    assert_eq!(links(&desk.machines()), ["whole"; 3]);
    let refused = desk.run("cut 1 4");
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("the cluster has no machine 4; it has 1 to 3"));
    assert_eq!(links(&desk.machines()), ["whole"; 3], "nothing is done in part");

    assert_eq!(desk.run("kill 2").status.code(), Some(0));
    assert_eq!(desk.machines()[1]["state"], "off");
    assert_eq!(desk.run("start 2 --detach --timeout 1").status.code(), Some(4));
    desk.wait_until("core-02", "on");
    assert_eq!(desk.run("down").status.code(), Some(0));
    assert_eq!(text(&desk.run("list --json").stdout), "[]\n");
    assert_eq!(fs::read_dir(desk.folder.path().join("state")).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_cluster_that_cannot_start_leaves_nothing() {
    let Some(desk) = Desk::new() else { return };
    let mut command = desk.command("up 2 --accel tcg --memory 64");

    let output = command.arg(desk.image()).args(["--", "-device", "nonsense"]).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nonsense"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(desk.folder.path().join("state")).unwrap().count(), 0);
}

#[test]
fn a_cluster_in_a_cloud_is_told_by_a_service_what_its_machines_are() {
    let Some(desk) = Desk::new() else { return };
    fs::write(desk.folder.path().join("user-data"), "#!/bin/sh\necho @ADDRESS@\n").unwrap();
    let mut command = desk.command("up 2 --accel tcg --memory 64 --timeout 1 --seed-by metadata --user-data");
    command.arg(desk.folder.path().join("user-data")).arg(desk.image());
    assert_eq!(command.output().unwrap().status.code(), Some(4));
    let record = fs::read(desk.folder.path().join("state/.cluster/network.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let port = u16::try_from(record["metadata_ports"][1].as_u64().unwrap()).unwrap();
    let ask = |path: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    };

    let (document, key) = (ask("/openstack/latest/user_data"), ask("/openstack/latest/meta_data.json"));

    assert!(document.ends_with("\r\n\r\n#!/bin/sh\necho 10.23.0.12\n"), "{document}");
    assert!(key.contains("ssh-ed25519 ") && key.contains("core-02"), "{key}");
    assert!(ask("/../core-01/openstack/latest/user_data").starts_with("HTTP/1.1 400 "));
    assert!(!desk.folder.path().join("state/core-02/seed.img").exists(), "it was told twice");
    assert_eq!(desk.run("down").status.code(), Some(0));
}

#[test]
fn a_cluster_whose_network_died_gets_it_back_or_is_taken_down() {
    let Some(desk) = Desk::new() else { return };
    let mut command =
        desk.command("up 1 --accel tcg --memory 64 --timeout 1 --seed-by metadata --update-server");
    assert_eq!(command.arg(desk.folder.path()).arg(desk.image()).output().unwrap().status.code(), Some(4));
    let record = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(desk.folder.path().join("state/.cluster/network.json")).unwrap())
            .unwrap()
    };
    let before = record();
    let kill_network = || {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(record()["pid"].as_i64().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };

    kill_network();

    // A killed process takes a moment to go.
    while desk.machines()[0]["link"] != "no network" {
        thread::sleep(Duration::from_millis(50));
    }
    let cut = desk.run("cut 1");
    assert!(
        text(&cut.stderr).contains("it ended, and vm down and vm up make a new one"),
        "{}",
        text(&cut.stderr)
    );
    desk.run("kill 1");
    let start = desk.run("start 1 --detach --timeout 1");
    assert!(text(&start.stderr).contains("had ended, and runs again"), "{}", text(&start.stderr));
    assert_eq!(desk.machines()[0]["link"], "whole");
    let after = record();
    assert_ne!(before["pid"], after["pid"]);
    for same in ["metadata_ports", "update_port", "update_server"] {
        assert_eq!(before[same], after[same], "the machine expects it where it was");
    }

    kill_network();
    assert_eq!(desk.run("down").status.code(), Some(0));
    assert_eq!(fs::read_dir(desk.folder.path().join("state")).unwrap().count(), 0);
}

#[test]
fn a_race_boots_again_what_an_emulator_made_panic_but_not_forever() {
    let Some(desk) = Desk::new() else { return };
    fs::write(desk.image(), guest::disk_that_says("Kernel panic - not syncing: ")).unwrap();

    let mut race = desk.command("bench-boot --accel tcg --memory 64 --rounds 1");
    let output = race.args([desk.image(), desk.image()]).output().unwrap();

    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(
        said.matches("its kernel panicked in the emulator, so it boots once more").count(),
        3,
        "{said}"
    );
    assert!(said.contains("an emulated kernel panicked, lap after lap"), "{said}");
}
