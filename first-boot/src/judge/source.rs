//! What a path holds that is to be judged: one document, or a whole seed.
//!
//! Knows the names of files by which platforms hand documents over, folders of them, and the images of
//! disks that `NoCloud` and `OpenStack` attach. Refuses to guess against what it was told. Invariant: no
//! more is read than any platform hands over.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html> and
//! <https://docs.openstack.org/nova/latest/user/metadata.html>.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use platform::disk::ConfigVolume;
use user_data::network;
use user_data::payload::{self, PayloadKind};

use super::seed::{OpenFile, Role, Seed, SeedFile};

/// More than any cloud hands over.
const MOST: u64 = 64 << 20;

/// Something to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// A file, a folder or an image; standard input for `-`.
    pub path: PathBuf,
    /// What it is for; of a folder and an image, the names in it say that.
    pub role: Role,
}

impl From<PathBuf> for Document {
    fn from(path: PathBuf) -> Self {
        Self { path, role: Role::Guessed }
    }
}

/// Where seeds have their files, and what each is for. The first folder that has any is used.
// The last one is the layout of OpenStack's config drive.
const SEEDS: [(&str, [(&str, Role); 4]); 3] = [
    ("", NOCLOUD),
    ("seed/", NOCLOUD),
    (
        "openstack/latest/",
        [
            ("meta_data.json", Role::MetaData),
            ("user_data", Role::UserData),
            ("vendor_data.json", Role::VendorData),
            ("network_data.json", Role::NetworkConfig),
        ],
    ),
];
const NOCLOUD: [(&str, Role); 4] = [
    ("meta-data", Role::MetaData),
    ("user-data", Role::UserData),
    ("vendor-data", Role::VendorData),
    ("network-config", Role::NetworkConfig),
];

/// The files of a path.
pub(super) fn read(document: &Document) -> io::Result<Seed> {
    let path = &document.path;
    if path.is_dir() {
        return read_seed(path, &mut |name| match File::open(path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => read_bounded(file?).map(Some),
        });
    }
    // A pipe gives its bytes once, and to whoever opens it first.
    let is_image =
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() || meta.file_type().is_block_device());
    let file = if is_image { File::open(path).ok() } else { None };
    if let Some(mut volume) = file.and_then(ConfigVolume::open_volume) {
        return read_seed(path, &mut |name| volume.read(name, MOST));
    }
    let bytes =
        if path.as_os_str() == "-" { read_bounded(io::stdin())? } else { read_bounded(File::open(path)?)? };
    let role = if document.role == Role::Guessed { guess_role(path, &bytes) } else { document.role };
    Ok(Seed::from_file(SeedFile { name: path.display().to_string(), role, bytes }))
}

fn read_bounded(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("it is larger than {MOST} bytes")));
    }
    Ok(bytes)
}

fn read_seed(path: &Path, open: OpenFile<'_>) -> io::Result<Seed> {
    for (folder, names) in SEEDS {
        let mut seed = Seed::default();
        for (name, role) in names {
            let name = format!("{folder}{name}");
            if let Some(bytes) = open(&name)? {
                seed.files.push(SeedFile { name: path.join(name).display().to_string(), role, bytes });
            }
        }
        if !seed.files.is_empty() {
            if names == NOCLOUD {
                seed.add_old_network();
            } else {
                seed.add_drive_contents(path, open);
            }
            return Ok(seed);
        }
    }
    Err(io::Error::other(
        "there is no seed in it: no user-data, meta-data, network-config or openstack/latest",
    ))
}

/// What lies beside user-data has no first line that would say what it is; but people put one there.
fn guess_role(path: &Path, bytes: &[u8]) -> Role {
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace('_', "-").to_ascii_lowercase();
    let kind = payload::detect_kind(bytes);
    match name.as_str() {
        _ if matches!(kind, PayloadKind::Unknown | PayloadKind::CloudConfig) && network::is_config(bytes) => {
            Role::NetworkConfig
        }
        _ if kind != PayloadKind::Unknown => Role::UserData,
        name if name.starts_with("network-config") || name.starts_with("network-data") => Role::NetworkConfig,
        name if name.starts_with("meta-data") => Role::MetaData,
        _ => Role::UserData,
    }
}
