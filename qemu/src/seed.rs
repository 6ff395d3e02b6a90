//! Writes the NoCloud disk that gives a machine its name, its ssh key and its user-data.
//!
//! Knows NoCloud's file names (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>) and
//! FAT; refuses to look into the user's document. Invariant: the same contents
//! make the same bytes.

use std::fmt::Write as _;
use std::io::{self, Cursor, Write};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, TimeProvider};

/// What a machine is told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedData {
    /// Tells one machine from the next; the same on each boot of one machine
    pub instance_id: String,
    /// The name the guest takes, unless its user-data says another
    pub host_name: String,
    /// Lines for `authorized_keys`
    pub public_keys: Vec<String>,
    /// The user's document, as it came
    pub user_data: Option<Vec<u8>>,
    /// How the network cards are to be configured; none leaves it to the guest
    pub network_config: Option<String>,
}

impl SeedData {
    /// The seed as a FAT file system labelled CIDATA.
    pub fn to_disk(&self) -> io::Result<Vec<u8>> {
        let mut disk = Cursor::new(vec![0; self.disk_size()]);
        let format = FormatVolumeOptions::new().volume_label(*b"CIDATA     ").volume_id(0x4349_4441);
        fatfs::format_volume(&mut disk, format)?;
        {
            let options = FsOptions::new().time_provider(&FIXED_TIME).update_accessed_date(false);
            let file_system = FileSystem::new(&mut disk, options)?;
            let root = file_system.root_dir();
            root.create_file("meta-data")?.write_all(self.meta_data().as_bytes())?;
            // NoCloud wants the file even if there is nothing to say.
            let user_data = self.user_data.as_deref().unwrap_or(b"#cloud-config\n{}\n");
            root.create_file("user-data")?.write_all(user_data)?;
            if let Some(config) = &self.network_config {
                root.create_file("network-config")?.write_all(config.as_bytes())?;
            }
        }
        Ok(disk.into_inner())
    }

    fn disk_size(&self) -> usize {
        let network_config = self.network_config.as_ref().map_or(0, String::len);
        let content = self.user_data.as_ref().map_or(0, Vec::len) + self.meta_data().len() + network_config;
        // An eighth more than the content for FAT's tables and its last, half-filled clusters.
        ((content + content / 8) / 4096 + 1) * 4096 + (1 << 20)
    }

    /// JSON strings are YAML strings, so nothing in a name or a key can break out of its line.
    fn meta_data(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "instance-id: {}\nlocal-hostname: {}\n",
            quoted(&self.instance_id),
            quoted(&self.host_name)
        );
        if !self.public_keys.is_empty() {
            text.push_str("public-keys:\n");
        }
        for key in &self.public_keys {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  - {}", quoted(key));
        }
        text
    }
}

/// Lower-case hexadecimal digits no other machine has.
#[must_use]
pub fn random_hex() -> String {
    let mut bytes = [0; 8];
    // The kernel's generator fails on no machine that could run QEMU; zeros would still be a valid identity.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[derive(Debug)]
struct FixedTime;

static FIXED_TIME: FixedTime = FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: fatfs::Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn seed() -> SeedData {
        SeedData {
            instance_id: "i-0123".into(),
            host_name: "web".into(),
            public_keys: vec!["ssh-ed25519 AAAA \"me\"".into()],
            user_data: Some(b"#cloud-config\nhostname: x\n".to_vec()),
            network_config: Some("version: 2\n".into()),
        }
    }

    #[test]
    fn the_disk_holds_what_nocloud_asks_for() {
        let disk = seed().to_disk().unwrap();

        let file_system = FileSystem::new(Cursor::new(disk), FsOptions::new()).unwrap();
        let read = |name: &str| {
            let mut text = String::new();
            file_system.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };

        assert_eq!(file_system.volume_label(), "CIDATA");
        assert_eq!(read("user-data"), "#cloud-config\nhostname: x\n");
        assert_eq!(read("network-config"), "version: 2\n");
        assert_eq!(
            read("meta-data"),
            "instance-id: \"i-0123\"\nlocal-hostname: \"web\"\npublic-keys:\n  - \"ssh-ed25519 AAAA \\\"me\\\"\"\n"
        );
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        assert!(seed().to_disk().unwrap() == seed().to_disk().unwrap());
    }

    #[test]
    fn a_document_of_ten_megabytes_fits() {
        let seed = SeedData { user_data: Some(vec![b'#'; 10 << 20]), ..seed() };

        assert!(seed.to_disk().is_ok());
    }
}
