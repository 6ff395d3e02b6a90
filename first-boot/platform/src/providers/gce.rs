//! Google Compute Engine: a tree of small texts, and keys with users and expiry dates.
//!
//! Knows the precedence of instance and project keys. Refuses to make the users that keys are
//! written for: on this image every key is the image's own user's.
//! Invariant: a key that has a date lets nobody in after it, whether that is read here or by sshd.
//!
//! Documentation: <https://cloud.google.com/compute/docs/metadata/overview>, and for keys
//! <https://cloud.google.com/compute/docs/connect/add-ssh-keys>.

use crate::{
    FetchError, Host, InstanceMetadata, MetaData, MetadataWeb, Payload, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    keys,
    web::{MetadataService, current_time},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::json;

// The addresses go before the name: they need no name server. The IPv6 one serves instances that have no
// IPv4.
const BASES: [&str; 3] =
    ["http://169.254.169.254", "http://[fd20:ce::254]", "http://metadata.google.internal"];
const ROOT: &str = "/computeMetadata/v1";

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(
        host,
        &[("product_name", "Google Compute Engine"), ("product_serial", "GoogleCloud-*")],
    )
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let platform = Platform::Gce;
    // Google refuses requests without this header, so that nobody can trick a web program into asking.
    let service = web.metadata_service(&BASES).with_header("Metadata-Flavor", "Google");
    let mut provision = InstanceMetadata::new(platform);
    provision.instance_id =
        service.get_text(&format!("{ROOT}/instance/id")).map_err(platform.fetch_failed())?;
    let mut item = |name: &str| {
        let value = service.get_text(&format!("{ROOT}/instance/{name}"));
        provision.value_or_report(name, value)
    };
    let hostname = item("hostname");
    let zone = item("zone").map(last_part);
    let kind = item("machine-type").map(last_part);
    provision.set_hostname(hostname);
    provision.instance_type = kind;
    // The service has no item for the region, but a zone is named after its region: `europe-west1-b`.
    provision.region = zone.as_deref().and_then(|zone| Some(zone.rsplit_once('-')?.0.to_owned()));
    provision.zone = zone;
    for line in key_lines(&mut provision, &service) {
        match key_of(&line, current_time()) {
            Key::Expired => {}
            Key::Unclear => {
                provision.report_once("an ssh key", "a key whose date cannot be read was left out");
            }
            Key::Valid(key) => provision.add_keys(&key),
        }
    }
    // cloud-init's own name for them in `ds.meta_data`; its others are those of every platform.
    provision.meta_data = MetaData::from_value(json!({ "public-keys-data": provision.ssh_keys }));
    let interfaces = service.get_item(&format!("{ROOT}/instance/network-interfaces/?recursive=true"));
    if let Some(document) = provision.value_or_report("network interfaces", interfaces) {
        add_addresses(&mut provision, &document);
    }
    add_user_data(&mut provision, &service);
    provision.set_attribute("GCP_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("GCP_MACHINE_TYPE", provision.instance_type.clone());
    Ok(provision)
}

/// The instance's old-style keys stand alone; its new-style keys stand beside the project's,
/// unless the instance blocks those.
fn key_lines(provision: &mut InstanceMetadata, service: &MetadataService<'_>) -> Vec<String> {
    let mut attribute = |path: &str| {
        let value = service.get_text(&format!("{ROOT}/{path}"));
        provision.value_or_report("ssh keys", value).unwrap_or_default()
    };
    // Google deprecated `sshKeys`. Where an instance still has it, Google's agent ignores the project's keys.
    let old = attribute("instance/attributes/sshKeys");
    let mut text = if old.is_empty() { attribute("instance/attributes/ssh-keys") } else { old.clone() };
    let blocked = attribute("instance/attributes/block-project-ssh-keys").eq_ignore_ascii_case("true");
    if old.is_empty() && !blocked {
        for path in ["project/attributes/ssh-keys", "project/attributes/sshKeys"] {
            text = format!("{text}\n{}", attribute(path));
        }
    }
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// What becomes of a line `user:key`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// Its date has passed.
    Expired,
    /// It says that it expires, and not when.
    Unclear,
    /// To be written so.
    Valid(String),
}

/// Reads a line; a date in its comment becomes an option that sshd obeys at each login.
///
/// What cannot be read is no key: by taking it for one without a date, it would be one for ever.
fn key_of(line: &str, now: Timestamp) -> Key {
    let key = match line.split_once(':') {
        Some((user, key)) if !user.contains(' ') => key.trim(),
        _ => line,
    };
    let Some((_, comment)) = key.split_once(" google-ssh") else { return Key::Valid(key.to_owned()) };
    let Ok(document) = serde_json::from_str::<serde_json::Value>(comment) else { return Key::Unclear };
    let Some(date) = document.get("expireOn") else { return Key::Valid(key.to_owned()) };
    match date.as_str().and_then(parse_date) {
        None => Key::Unclear,
        Some(expiry) if expiry <= now => Key::Expired,
        Some(expiry) => Key::Valid(with_expiry(key, expiry)),
    }
}

/// The line with the option `expiry-time`, see `sshd(8)`; options are parted by commas.
fn with_expiry(key: &str, expiry: Timestamp) -> String {
    let between = if keys::begins_with_type(key) { " " } else { "," };
    format!("expiry-time=\"{}\"{between}{key}", keys::expiry_time(expiry))
}

/// A date such as `2026-08-20T10:11:12+0000`. Google writes UTC; other offsets are honoured, and a date without one
/// means nothing certain. One before 1970 is refused: sshd's option has no words for it.
// By formats: jiff's own reader takes a day without a time, and hours beyond any zone, too. Of a key that has a date
// only a date that is surely understood may let anybody in.
fn parse_date(date: &str) -> Option<Timestamp> {
    let date = date.strip_suffix('Z').map_or_else(|| date.to_owned(), |local| format!("{local}+0000"));
    let formats = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f%:z"];
    let moment = formats.iter().find_map(|format| Timestamp::strptime(format, &date).ok())?;
    (moment >= Timestamp::UNIX_EPOCH).then_some(moment)
}

/// The facts of the description of the network interfaces; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let mut provision = InstanceMetadata::new(Platform::Gce);
    add_addresses(&mut provision, document);
    provision
}

