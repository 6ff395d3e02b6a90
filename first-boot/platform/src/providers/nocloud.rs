//! `NoCloud`: the files `meta-data`, `user-data`, `vendor-data` and `network-config`.
//!
//! Knows where they may lie: a web server or directory named by `ds=nocloud;s=...` on the kernel
//! command line or in the SMBIOS serial number, a disk labelled `cidata`, the folder `seed` of the
//! EFI system partition of the disk that the machine runs from, `/var/lib/cloud/seed/nocloud`. Refuses to look
//! on when one has any of the files.
//! Invariant: the files are of one place, and a place on our own disk cannot be brought by another disk.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>, and for the
//! SMBIOS serial number DMTF's DSP0134, table "System Information".

use std::{fs::File, path::Path};

use error_text::redacted_address;

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Place, Platform, WebError, disk,
    evidence::PlatformEvidence,
    guest,
    json::DocumentTree,
    meta_data::add_meta_data,
    web::{MAX_METADATA, MAX_USER_DATA},
};

// FAT keeps labels in capitals, and ISO 9660 tools leave them as they are, so letter case does not count.
const LABEL: &str = "cidata";
const ESP: &str = "ESP";
// Of our partitions the ESP alone can be written on any system, so a seed can be put on it before the first
// boot.
const ESP_FOLDER: &str = "seed/";
// cloud-init parted the two once: `nocloud-net` was asked after the network was up. Images still have either.
const SEED_FOLDERS: [&str; 2] = ["/var/lib/cloud/seed/nocloud/", "/var/lib/cloud/seed/nocloud-net/"];
// cloud-init reads all three.
const PARAMETERS: [&str; 3] = ["ds", "ci.ds", "ci.datasource"];

/// The four files, as far as they are there.
#[derive(Debug, Clone, Default)]
struct SeedFiles {
    place: String,
    meta_data: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    vendor_data: Option<Vec<u8>>,
    network_config: Option<Vec<u8>>,
    unreadable: Vec<(&'static str, String)>,
}

/// What `ds=nocloud;...` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct SeedParameters {
    told_by: &'static str,
    seed_from: Option<String>,
    hostname: Option<String>,
    instance_id: Option<String>,
}

pub(crate) fn detect(host: &Host) -> Vec<PlatformEvidence> {
    let told = seed_parameters(host);
    let named = told.as_ref().and_then(SeedParameters::evidence_of_address);
    let volumes = disk::find_labelled(host, &[LABEL]).into_iter().filter_map(|(device, volume)| {
        let seed = disk_seed(&device.path, volume, "")?;
        let (evidence, elsewhere) = (seed.seed_evidence(), seed.seed_from());
        let said = to_metadata(seed, &SeedParameters::default());
        Some(evidence.on_volume(&device.path, &said, elsewhere.as_deref()))
    });
    // A volume is made for this machine, and the image's own seed is the same on all. So volumes go first
    // here.
    let own = own_seed(host, told.as_ref()).map(|seed| seed.seed_evidence().found_at(Place::OwnDisk));
    let found: Vec<PlatformEvidence> = named.into_iter().chain(volumes).chain(own).collect();
    match told {
        Some(told) if found.is_empty() => {
            vec![
                PlatformEvidence::from_machine(format!("{}: ds=nocloud", told.told_by))
                    .found_at(Place::CommandLine),
            ]
        }
        _ => found,
    }
}

/// Whether the command line or the firmware asks for it by name.
pub(crate) fn is_named(host: &Host) -> bool {
    seed_parameters(host).is_some()
}

/// Asks the place that was found, and no other: what one place does not say, another must not add.
pub(crate) fn fetch(host: &Host, web: &MetadataWeb, place: &Place) -> Result<InstanceMetadata, FetchError> {
    let parameters = seed_parameters(host).unwrap_or_default();
    let mut seed = match place {
        Place::Volume { device, .. } => {
            let gone = || FetchError::Gone { place: device.display().to_string() };
            let volume = disk::on_device(device).ok_or_else(gone)?;
            disk_seed(device, volume, "").unwrap_or_default()
        }
        Place::CommandLine | Place::Firmware | Place::OwnDisk => {
            own_seed(host, Some(&parameters)).unwrap_or_default()
        }
    };
    let named = || parameters.seed_from.clone().filter(|url| is_web(url));
    let from = match place {
        Place::Volume { .. } => seed.seed_from(),
        _ => named().or_else(|| seed.seed_from()),
    };
    if let Some(url) = from.filter(|url| is_web(url)) {
        // Firmware strings in the address let one image serve a rack: each machine asks for its own serial
        // number.
        let fetched = web_seed(web, &expand_dmi(host, &url)).map_err(Platform::NoCloud.fetch_failed())?;
        seed = fetched.with_fallback(seed);
    }
    let mut provision = to_metadata(seed, &parameters);
    guest::add_attributes(host, &mut provision);
    Ok(provision)
}

