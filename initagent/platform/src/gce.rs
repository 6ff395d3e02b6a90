//! Google Compute Engine: a tree of small texts, and keys with users and expiry dates.
//!
//! Knows the precedence of instance and project keys. Refuses to make the users that keys are
//! written for: on this image every key is the image's own user's.
//! Invariant: a key whose date has passed is left out.

use crate::{
    FetchError, Host, Payload, Platform, Provision, Web,
    json::Tree,
    registry::Evidence,
    web::{Service, unix_time},
};
use base64::{Engine, prelude::BASE64_STANDARD};

const BASES: [&str; 3] =
    ["http://169.254.169.254", "http://[fd20:ce::254]", "http://metadata.google.internal"];
const ROOT: &str = "/computeMetadata/v1";

pub(crate) fn detect(host: &Host) -> Option<Evidence> {
    Evidence::firmware(
        host,
        &[("product_name", "Google Compute Engine"), ("product_serial", "GoogleCloud-*")],
    )
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let platform = Platform::Gce;
    let service = web.service(&BASES).with_header("Metadata-Flavor", "Google");
    let mut provision = Provision::new(platform);
    provision.instance_id = service.text(&format!("{ROOT}/instance/id")).map_err(platform.silent())?;
    let mut item = |name: &str| {
        let value = service.text(&format!("{ROOT}/instance/{name}"));
        provision.take(name, value)
    };
    let hostname = item("hostname");
    let zone = item("zone").map(last_part);
    let kind = item("machine-type").map(last_part);
    provision.set_hostname(hostname);
    provision.instance_type = kind;
    provision.region = zone.as_deref().and_then(|zone| Some(zone.rsplit_once('-')?.0.to_owned()));
    provision.zone = zone;
    for line in key_lines(&mut provision, &service) {
        if let Some(key) = live_key(&line, unix_time()) {
            provision.add_keys(key);
        }
    }
    let interfaces = service.get(&format!("{ROOT}/instance/network-interfaces/?recursive=true"));
    if let Some(document) = provision.take("network interfaces", interfaces) {
        add_addresses(&mut provision, &document);
    }
    add_user_data(&mut provision, &service);
    provision.attribute("GCP_HOSTNAME", provision.hostname.clone());
    provision.attribute("GCP_MACHINE_TYPE", provision.instance_type.clone());
    Ok(provision)
}

/// The instance's old-style keys stand alone; its new-style keys stand beside the project's,
/// unless the instance blocks those.
fn key_lines(provision: &mut Provision, service: &Service<'_>) -> Vec<String> {
    let mut attribute = |path: &str| {
        let value = service.text(&format!("{ROOT}/{path}"));
        provision.take("ssh keys", value).unwrap_or_default()
    };
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

/// The key of a line `user:key`, unless the date in its comment has passed.
fn live_key(line: &str, now: u64) -> Option<&str> {
    let key = match line.split_once(':') {
        Some((user, key)) if !user.contains(' ') => key.trim(),
        _ => line,
    };
    let Some((_, comment)) = key.split_once("google-ssh ") else { return Some(key) };
    let expiry = Tree::from_json(comment.as_bytes()).ok().and_then(|tree| seconds(&tree.text("/expireOn")?));
    match expiry {
        Some(expiry) => (now < expiry).then_some(key),
        None => Some(key),
    }
}

/// Seconds since 1970 of a date such as `2026-08-20T10:11:12+0000`, which Google gives in UTC.
fn seconds(date: &str) -> Option<u64> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March put the leap day last, so that every month has a fixed offset.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The facts of the description of the network interfaces; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let mut provision = Provision::new(Platform::Gce);
    add_addresses(&mut provision, document);
    provision
}

fn add_addresses(provision: &mut Provision, document: &[u8]) {
    let parsed = Tree::from_json(document).map(Some);
    let Some(tree) = provision.take("network interfaces", parsed) else { return };
    for (index, interface) in tree.list("").iter().enumerate() {
        provision.attribute(&format!("GCP_IP_LOCAL_{index}"), interface.text("/ip"));
        provision
            .attribute(&format!("GCP_IP_EXTERNAL_{index}"), interface.text("/accessConfigs/0/externalIp"));
    }
    provision.addresses.private_ipv4 = tree.parsed("/0/ip");
    provision.addresses.public_ipv4 = tree.parsed("/0/accessConfigs/0/externalIp");
    provision.addresses.public_ipv6 =
        tree.parsed("/0/ipv6AccessConfigs/0/externalIpv6").or_else(|| tree.parsed("/0/ipv6s/0"));
}

fn add_user_data(provision: &mut Provision, service: &Service<'_>) {
    let bytes = service.get_data(&format!("{ROOT}/instance/attributes/user-data"));
    let Some(bytes) = provision.take("user-data", bytes) else { return };
    let encoding = service.text(&format!("{ROOT}/instance/attributes/user-data-encoding"));
    let bytes = match provision.take("user-data-encoding", encoding).as_deref() {
        Some("base64") => {
            let text: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let decoded = BASE64_STANDARD.decode(text).map(Some).map_err(|_| "it is not base64, but says so");
            provision.take("user-data", decoded).unwrap_or_default()
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

    #[test]
    fn a_key_is_left_out_once_its_date_has_passed() {
        let line = "ann:ssh-rsa AAAAB3Nza google-ssh {\"userName\":\"ann\",\"expireOn\":\"2026-08-20T10:11:12+0000\"}";
        let expiry = seconds("2026-08-20T10:11:12+0000").unwrap();

        assert_eq!(expiry, 1_787_220_672);
        assert!(live_key(line, expiry - 1).unwrap().starts_with("ssh-rsa AAAAB3Nza"));
        assert_eq!(live_key(line, expiry), None);
    }

    #[test]
    fn a_key_without_user_or_date_is_kept() {
        assert_eq!(live_key("bob:ssh-rsa AAAAB3Nza bob", 0), Some("ssh-rsa AAAAB3Nza bob"));
        assert_eq!(live_key("ssh-rsa AAAAB3Nza a:b", 0), Some("ssh-rsa AAAAB3Nza a:b"));
    }

    #[test]
    fn dates_that_are_none_are_no_expiry() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00Z"), Some(951_825_600));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("2026-13-01T00:00:00Z"), None);
    }
}
