//! The shapes that travel over the HTTP API, v1.
//!
//! Every field is left out when it is empty, field names come in alphabetical order, and the text is
//! escaped as Go's `encoding/json` does it, so that a client which compares bytes finds what it always
//! found. Knows nothing of how units are stored or placed; strings that a peer sent stay untrusted.

use crate::model::unit_file;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};
use std::collections::BTreeMap;
use std::io;

/// One line of a unit file: `name=value` in `[section]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitOption {
    /// The key.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The section that holds the key.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub section: String,
    /// The value, as it stands in the file.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub value: String,
}

impl From<&UnitOption> for unit_file::UnitOption {
    fn from(option: &UnitOption) -> Self {
        Self { section: option.section.clone(), name: option.name.clone(), value: option.value.clone() }
    }
}

impl From<&unit_file::UnitOption> for UnitOption {
    fn from(option: &unit_file::UnitOption) -> Self {
        Self { section: option.section.clone(), name: option.name.clone(), value: option.value.clone() }
    }
}

/// A submitted unit: what it says, what is wanted of it, where it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiUnit {
    /// Whether its text was changed and has not proved well yet; not in the original.
    #[serde(skip_serializing_if = "is_false")]
    pub changing: bool,
    /// `inactive`, `loaded` or `launched`; empty for global units.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub current_state: String,
    /// `inactive`, `loaded` or `launched`; empty in a request that leaves it alone.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub desired_state: String,
    /// The machine the unit is assigned to.
    #[serde(
        rename = "machineID",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub machine_id: String,
    /// The unit's name with its suffix.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the engine wants a person to know; not in the original.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The unit file, option by option.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<UnitOption>,
}

/// What systemd says of one unit on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnitState {
    /// SHA-1 of the canonical unit text, in hexadecimal.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The machine that reports.
    #[serde(
        rename = "machineID",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub machine_id: String,
    /// The unit's name.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// systemd's `ActiveState`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub systemd_active_state: String,
    /// systemd's `LoadState`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub systemd_load_state: String,
    /// systemd's `SubState`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub systemd_sub_state: String,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiMachine {
    /// Whether its units are being moved away; not in the original.
    #[serde(skip_serializing_if = "is_false")]
    pub draining: bool,
    /// The machine id.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The machine's labels.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The address at which the machine is reached.
    #[serde(
        rename = "primaryIP",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub primary_ip: String,
}

/// A page of `/units`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnitPage {
    /// Where the next page starts; empty on the last.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The units, sorted by name.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<ApiUnit>,
}

/// A page of `/state`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnitStatePage {
    /// Where the next page starts; empty on the last.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The states, sorted by unit, then by machine.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
}

/// A page of `/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MachinePage {
    /// The machines, sorted by id.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<ApiMachine>,
    /// Where the next page starts; empty on the last.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorEntity,
}

/// What went wrong, for a machine and for a person.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorEntity {
    /// The HTTP status once more.
    pub code: u16,
    /// One sentence; may be empty.
    #[serde(default)]
    pub message: String,
}

/// One step of `PATCH /machines`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct MetadataOperation {
    /// `add`, `remove` or `replace`.
    #[serde(deserialize_with = "null_is_empty")]
    pub op: String,
    /// `/MACHINE/metadata/KEY`.
    #[serde(deserialize_with = "null_is_empty")]
    pub path: String,
    /// The new value, nested or bare.
    #[serde(alias = "Value", deserialize_with = "null_is_empty")]
    pub value: MetadataValue,
}

/// A label's new value: the server always read an object, its manual always showed a string.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MetadataValue {
    /// `"x"`
    Bare(String),
    /// `{"value":"x"}`
    Nested {
        /// The value itself.
        #[serde(default)]
        value: String,
    },
}

impl Default for MetadataValue {
    fn default() -> Self {
        Self::Bare(String::new())
    }
}

impl MetadataValue {
    /// The value, whichever way it came.
    #[must_use]
    pub fn value_text(&self) -> &str {
        match self {
            Self::Bare(value) | Self::Nested { value } => value,
        }
    }
}

