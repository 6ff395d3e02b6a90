//! Two machines of one cluster meet on the switch, lose each other and meet again, as a person would do it: by the
//! program `vm`, from one document for both.
//!
//! Knows the image as little as it can: that it applies user-data and network-config, has bash and ping. Invariant:
//! the cluster is gone when the story ends, however it ends.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::scene::{PATIENCE, Scene};

/// Its words between `@` differ from machine to machine; `$private_ipv4` is what the guest itself finds.
const USER_DATA: &str = "#cloud-config
write_files:
  - path: /etc/story
    content: \"@NAME@ @NUMBER@ of @COUNT@ at @ADDRESS@, private $private_ipv4, updates @UPDATE_SERVER@\\n\"
";

/// Asks the update server for a part of a file, with what the image has.
const FETCH_PART: &str = r"server=$(sed 's|.*http://||' /etc/story)
    exec 3<>/dev/tcp/${server%:*}/${server#*:}
    printf 'GET /channel/stable HTTP/1.0\r\nRange: bytes=7-\r\n\r\n' >&3
    cat <&3";

/// The neighbours that answer a multicast on the card of the cluster: the machine itself, and the other.
const MEET_BY_MULTICAST: &str = "card=$(ip -br link | grep 52:54:00:c1: | cut -d ' ' -f 1)
    for try in 1 2 3 4 5; do
        found=$(ping -c 3 ff02::1%$card | grep -o 'from fe80[^%]*' | sort -u | wc -l)
        [ $found != 2 ] || break
    done
    echo $found";

pub(crate) fn of_two(scene: &Scene) {
    let cluster = Cluster::bring_up(scene);

    for (number, other) in [(1, 12), (2, 11)] {
        let told = cluster.run_in(number, "cat /etc/story");
        let own = format!("10.23.0.{}", 10 + number);
        let expected =
            format!("core-0{number} {number} of 2 at {own}, private {own}, updates http://169.254.169.2:");
        assert!(told.starts_with(&expected), "{told}");
        assert!(cluster.reaches(number, other), "core-0{number} does not reach 10.23.0.{other}");
    }
    assert_eq!(cluster.run_in(1, MEET_BY_MULTICAST).trim(), "2");
    let fetched = cluster.run_in(2, FETCH_PART);
    assert!(fetched.starts_with("HTTP/1.1 206 ") && fetched.ends_with("\r\n\r\n3.1.4\n"), "{fetched}");

    cluster.run("cut 2");
    assert!(!cluster.reaches(1, 12), "a cut cable carries frames");
    assert!(!cluster.reaches(2, 11), "a cut cable carries frames");
    cluster.run("heal 2");
    assert!(cluster.reaches(1, 12) && cluster.reaches(2, 11), "a healed cable carries no frames");

    cluster.run("kill 2");
    assert!(!cluster.reaches(1, 12), "a machine without power answers");
}

/// The machines, until dropped.
struct Cluster {
    state: PathBuf,
}

impl Cluster {
    fn bring_up(scene: &Scene) -> Self {
        let repository = scene.keep("repository", b"");
        std::fs::remove_file(&repository).unwrap();
        std::fs::create_dir_all(repository.join("channel")).unwrap();
        std::fs::write(repository.join("channel/stable"), "stable 3.1.4\n").unwrap();
        let cluster = Self { state: repository.with_file_name("cluster") };
        let mut up = cluster.command("up 2 --cpus 1 --memory 1024 --accel tcg --user-data");
        up.arg(scene.keep("cluster.yaml", USER_DATA.as_bytes())).arg("--update-server").arg(&repository);
        up.arg(format!("--timeout={}", PATIENCE.as_secs())).arg(scene.image());
        assert_success(&up.output().unwrap());
        cluster
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vm"));
        command.arg("--state").arg(&self.state).args(words.split_whitespace());
        command
    }

    fn run(&self, words: &str) {
        assert_success(&self.command(words).output().unwrap());
    }

    /// Runs a script in a machine that must succeed.
    fn run_in(&self, number: u8, script: &str) -> String {
        let output = self.command(&format!("ssh {number} --")).arg(script).output().unwrap();
        assert_success(&output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether one of five packets comes back: an emulated machine on a busy host may take seconds for the first.
    fn reaches(&self, number: u8, other: u8) -> bool {
        let script = format!("ping -q -c 1 -w 5 10.23.0.{other} >/dev/null && echo yes || echo no");
        self.run_in(number, &script).trim() == "yes"
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A failing story has told its failure already.
        let _ = self.command("down").output();
    }
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
