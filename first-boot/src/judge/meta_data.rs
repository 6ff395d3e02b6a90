//! What is wrong with a file of facts about an instance.
//!
//! Knows the names that this system reads of `NoCloud`'s and `OpenStack`'s. Refuses to call another name
//! wrong: platforms put there what they like. Invariant: a name that is nearly one of ours is told.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html> and
//! <https://docs.openstack.org/nova/latest/user/metadata.html>.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::spelling;
use document::yaml::{self, Node, Value};
use user_data::cloudconfig::identity;
use user_data::ssh_key;

/// What is read; hyphens equal underscores.
const KEYS: [&str; 22] = [
    "admin_pass",
    "availability_zone",
    "cloud_name",
    "devices",
    "dsmode",
    "files",
    "hostname",
    "instance_id",
    "instance_type",
    "keys",
    "launch_index",
    "local_hostname",
    "meta",
    "name",
    "network_config",
    "network_interfaces",
    "project_id",
    "public_keys",
    "random_seed",
    "region",
    "seedfrom",
    "uuid",
];
/// Names by which an instance is known from another.
const IDENTITIES: [&str; 2] = ["instance_id", "uuid"];

/// Judges the text of one such file.
pub(super) fn judge_text(text: &str, part: u16, found: &mut Diagnostics) {
    let start = SourceMark::start_of(part);
    let Some(document) = yaml::parse_yaml(text, part, found) else { return };
    let Value::Mapping(entries) = &document.value else {
        if !document.is_null() {
            let message = format!("meta-data must be a mapping, but it is {}", document.shape_name());
            found.push(
                Diagnostic::error(DiagnosticCode::WrongType, document.at, message)
                    .with_help("write `instance-id: NAME`"),
            );
        }
        return;
    };
    let names: Vec<String> = entries.iter().map(|entry| entry.key.replace('-', "_")).collect();
    if !names.iter().any(|name| IDENTITIES.contains(&name.as_str())) {
        let message = "no `instance-id` is given; the instance is another one whenever its user-data changes";
        found.push(
            Diagnostic::warning(DiagnosticCode::MissingKey, start, message)
                .with_help("write `instance-id: NAME`"),
        );
    }
    for (entry, name) in entries.iter().zip(&names) {
        match name.as_str() {
            "hostname" | "local_hostname" => judge_name(&entry.key, &entry.value, found),
            "public_keys" => judge_keys(&entry.key, &entry.value, found),
            name if KEYS.contains(&name) => {}
            name => {
                if let Some(near) = spelling::nearest_name(name, KEYS) {
                    let message = format!("`{}` is not read", entry.key);
                    let diagnostic = Diagnostic::warning(DiagnosticCode::UnknownKey, entry.key_at, message);
                    let near = near.replace('_', "-");
                    found.push(
                        diagnostic.with_help(format!("did you mean `{near}`?")).with_key(entry.key.clone()),
                    );
                }
            }
        }
    }
}

fn judge_name(key: &str, value: &Node, found: &mut Diagnostics) {
    let Value::Scalar(scalar) = &value.value else {
        let message = format!("`{key}` must be text, but it is {}", value.shape_name());
        return found.push(Diagnostic::error(DiagnosticCode::WrongType, value.at, message).with_key(key));
    };
    if let (false, Err(flaw)) = (value.is_null(), identity::check_host_name(&scalar.text)) {
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, value.at, format!("`{key}` {flaw}")).with_key(key),
        );
    }
}

/// A text, a list of texts, or what names lead to, as EC2 and OpenStack have it.
fn judge_keys(key: &str, value: &Node, found: &mut Diagnostics) {
    match &value.value {
        Value::Mapping(entries) => entries.iter().for_each(|entry| judge_keys(key, &entry.value, found)),
        Value::Sequence(items) => items.iter().for_each(|item| judge_keys(key, item, found)),
        Value::Scalar(scalar) if !value.is_null() => {
            for flaw in ssh_key::key_lines(&scalar.text).filter_map(|line| ssh_key::check_key(line).err()) {
                let message = format!("this key {}; it is left out", flaw.flaw_words());
                found.push(Diagnostic::error(DiagnosticCode::BadValue, value.at, message).with_key(key));
            }
        }
        Value::Scalar(_) | Value::Unreadable => {}
    }
}
