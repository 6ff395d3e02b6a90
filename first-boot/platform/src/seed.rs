//! What a seed says, for who judges it on another machine.
//!
//! Knows the two layouts that people make by hand. Refuses to ask anybody: what a seed refers to by an address stays
//! unread. Invariant: the machine itself reads the same files by the same functions, so that both see the same.
//!
//! Documentation: <https://docs.openstack.org/nova/latest/admin/config-drive.html> and
//! <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>.

use crate::InstanceMetadata;
pub use crate::providers::config_drive::ReadDriveFile;
use crate::providers::{config_drive, nocloud};

/// What the files of an OpenStack configuration drive say.
pub fn config_drive_metadata(read: ReadDriveFile<'_>) -> InstanceMetadata {
    config_drive::facts(read)
}

/// What the file `meta-data` of a `NoCloud` seed says.
#[must_use]
pub fn nocloud_metadata(meta_data: &[u8]) -> InstanceMetadata {
    nocloud::meta_data_facts(meta_data)
}
