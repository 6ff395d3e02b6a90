use std::fs;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\ncore:x:1000:1000::/home/core:/bin/bash\n";
const SHADOW: &str = "root:*:20000:0:99999:7:::\ncore:$y$secret:20000:0:99999:7:::\n";
const GROUP: &str = "root:x:0:\nsudo:x:27:core\nusers:x:100:\ncore:x:1000:\n";
const GSHADOW: &str = "root:*::\nsudo:*::core\nusers:*::\ncore:!::\n";

/// A machine with one user, in a directory.
fn machine() -> (tempfile::TempDir, MachineRoot) {
    let folder = tempfile::tempdir().unwrap();
    let root = MachineRoot::at_directory(folder.path());
    fs::create_dir(root.path_of("/etc")).unwrap();
    for (name, text) in [
        ("passwd", PASSWD),
        ("shadow", SHADOW),
        ("group", GROUP),
        ("gshadow", GSHADOW),
        ("subuid", "core:100000:65536\n"),
        ("subgid", "core:100000:65536\n"),
    ] {
        fs::write(root.path_of(&format!("/etc/{name}")), text).unwrap();
    }
    (folder, root)
}

fn user(name: &str) -> UserStep {
    UserStep { name: name.to_owned(), ..UserStep::default() }
}

fn added(root: &MachineRoot, path: &str, before: &str) -> String {
    let text = fs::read_to_string(root.path_of(path)).unwrap();
    text.strip_prefix(before).unwrap_or_else(|| panic!("{path} lost what it had: {text}")).to_owned()
}

#[test]
fn a_user_is_in_all_files_as_useradd_makes_it() {
    let (_folder, root) = machine();
    let mut database = AccountDatabase::open_locked(&root).unwrap();

    database
        .add_user(&UserStep {
            gecos: Some("Ada Lovelace".to_owned()),
            groups: vec!["sudo".to_owned(), "ghosts".to_owned()],
            expires: Some("2030-12-31".to_owned()),
            inactive: Some(30),
            ..user("ada")
        })
        .unwrap();
    database.write().unwrap();

    assert_eq!(added(&root, "/etc/passwd", PASSWD), "ada:x:1001:1001:Ada Lovelace:/home/ada:/bin/bash\n");
    let today = shadow_today();
    assert_eq!(added(&root, "/etc/shadow", SHADOW), format!("ada:*:{today}:0:99999:7:30:22279:\n"));
    assert_eq!(added(&root, "/etc/subuid", "core:100000:65536\n"), "ada:165536:65536\n");
    assert_eq!(added(&root, "/etc/subgid", "core:100000:65536\n"), "ada:165536:65536\n");
    let group = GROUP.replace("27:core", "27:core,ada");
    assert_eq!(added(&root, "/etc/group", &group), "ada:x:1001:\n");
    let gshadow = GSHADOW.replace("sudo:*::core", "sudo:*::core,ada");
    assert_eq!(added(&root, "/etc/gshadow", &gshadow), "ada:!::\n");
}

#[test]
fn numbers_that_are_taken_are_not_given_twice() {
    let (_folder, root) = machine();
    let mut database = AccountDatabase::open_locked(&root).unwrap();

    database
        .add_group(&GroupStep { name: "ops".to_owned(), gid: Some(1001), ..GroupStep::default() })
        .unwrap();
    database.add_user(&user("ada")).unwrap();
    database.add_user(&UserStep { system: true, ..user("daemon") }).unwrap();
    let taken = database.add_user(&UserStep { uid: Some(1000), ..user("eve") }).unwrap_err();

    assert_eq!(database.find_user("ada").map(|ada| (ada.uid, ada.gid)), Some((1001, 1002)));
    assert_eq!(database.find_user("daemon").map(|daemon| (daemon.uid, daemon.gid)), Some((999, 999)));
    assert_eq!(taken.to_string(), "user number 1000 belongs to another one");
    assert!(database.find_user("eve").is_none());
}

#[test]
fn primary_groups_are_found_by_name_or_number_or_made() {
    let (_folder, root) = machine();
    let mut database = AccountDatabase::open_locked(&root).unwrap();
    let of = |group: &str, name: &str| UserStep { primary_group: Some(group.to_owned()), ..user(name) };

    database.add_user(&of("sudo", "a")).unwrap();
    database.add_user(&of("100", "b")).unwrap();
    database.add_user(&UserStep { no_user_group: true, ..user("c") }).unwrap();
    let missing = database.add_user(&of("ghosts", "d")).unwrap_err();

    let gid = |name: &str| database.find_user(name).unwrap().gid;
    assert_eq!((gid("a"), gid("b"), gid("c")), (27, 100, 100));
    assert_eq!(missing.to_string(), "there is no group ghosts");
}

