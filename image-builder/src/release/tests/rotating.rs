//! Keys that are lost, stolen or simply old, from the command line to what machines believe.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use image_format::release::root::TrustedRoot;
use image_format::release::trust::{TrustState, verify_channel};

use super::site::{CHANNEL, NOW, RELEASE, ROOT, Site, key, stable};
use crate::cli::keys::KeysCommand;
use crate::cli::{Cli, CliCommand};
use crate::release::change::ChannelChange;
use crate::release::key_verbs::{self, WrittenRoot};

/// Writes the secret and the public file of a key.
fn files(site: &Site, seed: u8) -> (String, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let (secret, public) = (site.path(&format!("{seed}.key")), site.path(&format!("{seed}.pub")));
    fs::write(&secret, key(seed).to_text()).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&public, key(seed).public_key(&format!("key {seed}")).to_text()).unwrap();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    (text(secret), text(public))
}

fn secret(site: &Site, seed: u8) -> String {
    files(site, seed).0
}

fn public(site: &Site, seed: u8) -> String {
    files(site, seed).1
}

/// Runs `image-builder keys` with these words.
fn run(site: &Site, words: &[&str]) -> Result<WrittenRoot, Box<dyn std::error::Error>> {
    let all = ["image-builder", "keys"].iter().chain(words);
    let CliCommand::Keys(command) = Cli::try_parse_from(all)?.command else { panic!("not of keys") };
    match command {
        KeysCommand::Init(arguments) => key_verbs::init_keys(&arguments, site.now),
        KeysCommand::Publish(arguments) => key_verbs::publish_draft(&arguments),
        KeysCommand::Revoke(arguments) => key_verbs::revoke_keys(&arguments, site.now),
        KeysCommand::Rotate(arguments) => key_verbs::rotate_keys(&arguments, site.now),
        other => panic!("{other:?}"),
    }
}

fn folder(site: &Site) -> String {
    site.repository.folder().to_str().unwrap().to_owned()
}

/// A machine that was installed when there was root 1, and asks now.
fn machine_accepts(site: &Site, first: &TrustedRoot) -> Result<u64, String> {
    let mut root = first.clone();
    let fetch = |number: u64| match fs::read(site.repository.file_path(&format!("root/{number}"))) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    root.follow_chain(fetch).map_err(|error| error.to_string())?;
    let envelope = fs::read(site.repository.file_path("channel/stable")).unwrap();
    let accepted = verify_channel(&envelope, &stable(), &root, &TrustState::default(), NOW);
    let accepted = accepted.map_err(|error| error.to_string())?;
    let newest = accepted.metadata.releases.last().unwrap();
    let manifest =
        fs::read(site.repository.file_path(&format!("release/{}/manifest", newest.version))).unwrap();
    root.open_manifest(&manifest).map_err(|error| error.to_string())?;
    Ok(root.number())
}

fn first_root(site: &Site) -> TrustedRoot {
    TrustedRoot::anchor_chain(&fs::read(site.repository.file_path("root/1")).unwrap()).unwrap()
}

#[test]
fn a_lost_release_key_costs_no_machine() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    let first = first_root(&site);
    let (add, old) =
        (format!("release={}", public(&site, 31)), format!("release={}", public(&site, RELEASE)));
    let root_key = secret(&site, ROOT);

    let written =
        run(&site, &["rotate", &folder(&site), "--add", &add, "--remove", &old, "--key", &root_key]).unwrap();
    let image = site.build("1.1.0", b"new", 31);
    site.publish_folder(&image).unwrap();

    assert_eq!((written.number, written.next_steps.len()), (2, 2));
    assert!(written.next_steps[1].contains("release 1.0.0 of channel stable is not signed by enough keys"));
    assert_eq!(machine_accepts(&site, &first), Ok(2));
}

