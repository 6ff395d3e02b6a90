//! What the host offers a build: its mirror, its keys, its time, its agent program.
#![expect(
    clippy::disallowed_methods,
    reason = "effects live here: it reads the environment and apt's configuration"
)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli;
use crate::debian::mirror::{self, AptSource};
use crate::plan::{BuildFacts, SigningKey};

/// Debian's archive keys, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Gathers the facts for a build.
pub(crate) fn gather_facts(arguments: &cli::BuildArguments) -> Result<BuildFacts, FactsError> {
    let sources = apt_sources(Path::new("/etc/apt"));
    let keyring = PathBuf::from(KEYRING);
    if !keyring.exists() {
        return Err(FactsError::Keyring);
    }
    Ok(BuildFacts {
        mirror: arguments.mirror.clone().or_else(|| mirror::debian_mirror(&sources).map(str::to_owned)),
        // Whoever names a mirror by hand may have no other network. That fixes are missing is said by the
        // build.
        security_mirror: match arguments.mirror {
            Some(_) => None,
            None => mirror::debian_security_mirror(&sources).map(str::to_owned),
        },
        keyring,
        epoch: source_date_epoch()?,
        signing: match arguments.keys.as_slice() {
            [] => SigningKey::Development,
            keys => SigningKey::Keys(keys.to_vec()),
        },
        update_root: arguments.update_root.clone(),
        initagent: find_initagent(arguments.initagent.clone())?,
        lock: arguments.locked.clone(),
        cache: arguments.cache.clone().map_or_else(default_cache, Ok)?,
        output: arguments.out.clone(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

fn source_date_epoch() -> Result<Option<u64>, FactsError> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map(Some).map_err(|_| FactsError::Epoch { text }),
        Err(_) => Ok(None),
    }
}

fn find_initagent(given: Option<PathBuf>) -> Result<PathBuf, FactsError> {
    let beside = || Some(env::current_exe().ok()?.parent()?.join("initagent"));
    let path = given.or_else(beside).ok_or(FactsError::Home)?;
    let found = fs::canonicalize(&path).map_err(|_| FactsError::Agent { path: path.clone() })?;
    let bytes = fs::read(&found).map_err(|_| FactsError::Agent { path })?;
    if needs_interpreter(&bytes) { Err(FactsError::Dynamic { path: found }) } else { Ok(found) }
}

/// Whether a program asks for a dynamic linker, which no initramfs of ours has: an ELF program header
/// of type `PT_INTERP` (elf(5)).
fn needs_interpreter(program: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = 3_u32.to_le_bytes();
    let number = |at: usize| {
        program.get(at..at + 2).map_or(0, |bytes| usize::from(bytes[0]) | usize::from(bytes[1]) << 8)
    };
    let table = program
        .get(32..36)
        .map_or(0, |bytes| bytes.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)));
    let (entry, count) = (number(54), number(56));
    (0..count)
        .any(|index| program.get(table + index * entry..).is_some_and(|rest| rest.starts_with(&PT_INTERP)))
}

fn default_cache() -> Result<PathBuf, FactsError> {
    // The XDG base directory specification: a relative path there is to be ignored.
    let base = env::var("XDG_CACHE_HOME").ok().filter(|path| path.starts_with('/')).map(PathBuf::from);
    let home = || env::var("HOME").ok().map(|home| PathBuf::from(home).join(".cache"));
    Ok(base.or_else(home).ok_or(FactsError::Home)?.join("image-builder"))
}

/// Every archive that apt is told of.
fn apt_sources(directory: &Path) -> Vec<AptSource> {
    let mut files = vec![directory.join("sources.list")];
    if let Ok(entries) = fs::read_dir(directory.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|path| {
            Some(mirror::parse_sources(path.file_name()?.to_str()?, &fs::read_to_string(path).ok()?))
        })
        .flatten()
        .collect()
}

/// Why a build cannot start on this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    #[error(
        "there is no agent program {path}: build it (ci/setup says how) or name it with --initagent FILE"
    )]
    Agent { path: PathBuf },
    #[error(
        "{path} needs a dynamic linker, but an initramfs has none: build it with \
         RUSTFLAGS='-C target-feature=+crt-static'"
    )]
    Dynamic { path: PathBuf },
    #[error("SOURCE_DATE_EPOCH is {text:?}, but must be a number of seconds since 1970")]
    Epoch { text: String },
    #[error("no place for the cache is known: set HOME, or name one with --cache DIR")]
    Home,
    #[error(
        "the keys of Debian's archive are missing ({KEYRING}): install the package debian-archive-keyring"
    )]
    Keyring,
}
