use super::*;
use crate::plan::PlannedStep;
use crate::plan::step::Password;
use crate::plan::text::{ContentDisplay, render_plan};
use crate::secret::Secret;
use document::source::SourceTexts;

mod legacy;
mod merging;
mod refusals;
mod validation;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH me";

fn planned(text: &str) -> (String, Vec<String>) {
    let mut sources = SourceTexts::default();
    let part = sources.add("config.ign", text);
    let mut found = Diagnostics::default();
    let plan = read(text, part, &mut DecompressionBudget::default(), &mut found);
    let messages = found.list().iter().map(|one| format!("{}: {} {}", one.at.line, one.key, one.message));
    (render_plan(&plan, &sources, ContentDisplay::Hidden), messages.collect())
}

#[test]
fn a_whole_configuration_becomes_steps_in_order() {
    let text = format!(
        r#"{{
  "ignition": {{"version": "3.4.0"}},
  "storage": {{
    "disks": [{{"device": "/dev/vdb", "wipeTable": true, "partitions": [{{"label": "data", "sizeMiB": 100}}, {{"number": 2}}]}}],
    "filesystems": [{{"device": "/dev/vdb1", "format": "ext4", "path": "/srv/data", "label": "data", "mountOptions": ["noatime"]}}],
    "directories": [{{"path": "/srv/www", "mode": 493, "user": {{"name": "core"}}}}],
    "files": [
      {{"path": "/etc/motd", "overwrite": true, "contents": {{"source": "data:,hello%0A"}}}},
      {{"path": "/opt/tool", "mode": 493, "contents": {{"source": "https://example.com/tool.gz", "compression": "gzip"}}}},
      {{"path": "/etc/hosts", "append": [{{"source": "data:,10.0.0.1%20db%0A"}}]}}
    ],
    "links": [{{"path": "/opt/bin/t", "target": "/opt/tool", "hard": false}}]
  }},
  "passwd": {{
    "groups": [{{"name": "web", "gid": 1500}}],
    "users": [
      {{"name": "core", "sshAuthorizedKeys": ["{KEY}"]}},
      {{"name": "ann", "uid": 1600, "groups": ["web"], "passwordHash": "$6$x$y", "shell": "/bin/bash"}}
    ]
  }},
  "systemd": {{"units": [
    {{"name": "hello.service", "enabled": true, "contents": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"}},
    {{"name": "docker.service", "dropins": [{{"name": "10-x.conf", "contents": "[Service]\n"}}]}},
    {{"name": "echo@.service", "enabled": true}},
    {{"name": "apt.service", "mask": true}}
  ]}}
}}"#
    );

    let (plan, messages) = planned(&text);

    assert_eq!(messages, Vec::<String>::new());
    assert_eq!(plan, include_str!("plan.txt"));
}

fn passwords_of(hash: &str) -> (Vec<Option<Password>>, Vec<String>) {
    let text = format!(
        r#"{{"ignition": {{"version": "3.4.0"}}, "passwd": {{"users": [{{"name": "ann"{hash}}}]}}}}"#
    );
    let mut found = Diagnostics::default();
    let plan = read(&text, 0, &mut DecompressionBudget::default(), &mut found);
    let password = |planned: &PlannedStep| match &planned.step {
        PlanStep::CreateUser(user) => Some(user.password.clone()),
        _ => None,
    };
    let messages = found.list().iter().map(ToString::to_string).collect();
    (plan.steps.iter().filter_map(password).collect(), messages)
}

