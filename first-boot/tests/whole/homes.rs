//! What a user without rights leaves in the own home for the next run: root neither reads nor writes by it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use first_boot::{RunOutcome, Verdict};

use crate::apply::is_root;
use crate::machine::{Bench, KEY};
use Format::{CloudConfig, Ignition, IgnitionOverwriting};

const HASH: &str = "root:$y$j9T$TOPSECRETROOTHASH:19000:0:99999:7:::\n";
/// Well below what a run takes when it waits for the other end of a FIFO, which is for ever.
const SOON: Duration = Duration::from_mins(1);

/// Who asks for the files: each format has steps of its own for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    CloudConfig,
    Ignition,
    /// It removes what is there in the place of a file.
    IgnitionOverwriting,
}

/// Those that leave what is there.
const LEAVING: [Format; 2] = [CloudConfig, Ignition];

fn document(format: Format) -> String {
    let (app, notes) = match format {
        CloudConfig => {
            return format!(
                "#cloud-config
users: [{{name: ada, ssh_authorized_keys: [{KEY} ada]}}]
write_files:
  - {{path: /home/ada/.config/systemd/user/app.service, owner: 'ada:ada', content: '[Service]', defer: true}}
  - {{path: /home/ada/.notes, owner: 'ada:ada', content: hello, append: true, defer: true}}
"
            );
        }
        Ignition => {
            (r#""contents": {"source": "data:,%5BService%5D"}"#, r#""append": [{"source": "data:,hello"}]"#)
        }
        IgnitionOverwriting => (
            r#""overwrite": true, "contents": {"source": "data:,%5BService%5D"}"#,
            r#""overwrite": true, "contents": {"source": "data:,hello"}"#,
        ),
    };
    let owner = r#""user": {"name": "ada"}, "group": {"name": "ada"}"#;
    format!(
        r#"{{"ignition": {{"version": "3.4.0"}},
            "passwd": {{"users": [{{"name": "ada", "sshAuthorizedKeys": ["{KEY} ada"]}}]}},
            "storage": {{"files": [{{"path": "/home/ada/.config/systemd/user/app.service", {owner}, {app}}},
                                  {{"path": "/home/ada/.notes", {owner}, {notes}}}]}}}}"#
    )
}

/// A machine whose user ada was configured once, and may leave things now.
struct Attack {
    bench: Bench,
    uid: u32,
    format: Format,
}

impl Attack {
    fn begin(format: Format) -> Self {
        let bench = Bench::new();
        let outcome = bench.apply(&document(format));
        assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
        let shadow = bench.read("/etc/shadow");
        fs::write(bench.machine.root.path_of("/etc/shadow"), format!("{HASH}{shadow}")).unwrap();
        fs::set_permissions(bench.machine.root.path_of("/etc/shadow"), fs::Permissions::from_mode(0o640))
            .unwrap();
        fs::create_dir_all(bench.machine.root.path_of("/etc/systemd/system")).unwrap();
        let uid = bench.owner("/home/ada").0;
        Self { bench, uid, format }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.bench.machine.root.path_of(path)
    }

    /// Takes away what is there, as its owner may.
    fn remove(&self, path: &str) {
        let path = self.path(path);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
    }

    fn link(&self, path: &str, target: &str) {
        self.remove(path);
        symlink(self.path(target), self.path(path)).unwrap();
        lchown(self.path(path), Some(self.uid), Some(self.uid)).unwrap();
    }

    fn own(&self, path: &str) {
        chown(self.path(path), Some(self.uid), Some(self.uid)).unwrap();
    }

    /// The next run, which must end, and after which nothing of root's is ada's.
    fn run(&self) -> RunOutcome {
        let (began, shadow) = (Instant::now(), self.bench.read("/etc/shadow"));
        let outcome = self.bench.apply(&document(self.format));
        assert!(began.elapsed() < SOON, "it waited");
        assert_eq!(self.bench.read("/etc/shadow"), shadow);
        assert_eq!(self.bench.owner("/etc/shadow"), (0, 0));
        assert_eq!(self.bench.owner("/etc/systemd/system"), (0, 0));
        assert!(!self.path("/etc/systemd/system/app.service").exists());
        for path in ADDED_TO {
            // A text, neither a link nor a hole of gigabytes.
            let meta = fs::symlink_metadata(self.path(path)).ok();
            let is_text = meta.is_some_and(|meta| meta.is_file() && meta.len() < 1 << 20);
            assert!(!is_text || !self.bench.read(path).contains("TOPSECRET"), "{path}");
        }
        assert!(!outcome.journal_text().contains("TOPSECRET"), "{}", outcome.journal_text());
        outcome
    }

    /// As [`Attack::run`], and it is said what was wrong.
    fn is_refused(&self, because: &str) {
        let outcome = self.run();
        assert_eq!(outcome.run_verdict(), Verdict::Degraded, "{because}: {}", outcome.journal_text());
        assert!(outcome.journal_text().contains(because), "{because}: {}", outcome.journal_text());
    }
}

