//! Specification 2: what moved, and what has no words in 3.

use super::{KEY, planned};

fn document(rest: &str) -> String {
    format!(r#"{{"ignition": {{"version": "2.3.0"}}, {rest}}}"#)
}

#[test]
fn a_whole_configuration_means_what_it_meant() {
    let text = format!(
        r#"{{
  "ignition": {{"version": "2.2.0", "config": {{}}, "security": {{"tls": {{}}}}, "timeouts": {{}}}},
  "networkd": {{"units": [{{"name": "static.network", "contents": "[Match]\nName=eth1\n", "dropins": [{{"name": "a.conf", "contents": "[Network]\n"}}]}}]}},
  "passwd": {{"users": [
    {{"name": "core", "sshAuthorizedKeys": ["{KEY}"]}},
    {{"name": "ann", "create": {{"uid": 1600, "groups": ["sudo"], "noCreateHome": true}}}}
  ]}},
  "storage": {{
    "disks": [{{"device": "/dev/vdb", "wipeTable": true, "partitions": [{{"label": "data", "number": 1, "size": 204800, "start": 2048}}]}}],
    "filesystems": [
      {{"name": "data", "mount": {{"device": "/dev/vdb1", "format": "ext4", "label": "data", "create": {{"force": true, "options": ["-q"]}}}}}},
      {{"name": "old", "path": "/srv/old"}}
    ],
    "files": [
      {{"filesystem": "root", "path": "/etc/hosts", "append": true, "contents": {{"source": "data:,a%0A"}}}},
      {{"filesystem": "root", "path": "/etc/a", "mode": 420, "contents": {{"source": "data:,1"}}}},
      {{"filesystem": "root", "path": "/etc/a", "append": true, "contents": {{"source": "data:,2"}}}},
      {{"filesystem": "old", "path": "/b", "overwrite": false}}
    ],
    "directories": [{{"filesystem": "root", "path": "/srv/www", "mode": 493, "user": {{"id": 500}}}}],
    "links": [{{"filesystem": "root", "path": "/opt/l", "target": "/srv/www"}}]
  }},
  "systemd": {{"units": [
    {{"name": "a.service", "enable": true, "contents": "[Install]\nWantedBy=multi-user.target\n"}},
    {{"name": "b.service", "enable": true, "enabled": false}}
  ]}}
}}"#
    );

    let (plan, messages) = planned(&text);

    assert_eq!(plan, include_str!("legacy.txt"));
    assert_eq!(
        messages,
        ["2: $.ignition.version this is specification 2.2.0; it is read as the same of specification 3"]
    );
}

#[test]
fn what_has_no_words_in_3_is_refused_by_name() {
    for (rest, reason) in [
        (r#""storage": {"files": [{"filesystem": "oem", "path": "/grub.cfg"}]}"#, "file system of this name"),
        (
            r#""storage": {"filesystems": [{"name": "data", "mount": {"device": "/dev/vdb", "format": "ext4"}}],
                "files": [{"filesystem": "data", "path": "/a"}]}"#,
            "file system of this name",
        ),
        (
            r#""storage": {"filesystems": [{"name": "root", "mount": {"device": "/dev/vda9", "format": "btrfs"}}]}"#,
            "root file system",
        ),
        (
            r#""storage": {"disks": [{"device": "/dev/vdb", "partitions": [{"number": 1, "size": 1000}]}]}"#,
            "2048 sectors",
        ),
        (r#""storage": {"raid": [{"name": "md"}]}"#, "`raid`"),
    ] {
        let (plan, messages) = planned(&document(rest));

        assert_eq!(plan, "", "{rest}");
        assert!(messages.iter().any(|one| one.contains(reason)), "{rest}: {messages:?}");
    }
}

#[test]
fn files_are_replaced_unless_they_say_otherwise() {
    let (plan, _) = planned(&document(
        r#""storage": {"files": [
            {"filesystem": "root", "path": "/etc/a", "contents": {"source": "data:,x"}},
            {"filesystem": "root", "path": "/etc/b"},
            {"filesystem": "root", "path": "/etc/c", "overwrite": false, "contents": {"source": "data:,x"}}]}"#,
    ));

    assert!(plan.contains("write /etc/a ---- -:-, 1 byte"), "{plan}");
    assert!(plan.contains("write /etc/b ---- -:-, 0 bytes"), "{plan}");
    assert!(plan.contains("write new /etc/c"), "{plan}");
}