fn add_addresses(provision: &mut InstanceMetadata, document: &[u8]) {
    let parsed = DocumentTree::from_json(document).map(Some);
    let Some(tree) = provision.value_or_report("network interfaces", parsed) else { return };
    for (index, interface) in tree.list_at("").iter().enumerate() {
        provision.set_attribute(&format!("GCP_IP_LOCAL_{index}"), interface.text_at("/ip"));
        provision.set_attribute(
            &format!("GCP_IP_EXTERNAL_{index}"),
            interface.text_at("/accessConfigs/0/externalIp"),
        );
    }
    provision.addresses.private_ipv4 = tree.parse_at("/0/ip");
    provision.addresses.public_ipv4 = tree.parse_at("/0/accessConfigs/0/externalIp");
    provision.addresses.public_ipv6 =
        tree.parse_at("/0/ipv6AccessConfigs/0/externalIpv6").or_else(|| tree.parse_at("/0/ipv6s/0"));
}

fn add_user_data(provision: &mut InstanceMetadata, service: &MetadataService<'_>) {
    let bytes = service.get_data(&format!("{ROOT}/instance/attributes/user-data"));
    let Some(bytes) = provision.value_or_report("user-data", bytes) else { return };
    // Attributes are text. What is gzip can be put there only as base64, and this attribute says so.
    let encoding = service.get_text(&format!("{ROOT}/instance/attributes/user-data-encoding"));
    let bytes = match provision.value_or_report("user-data-encoding", encoding).as_deref() {
        Some("base64") => {
            let text: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let decoded = BASE64_STANDARD.decode(text).map(Some).map_err(|_| "it is not base64, but says so");
            provision.value_or_report("user-data", decoded).unwrap_or_default()
        }
        _ => bytes,
    };
    provision.user_data = Payload::from_bytes(bytes);
}