const LINKS: [(&str, &str); 6] = [
    ("/home/ada/.ssh/authorized_keys", "/etc/shadow"),
    ("/home/ada/.notes", "/etc/shadow"),
    ("/home/ada/.config/systemd/user", "/etc/systemd/system"),
    ("/home/ada/.config", "/etc"),
    ("/home/ada/.ssh", "/etc/ssh"),
    ("/home/ada/.ssh", "/root"),
];

#[test]
fn links_in_a_home_lead_root_nowhere() {
    if !is_root() {
        return;
    }
    for (format, (path, target)) in LEAVING.into_iter().flat_map(|one| LINKS.map(|link| (one, link))) {
        let attack = Attack::begin(format);
        attack.link(path, target);

        // Ignition leaves whatever is no file in its place, before it is opened.
        let is_in_place = format == Ignition && path == "/home/ada/.notes";
        attack.is_refused(if is_in_place { "no regular file" } else { "symbolic link" });
    }
}

#[test]
fn what_is_overwritten_is_the_link_and_not_what_it_leads_to() {
    if !is_root() {
        return;
    }
    for (path, target) in LINKS {
        let attack = Attack::begin(IgnitionOverwriting);
        attack.link(path, target);

        let outcome = attack.run();

        let is_replaced = path == "/home/ada/.notes";
        assert_eq!(outcome.run_verdict() == Verdict::Ok, is_replaced, "{path}: {}", outcome.journal_text());
        assert_eq!(fs::symlink_metadata(attack.path(path)).unwrap().is_symlink(), !is_replaced, "{path}");
    }
}

#[test]
fn all_links_of_the_audit_at_once_cost_nobody_else_anything() {
    if !is_root() {
        return;
    }
    for format in LEAVING {
        let attack = Attack::begin(format);
        attack.link("/home/ada/.ssh/authorized_keys", "/etc/shadow");
        attack.link("/home/ada/.notes", "/etc/shadow");
        attack.link("/home/ada/.config/systemd/user", "/etc/systemd/system");

        let outcome = attack.run();

        let json = outcome.to_json();
        let items = json["items"].as_array().unwrap();
        let failed = items.iter().filter(|item| item["status"] == "failed").count();
        assert_eq!(failed, 3, "{}", outcome.journal_text());
    }
}

#[test]
fn a_home_that_is_itself_a_link_of_the_users_is_refused() {
    if !is_root() {
        return;
    }
    for format in LEAVING {
        let attack = Attack::begin(format);
        // Somebody gave ada the directory in which the home lies.
        let passwd = attack.bench.read("/etc/passwd").replace("/home/ada", "/srv/ada/home");
        fs::write(attack.path("/etc/passwd"), passwd).unwrap();
        fs::create_dir_all(attack.path("/srv/ada")).unwrap();
        attack.own("/srv/ada");
        fs::remove_dir_all(attack.path("/home/ada/.ssh")).unwrap();
        attack.link("/srv/ada/home", "/root");
        fs::create_dir_all(attack.path("/root")).unwrap();

        attack.is_refused("symbolic link");

        assert!(!attack.path("/root/.ssh").exists());
    }
}

/// Files that are read before they are written.
const ADDED_TO: [&str; 2] = ["/home/ada/.ssh/authorized_keys", "/home/ada/.notes"];

#[test]
fn a_hard_link_to_a_file_of_roots_or_of_anothers_is_not_read() {
    if !is_root() {
        return;
    }
    for (format, path) in LEAVING.into_iter().flat_map(|one| ADDED_TO.map(|path| (one, path))) {
        let attack = Attack::begin(format);
        attack.remove(path);
        // The kernel forbids it by default (protected_hardlinks), and a machine may be told otherwise.
        fs::hard_link(attack.path("/etc/shadow"), attack.path(path)).unwrap();

        let outcome = attack.bench.apply(&document(format));

        assert!(outcome.journal_text().contains("belongs to user 0"), "{}", outcome.journal_text());
        assert_eq!(attack.bench.owner("/etc/shadow"), (0, 0));
        assert_eq!(
            fs::metadata(attack.path(path)).unwrap().ino(),
            fs::metadata(attack.path("/etc/shadow")).unwrap().ino()
        );
        // What was left when shadow got a new file has one name again, and is root's nevertheless.
        let text = attack.bench.read("/etc/shadow");
        fs::remove_file(attack.path("/etc/shadow")).unwrap();
        fs::write(attack.path("/etc/shadow"), text).unwrap();
        let outcome = attack.bench.apply(&document(format));
        assert!(outcome.journal_text().contains("belongs to user 0"), "{}", outcome.journal_text());
        assert_eq!(attack.bench.owner(path).0, 0);
    }
}