#[test]
fn a_stolen_channel_key_is_worthless_once_it_is_revoked() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    let first = first_root(&site);
    let stolen = site.with_publisher(&[CHANNEL], |publisher| {
        publisher.sign_change(site.channel().unwrap(), ChannelChange::Renew { counter: u64::MAX }).unwrap().1
    });
    let (add, id) =
        (format!("channel={}", public(&site, 21)), key(CHANNEL).public_key("").key_id().to_string());
    let root_key = secret(&site, ROOT);

    let written = run(&site, &["revoke", &folder(&site), &id, "--add", &add, "--key", &root_key]).unwrap();
    assert!(written.next_steps[0].starts_with("sign channel stable anew"), "{:?}", written.next_steps);
    site.with_publisher(&[21], |publisher| {
        publisher.change_existing(&stable(), ChannelChange::Renew { counter: 0 })
    })
    .unwrap();

    assert_eq!(machine_accepts(&site, &first), Ok(2));
    fs::write(site.repository.file_path("channel/stable"), stolen).unwrap();
    assert!(machine_accepts(&site, &first).is_err());
}

#[test]
fn two_of_three_root_keys_sign_in_two_places() {
    let site = Site::new();
    let other = site.path("other");
    let other = other.to_str().unwrap();
    let roots = [1, 2, 3].map(|seed| public(&site, seed));
    let (channel, release) = (public(&site, CHANNEL), public(&site, RELEASE));
    let (one, two) = (secret(&site, 1), secret(&site, 2));
    let draft = site.path("draft");
    let draft = draft.to_str().unwrap();
    let mut words =
        vec!["init", other, "--threshold", "root=2", "--channel", &channel, "--release", &release];
    words.extend(roots.iter().flat_map(|root| ["--root", root]));

    words.extend(["--key", &one]);
    assert!(run(&site, &words).unwrap_err().to_string().contains("not signed by its own keys"));
    words.extend(["--draft", draft]);
    assert_eq!(run(&site, &words).unwrap().missing_signatures, 1);
    assert!(run(&site, &["publish", other, draft]).is_err());
    let arguments = crate::cli::keys::SignKeysArguments { file: draft.into(), keys: vec![two.into()] };
    assert_eq!(key_verbs::sign_document(&arguments).unwrap(), 2);

    assert_eq!(run(&site, &["publish", other, draft]).unwrap().number, 1);
    assert!(run(&site, &words).unwrap_err().to_string().ends_with("change it with `keys rotate`"));
}

#[test]
fn the_root_keys_themselves_can_be_replaced() {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    let first = first_root(&site);
    let (add, old) = (format!("root={}", public(&site, 2)), format!("root={}", public(&site, ROOT)));
    let (one, two) = (secret(&site, ROOT), secret(&site, 2));
    let folder = folder(&site);
    let words = ["rotate", &folder, "--add", &add, "--remove", &old, "--key", &two];

    // The old key must agree too.
    assert!(run(&site, &words).is_err());
    assert!(!site.repository.file_path("root/2").exists());
    run(&site, &[&words[..], &["--key", &one]].concat()).unwrap();

    assert_eq!(machine_accepts(&site, &first), Ok(2));
    assert_eq!(site.findings(), Vec::<String>::new());
}

#[test]
fn keys_of_other_roles_do_not_sign_roots() {
    let site = Site::new();
    let (root_key, release_key) = (secret(&site, ROOT), secret(&site, RELEASE));

    let refused =
        run(&site, &["rotate", &folder(&site), "--key", &root_key, "--key", &release_key]).unwrap_err();

    assert!(refused.to_string().ends_with("root metadata is signed by root keys alone"), "{refused}");
}

#[test]
fn wrong_words_are_answered_with_the_right_ones() {
    let site = Site::new();
    let root_key = secret(&site, ROOT);
    let folder = folder(&site);
    let refused = |words: &[&str]| {
        let all = [&["rotate", &folder, "--key", &root_key], words].concat();
        run(&site, &all).unwrap_err().to_string()
    };

    assert_eq!(refused(&["--add", "owner=x"]), "\"owner=x\" does not begin with channel=, release= or root=");
    assert!(refused(&["--threshold", "root=two"]).ends_with("does not end in a number of keys"));
    assert!(refused(&["--expires", "soon"]).contains("write minutes, hours or days"));
    assert!(refused(&["--remove", "root=/does/not/exist"]).contains("cannot read the key"));
    assert!(!Path::new(&site.path("draft")).exists());
}