/// Zones and machine types come as paths.
fn last_part(path: String) -> String {
    path.rsplit('/').next().map(str::to_owned).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(comment: &str) -> String {
        format!("ann:ssh-rsa AAAAB3Nza google-ssh {comment}")
    }

    #[test]
    fn a_key_with_a_date_is_written_with_it_and_left_out_afterwards() {
        let line = line("{\"userName\":\"ann\",\"expireOn\":\"2026-08-20T10:11:12+0000\"}");
        let expiry = parse_date("2026-08-20T10:11:12+0000").unwrap();

        assert_eq!(expiry.as_second(), 1_787_220_672);
        let Key::Valid(written) = key_of(&line, expiry - jiff::SignedDuration::from_secs(1)) else {
            panic!("it is valid for a second")
        };
        assert!(
            written.starts_with("expiry-time=\"20260820101112Z\" ssh-rsa AAAAB3Nza google-ssh {"),
            "{written}"
        );
        assert!(keys::is_public_key(&written));
        assert_eq!(key_of(&line, expiry), Key::Expired);
    }

    #[test]
    fn a_key_that_has_options_gets_one_more() {
        let line =
            "ann:from=\"10.0.0.1\" ssh-rsa AAAAB3Nza google-ssh {\"expireOn\":\"2026-08-20T10:11:12Z\"}";

        let Key::Valid(written) = key_of(line, Timestamp::UNIX_EPOCH) else { panic!("it is valid") };

        assert!(
            written.starts_with("expiry-time=\"20260820101112Z\",from=\"10.0.0.1\" ssh-rsa "),
            "{written}"
        );
    }

    #[test]
    fn a_key_without_user_or_date_is_kept() {
        let kept = |line: &str, key: &str| {
            assert_eq!(key_of(line, Timestamp::UNIX_EPOCH), Key::Valid(key.to_owned()));
        };

        kept("bob:ssh-rsa AAAAB3Nza bob", "ssh-rsa AAAAB3Nza bob");
        kept("ssh-rsa AAAAB3Nza a:b", "ssh-rsa AAAAB3Nza a:b");
        kept(&line("{\"userName\":\"ann\"}"), "ssh-rsa AAAAB3Nza google-ssh {\"userName\":\"ann\"}");
    }

    #[test]
    fn a_date_that_cannot_be_read_is_no_leave_to_stay() {
        for comment in [
            "",
            "{\"expireOn\":",
            "{\"expireOn\":\"soon\"}",
            "{\"expireOn\":\"\"}",
            "{\"expireOn\":1787220672}",
            "{\"expireOn\":null}",
            "{\"expireOn\":\"2026-13-01T00:00:00Z\"}",
            "{\"expireOn\":\"2026-08-20T10:11:12\"}",
            "{\"expireOn\":\"2026-08-20T10:11:12+25\"}",
            "{\"expireOn\":\"2026-08-20 10:11:12+0000\"}",
            "{\"expireOn\":\"+026-08-20T10:11:12Z\"}",
        ] {
            assert_eq!(key_of(line(comment).trim(), Timestamp::UNIX_EPOCH), Key::Unclear, "{comment}");
        }
    }

    #[test]
    fn dates_are_read_with_their_offsets() {
        let seconds = |date: &str| parse_date(date).map(Timestamp::as_second);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00.250Z"), Some(951_825_600));
        assert_eq!(seconds("2000-02-29T12:00:00+0530"), Some(951_825_600 - 19_800));
        assert_eq!(seconds("2000-02-29T12:00:00-08:00"), Some(951_825_600 + 28_800));
        // A leap second, which RFC 3339 allows.
        assert_eq!(seconds("2016-12-31T23:59:60Z"), Some(1_483_228_799));
        for no_date in ["1970-01-01T00:00:00+0100", "2000-02-30T12:00:00Z", "2000-02-29T12:00:00", "soon"] {
            assert_eq!(seconds(no_date), None, "{no_date}");
        }
    }
}
