//! What the verbs of `keys` do: who may sign, made, changed and published.
//!
//! Knows files and the order of things. Refuses to know what the next root is to be, which is
//! [`super::rotation`]'s.

use std::fs;
use std::path::Path;
use std::time::Duration;

use image_format::manifest::Manifest;
use image_format::release::paths;
use image_format::release::root::{Role, RootMetadata, TrustedRoot};
use image_format::release::time::UnixTime;
use image_format::signed::{KeyId, MAX_ENVELOPE, PublicKey, Signed, SignedPayload};

use super::change::parse_delay;
use super::channels::read_channels;
use super::repository::{Repository, replace_file};
use super::roots::RootChain;
use super::rotation::{RotationWish, first_root, next_root};
use super::signers::Signers;
use super::stored::read_manifest;
use crate::cli::keys::{
    InitKeysArguments, PublishKeysArguments, RevokeKeysArguments, RotateKeysArguments, SignKeysArguments,
    SignRootArguments,
};
use crate::keys;

type Failure = Box<dyn std::error::Error>;

/// Root metadata that was made.
#[derive(Debug, serde::Serialize)]
pub(super) struct WrittenRoot {
    pub(super) number: u64,
    /// Where it lies.
    pub(super) path: String,
    /// How many valid signatures of root keys are still missing, if it is a draft.
    pub(super) missing_signatures: usize,
    /// What must be done now.
    pub(super) next_steps: Vec<String>,
}

/// Begins a repository.
pub(super) fn init_keys(arguments: &InitKeysArguments, now: UnixTime) -> Result<WrittenRoot, Failure> {
    let repository = Repository::at_folder(&arguments.repository);
    let _lock = repository.lock_repository()?;
    if repository.file_path(&paths::root_path(1)).exists() {
        let folder = repository.folder().display();
        return Err(format!("{folder} has root metadata already: change it with `keys rotate`").into());
    }
    let roles = [
        (Role::Root, &arguments.root),
        (Role::Channel, &arguments.channel),
        (Role::Release, &arguments.release),
    ];
    let mut wish =
        RotationWish { thresholds: read_thresholds(&arguments.thresholds)?, ..RotationWish::default() };
    for (role, files) in roles {
        for file in files {
            wish.add.push((role, keys::read_public(file)?));
        }
    }
    let root = first_root(wish, now, read_lifetime(&arguments.sign.expires)?)?;
    write_root(&repository, None, &root, &arguments.sign)
}

/// Changes who may sign.
pub(super) fn rotate_keys(arguments: &RotateKeysArguments, now: UnixTime) -> Result<WrittenRoot, Failure> {
    let removed = arguments.remove.iter().map(|text| {
        let (role, key) = split_role(text)?;
        Ok((Some(role), read_key_id(key)?))
    });
    let wish = RotationWish {
        add: read_added(&arguments.add)?,
        remove: removed.collect::<Result<_, Failure>>()?,
        thresholds: read_thresholds(&arguments.thresholds)?,
    };
    change_root(&arguments.repository, wish, &arguments.sign, now)
}

/// Takes a key away.
pub(super) fn revoke_keys(arguments: &RevokeKeysArguments, now: UnixTime) -> Result<WrittenRoot, Failure> {
    let wish = RotationWish {
        add: read_added(&arguments.add)?,
        remove: vec![(None, read_key_id(&arguments.key)?)],
        thresholds: read_thresholds(&arguments.thresholds)?,
    };
    change_root(&arguments.repository, wish, &arguments.sign, now)
}

fn change_root(
    folder: &Path,
    wish: RotationWish,
    sign: &SignRootArguments,
    now: UnixTime,
) -> Result<WrittenRoot, Failure> {
    let repository = Repository::at_folder(folder);
    let _lock = repository.lock_repository()?;
    let chain = RootChain::read(&repository)?;
    let root = next_root(chain.newest_root().metadata(), wish, now, read_lifetime(&sign.expires)?)?;
    write_root(&repository, Some(&chain), &root, sign)
}

/// Signs a root with all root keys that were given, of the old one and of the new one. It goes into the
/// repository only when machines would follow it.
fn write_root(
    repository: &Repository,
    chain: Option<&RootChain>,
    root: &RootMetadata,
    sign: &SignRootArguments,
) -> Result<WrittenRoot, Failure> {
    let signers = Signers::read_files(&sign.keys)?;
    let before = chain.map(|chain| chain.newest_root().metadata());
    let mut keys = signers.of_role(root, Role::Root);
    let old_keys = before.map(|before| signers.of_role(before, Role::Root)).unwrap_or_default();
    keys.extend(old_keys.into_iter().filter(|old| !root_has(root, &old.public_key(""))));
    let stranger = signers.key_ids().find(|id| keys.iter().all(|key| key.public_key("").key_id() != *id));
    if let Some(id) = stranger {
        return Err(format!("key {id} is no root key: root metadata is signed by root keys alone").into());
    }
    let envelope = Signed::<RootMetadata>::sign_payload(root.to_bytes()?, &keys).to_envelope();
    if let Some(draft) = &sign.draft {
        replace_file(draft, &envelope)
            .map_err(|error| format!("cannot write {}: {error}", draft.display()))?;
        let count = |of: &RootMetadata| {
            of.role_keys(Role::Root).threshold.saturating_sub(signers.of_role(of, Role::Root).len())
        };
        let missing_signatures = count(root).max(before.map_or(0, count));
        let path = draft.display().to_string();
        return Ok(WrittenRoot { number: root.number, path, missing_signatures, next_steps: Vec::new() });
    }
    put_root(repository, chain, &envelope)
}