#[test]
fn an_empty_hash_lets_nobody_in_and_none_leaves_the_password() {
    let hash = |text: &str| Some(Password::Hash(Secret::new(text.to_owned())));
    for (given, password) in [
        ("", None),
        (r#", "passwordHash": null"#, None),
        (r#", "passwordHash": """#, hash("*")),
        (r#", "passwordHash": "*""#, hash("*")),
        (r#", "passwordHash": "$6$x$y""#, hash("$6$x$y")),
        (r#", "passwordHash": "!$6$x$y""#, hash("!$6$x$y")),
    ] {
        assert_eq!(passwords_of(given), (vec![password], vec![]), "{given}");
    }
}

#[test]
fn a_hash_that_is_none_is_named_and_one_that_would_be_another_user_is_refused() {
    let (passwords, messages) = passwords_of(r#", "passwordHash": "sesame""#);
    assert_eq!((passwords.len(), messages.len()), (1, 1), "{messages:?}");
    assert!(messages[0].starts_with("warning[bad-value]"), "{messages:?}");

    for hash in [r"$6$x$y\nroot::1:0:::::", r"$6$x$y:0"] {
        let (passwords, messages) = passwords_of(&format!(r#", "passwordHash": "{hash}""#));
        assert_eq!(passwords, [], "{hash}");
        assert!(messages.iter().any(|one| one.contains("neither a colon nor")), "{messages:?}");
    }
}

#[test]
fn a_configuration_with_one_refused_thing_does_nothing_but_let_its_author_in() {
    let text = format!(
        r#"{{"ignition": {{"version": "3.4.0"}},
 "kernelArguments": {{"shouldExist": ["a"]}},
 "storage": {{"luks": [{{"name": "x"}}], "files": [{{"path": "/etc/a", "contents": {{"source": "data:,x"}}}}]}},
 "passwd": {{"users": [{{"name": "core", "sshAuthorizedKeys": ["{KEY}"]}}]}}}}"#
    );

    let (plan, messages) = planned(&text);

    assert_eq!(plan, "identity\n  authorize 1 key for core  [config.ign:4:23 passwd.users[0]]\n");
    assert_eq!(
        messages,
        [
            "2: $.kernelArguments.shouldExist `shouldExist` cannot be done on this system",
            "3: $.storage.luks `luks` cannot be done on this system",
            "1:  nothing of this configuration is done, because it cannot be done wholly; only the keys of the \
             image's own user are used",
        ]
    );
}

#[test]
fn everything_that_is_not_supported_is_refused_by_name() {
    for (section, message) in [
        (r#""storage": {"raid": [{"name": "md"}]}"#, "`raid`"),
        (r#""storage": {"disks": [{"device": "vdb"}]}"#, "slash"),
        (r#""storage": {"files": [{"path": "/usr/bin/x"}]}"#, "cannot be written"),
        (r#""storage": {"files": [{"path": "/etc/shadow"}]}"#, "cannot be written"),
        (r#""storage": {"directories": [{"path": "/etc/ssh", "overwrite": true}]}"#, "cannot be emptied"),
        (
            r#""storage": {"files": [{"path": "/etc/systemd/system/ssh.service.d/a.conf", "contents": {"source": "data:,%5BService%5D%0AExecStart%3D"}}]}"#,
            "`ExecStart`",
        ),
        (
            r#""storage": {"links": [{"path": "/etc/systemd/system/ssh.service", "target": "/dev/null"}]}"#,
            "cannot be replaced",
        ),
        (r#""storage": {"files": [{"path": "etc/x"}]}"#, "slash"),
        (r#""storage": {"files": [{"path": "/etc/a/../b"}]}"#, ".."),
        (r#""storage": {"files": [{"path": "/etc/a", "overwrite": true}]}"#, "`contents`"),
        (r#""storage": {"files": [{"path": "/etc/a", "mode": 5000}]}"#, "4095"),
        (r#""storage": {"files": [{"path": "/etc/a", "contents": {"source": "s3://b/x"}}]}"#, "data, http"),
        (
            r#""storage": {"files": [{"path": "/etc/a", "contents": {"source": "data:,x", "compression": "xz"}}]}"#,
            "gzip",
        ),
        (
            r#""storage": {"files": [{"path": "/etc/a", "contents": {"verification": {"hash": "md5-0"}}}]}"#,
            "`hash`",
        ),
        (
            r#""storage": {"filesystems": [{"device": "/dev/vdb", "format": "ext4", "path": "/usr"}]}"#,
            "`path`",
        ),
        (r#""storage": {"files": [{}]}"#, "`path` is missing"),
        (r#""storage": {"links": [{"path": "/etc/a"}]}"#, "`target` is missing"),
        (r#""storage": []"#, "a mapping"),
        (r#""passwd": {"users": [{"name": "a", "shouldExist": false}]}"#, "removed"),
        (r#""passwd": {"users": [{"name": "-rf"}]}"#, "this name"),
        (r#""systemd": {"units": [{"name": "x.network"}]}"#, "networkd"),
        (r#""systemd": {"units": [{"name": "sshd.service", "mask": true}]}"#, "cannot be masked"),
        (
            r#""systemd": {"units": [{"name": "a.service", "dropins": [{"name": "x", "contents": "y"}]}]}"#,
            ".conf",
        ),
    ] {
        let (plan, messages) = planned(&format!(r#"{{"ignition": {{"version": "3.4.0"}}, {section}}}"#));

        assert_eq!(plan, "", "{section}");
        assert!(messages.iter().any(|one| one.contains(message)), "{section}: {messages:?}");
    }
}

#[test]
fn what_lets_people_in_is_changed_by_drop_ins_only() {
    for name in ["ssh.service", "systemd-networkd.service", "multi-user.target"] {
        let text = format!(
            r#"{{"ignition": {{"version": "3.4.0"}}, "systemd": {{"units": [
                {{"name": "{name}", "contents": "[Service]\nExecStart=/bin/false\n"}}]}}}}"#
        );

        let (plan, messages) = planned(&text);

        assert_eq!(plan, "", "{name}");
        assert!(messages[0].contains(&format!("{name} cannot be replaced")), "{messages:?}");
    }
    let drop_in = r#"{"ignition": {"version": "3.4.0"}, "systemd": {"units": [
        {"name": "ssh.service", "dropins": [{"name": "a.conf", "contents": "[Service]\nNice=5\n"}]}]}}"#;
    assert_eq!(planned(drop_in).1, Vec::<String>::new());
}

#[test]
fn a_file_with_the_host_name_names_the_machine_at_once() {
    let text = r#"{"ignition": {"version": "3.0.0"}, "storage": {"files": [
        {"path": "/etc/hostname", "overwrite": true, "contents": {"source": "data:,node7%0A"}}]}}"#;

    let (plan, messages) = planned(text);

    assert!(plan.starts_with("identity\n  set host name node7"), "{plan}");
    assert_eq!(messages, Vec::<String>::new());
}

#[test]
fn versions_that_are_not_read_are_told_apart() {
    for (version, message) in [
        ("1.0.0", "specification 1"),
        ("2.5.0", "experimental or not known"),
        ("2.3.0-experimental", "experimental"),
        ("3.7.0-experimental", "experimental"),
        ("3.4.1", "experimental or not known"),
        ("3.9.0", "experimental or not known"),
        ("x", "must look like"),
        ("3", "must look like"),
    ] {
        let (_, messages) = planned(&format!(r#"{{"ignition": {{"version": "{version}"}}}}"#));

        assert!(messages[0].contains(message), "{version}: {messages:?}");
    }
    for minor in 0..=6 {
        assert_eq!(
            planned(&format!(r#"{{"ignition": {{"version": "3.{minor}.0"}}}}"#)).1,
            Vec::<String>::new()
        );
    }
    let (_, messages) = planned(r#"{"ignitionVersion": 1, "storage": {}}"#);
    assert!(messages.iter().any(|one| one.contains("specification 1")), "{messages:?}");
}

#[test]
fn unknown_keys_are_named_and_cost_nothing() {
    let text = r#"{"ignition": {"version": "3.0.0"}, "storage": {"files": [{"path": "/etc/a", "pth": 1}]}}"#;

    let (plan, messages) = planned(text);

    assert!(plan.contains("/etc/a"), "{plan}");
    assert_eq!(messages, ["1: $.storage.files[0].pth `pth` is not a key of $.storage.files[0]"]);
}

#[test]
fn a_broken_document_is_reported_where_it_breaks() {
    let (plan, messages) = planned("{\"ignition\": {\"version\": \"3.0.0\"},\n \"storage\": [}");

    assert_eq!(plan, "");
    assert!(messages[0].starts_with("2: "), "{messages:?}");
}
