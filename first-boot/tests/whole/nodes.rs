//! Files, directories and links of Ignition configurations, over what is there already.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use first_boot::{RunOutcome, Verdict};

use crate::machine::{Bench, KEY};

fn configuration(storage: &str) -> String {
    format!(r#"{{"ignition": {{"version": "3.4.0"}}, "storage": {{{storage}}}}}"#)
}

fn file(fields: &str) -> String {
    configuration(&format!(r#""files": [{{{fields}}}]"#))
}

fn link(fields: &str) -> String {
    configuration(&format!(r#""links": [{{{fields}}}]"#))
}

fn directory(fields: &str) -> String {
    configuration(&format!(r#""directories": [{{{fields}}}]"#))
}

/// A machine with a folder for data.
fn bench() -> Bench {
    let bench = Bench::new();
    fs::create_dir_all(bench.machine.root.path_of("/srv")).unwrap();
    bench
}

fn put(bench: &Bench, path: &str, text: &str, mode: u32, owner: u32) -> PathBuf {
    let place = bench.machine.root.path_of(path);
    fs::write(&place, text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    if nix::unistd::Uid::effective().is_root() {
        lchown(&place, Some(owner), Some(owner)).unwrap();
    }
    place
}

fn fails(outcome: &RunOutcome, why: &str) {
    assert!(
        outcome.run_verdict() != Verdict::Ok && outcome.journal_text().contains(why),
        "{why}: {}",
        outcome.journal_text()
    );
}

fn succeeds(outcome: &RunOutcome) {
    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
}

#[test]
fn what_is_appended_to_keeps_its_owner_and_its_mode() {
    let bench = bench();
    put(&bench, "/srv/log", "one line\n", 0o600, 1000);
    let before = bench.owner("/srv/log");
    let document = file(r#""path": "/srv/log", "append": [{"source": "data:,one%20more%20line%0A"}]"#);

    succeeds(&bench.apply(&document));
    succeeds(&bench.apply(&document));

    assert_eq!(bench.read("/srv/log"), "one line\none more line\n");
    assert_eq!((bench.mode("/srv/log"), bench.owner("/srv/log")), (0o600, before));
}

#[test]
fn what_is_named_without_contents_stays_or_is_made_empty() {
    let bench = bench();
    put(&bench, "/srv/there", "kept", 0o640, 1000);
    let before = bench.owner("/srv/there");

    succeeds(&bench.apply(&configuration(r#""files": [{"path": "/srv/there"}, {"path": "/srv/new"}]"#)));

    assert_eq!((bench.read("/srv/there"), bench.mode("/srv/there")), ("kept".to_owned(), 0o640));
    assert_eq!(bench.owner("/srv/there"), before);
    assert_eq!((bench.read("/srv/new"), bench.mode("/srv/new")), (String::new(), 0o644));
    succeeds(&bench.apply(&file(r#""path": "/srv/there", "mode": 384"#)));
    assert_eq!((bench.read("/srv/there"), bench.mode("/srv/there")), ("kept".to_owned(), 0o600));
    succeeds(&bench.apply(&file(r#""path": "/srv/there", "overwrite": true, "contents": {"source": ""}"#)));
    assert_eq!((bench.read("/srv/there"), bench.mode("/srv/there")), (String::new(), 0o644));
}

#[test]
fn contents_and_what_is_added_to_them_are_one_file() {
    let bench = bench();
    let document = file(
        r#""path": "/srv/a", "contents": {"source": "data:,1"}, "append": [{"source": "data:,2"}, {"source": "data:,2"}]"#,
    );

    succeeds(&bench.apply(&document));
    succeeds(&bench.apply(&document));

    assert_eq!(bench.read("/srv/a"), "122");
}

#[test]
fn what_is_there_is_left_unless_it_may_be_overwritten() {
    let bench = bench();
    put(&bench, "/srv/f", "precious", 0o644, 0);
    let folder = bench.machine.root.path_of("/srv/d");
    fs::create_dir_all(folder.join("inner")).unwrap();
    let broken = bench.machine.root.path_of("/srv/broken");
    symlink("nowhere", &broken).unwrap();
    symlink("/srv", bench.machine.root.path_of("/srv/led")).unwrap();
    for (document, why) in [
        (file(r#""path": "/srv/f", "contents": {"source": "data:,x"}"#), "replacing it was not asked for"),
        (file(r#""path": "/srv/d", "contents": {"source": "data:,x"}"#), "no regular file"),
        (file(r#""path": "/srv/broken", "overwrite": false, "mode": 420"#), "no regular file"),
        (directory(r#""path": "/srv/f""#), "no directory"),
        (directory(r#""path": "/srv/led""#), "no directory"),
        (link(r#""path": "/srv/d", "target": "x""#), "replacing it was not asked for"),
        (link(r#""path": "/srv/broken", "target": "elsewhere""#), "replacing it was not asked for"),
        (
            link(r#""path": "/srv/broken", "target": "/srv/f", "hard": true"#),
            "replacing it was not asked for",
        ),
    ] {
        fails(&bench.apply(&document), why);
    }
    assert_eq!(bench.read("/srv/f"), "precious");
    assert!(folder.join("inner").is_dir());
    assert_eq!(fs::read_link(broken).unwrap(), PathBuf::from("nowhere"));
}

#[test]
fn what_may_be_overwritten_is_whatever_it_is() {
    let over = [
        file(r#""path": "/srv/x", "overwrite": true, "contents": {"source": "data:,x"}"#),
        directory(r#""path": "/srv/x", "overwrite": true"#),
        link(r#""path": "/srv/x", "overwrite": true, "target": "/srv/target""#),
        link(r#""path": "/srv/x", "overwrite": true, "target": "/srv/target", "hard": true"#),
    ];
    let makers: [fn(PathBuf); 3] = [
        |path| fs::create_dir_all(path.join("inner/more")).unwrap(),
        |path| symlink("nowhere", path).unwrap(),
        |path| fs::write(path, "old").unwrap(),
    ];
    for document in &over {
        for make in makers {
            let bench = bench();
            put(&bench, "/srv/target", "target", 0o644, 0);
            let place = bench.machine.root.path_of("/srv/x");
            make(place.clone());

            succeeds(&bench.apply(document));

            let meta = fs::symlink_metadata(&place).unwrap();
            assert!(!place.join("inner").exists(), "{document}");
            assert_eq!(meta.is_dir(), document.contains("directories"), "{document}");
            let is_symbolic = document.contains("target") && !document.contains("hard");
            assert_eq!(meta.is_symlink(), is_symbolic, "{document}");
        }
    }
}

#[test]
fn links_have_owners_and_right_ones_stay() {
    let bench = bench();
    put(&bench, "/srv/target", "target", 0o644, 0);
    let document = configuration(
        r#""links": [{"path": "/srv/soft", "target": "/srv/target", "user": {"id": 1000}, "group": {"name": "sudo"}},
            {"path": "/srv/hard", "target": "/srv/target", "hard": true}]"#,
    );

    succeeds(&bench.apply(&document));

    let meta = |path: &str| fs::symlink_metadata(bench.machine.root.path_of(path)).unwrap();
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!((meta("/srv/soft").uid(), meta("/srv/soft").gid()), (1000, 27));
    }
    assert_eq!(meta("/srv/hard").ino(), meta("/srv/target").ino());
    let again = bench.apply(&document);
    succeeds(&again);
    let items = again.to_json()["items"].to_string();
    assert!(!items.contains("\"changed\""), "right links are not made again: {items}");
    // Without an owner, the one that is there stays.
    succeeds(&bench.apply(&link(r#""path": "/srv/soft", "target": "/srv/target""#)));
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!((meta("/srv/soft").uid(), meta("/srv/soft").gid()), (1000, 27));
    }
}

#[test]
fn directories_keep_what_is_not_given_and_outer_ones_come_first() {
    let bench = bench();
    let place = bench.machine.root.path_of("/srv/d");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o711)).unwrap();

    succeeds(&bench.apply(&configuration(
        r#""directories": [{"path": "/srv/d/e/f"}, {"path": "/srv/d/e", "overwrite": true, "mode": 448}, {"path": "/srv/d"}]"#,
    )));

    assert_eq!(
        (bench.mode("/srv/d"), bench.mode("/srv/d/e"), bench.mode("/srv/d/e/f")),
        (0o711, 0o700, 0o755)
    );
}

#[test]
fn two_paths_that_links_lead_to_one_place_are_not_both_written() {
    let bench = bench();
    symlink("..", bench.machine.root.path_of("/srv/leads-to-root")).unwrap();

    let outcome = bench.apply(&configuration(
        r#""files": [{"path": "/srv/leads-to-root/srv/f"}, {"path": "/srv/f", "contents": {"source": "data:,x"}}]"#,
    ));

    fails(&outcome, "leads to /srv/f, where /srv/leads-to-root/srv/f is put already");
    assert_eq!(bench.read("/srv/f"), "");
}

#[test]
fn a_mask_is_lifted_only_where_that_is_said() {
    let bench = bench();
    let mask = bench.machine.root.path_of("/etc/systemd/system/a.service");
    let with = |mask: &str| {
        format!(
            r#"{{"ignition": {{"version": "3.4.0"}}, "systemd": {{"units": [{{"name": "a.service"{mask}}}]}}}}"#
        )
    };
    succeeds(&bench.apply(&with(r#", "mask": true"#)));
    assert!(fs::read_link(&mask).is_ok_and(|target| target == Path::new("/dev/null")));

    succeeds(&bench.apply(&with("")));
    assert!(fs::symlink_metadata(&mask).is_ok(), "nothing was said of it");

    succeeds(&bench.apply(&with(r#", "mask": false, "enabled": true"#)));
    assert!(fs::symlink_metadata(&mask).is_err());
}

#[test]
fn nothing_is_done_unless_all_can_be_done() {
    let bench = bench();
    let before = bench.snapshot();

    let outcome = bench.apply(
        r#"{"ignition": {"version": "3.4.0"}, "passwd": {"users": [{"name": "ann"}]},
            "storage": {"files": [{"path": "/srv/a", "contents": {"source": "data:,x"}}, {"path": "/srv/b", "mode": 9999}],
                "directories": [{"path": "/srv/d"}], "links": [{"path": "/srv/l", "target": "x"}],
                "filesystems": [{"device": "/dev/vdb1", "format": "ext4", "wipeFilesystem": true}]},
            "systemd": {"units": [{"name": "a.service", "enabled": true, "contents": "[Service]\nExecStart=/bin/true\n"}]}}"#,
    );

    fails(&outcome, "nothing of this configuration is done");
    let mut after = bench.snapshot();
    // Host keys and the agent's own records are no part of a configuration.
    after.retain(|path, _| {
        !path.contains("/run/") && !path.contains("/var/lib/catamaran") && !path.contains("ssh_host")
    });
    let mut before = before;
    before.retain(|path, _| !path.contains("ssh_host"));
    assert_eq!(after, before);
    assert!(
        !bench.called("mkfs") && !bench.called("wipefs") && !bench.called("a.service"),
        "{:?}",
        bench.calls()
    );
}

#[test]
fn a_setuid_bit_goes_over_neither_to_another_program_nor_to_another_user() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let bench = bench();
    let latest = |fields: &str| file(fields).replace("3.4.0", "3.6.0");
    put(&bench, "/srv/tool", "old", 0o4755, 0);
    let overwriting = r#""path": "/srv/tool", "overwrite": true, "contents": {"source": "data:,new"}"#;
    succeeds(&bench.apply(&latest(overwriting)));
    assert_eq!((bench.read("/srv/tool"), bench.mode("/srv/tool")), ("new".to_owned(), 0o644));

    for fields in [r#""append": [{"source": "data:,x"}]"#, r#""group": {"id": 0}"#] {
        let place = put(&bench, "/srv/users", "a user's", 0o755, 1000);
        let roots = format!(r#""path": "/srv/users", "mode": 2541, "user": {{"id": 0}}, {fields}"#);
        fails(&bench.apply(&latest(&roots)), "another user's");
        assert_eq!((bench.mode("/srv/users"), bench.owner("/srv/users")), (0o755, (1000, 1000)), "{fields}");
        fs::remove_file(place).unwrap();
    }
}

#[test]
fn keys_of_network_devices_are_for_networkd_alone() {
    let bench = bench();
    let group = bench.read("/etc/group") + "systemd-network:x:998:\n";
    fs::write(bench.machine.root.path_of("/etc/group"), group).unwrap();
    let source = |text: &str| format!(r#""source": "data:,{text}""#);
    let (head, key) = (source("%5BWireGuard%5D%0A"), source("PrivateKey%3DSEKRIT%0A"));
    let document = configuration(&format!(
        r#""files": [{{"path": "/etc/systemd/network/20-wg.netdev", "contents": {{{head}}}, "append": [{{{key}}}]}},
                     {{"path": "/etc/systemd/network/30-x.network", "append": [{{{}}}]}}]"#,
        source("%5BMACsecTransmitAssociation%5D%0AKey%3DSEKRIT%0A")
    ));

    for _ in 0..2 {
        let outcome = bench.apply(&document);

        succeeds(&outcome);
        assert!(
            !outcome.journal_text().contains("SEKRIT") && !outcome.to_json().to_string().contains("SEKRIT")
        );
        assert_eq!(bench.read("/etc/systemd/network/20-wg.netdev"), "[WireGuard]\nPrivateKey=SEKRIT\n");
        for path in ["/etc/systemd/network/20-wg.netdev", "/etc/systemd/network/30-x.network"] {
            assert_eq!(bench.mode(path), 0o640, "{path}");
        }
    }
}

#[test]
fn keys_survive_a_file_placed_over_them() {
    for contents in [r#""contents": {"source": "data:,nothing"}, "overwrite": true"#, r#""mode": 438"#] {
        let bench = bench();
        let document = format!(
            r#"{{"ignition": {{"version": "3.4.0"}},
                "passwd": {{"users": [{{"name": "core", "sshAuthorizedKeys": ["{KEY} me"]}}]}},
                "storage": {{"files": [{{"path": "/home/core/.ssh/authorized_keys", {contents}}}]}}}}"#
        );

        bench.apply(&document);

        assert!(bench.read("/home/core/.ssh/authorized_keys").contains(KEY), "{contents}");
        assert_eq!(bench.mode("/home/core/.ssh/authorized_keys"), 0o600, "{contents}");
        assert_eq!(bench.mode("/home/core/.ssh"), 0o700, "{contents}");
    }
}

#[test]
fn no_link_leads_a_node_to_a_protected_place() {
    for fields in [
        file(r#""path": "/etc/harmless/sshd", "contents": {"source": "data:,x"}"#),
        file(r#""path": "/etc/harmless/sshd", "overwrite": true, "contents": {"source": "data:,x"}"#),
        file(r#""path": "/etc/harmless/sshd", "append": [{"source": "data:,x"}]"#),
        link(r#""path": "/etc/harmless/sshd", "target": "/srv/x""#),
        directory(r#""path": "/etc/harmless/sshd""#),
    ] {
        let bench = bench();
        let target = bench.machine.root.path_of("/etc/pam.d");
        fs::create_dir_all(&target).unwrap();
        symlink(&target, bench.machine.root.path_of("/etc/harmless")).unwrap();

        fails(&bench.apply(&fields), "leads to a protected place");

        assert!(!target.join("sshd").exists(), "{fields}");
    }
}

#[test]
fn what_is_added_to_a_protected_text_is_judged_with_what_is_there() {
    let bench = bench();
    // Each half is harmless; joined they take every login its programs.
    put(&bench, "/etc/environment", "PATH=/opt", 0o644, 0);

    fails(
        &bench.apply(&file(r#""path": "/etc/environment", "append": [{"source": "data:,%2Fbin"}]"#)),
        "is refused",
    );

    assert_eq!(bench.read("/etc/environment"), "PATH=/opt");
}
