//! User-data from the address in `cloud-config-url=` on the kernel command line.
//!
//! Knows the parameter's names, here and in other systems. Refuses to know what kind of user-data it is.
//! Invariant: the address is shown without user, password and query.
//!
//! Documentation: coreos-cloudinit's `--from-proc-cmdline`, and for the other names Ignition's and Flatcar's
//! manuals.

use error_text::redacted_address;

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Place, Platform, evidence::PlatformEvidence,
    web::MAX_USER_DATA,
};

// Scripts for iPXE that start CoreOS or Flatcar have the others. They go on working when the image is
// exchanged.
const PARAMETERS: [&str; 5] = [
    "cloud-config-url",
    "cloud_config_url",
    "coreos.config.url",
    "flatcar.config.url",
    "ignition.config.url",
];

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    let url = configured_url(host)?;
    let text = format!("kernel command line: cloud-config-url={}", redacted_address(&url));
    Some(PlatformEvidence::from_network(text).found_at(Place::CommandLine))
}

pub(crate) fn fetch(host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let platform = Platform::CloudConfigUrl;
    let url =
        configured_url(host).ok_or_else(|| FetchError::Gone { place: "cloud-config-url=".to_owned() })?;
    let body = web.get_url(&url, MAX_USER_DATA).map_err(platform.fetch_failed())?;
    let user_data = body.and_then(Payload::from_bytes);
    Ok(InstanceMetadata { user_data, ..InstanceMetadata::new(platform) })
}

/// The last one wins, as it does for the kernel's own parameters.
fn configured_url(host: &Host) -> Option<String> {
    let words = host.command_line();
    let value = |word: &String| {
        let (key, value) = word.split_once('=')?;
        (PARAMETERS.contains(&key) && !value.is_empty()).then(|| value.to_owned())
    };
    words.iter().filter_map(value).next_back()
}