/// Why a unit is where it is, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnitExplanation {
    /// How far the unit got, as in [`ApiUnit`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_state: String,
    /// What is wanted of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub desired_state: String,
    /// Whether every able machine runs it.
    #[serde(skip_serializing_if = "is_false")]
    pub global: bool,
    /// The machine the unit is assigned to.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// What each machine says to it, sorted by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineVerdict>,
    /// The unit's name.
    pub name: String,
    /// One sentence that sums it up.
    pub summary: String,
}

/// What one machine says to one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MachineVerdict {
    /// Whether it could run the unit.
    pub able: bool,
    /// The machine's id.
    pub id: String,
    /// How many units it has.
    pub load: u64,
    /// Why it cannot; empty if it can.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Asks that units be spread again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RebalanceRequest {
    /// Only tell the moves.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// The most units that may move.
    pub max_moves: u32,
}

/// How units were spread.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RebalanceResult {
    /// The moves, in the order they are made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<UnitMove>,
}

/// A unit that goes from one machine to another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitMove {
    /// The machine it leaves.
    pub from: String,
    /// The machine it goes to.
    pub to: String,
    /// The unit.
    pub unit: String,
}

/// The groups of reboot slots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockGroups {
    /// The groups, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<LockGroup>,
}

/// The reboot slots of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockGroup {
    /// How many slots are free.
    pub available: u32,
    /// The group's name.
    pub group: String,
    /// Who holds a slot, sorted by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<LockHolder>,
    /// How many slots there are.
    pub max: u32,
}

/// Who holds a reboot slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockHolder {
    /// The holder, mostly a machine id.
    pub id: String,
    /// What for; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when, in seconds since the epoch.
    pub since: u64,
}

/// Writes `value` as the original server wrote it.
///
/// # Panics
/// Never: the shapes above have only string keys and no fallible serializer.
pub fn to_json<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, GoFormatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Escapes what Go escapes beyond the JSON standard, so that JSON can stand inside HTML.
#[derive(Debug)]
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, character) in fragment.char_indices() {
            let escape = match character {
                '&' => "\\u0026",
                '<' => "\\u003c",
                '>' => "\\u003e",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            writer.write_all(escape.as_bytes())?;
            plain = at + character.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        CompactFormatter.write_char_escape(writer, escape)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Reads `null` as nothing, as Go's decoder does.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_page_is_an_empty_object() {
        assert_eq!(to_json(&UnitPage::default()), "{}");
        assert_eq!(to_json(&UnitStatePage::default()), "{}");
        assert_eq!(to_json(&MachinePage::default()), "{}");
    }

    #[test]
    fn fields_come_in_alphabetical_order_and_empty_ones_not_at_all() {
        let unit = ApiUnit {
            name: "hello.service".into(),
            options: vec![UnitOption {
                name: "ExecStart".into(),
                section: "Service".into(),
                value: "/bin/sh -c \"a && b > c\"".into(),
            }],
            desired_state: "launched".into(),
            ..ApiUnit::default()
        };

        assert_eq!(
            to_json(&unit),
            "{\"desiredState\":\"launched\",\"name\":\"hello.service\",\"options\":[{\"name\":\"ExecStart\",\
             \"section\":\"Service\",\"value\":\"/bin/sh -c \\\"a \\u0026\\u0026 b \\u003e c\\\"\"}]}"
        );
    }

    #[test]
    fn nulls_and_unknown_fields_are_read_as_nothing() {
        let unit: ApiUnit =
            serde_json::from_str(r#"{"name":"a.service","options":null,"later":[1]}"#).unwrap();

        assert_eq!(unit, ApiUnit { name: "a.service".into(), ..ApiUnit::default() });
    }

    #[test]
    fn a_metadata_value_is_read_in_both_forms() {
        let body = r#"[{"op":"add","path":"/m/metadata/k","value":{"value":"x"}},
                       {"op":"add","path":"/m/metadata/k","value":"x"},{"op":"remove","path":"/m/metadata/k"}]"#;
        let operations: Vec<MetadataOperation> = serde_json::from_str(body).unwrap();

        assert_eq!(operations.iter().map(|each| each.value.value_text()).collect::<Vec<_>>(), ["x", "x", ""]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in any::<String>(), value in any::<String>()) {
            let option = UnitOption { name, section: "S".into(), value };

            prop_assert_eq!(serde_json::from_str::<UnitOption>(&to_json(&option)).unwrap(), option);
        }
    }
}
