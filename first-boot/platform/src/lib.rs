//! Finds where this machine runs and collects what that place knows of it.
//!
//! Knows one module per platform, all of one shape: `detect` looks only at this machine (firmware
//! strings, disks, kernel command line) and never waits for a network; `fetch` asks that one
//! platform; a pure `facts` function turns its answer into a [`InstanceMetadata`]. Refuses to know what
//! the facts are for: nothing here sets a host name or parses user-data.
//! Invariant: only the detected platform is asked, and every byte it answers is bounded before it
//! is parsed.

pub mod disk;
mod evidence;
mod guest;
mod host;
mod interfaces;
mod iso9660;
mod json;
mod keys;
mod meta_data;
mod metadata_file;
mod netplan;
mod one_document;
mod ovf;
mod platform;
mod providers;
mod provision;
mod registry;
mod running_disk;
pub mod seed;
mod web;

pub use evidence::{BootKind, DetectedPlatform, Place};
pub use host::Host;
pub use platform::{FetchError, Platform};
pub use provision::{InstanceMetadata, MachineAddresses, MetaData, MetadataProblem, Payload};
pub use registry::{detect_platform, detect_platforms};
pub use running_disk::{BOOT_RECORD, RunningDisk};
pub use web::{MetadataWeb, WebError, WebTiming};