/// Turns the files into facts; what the parameters say goes first.
fn to_metadata(seed: SeedFiles, parameters: &SeedParameters) -> InstanceMetadata {
    let mut provision = InstanceMetadata::new(Platform::NoCloud);
    for (file, cause) in &seed.unreadable {
        provision.report_problem(file, cause);
    }
    if let Some(bytes) = &seed.meta_data {
        let tree = add_meta_data(&mut provision, bytes);
        // Debian's old format; the file goes before it.
        provision.network_config = tree.content_at("/network-interfaces").and_then(Payload::from_bytes);
        provision.set_attribute("CUSTOM_HOSTNAME", provision.hostname.clone());
    }
    provision.user_data = seed.user_data.and_then(Payload::from_bytes);
    provision.vendor_data = seed.vendor_data.and_then(Payload::from_bytes);
    provision.network_config = seed.network_config.and_then(Payload::from_bytes).or(provision.network_config);
    provision.set_hostname(parameters.hostname.as_ref());
    if parameters.instance_id.is_some() {
        provision.instance_id.clone_from(&parameters.instance_id);
    }
    provision
}

/// The facts of a `meta-data` file; pure.
pub(crate) fn meta_data_facts(document: &[u8]) -> InstanceMetadata {
    to_metadata(
        SeedFiles { meta_data: Some(document.to_vec()), ..SeedFiles::default() },
        &SeedParameters::default(),
    )
}

/// `ds=nocloud` with what follows it, from the SMBIOS serial number or the kernel command line.
fn seed_parameters(host: &Host) -> Option<SeedParameters> {
    // cloud-init's order, too: the firmware speaks of this machine, the command line of all that have the
    // image.
    let serial = host.dmi_field("product_serial");
    let from_serial =
        serial.find("ds=nocloud").and_then(|at| parse_parameters(&serial[at + 3..], "SMBIOS serial number"));
    from_serial.or_else(|| {
        let value = PARAMETERS.iter().find_map(|parameter| host.kernel_parameter(parameter))?;
        parse_parameters(&value, "kernel command line")
    })
}

impl SeedParameters {
    /// That a web server is named.
    fn evidence_of_address(&self) -> Option<PlatformEvidence> {
        let url = self.seed_from.as_deref().filter(|url| is_web(url))?;
        let text = format!("{}: ds=nocloud, seed from {}", self.told_by, redacted_address(url));
        Some(PlatformEvidence::from_network(text).found_at(Place::CommandLine))
    }
}

fn parse_parameters(text: &str, told_by: &'static str) -> Option<SeedParameters> {
    let mut words = text.split(';').map(str::trim);
    let name = words.next()?;
    if !name.eq_ignore_ascii_case("nocloud") && !name.eq_ignore_ascii_case("nocloud-net") {
        return None;
    }
    let mut found = SeedParameters { told_by, ..SeedParameters::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "s" | "seedfrom" => found.seed_from = value,
            "h" | "local-hostname" => found.hostname = value,
            "i" | "instance-id" => found.instance_id = value,
            _ => {}
        }
    }
    Some(found)
}

/// The first place on this machine's own disk that has any of the files.
fn own_seed(host: &Host, parameters: Option<&SeedParameters>) -> Option<SeedFiles> {
    let named = parameters.and_then(|told| told.seed_from.as_deref()).and_then(local_folder);
    let folders = named.as_deref().into_iter().chain(SEED_FOLDERS);
    if let Some((device, volume)) = disk::on_own_esp(host, ESP)
        && let Some(seed) = disk_seed(&device.path, volume, ESP_FOLDER)
    {
        return Some(seed);
    }
    let mut seeds = folders.map(|folder| {
        SeedFiles::read_files(folder.to_owned(), |file, limit| host.read(&format!("{folder}{file}"), limit))
    });
    seeds.find(SeedFiles::has_any)
}