#[test]
fn what_is_no_file_or_too_large_neither_hangs_the_run_nor_fills_the_memory() {
    if !is_root() {
        return;
    }
    for (format, path) in LEAVING.into_iter().flat_map(|one| ADDED_TO.map(|path| (one, path))) {
        let attack = Attack::begin(format);
        let name = CString::new(attack.path(path).to_str().unwrap()).unwrap();
        let fifo = || nix::unistd::mkfifo(name.as_c_str(), nix::sys::stat::Mode::from_bits_truncate(0o644));
        attack.remove(path);
        fifo().unwrap();
        attack.own(path);
        attack.is_refused("no regular file");

        attack.remove(path);
        fs::create_dir(attack.path(path)).unwrap();
        attack.own(path);
        attack.is_refused("no regular file");

        attack.remove(path);
        fs::File::create(attack.path(path)).unwrap().set_len(8 << 30).unwrap();
        attack.own(path);
        attack.is_refused("is larger than");

        attack.remove(path);
        let null = nix::libc::makedev(1, 3);
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(name.as_c_str(), kind, nix::sys::stat::Mode::from_bits_truncate(0o666), null)
            .unwrap();
        attack.own(path);
        attack.is_refused("no regular file");
    }
}

#[test]
fn files_directories_and_links_do_not_pass_a_users_link() {
    if !is_root() {
        return;
    }
    let attack = Attack::begin(CloudConfig);
    fs::create_dir_all(attack.path("/etc/loot")).unwrap();
    fs::write(attack.path("/etc/loot/kept"), "kept").unwrap();
    attack.link("/home/ada/way", "/etc/loot");
    let ignition = r#"{"ignition": {"version": "3.4.0"}, "storage": {
        "files": [{"path": "/home/ada/way/file", "user": {"name": "ada"}, "contents": {"source": "data:,x"}}],
        "directories": [{"path": "/home/ada/way/directory", "user": {"name": "ada"}},
                        {"path": "/home/ada/way", "overwrite": true, "user": {"name": "ada"}}],
        "links": [{"path": "/home/ada/way/link", "target": "/etc/passwd"},
                  {"path": "/home/ada/way/hard", "target": "/etc/hostname", "hard": true}]}}"#;

    let outcome = attack.bench.apply(ignition);

    let left: Vec<_> =
        fs::read_dir(attack.path("/etc/loot")).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"], "{}", outcome.journal_text());
    assert_eq!(attack.bench.owner("/etc/loot"), (0, 0));
}

#[test]
fn what_a_user_can_change_gets_no_name_that_root_trusts() {
    if !is_root() {
        return;
    }
    let attack = Attack::begin(CloudConfig);
    fs::create_dir_all(attack.path("/etc/cron.d")).unwrap();
    fs::create_dir_all(attack.path("/home/bob")).unwrap();
    chown(attack.path("/home/bob"), Some(4000), Some(4000)).unwrap();
    let ignition = r#"{"ignition": {"version": "3.4.0"}, "storage": {
        "files": [{"path": "/home/bob/gift", "user": {"name": "ada"}, "contents": {"source": "data:,x"}}],
        "links": [{"path": "/etc/cron.d/job", "target": "/home/ada/.notes", "hard": true}]}}"#;

    let outcome = attack.bench.apply(ignition);

    assert!(!attack.path("/etc/cron.d/job").exists(), "{}", outcome.journal_text());
    assert!(!attack.path("/home/bob/gift").exists(), "{}", outcome.journal_text());
    assert!(outcome.journal_text().contains("another user's"), "{}", outcome.journal_text());
}

#[test]
fn a_swap_file_is_not_made_where_a_user_can_change_its_name() {
    if !is_root() {
        return;
    }
    let attack = Attack::begin(CloudConfig);
    fs::write(attack.path("/etc/loot"), "kept").unwrap();
    attack.link("/home/ada/swap", "/etc/loot");

    let outcome = attack.bench.apply("#cloud-config\nswap: {filename: /home/ada/swap, size: 1M}\n");

    assert_eq!(attack.bench.read("/etc/loot"), "kept");
    assert!(outcome.journal_text().contains("put the swap file elsewhere"), "{}", outcome.journal_text());
}

#[test]
fn links_of_roots_own_are_followed_as_ever() {
    let bench = Bench::new();
    fs::create_dir_all(bench.machine.root.path_of("/var/home")).unwrap();
    fs::remove_dir_all(bench.machine.root.path_of("/home")).unwrap();
    symlink("var/home", bench.machine.root.path_of("/home")).unwrap();

    let outcome = bench.apply(&document(CloudConfig));

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert_eq!(bench.read("/var/home/ada/.ssh/authorized_keys"), format!("{KEY} ada\n"));
    assert_eq!(bench.read("/var/home/ada/.notes"), "hello");
}

#[test]
fn roots_directories_below_a_home_are_a_way_and_its_files_are_added_to() {
    if !is_root() {
        return;
    }
    let attack = Attack::begin(CloudConfig);
    let document = "#cloud-config
write_files:
  - {path: /home/ada/a/b/one, content: one}
  - {path: /home/ada/a/b/two, content: two, owner: 'ada:ada'}
  - {path: /home/ada/a/b/one, content: more, append: true}
";

    for _ in 0..2 {
        let outcome = attack.bench.apply(document);
        assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    }

    assert_eq!(attack.bench.owner("/home/ada/a/b/two"), (attack.uid, attack.uid));
    assert_eq!(attack.bench.read("/home/ada/a/b/one"), "onemore");
}
