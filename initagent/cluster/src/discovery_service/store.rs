//! Keeps each token in a file of its own.
//!
//! Knows the files' form. Refuses to know HTTP. Invariants: a file is whole or not there; there are never more
//! tokens, or machines of one, than the limits say.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::derive::encode_hex;

/// As many as a person makes in years; a file of one takes a block of the disk.
const MOST_TOKENS: usize = 4096;
/// A cluster of a size below 100 and its proxies.
const MOST_MACHINES: usize = 1024;
/// A name and some URLs.
const LONGEST_VALUE: usize = 1024;
/// A number of 64 bits in hexadecimal, and names that other clients take.
const LONGEST_ID: usize = 64;

/// The name of a cluster that forms. Nobody guesses one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiscoveryToken(String);

impl DiscoveryToken {
    /// Reads one: 32 hexadecimal digits, as discovery.etcd.io has them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// Its digits.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

/// The machines of one token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FormingCluster {
    pub(super) size: u32,
    /// Number and value, first come first.
    pub(super) machines: Vec<(String, String)>,
}

impl FormingCluster {
    /// etcd's index: 1 is the size, and each machine the next.
    pub(super) fn index(&self) -> u64 {
        1 + self.machines.len() as u64
    }
}

/// Why a machine was not registered.
#[derive(Debug)]
pub(super) enum RegisterError {
    Full,
    Keep(io::Error),
    Known,
    NoToken,
    Value,
}

/// All tokens.
#[derive(Debug)]
pub(super) struct TokenStore {
    folder: PathBuf,
    /// Those that were asked for since the start.
    known: BTreeMap<DiscoveryToken, FormingCluster>,
}

impl TokenStore {
    pub(super) fn open_folder(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), known: BTreeMap::new() })
    }

    pub(super) fn create_token(&mut self, size: u32) -> io::Result<DiscoveryToken> {
        if fs::read_dir(&self.folder)?.count() >= MOST_TOKENS {
            let what = format!("{} has {MOST_TOKENS} tokens already; remove old ones", self.folder.display());
            return Err(io::Error::other(what));
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        let token = DiscoveryToken(encode_hex(&bytes));
        let cluster = FormingCluster { size, machines: Vec::new() };
        self.keep_cluster(&token, &cluster)?;
        self.known.insert(token.clone(), cluster);
        Ok(token)
    }

    pub(super) fn find_token(&mut self, token: &DiscoveryToken) -> Option<&FormingCluster> {
        if !self.known.contains_key(token) {
            let text = fs::read(self.path_of(token)).ok()?;
            self.known.insert(token.clone(), serde_json::from_slice(&text).ok()?);
        }
        self.known.get(token)
    }

    /// Registers a machine, and gives its index.
    pub(super) fn register_machine(
        &mut self,
        token: &DiscoveryToken,
        id: &str,
        value: &str,
    ) -> Result<u64, RegisterError> {
        let mut cluster = self.find_token(token).ok_or(RegisterError::NoToken)?.clone();
        let is_id =
            id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_id || value.len() > LONGEST_VALUE || !value.contains("=http") {
            return Err(RegisterError::Value);
        }
        if cluster.machines.iter().any(|(known, _)| known == id) {
            return Err(RegisterError::Known);
        }
        if cluster.machines.len() >= MOST_MACHINES {
            return Err(RegisterError::Full);
        }
        cluster.machines.push((id.to_owned(), value.to_owned()));
        self.keep_cluster(token, &cluster).map_err(RegisterError::Keep)?;
        let index = cluster.index();
        self.known.insert(token.clone(), cluster);
        Ok(index)
    }

    fn keep_cluster(&self, token: &DiscoveryToken, cluster: &FormingCluster) -> io::Result<()> {
        let path = self.path_of(token);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(cluster).map_err(io::Error::from)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn path_of(&self, token: &DiscoveryToken) -> PathBuf {
        self.folder.join(token.as_text()).with_extension("json")
    }
}