fn root_has(root: &RootMetadata, key: &PublicKey) -> bool {
    root.role_keys(Role::Root)
        .known_keys()
        .unwrap_or_default()
        .iter()
        .any(|known| known.key_id() == key.key_id())
}

/// Puts a root into the repository, if machines would follow it.
fn put_root(
    repository: &Repository,
    chain: Option<&RootChain>,
    envelope: &[u8],
) -> Result<WrittenRoot, Failure> {
    let next = match chain {
        Some(chain) => chain.newest_root().next(envelope)?,
        None => TrustedRoot::anchor_chain(envelope)?,
    };
    let path = paths::root_path(next.number());
    repository.write_file(&path, envelope)?;
    let next_steps = match chain {
        Some(chain) => find_next_steps(repository, chain, &next),
        None => Vec::new(),
    };
    let path = repository.file_path(&path).display().to_string();
    Ok(WrittenRoot { number: next.number(), path, missing_signatures: 0, next_steps })
}

/// What machines no longer believe under the new root.
fn find_next_steps(repository: &Repository, chain: &RootChain, next: &TrustedRoot) -> Vec<String> {
    let mut steps = Vec::new();
    for channel in read_channels(repository, chain).unwrap_or_default() {
        let name = &channel.channel;
        steps.push(format!("sign channel {name} anew: release renew DIR --channel {name} --key ..."));
        for release in &channel.releases {
            if read_manifest(repository, next, &release.version).is_err() {
                let version = &release.version;
                steps.push(format!(
                    "release {version} of channel {name} is not signed by enough keys that are left: sign \
                     release/{version}/manifest with `keys sign` and promote it again, or build a new release"
                ));
            }
        }
    }
    steps
}

/// Adds signatures to a document.
pub(super) fn sign_document(arguments: &SignKeysArguments) -> Result<usize, Failure> {
    let signers = Signers::read_files(&arguments.keys)?;
    let file = &arguments.file;
    let bytes = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let (envelope, count) = sign_envelope::<RootMetadata>(&bytes, &signers)
        .or_else(|_| sign_envelope::<Manifest>(&bytes, &signers))
        .map_err(|error| format!("{} is neither root metadata nor a manifest: {error}", file.display()))?;
    replace_file(file, &envelope).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(count)
}

fn sign_envelope<T: SignedPayload>(bytes: &[u8], signers: &Signers) -> Result<(Vec<u8>, usize), Failure> {
    let signed = Signed::<T>::from_envelope(bytes)?.signed_also(&signers.all_keys());
    Ok((signed.to_envelope(), signed.claimed_signers().count()))
}

/// Puts a draft into a repository.
pub(super) fn publish_draft(arguments: &PublishKeysArguments) -> Result<WrittenRoot, Failure> {
    let repository = Repository::at_folder(&arguments.repository);
    let _lock = repository.lock_repository()?;
    let file = &arguments.file;
    let envelope = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    if envelope.len() > MAX_ENVELOPE {
        return Err(format!(
            "{} has more than {MAX_ENVELOPE} bytes, so it is no root metadata",
            file.display()
        )
        .into());
    }
    let begun = repository.file_path(&paths::root_path(1)).exists();
    let chain = if begun { Some(RootChain::read(&repository)?) } else { None };
    put_root(&repository, chain.as_ref(), &envelope)
}

fn split_role(text: &str) -> Result<(Role, &str), Failure> {
    let found = text.split_once('=').and_then(|(name, rest)| {
        Role::ALL.into_iter().find(|role| role.name() == name).map(|role| (role, rest))
    });
    found.ok_or_else(|| format!("{text:?} does not begin with channel=, release= or root=").into())
}

fn read_added(texts: &[String]) -> Result<Vec<(Role, PublicKey)>, Failure> {
    let read = |text: &String| {
        let (role, file) = split_role(text)?;
        Ok((role, keys::read_public(Path::new(file))?))
    };
    texts.iter().map(read).collect()
}

fn read_thresholds(texts: &[String]) -> Result<Vec<(Role, usize)>, Failure> {
    let read = |text: &String| {
        let (role, count) = split_role(text)?;
        let count = count.parse().map_err(|_| format!("{text:?} does not end in a number of keys"))?;
        Ok((role, count))
    };
    texts.iter().map(read).collect()
}

/// A key by its id, or by its file.
fn read_key_id(text: &str) -> Result<KeyId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    Ok(keys::read_public(Path::new(text))?.key_id())
}

/// How long something holds.
pub(super) fn read_lifetime(text: &str) -> Result<Duration, Failure> {
    let lifetime = parse_delay(text).filter(|lifetime| !lifetime.is_zero());
    lifetime.ok_or_else(|| {
        format!("{text:?} is no time: write minutes, hours or days, such as 12h or 30d").into()
    })
}
