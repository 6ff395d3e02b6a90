//! The secret keys that were given, and which of them may sign what.
//!
//! Knows key files and roles. Refuses to know what is signed. Invariant: a document is signed by keys of its
//! role alone, and by as many as the role wants: one that no machine would believe is not written.

use std::path::PathBuf;

use image_format::release::root::{Role, RootMetadata};
use image_format::signed::{KeyId, SecretKey, Signed, SignedPayload};

use crate::keys::{self, KeyError};

/// The secret keys of a command line.
#[derive(Debug, Default)]
pub(super) struct Signers {
    keys: Vec<(PathBuf, SecretKey)>,
}

impl Signers {
    /// Reads the files.
    pub(super) fn read_files(paths: &[PathBuf]) -> Result<Self, KeyError> {
        let keys = paths.iter().map(|path| Ok((path.clone(), keys::read_secret(path)?)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    #[cfg(test)]
    pub(super) fn of(keys: &[SecretKey]) -> Self {
        Self { keys: keys.iter().map(|key| (PathBuf::new(), key.clone())).collect() }
    }

    /// All of them.
    pub(super) fn all_keys(&self) -> Vec<SecretKey> {
        self.keys.iter().map(|(_, key)| key.clone()).collect()
    }

    /// Those that may sign for a role.
    pub(super) fn of_role(&self, root: &RootMetadata, role: Role) -> Vec<SecretKey> {
        self.select_keys(root, role).map(|(_, key)| key.clone()).collect()
    }

    /// The files of those that may sign for a role.
    pub(super) fn paths_of_role(&self, root: &RootMetadata, role: Role) -> Vec<PathBuf> {
        self.select_keys(root, role).map(|(path, _)| path.clone()).collect()
    }

    fn select_keys(&self, root: &RootMetadata, role: Role) -> impl Iterator<Item = &(PathBuf, SecretKey)> {
        let known = root.role_keys(role).known_keys().unwrap_or_default();
        let may = move |key: &SecretKey| known.iter().any(|public| public.key_id() == key_id(key));
        self.keys.iter().filter(move |(_, key)| may(key))
    }

    /// Whether there are enough keys of a role.
    pub(super) fn check_role(&self, root: &RootMetadata, role: Role) -> Result<(), TooFewSigners> {
        let mut given: Vec<KeyId> = self.of_role(root, role).iter().map(key_id).collect();
        given.sort();
        given.dedup();
        let needed = root.role_keys(role).threshold;
        if given.len() >= needed {
            return Ok(());
        }
        let known = root.role_keys(role).known_keys().unwrap_or_default();
        let keys = known.iter().map(|key| format!("{} {}", key.key_id(), key.comment()).trim().to_owned());
        let (number, given, keys) = (root.number, given.len(), keys.collect());
        Err(TooFewSigners { role: role.name(), number, needed, given, keys })
    }

    /// Signs for a role, with all keys that may.
    pub(super) fn sign_payload<T: SignedPayload>(
        &self,
        root: &RootMetadata,
        role: Role,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, TooFewSigners> {
        self.check_role(root, role)?;
        Ok(Signed::<T>::sign_payload(payload, &self.of_role(root, role)).to_envelope())
    }

    /// The short names of all of them.
    pub(super) fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|(_, key)| key_id(key))
    }
}

fn key_id(key: &SecretKey) -> KeyId {
    key.public_key("").key_id()
}

/// Not enough keys of a role.
#[derive(Debug, thiserror::Error)]
#[error(
    "root metadata {number} wants {needed} keys of the role {role}, and {given} of those given with --key are: give \
     {needed} of these: {}", keys.join(", ")
)]
pub(crate) struct TooFewSigners {
    role: &'static str,
    number: u64,
    needed: usize,
    given: usize,
    keys: Vec<String>,
}
