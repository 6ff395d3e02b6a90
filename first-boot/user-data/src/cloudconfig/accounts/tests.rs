//! What an option means that is given with nothing in it, or with something that cannot be used.

use document::yaml;

use super::super::CloudConfig;
use super::*;
use crate::room::DecompressionBudget;

fn config(text: &str) -> (CloudConfig, Diagnostics) {
    let mut found = Diagnostics::default();
    let document = yaml::parse_yaml(text, 0, &mut found).unwrap();
    (CloudConfig::check_document(&document, &mut DecompressionBudget::default(), &mut found), found)
}

fn only_user(text: &str) -> UserStep {
    config(text).0.accounts.people.remove(0).value.user
}

#[test]
fn sudo_that_is_given_as_nothing_makes_nobody_root() {
    for sudo in
        ["null", "~", "", "false", "False", "no", "n", "0", "[]", "''", "[null]", "{}", "nonsense", "true"]
    {
        let user = only_user(&format!("user: {{name: guest, sudo: {sudo}}}"));

        assert_eq!((user.sudo.as_slice(), user.groups.as_slice()), (&[][..], &[][..]), "sudo: {sudo}");
    }
}

#[test]
fn groups_that_are_given_as_nothing_are_none() {
    for groups in ["null", "[]", "''", "{}"] {
        let user = only_user(&format!("user: {{name: guest, groups: {groups}}}"));

        assert!(user.groups.is_empty(), "groups: {groups}");
        assert_eq!(user.sudo, ["ALL=(ALL) NOPASSWD:ALL"], "only what was given is taken from the default");
    }
}

#[test]
fn what_is_not_given_of_the_default_user_stays() {
    for text in ["user: guest", "user: {name: guest}", "user: {name: guest, gecos: Guest}"] {
        let user = only_user(text);

        assert_eq!(user.sudo, ["ALL=(ALL) NOPASSWD:ALL"], "{text}");
        assert_eq!(user.groups, ["sudo"], "{text}");
        assert_eq!(user.shell.as_deref(), Some("/bin/bash"), "{text}");
    }
}

#[test]
fn options_without_a_name_are_the_default_users() {
    let user = only_user("user: {gecos: The machine's owner}");

    assert_eq!((user.name.as_str(), user.gecos.as_deref()), ("core", Some("The machine's owner")));
}

#[test]
fn a_user_of_the_list_never_gets_what_was_not_asked_for() {
    for sudo in ["null", "false", "[]", "0"] {
        let user = only_user(&format!("users: [{{name: ana, sudo: {sudo}, groups: null}}]"));

        assert_eq!((user.sudo.as_slice(), user.groups.as_slice()), (&[][..], &[][..]), "sudo: {sudo}");
    }
}

#[test]
fn it_is_told_that_core_keeps_its_sudo() {
    for text in ["user: {name: core, sudo: false}", "users: [{name: core, sudo: null}]"] {
        let (_, found) = config(text);

        assert!(found.list().iter().any(|one| one.message.contains("`core` keeps its sudo")), "{text}");
    }
}

#[test]
fn a_shell_that_closes_logins_does_not_become_the_default_one() {
    for shell in ["false", "nologin", "no", "None"] {
        let user = only_user(&format!("users: [{{name: ana, shell: {shell}}}]"));

        assert_eq!(user.shell.as_deref(), Some("/usr/sbin/nologin"), "shell: {shell}");
    }
}

#[test]
fn an_empty_password_is_never_set() {
    let (config, found) = config(
        "password: ''\nusers: [{name: ana, plain_text_passwd: ''}]\n\
         chpasswd: {list: ['ana:'], users: [{name: ana, type: text, password: ''}, {name: ben, password: ''}, \
         {name: cy, password: hunter2}]}\n",
    );

    assert_eq!(config.access.password, None);
    assert_eq!(config.access.passwords, []);
    assert_eq!(config.accounts.people[0].value.user.password, None);
    assert_eq!(found.list().len(), 6);
}

#[test]
fn a_flag_without_a_value_keeps_its_default_and_is_told() {
    for text in [
        "allow_public_ssh_keys:",
        "ssh_deletekeys: null",
        "chpasswd: {expire: }",
        "ntp: {enabled: ~}",
        "users: [{name: ana, create_groups: null}]",
    ] {
        let (config, found) = config(text);

        assert!(!config.access.without_platform_keys && !config.access.keep_host_keys);
        assert!(found.list().iter().any(|one| one.message.contains("has no value")), "{text}");
    }
}

#[test]
fn numbers_and_letters_are_booleans_too() {
    let (config, found) =
        config("disable_root: 0\nssh_pwauth: 1\nusers: [{name: ana, system: y, lock_passwd: n}]\n");

    let user = &config.accounts.people[0].value.user;
    assert_eq!((user.system, user.lock), (true, Some(false)));
    assert_eq!(config.access.close_root.map(|flag| flag.value), Some(false));
    assert_eq!(config.access.password_login.map(|flag| flag.value), Some(true));
    assert_eq!(found.list(), []);
}

#[test]
fn users_are_read_in_every_shape_that_people_write() {
    for (text, names) in [
        ("users: ana,ben", vec!["ana", "ben"]),
        ("users: [default, 'ana, ben']", vec!["ana", "ben"]),
        ("users: [[ana, ben], cy]", vec!["ana", "ben", "cy"]),
        ("users: [ana: , ben: {uid: 2000}]", vec!["ana", "ben"]),
        ("users: {ana: true, ben: false, cy: }", vec!["ana", "cy"]),
        ("users: {default: {gecos: Owner}, ana: {uid: 2000}}", vec!["ana", "core"]),
        ("users: [{name: default, gecos: Owner}]", vec!["core"]),
        ("users: [null, default]", vec![]),
    ] {
        let (config, found) = config(text);

        let mut made: Vec<&str> =
            config.accounts.people.iter().map(|person| person.value.user.name.as_str()).collect();
        made.sort_unstable();
        assert_eq!(made, names, "{text}");
        assert_eq!(found.list(), [], "{text}");
    }
}

#[test]
fn what_is_given_without_a_value_where_absence_matters_is_told() {
    for text in [
        "hostname:",
        "write_files: [{path: /srv/a, permissions: , content: x}]",
        "write_files: [{path: /srv/a, content: }]",
    ] {
        let (_, found) = config(text);

        assert!(found.list().iter().any(|one| one.message.contains("has no value")), "{text}");
    }
}