#[test]
fn a_field_that_would_be_two_is_refused_and_nothing_is_written() {
    let (_folder, root) = machine();
    let mut database = AccountDatabase::open_locked(&root).unwrap();

    let with_colon = database.add_user(&UserStep { gecos: Some("a:0:0".to_owned()), ..user("eve") });
    let with_line = database.set_password("core", "x\nroot::0:0:::");
    database.write().unwrap();

    assert!(with_colon.is_err() && with_line.is_err());
    assert_eq!(fs::read_to_string(root.path_of("/etc/passwd")).unwrap(), PASSWD);
}

#[test]
fn passwords_are_set_locked_unlocked_and_expired() {
    let (_folder, root) = machine();
    let mut database = AccountDatabase::open_locked(&root).unwrap();
    let field =
        |database: &AccountDatabase, at: usize| database.shadow.fields_of("core").unwrap()[at].to_owned();

    assert!(database.set_lock("core", true).unwrap());
    assert!(!database.set_lock("core", true).unwrap(), "it is locked already");
    assert_eq!(field(&database, 1), "!$y$secret");
    assert!(database.set_lock("core", false).unwrap());
    assert_eq!(field(&database, 1), "$y$secret");
    assert!(database.set_password("core", "$6$other").unwrap());
    assert_eq!((field(&database, 1), field(&database, 2)), ("$6$other".to_owned(), shadow_today()));
    assert!(database.expire_password("core").unwrap());
    assert_eq!(field(&database, 2), "0");
    assert!(database.set_password("nobody", "x").is_err());
}

#[test]
fn lines_that_nobody_understands_stay() {
    let (_folder, root) = machine();
    let odd = format!("# a comment\n+::::::\n\n{PASSWD}twice:x:5\n");
    fs::write(root.path_of("/etc/passwd"), &odd).unwrap();
    let mut database = AccountDatabase::open_locked(&root).unwrap();

    database.add_user(&user("ada")).unwrap();
    database.write().unwrap();

    assert_eq!(added(&root, "/etc/passwd", &odd), "ada:x:1001:1001::/home/ada:/bin/bash\n");
}

#[test]
fn what_does_not_change_is_not_written() {
    let (_folder, root) = machine();
    let before = fs::metadata(root.path_of("/etc/group")).unwrap().modified().unwrap();
    let mut database = AccountDatabase::open_locked(&root).unwrap();

    assert!(!database.add_to_group("core", "sudo").unwrap());
    database.write().unwrap();

    assert_eq!(fs::metadata(root.path_of("/etc/group")).unwrap().modified().unwrap(), before);
}

#[test]
fn shadow_utils_reads_what_was_written() {
    let (_folder, root) = machine();
    let mut database = AccountDatabase::open_locked(&root).unwrap();
    for number in 0..20 {
        database
            .add_user(&UserStep { groups: vec!["sudo".to_owned()], ..user(&format!("user{number}")) })
            .unwrap();
    }
    database.write().unwrap();

    // The programs that check these files, told where they are.
    for (program, files) in [
        ("/usr/sbin/pwck", ["/etc/passwd", "/etc/shadow"]),
        ("/usr/sbin/grpck", ["/etc/group", "/etc/gshadow"]),
    ] {
        let paths = files.map(|file| root.path_of(file));
        let checked = std::process::Command::new(program).arg("-r").args(&paths).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        // Homes and shells are not in this directory, and names are looked up on the host.
        let of_others = ["directory", "program", "no changes", "no group", "no user", "delete member"];
        let complaints: Vec<&str> =
            said.lines().filter(|line| !of_others.iter().any(|words| line.contains(words))).collect();
        assert_eq!(complaints, [""; 0], "{program}");
    }
}

#[test]
fn days_are_counted_as_shadow_counts_them() {
    for (date, days) in [("1970-01-01", 0), ("2000-02-29", 11016), ("2030-12-31", 22279)] {
        assert_eq!(days_since_epoch(date).unwrap(), days);
    }
    for nonsense in ["", "2030-13-01", "2030-12", "never", "99999999-01-01", "2030-12-31-1"] {
        assert!(days_since_epoch(nonsense).is_err(), "{nonsense}");
    }
}

#[test]
fn nobody_else_changes_accounts_meanwhile() {
    use std::os::unix::fs::MetadataExt;
    let (_folder, root) = machine();
    let is_locked = || {
        let inode = format!(":{} ", fs::metadata(root.path_of("/etc/.pwd.lock")).unwrap().ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|lock| lock.contains("POSIX") && lock.contains("WRITE") && lock.contains(&inode))
    };

    let database = AccountDatabase::open_locked(&root).unwrap();

    assert!(is_locked());
    drop(database);
    assert!(!is_locked());
}
