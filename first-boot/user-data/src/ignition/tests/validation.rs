//! What Ignition's specification refuses and what it accepts, row by row.
//!
//! The facts are those of the `Validate` functions of Ignition's config types, versions 3.0 to 3.6. What this
//! system cannot do (RAID, LUKS, kernel arguments, proxies) is refused by name besides.

use super::planned;

/// A configuration of version 3.4.0 with one more section.
fn document(section: &str) -> String {
    format!(r#"{{"ignition": {{"version": "3.4.0"}}, {section}}}"#)
}

fn storage(list: &str, items: &str) -> String {
    document(&format!(r#""storage": {{"{list}": [{items}]}}"#))
}

/// A configuration whose one file has this content.
fn contents(resource: &str) -> String {
    storage("files", &format!(r#"{{"path": "/etc/a", "contents": {{{resource}}}}}"#))
}

fn partitions(items: &str) -> String {
    storage("disks", &format!(r#"{{"device": "/dev/vdb", "partitions": [{items}]}}"#))
}

fn filesystem(fields: &str) -> String {
    storage("filesystems", &format!(r#"{{"device": "/dev/vdb1", {fields}}}"#))
}

fn units(items: &str) -> String {
    document(&format!(r#""systemd": {{"units": [{items}]}}"#))
}

fn users(items: &str) -> String {
    document(&format!(r#""passwd": {{"users": [{items}]}}"#))
}

/// Nothing of a refused document is done, and its reason stands among the findings.
fn refuses(document: &str, reason: &str) {
    let (plan, messages) = planned(document);

    assert_eq!(plan, "", "{document}");
    assert!(messages.iter().any(|one| one.contains(reason)), "{document}: {messages:?}");
    assert!(
        messages.iter().any(|one| one.contains("nothing of this configuration")),
        "{document}: {messages:?}"
    );
}

fn accepts(document: &str) {
    let (_, messages) = planned(document);

    assert!(!messages.iter().any(|one| one.contains("nothing of this")), "{document}: {messages:?}");
}

const HASH: &str = "sha512-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn what_tools_write_and_mean_nothing_by_is_accepted() {
    accepts(
        r#"{"ignition":{"config":{"replace":{"verification":{}}},"proxy":{},"security":{"tls":{}},"timeouts":{},
            "version":"3.3.0"},"kernelArguments":{},"passwd":{},"storage":{},"systemd":{}}"#,
    );
    accepts(
        r#"{"ignition":{"config":null,"proxy":{"httpProxy":null,"noProxy":[]},"version":"3.6.0",
            "security":{"tls":{"certificateAuthorities":[]}}},"kernelArguments":{"shouldExist":[],"shouldNotExist":null},
            "storage":{"luks":[],"raid":null,"files":[],"disks":null}}"#,
    );
    accepts(&storage(
        "files",
        r#"{"path": "/etc/a", "contents": {"verification": {}}, "append": [], "user": {}, "mode": null}"#,
    ));
}

#[test]
fn what_this_system_cannot_do_is_refused_by_name() {
    for (document, reason) in [
        (document(r#""kernelArguments": {"shouldExist": ["a"]}"#), "`shouldExist`"),
        (document(r#""kernelArguments": {"shouldNotExist": ["a"]}"#), "`shouldNotExist`"),
        (storage("raid", r#"{"name": "md", "level": "raid1", "devices": ["/dev/vdb"]}"#), "`raid`"),
        (storage("luks", r#"{"name": "x", "device": "/dev/vdb"}"#), "`luks`"),
        (r#"{"ignition": {"version": "3.4.0", "proxy": {"httpProxy": "http://p"}}}"#.to_owned(), "`httpProxy`"),
        (r#"{"ignition": {"version": "3.4.0", "proxy": {"noProxy": ["a"]}}}"#.to_owned(), "`noProxy`"),
        (
            r#"{"ignition": {"version": "3.4.0", "security": {"tls": {"certificateAuthorities": [{"source": "data:,x"}]}}}}"#
                .to_owned(),
            "`certificateAuthorities`",
        ),
        (contents(r#""source": "s3://bucket/key""#), "data, http"),
        (contents(r#""source": "gs://bucket/key""#), "data, http"),
        (contents(r#""source": "arn:aws:s3:::bucket/key""#), "data, http"),
        (contents(r#""source": "tftp://host/key""#), "data, http"),
    ] {
        refuses(&document, reason);
    }
}

#[test]
fn contents_are_judged_as_the_specification_does() {
    let hash = format!(r#""verification": {{"hash": "{HASH}"}}"#);
    for (resource, reason) in [
        (r#""source": "ftp://host/x""#, "data, http"),
        (r#""source": "file:///etc/passwd""#, "data, http"),
        (r#""source": "http://""#, "data, http"),
        (r#""source": "data:hello""#, "comma"),
        (r#""source": "data:,a b""#, "characters"),
        (r#""source": "data:;base64,*""#, "damaged"),
        (r#""source": "data:;base64,a""#, "damaged"),
        (r#""source": "data:,x", "compression": "xz""#, "gzip"),
        (r#""source": "data:,x", "compression": "gzip""#, "not gzip"),
        (r#""source": "data:,x", "compression": "GZIP""#, "gzip"),
        (r#""source": "data:,x", "verification": {"hash": "xor-abcdef"}"#, "`hash`"),
        (r#""source": "data:,x", "verification": {"hash": "sha512-123"}"#, "`hash`"),
        (r#""source": "data:,x", "verification": {"hash": "sha512:0123"}"#, "`hash`"),
        (r#""source": "data:,x", "verification": {"hash": ""}"#, "`hash`"),
        (&hash, "`source`"),
        (r#""source": "https://h/x", "httpHeaders": [{"name": "A"}]"#, "`value`"),
        (r#""source": "https://h/x", "httpHeaders": [{"name": "A", "value": ""}]"#, "`value`"),
        (r#""source": "https://h/x", "httpHeaders": [{"value": "a"}]"#, "`name`"),
        (r#""source": "https://h/x", "httpHeaders": [{"name": "", "value": "a"}]"#, "`name`"),
        (
            r#""source": "https://h/x", "httpHeaders": [{"name": "A", "value": "a"}, {"name": "A", "value": "b"}]"#,
            "twice",
        ),
        (r#""source": "data:,x", "httpHeaders": [{"name": "A", "value": "a"}]"#, "http and https"),
        (r#""httpHeaders": [{"name": "A", "value": "a"}]"#, "`source`"),
    ] {
        refuses(&contents(resource), reason);
    }
    let with_hash = format!(r#""source": "https://h/x", {hash}"#);
    for resource in [
        r#""source": """#,
        r#""source": null"#,
        r#""source": "data:,""#,
        r#""source": "data:text/plain;charset=utf-8;base64,aGVsbG8=""#,
        r#""source": "https://h/x", "compression": """#,
        r#""source": "https://h/x", "compression": "gzip""#,
        r#""source": "https://h/x", "httpHeaders": [{"name": "A", "value": "a"}, {"name": "B", "value": "a"}]"#,
        r#""source": "https://h/x", "httpHeaders": []"#,
        &with_hash,
    ] {
        accepts(&contents(resource));
    }
}

#[test]
fn files_directories_and_links_are_judged_as_the_specification_does() {
    for (list, items, reason) in [
        ("files", "{}", "`path` is missing"),
        ("files", r#"{"path": ""}"#, "`path` is missing"),
        ("files", r#"{"path": "etc/a"}"#, "slash"),
        ("files", r#"{"path": "/etc//a"}"#, "doubled"),
        ("files", r#"{"path": "/etc/a/"}"#, "slash"),
        ("files", r#"{"path": "/etc/./a"}"#, "dots"),
        ("files", r#"{"path": "/etc/a/../b"}"#, ".."),
        ("files", r#"{"path": "/etc/a", "mode": 4096}"#, "4095"),
        ("files", r#"{"path": "/etc/a", "mode": -1}"#, "`mode`"),
        ("files", r#"{"path": "/etc/a", "mode": "420"}"#, "`mode` must be a whole number"),
        ("files", r#"{"path": "/etc/a", "mode": 420.0}"#, "`mode` must be a whole number"),
        ("files", r#"{"path": 5}"#, "`path` must be text"),
        ("files", r#"{"path": "/etc/a", "overwrite": "true"}"#, "`overwrite` must be true or false"),
        ("files", r#"{"path": "/etc/a", "contents": "x"}"#, "`contents` must be a mapping"),
        ("files", r#"{"path": "/etc/a", "append": {"source": "data:,x"}}"#, "`append` must be a list"),
        ("files", r#"{"path": "/etc/a", "append": [{"source": "ftp://x"}]}"#, "data, http"),
        ("files", r#"{"path": "/etc/a", "overwrite": true}"#, "`overwrite`"),
        ("files", r#"{"path": "/etc/a", "overwrite": true, "contents": {}}"#, "`overwrite`"),
        (
            "files",
            r#"{"path": "/etc/a", "overwrite": true, "append": [{"source": "data:,x"}]}"#,
            "`overwrite`",
        ),
        ("files", r#"{"path": "/etc/a", "user": {"id": 1, "name": "core"}}"#, "both `id` and `name`"),
        ("files", r#"{"path": "/etc/a", "group": {"id": 1, "name": "core"}}"#, "both `id` and `name`"),
        ("files", r#"{"path": "/etc/a"}, {"path": "/etc/a"}"#, "twice"),
        ("files", r#"{"path": "/etc/a"}, {"path": "/etc/a/b/c"}"#, "makes a file"),
        ("directories", r#"{"path": "srv"}"#, "slash"),
        ("directories", r#"{"path": "/srv/a", "mode": 5000}"#, "4095"),
        ("directories", r#"{"path": "/srv/a"}, {"path": "/srv/a"}"#, "twice"),
        ("links", r#"{"path": "/srv/a"}"#, "`target` is missing"),
        ("links", r#"{"path": "/srv/a", "target": ""}"#, "`target` is missing"),
        (
            "links",
            r#"{"path": "/srv/a", "target": "/b"}, {"path": "/srv/a/b", "target": "/c"}"#,
            "makes a link",
        ),
        ("links", r#"{"path": "/srv/a", "target": "/b", "user": {"id": 0, "name": "root"}}"#, "both"),
    ] {
        refuses(&storage(list, items), reason);
    }
    for (list, items) in [
        (
            "files",
            r#"{"path": "/etc/a", "mode": 420, "user": {"name": "core"}, "group": {"id": 0, "name": ""}}"#,
        ),
        ("files", r#"{"path": "/etc/a", "overwrite": true, "contents": {"source": ""}}"#),
        (
            "files",
            r#"{"path": "/etc/a", "overwrite": false, "append": [{"source": "data:,x"}, {"source": "data:,x"}]}"#,
        ),
        ("directories", r#"{"path": "/srv/a"}, {"path": "/srv/a/b"}"#),
        (
            "links",
            r#"{"path": "/srv/a", "target": "b"}, {"path": "/srv/ab", "target": "../c", "hard": false}"#,
        ),
        ("links", r#"{"path": "/srv/a", "target": "/srv/b", "hard": true, "user": {"id": 1}}"#),
    ] {
        accepts(&storage(list, items));
    }
}

#[test]
fn what_lies_in_the_way_of_another_is_refused() {
    for (section, reason) in [
        (
            r#""storage": {"links": [{"path": "/srv/l", "target": "/srv/real"}], "files": [{"path": "/srv/l/f"}]}"#,
            "makes a link",
        ),
        (
            r#""storage": {"links": [{"path": "/srv/l", "target": "/srv/real"}], "directories": [{"path": "/srv/l/f"}]}"#,
            "makes a link",
        ),
        (
            r#""storage": {"files": [{"path": "/srv/f"}], "directories": [{"path": "/srv/f/d"}]}"#,
            "makes a file",
        ),
        (r#""storage": {"files": [{"path": "/srv/f"}], "directories": [{"path": "/srv/f"}]}"#, "twice"),
        (
            r#""storage": {"files": [{"path": "/srv/f"}], "links": [{"path": "/srv/f", "target": "x"}]}"#,
            "twice",
        ),
        (
            r#""storage": {"directories": [{"path": "/srv/d"}], "links": [{"path": "/srv/f", "target": "/srv/d", "hard": true}]}"#,
            "hard link",
        ),
        (
            r#""storage": {"directories": [{"path": "/srv/d"}], "links": [{"path": "/srv/f", "target": "../x/.././d/", "hard": true}]}"#,
            "hard link",
        ),
        (
            r#""storage": {"files": [{"path": "/etc/systemd/system/a.service"}]}, "systemd": {"units": [{"name": "a.service", "contents": "[Unit]\n"}]}"#,
            "written as a unit",
        ),
        (
            r#""storage": {"links": [{"path": "/etc/systemd/system/a.service.d/b.conf", "target": "x"}]}, "systemd": {"units": [{"name": "a.service", "dropins": [{"name": "b.conf", "contents": "[Unit]\n"}]}]}"#,
            "written as a unit",
        ),
    ] {
        refuses(&document(section), reason);
    }
    for section in [
        r#""storage": {"files": [{"path": "/srv/a/b"}], "directories": [{"path": "/srv/a"}], "links": [{"path": "/srv/l", "target": "/srv/a"}]}"#,
        r#""storage": {"files": [{"path": "/etc/systemd/system/a.service", "contents": {"source": "data:,%5BUnit%5D%0A"}}]}, "systemd": {"units": [{"name": "a.service", "dropins": [{"name": "b.conf"}], "enabled": true}]}"#,
        r#""storage": {"links": [{"path": "/srv/quux", "target": "/a"}], "files": [{"path": "/srv/quuxb/f"}]}"#,
    ] {
        accepts(&document(section));
    }
}

#[test]
fn partitions_are_judged_as_the_specification_does() {
    let long = "x".repeat(37);
    for (items, reason) in [
        ("{}".to_owned(), "a `number` or a `label`"),
        (r#"{"number": 0}"#.to_owned(), "a `number` or a `label`"),
        (r#"{"sizeMiB": 8}"#.to_owned(), "a `number` or a `label`"),
        (format!(r#"{{"label": "{long}"}}"#), "36 bytes"),
        (r#"{"label": "a:b"}"#.to_owned(), "colon"),
        (r#"{"label": "a", "typeGuid": "5DFBF5F4"}"#.to_owned(), "`typeGuid`"),
        (r#"{"label": "a", "guid": "0FC63DAF-8483-4772-8E79-3D69D8477DEG"}"#.to_owned(), "`guid`"),
        (r#"{"number": 1}, {"number": 1}"#.to_owned(), "twice"),
        (r#"{"label": "a"}, {"label": "a"}"#.to_owned(), "twice"),
        (r#"{"number": 1, "label": "a"}, {"number": 2, "label": "a"}"#.to_owned(), "same label"),
        (
            r#"{"number": 1, "startMiB": 1, "sizeMiB": 10}, {"number": 2, "startMiB": 10, "sizeMiB": 5}"#
                .to_owned(),
            "overlap",
        ),
        (
            r#"{"number": 1, "startMiB": 8, "sizeMiB": 2}, {"number": 2, "startMiB": 1, "sizeMiB": 20}"#
                .to_owned(),
            "overlap",
        ),
        (r#"{"number": 1, "shouldExist": false, "label": "a"}"#.to_owned(), "shouldExist"),
        (r#"{"number": 1, "shouldExist": false, "sizeMiB": 0}"#.to_owned(), "shouldExist"),
        (r#"{"number": 1, "shouldExist": false}, {"label": "a"}"#.to_owned(), "must not exist"),
        (r#"{"label": "a", "sizeMiB": -1}"#.to_owned(), "`sizeMiB`"),
        (r#"{"label": "a", "sizeMiB": "8"}"#.to_owned(), "`sizeMiB` must be a whole number"),
        (r#"{"number": 129}"#.to_owned(), "128"),
    ] {
        refuses(&partitions(&items), reason);
    }
    refuses(
        &storage(
            "disks",
            r#"{"device": "/dev/vdb", "wipeTable": true, "partitions": [{"number": 1}, {"number": 2}]}"#,
        ),
        "all that is left",
    );
    for items in [
        r#"{"number": 1, "label": "d", "startMiB": 0, "sizeMiB": 0}"#,
        r#"{"label": ""}"#,
        r#"{"number": 1, "startMiB": 1, "sizeMiB": 10}, {"number": 2, "startMiB": 11, "sizeMiB": 5}"#,
        r#"{"number": 2, "startMiB": 64}, {"number": 1, "sizeMiB": 8}"#,
        r#"{"number": 3, "shouldExist": false, "wipePartitionEntry": true}, {"number": 1}"#,
        r#"{"number": 1, "typeGuid": "", "guid": ""}, {"number": 2, "resize": true, "sizeMiB": 9}"#,
        r#"{"label": "a", "typeGuid": "0fc63daf-8483-4772-8e79-3d69d8477de4", "guid": "5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6"}"#,
        r#"{"label": "c\"d"}"#,
    ] {
        accepts(&partitions(items));
    }
}

#[test]
fn disks_and_file_systems_are_judged_as_the_specification_does() {
    for (document, reason) in [
        (storage("disks", r#"{"partitions": []}"#), "`device` is missing"),
        (storage("disks", r#"{"device": ""}"#), "`device` is missing"),
        (storage("disks", r#"{"device": "/dev/../dev/vdb"}"#), ".."),
        (storage("disks", r#"{"device": "/dev/vdb/"}"#), "slash"),
        (storage("disks", r#"{"device": "/dev/vdb"}, {"device": "/dev/vdb"}"#), "twice"),
        (storage("filesystems", r#"{"format": "ext4"}"#), "`device` is missing"),
        (
            storage(
                "filesystems",
                r#"{"device": "/dev/a", "format": "ext4"}, {"device": "/dev/a", "format": "xfs"}"#,
            ),
            "twice",
        ),
        (filesystem(r#""format": "zfs""#), "must be one of"),
        (filesystem(r#""format": "virtiofs""#), "must be one of"),
        (filesystem(r#""label": "X""#), "`format` is missing"),
        (filesystem(r#""path": "/srv/d""#), "`format` is missing"),
        (filesystem(r#""uuid": "x""#), "`format` is missing"),
        (filesystem(r#""format": "", "options": ["-q"]"#), "`format` is missing"),
        (filesystem(r#""mountOptions": ["ro"]"#), "`format` is missing"),
        (filesystem(r#""wipeFilesystem": true"#), "`format` is missing"),
        (filesystem(r#""format": "ext4", "path": "srv/d""#), "slash"),
        (filesystem(r#""format": "ext4", "path": "/srv/d/""#), "slash"),
        (filesystem(r#""format": "ext4", "label": "thislabelistoolong""#), "16"),
        (filesystem(r#""format": "swap", "label": "thislabelistoolong""#), "15"),
        (filesystem(r#""format": "xfs", "label": "toolonglabel1""#), "12"),
        (filesystem(r#""format": "vfat", "label": "toolonglabel""#), "11"),
        (filesystem(&format!(r#""format": "btrfs", "label": "{}""#, "x".repeat(257))), "256"),
        (filesystem(r#""format": "vfat", "uuid": "12345""#), "1234-ABCD"),
        (filesystem(r#""format": "vfat", "uuid": "0cc175b9-c0f1-46b6-a31c-399e26977266""#), "1234-ABCD"),
        (filesystem(r#""format": "ext4", "uuid": "1234ABCD""#), "UUID of ext4"),
        (filesystem(r#""format": "ext4", "options": "-q""#), "`options` must be a list"),
        (filesystem(r#""format": "ext4", "options": [1]"#), "must be text"),
    ] {
        refuses(&document, reason);
    }
    for document in [
        storage("filesystems", r#"{"device": "/dev/vdb1"}"#),
        storage("disks", r#"{"device": "/dev/vdb"}"#),
        filesystem(r#""format": "none""#),
        filesystem(r#""format": "none", "wipeFilesystem": true"#),
        filesystem(r#""format": "ext4", "label": "", "uuid": "", "path": """#),
        filesystem(r#""format": "btrfs", "label": "thislabelisnottoolong""#),
        filesystem(r#""format": "vfat", "label": "elevenchars", "uuid": "1234-ABCD""#),
        filesystem(r#""format": "vfat", "uuid": "1234abcd""#),
        filesystem(r#""format": "xfs", "uuid": "0cc175b9-c0f1-46b6-a31c-399e26977266""#),
        filesystem(
            r#""format": "ext4", "uuid": "random", "options": ["-q", "-q"], "mountOptions": ["a", "a"]"#,
        ),
        filesystem(r#""format": "swap", "path": "/srv/swap""#),
    ] {
        accepts(&document);
    }
}

#[test]
fn units_are_judged_as_the_specification_does() {
    for (items, reason) in [
        ("{}", "`name` is missing"),
        (r#"{"name": ""}"#, "`name` is missing"),
        (r#"{"name": "a.blah"}"#, "unit name"),
        (r#"{"name": "a"}"#, "unit name"),
        (r#"{"name": "a.service", "contents": "[Unit]\nDescription\n"}"#, "its line 2"),
        (r#"{"name": "a.service", "contents": "[Foo"}"#, "its line 1"),
        (r#"{"name": "a.service", "contents": "[Foo] bar\n"}"#, "its line 1"),
        (r#"{"name": "a.service", "contents": {"source": "data:,x"}}"#, "`contents` must be text"),
        (r#"{"name": "a.service", "dropins": [{"contents": "[Unit]\n"}]}"#, "`name` is missing"),
        (r#"{"name": "a.service", "dropins": [{"name": "b"}]}"#, ".conf"),
        (r#"{"name": "a.service", "dropins": [{"name": "b.conf.txt"}]}"#, ".conf"),
        (r#"{"name": "a.service", "dropins": [{"name": "b.conf", "contents": "[Foo"}]}"#, "its line 1"),
        (r#"{"name": "a.service", "dropins": [{"name": "b.conf"}, {"name": "b.conf"}]}"#, "twice"),
        (r#"{"name": "a.service"}, {"name": "a.service"}"#, "twice"),
        (r#"{"name": "a.service", "enabled": "yes"}"#, "`enabled` must be true or false"),
    ] {
        refuses(&units(items), reason);
    }
    for items in [
        r#"{"name": "a.service", "contents": ""}"#,
        r#"{"name": "a.service", "contents": "", "enabled": false, "mask": false}"#,
        r#"{"name": "a.service", "contents": "[Unit]\nA=b \\\n  c\n; d\n\n[X-Y]\n"}"#,
        r#"{"name": "a.service", "dropins": [{"name": "b.conf", "contents": ""}, {"name": "c.conf", "contents": null}]}"#,
        r#"{"name": "a@.service"}, {"name": "a@b.service", "enabled": true}"#,
    ] {
        accepts(&units(items));
    }
}

#[test]
fn accounts_and_arguments_are_judged_as_the_specification_does() {
    for (document, reason) in [
        (users("{}"), "`name` is missing"),
        (users(r#"{"name": "a"}, {"name": "a"}"#), "twice"),
        (users(r#"{"name": "a", "groups": ["x", "x"]}"#), "twice"),
        (users(r#"{"name": "a", "groups": "x"}"#), "`groups` must be a list"),
        (users(r#"{"name": "a", "uid": "5"}"#), "`uid` must be a whole number"),
        (users(r#"{"name": "a", "sshAuthorizedKeys": ["k", "k"]}"#), "twice"),
        (document(r#""passwd": {"groups": [{"name": "a"}, {"name": "a"}]}"#), "twice"),
        (document(r#""kernelArguments": {"shouldExist": ["a"], "shouldNotExist": ["a"]}"#), "twice"),
        (r#"{"ignition": {"version": "3.4.0", "timeouts": {"httpTotal": "5"}}}"#.to_owned(), "`httpTotal`"),
        (r#"{"ignition": {"version": 3}}"#.to_owned(), "`version`"),
        (r#"{"storage": {}}"#.to_owned(), "`ignition.version` is missing"),
        ("[]".to_owned(), "a mapping"),
    ] {
        refuses(&document, reason);
    }
    accepts(&users(
        r#"{"name": "a", "uid": 1500, "gecos": "", "shell": "", "homeDir": "", "groups": ["x", "y"]}"#,
    ));
    accepts(r#"{"ignition": {"version": "3.4.0", "timeouts": {"httpTotal": 0, "httpResponseHeaders": 5}}}"#);
}

#[test]
fn special_bits_count_from_the_version_that_keeps_them_on() {
    let with = |version: &str| {
        planned(&format!(
            r#"{{"ignition": {{"version": "{version}"}}, "storage": {{"files": [{{"path": "/opt/t", "mode": 2541}}],
                "directories": [{{"path": "/opt/d", "mode": 1517}}]}}}}"#
        ))
    };

    let (old, warnings) = with("3.5.0");
    let (new, none) = with("3.6.0");

    assert!(old.contains("/opt/t 0755") && old.contains("/opt/d 0755"), "{old}");
    assert!(new.contains("/opt/t 4755") && new.contains("/opt/d 2755"), "{new}");
    assert_eq!((warnings.len(), none.len()), (2, 0), "{warnings:?}");
}

#[test]
fn a_format_of_nothing_counts_from_its_version_on() {
    let with = |version: &str| {
        format!(
            r#"{{"ignition": {{"version": "{version}"}}, "storage": {{"filesystems": [{{"device": "/dev/a", "format": "none"}}]}}}}"#
        )
    };

    refuses(&with("3.2.0"), "3.3.0");
    accepts(&with("3.3.0"));
}

#[test]
fn what_is_enabled_without_an_install_section_gets_a_warning() {
    let unit = |name: &str, rest: &str| format!(r#"{{"name": "{name}", {rest}}}"#);
    let plain = r#""contents": "[Service]\nExecStart=/bin/true""#;
    let section = r#"[{"name": "w.conf", "contents": "[Install]\nWantedBy=multi-user.target"}]"#;
    let enabled = r#""enabled": true"#;
    for (units, warned) in [
        (unit("a.service", &format!("{plain}, {enabled}")), true),
        (unit("a.service", &format!("{plain}, {enabled}, \"dropins\": {section}")), false),
        (unit("a.service", plain), false),
        (unit("a.service", enabled), false),
        ([unit("a@.service", plain), unit("a@b.service", enabled)].join(","), true),
        ([unit("a@.service", plain), unit("a@b.service", r#""enabled": false"#)].join(","), false),
        ([unit("a@.service", plain), unit("b@b.service", enabled)].join(","), false),
        (
            [unit("a@.service", &format!("{plain}, \"dropins\": {section}")), unit("a@b.service", enabled)]
                .join(","),
            false,
        ),
    ] {
        let found = planned(&document(&format!(r#""systemd": {{"units": [{units}]}}"#))).1;

        assert_eq!(found.iter().any(|one| one.contains("[Install]")), warned, "{units}: {found:?}");
    }
}