fn disk_seed(device: &Path, mut volume: disk::ConfigVolume<File>, folder: &str) -> Option<SeedFiles> {
    let place = format!("{folder} on {} labelled {}", device.display(), volume.volume_label());
    let place = place.trim_start().trim_start_matches("on ").to_owned();
    Some(SeedFiles::read_files(place, |file, limit| volume.read(&format!("{folder}{file}"), limit)))
        .filter(SeedFiles::has_any)
}

fn web_seed(web: &MetadataWeb, url: &str) -> Result<SeedFiles, WebError> {
    let address = |file: &str| format!("{}/{file}", url.trim_end_matches('/'));
    // If this file cannot be asked for, neither can the others. Each of them would wait until the time is up.
    let meta_data = web.get_url(&address("meta-data"), MAX_METADATA)?;
    let mut seed = SeedFiles::read_files(redacted_address(url), |file, limit| match file {
        "meta-data" => Ok(None),
        file => web.get_url(&address(file), limit),
    });
    seed.meta_data = meta_data;
    Ok(seed)
}

/// `file:///folder/` or a bare path, with a slash at its end.
fn local_folder(url: &str) -> Option<String> {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.starts_with('/').then(|| format!("{}/", path.trim_end_matches('/')))
}

fn is_web(url: &str) -> bool {
    // cloud-init takes ftp:// as well. It is refused here: no cloud uses it, and it would need a client of
    // its own.
    url.starts_with("http://") || url.starts_with("https://")
}

/// Replaces `__dmi.chassis-serial-number__` and its like by the firmware's strings.
fn expand_dmi(host: &Host, url: &str) -> String {
    let mut url = url.to_owned();
    for (name, field) in DMI_NAMES {
        let token = format!("__dmi.{name}__");
        if url.contains(&token) {
            url = url.replace(&token, &host.dmi_field(field));
        }
    }
    url
}

/// dmidecode's names, which people write in addresses, and the kernel's.
const DMI_NAMES: [(&str, &str); 13] = [
    ("baseboard-asset-tag", "board_asset_tag"),
    ("baseboard-manufacturer", "board_vendor"),
    ("baseboard-product-name", "board_name"),
    ("baseboard-serial-number", "board_serial"),
    ("bios-vendor", "bios_vendor"),
    ("bios-version", "bios_version"),
    ("chassis-asset-tag", "chassis_asset_tag"),
    ("chassis-manufacturer", "chassis_vendor"),
    ("chassis-serial-number", "chassis_serial"),
    ("system-manufacturer", "sys_vendor"),
    ("system-product-name", "product_name"),
    ("system-serial-number", "product_serial"),
    ("system-uuid", "product_uuid"),
];

impl SeedFiles {
    fn read_files<E: std::fmt::Display>(
        place: String,
        mut read: impl FnMut(&str, u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Self {
        let mut unreadable = Vec::new();
        let mut file = |name: &'static str, limit| {
            read(name, limit).unwrap_or_else(|cause| {
                unreadable.push((name, cause.to_string()));
                None
            })
        };
        let meta_data = file("meta-data", MAX_METADATA);
        let user_data = file("user-data", MAX_USER_DATA);
        let vendor_data = file("vendor-data", MAX_USER_DATA);
        let network_config = file("network-config", MAX_METADATA);
        Self { place, meta_data, user_data, vendor_data, network_config, unreadable }
    }

    fn has_any(&self) -> bool {
        let files = [&self.meta_data, &self.user_data, &self.vendor_data, &self.network_config];
        files.iter().any(|file| file.is_some()) || !self.unreadable.is_empty()
    }

    fn seed_evidence(&self) -> PlatformEvidence {
        match self.seed_from() {
            Some(url) if is_web(&url) => PlatformEvidence::from_network(format!(
                "{}, seed from {}",
                self.place,
                redacted_address(&url)
            )),
            _ => PlatformEvidence::from_machine(self.place.clone()),
        }
    }

    /// The address that `meta-data` refers to.
    fn seed_from(&self) -> Option<String> {
        DocumentTree::from_yaml(self.meta_data.as_deref()?).ok()?.text_at("/seedfrom")
    }

    /// These files, and those of `below` where there are none.
    fn with_fallback(mut self, below: Self) -> Self {
        self.meta_data = self.meta_data.or(below.meta_data);
        self.user_data = self.user_data.or(below.user_data);
        self.vendor_data = self.vendor_data.or(below.vendor_data);
        self.network_config = self.network_config.or(below.network_config);
        self.unreadable.extend(below.unreadable);
        self
    }
}

#[cfg(test)]
mod tests;
