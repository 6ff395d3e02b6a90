//! The values in etcd, as JSON.
//!
//! Knows how to write each record so that an older reader understands it, and how to read what a newer
//! writer left: unknown fields are ignored, and a record whose `v` is higher than [`FORMAT`] is left
//! alone. Refuses to know where a record lies. Invariant: what is read was smaller than
//! [`MAX_RECORD`] before it was looked at.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    model::{
        machine::{Machine, MachineId},
        state::JobState,
        unit_file::{MAX_SIZE, UnitHash},
    },
    store::cluster::ChangeDirection,
};

/// The newest format this program reads, and the one it writes. Raised only when an older reader would
/// misunderstand, not when a field is added.
// A daemon is upgraded machine by machine, so two versions share a store for a while. A field that an older
// reader ignores costs nothing; a raised format shuts the older one out.
pub const FORMAT: u32 = 1;

/// The largest record, in bytes.
// The largest unit file, and room for the fields around it. etcd itself takes 1.5 MiB.
pub const MAX_RECORD: usize = MAX_SIZE + 64 * 1024;

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RecordError {
    #[error("record of {0} bytes is larger than any record may be")]
    TooLarge(usize),
    #[error("record has format {0}, this fleetd reads up to {FORMAT}: a newer fleetd wrote it")]
    Newer(u32),
    #[error("record is not what it should be")]
    Malformed(#[from] serde_json::Error),
    #[error("unit file in the store cannot be parsed")]
    UnitFile(#[from] crate::model::unit_file::ParseUnitError),
    #[error("unit file in the store is not text")]
    NotText(#[from] std::str::Utf8Error),
}

/// A unit as submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Its content.
    pub hash: UnitHash,
    /// What is wanted of it.
    pub desired: JobState,
    /// How often a restart was ordered.
    #[serde(default)]
    pub restarts: u64,
    /// Its content before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<UnitHash>,
    /// How a change is under way; nothing when it proved well everywhere, or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<ChangeDirection>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A machine holds a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentRecord {
    /// In this content.
    pub hash: UnitHash,
}

/// A machine is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// What it says of itself.
    #[serde(flatten)]
    pub machine: Machine,
    /// Its boot, to tell a restarted machine from two machines with one ID.
    #[serde(default)]
    pub boot: String,
}

/// What a machine says of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// The content it has.
    pub hash: UnitHash,
    /// How far its agent took it.
    #[serde(default)]
    pub job: JobState,
    /// systemd's `LoadState`.
    pub load: String,
    /// systemd's `ActiveState`.
    pub active: String,
    /// systemd's `SubState`.
    pub sub: String,
    /// Which restart order was the last one obeyed.
    #[serde(default)]
    pub restarts: u64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Whose engine decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The machine.
    pub machine: MachineId,
}

/// Metadata set through the API; nothing hides a machine's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRecord {
    /// The value.
    #[serde(default)]
    pub value: Option<String>,
}

/// A sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRecord {
    /// The sentence.
    pub note: String,
}

/// An order to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OrderRecord {
    /// The most moves, where that means something.
    #[serde(default)]
    pub budget: u32,
}

/// Who may read the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRecord {
    /// The lowest [`FORMAT`] a program must know to work here.
    pub oldest_reader: u32,
}

#[derive(Serialize, Deserialize)]
struct VersionedRecord<T> {
    // A record that somebody wrote by hand may lack its version. It is read as the first one.
    #[serde(default = "first_version")]
    v: u32,
    #[serde(flatten)]
    record: T,
}

#[derive(Deserialize)]
struct OnlyVersion {
    #[serde(default = "first_version")]
    v: u32,
}

const fn first_version() -> u32 {
    1
}

/// Writes a record.
#[must_use]
pub fn encode_record<T: Serialize>(record: &T) -> Vec<u8> {
    // Records are plain data with text keys: there is nothing in them that JSON cannot hold.
    serde_json::to_vec(&VersionedRecord { v: FORMAT, record }).unwrap_or_default()
}

/// Reads a record.
pub fn decode_record<T: DeserializeOwned>(value: &[u8]) -> Result<T, RecordError> {
    if value.len() > MAX_RECORD {
        return Err(RecordError::TooLarge(value.len()));
    }
    // The version is read by itself first: of a newer format the rest may not even have the shape that we
    // know.
    let OnlyVersion { v } = serde_json::from_slice(value)?;
    if v > FORMAT {
        return Err(RecordError::Newer(v));
    }
    Ok(serde_json::from_slice::<VersionedRecord<T>>(value)?.record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_record_with_more_fields_is_read_and_one_of_a_newer_format_is_not() {
        let hash = UnitHash::of_text("x");
        let more = format!(r#"{{"v":1,"hash":"{hash}","desired":"launched","colour":"blue"}}"#);
        let newer = format!(r#"{{"v":2,"hash":"{hash}","desired":{{"state":"launched"}}}}"#);

        assert_eq!(decode_record::<UnitRecord>(more.as_bytes()).unwrap().desired, JobState::Launched);
        assert!(matches!(decode_record::<UnitRecord>(newer.as_bytes()), Err(RecordError::Newer(2))));
    }

    #[test]
    fn records_are_read_back() {
        let record =
            PresenceRecord { machine: Machine::new(MachineId::parse("m1").unwrap()), boot: "b".to_owned() };

        assert_eq!(decode_record::<PresenceRecord>(&encode_record(&record)).unwrap(), record);
        assert_eq!(
            String::from_utf8(encode_record(&AssignmentRecord { hash: UnitHash::of_text("") })).unwrap(),
            r#"{"v":1,"hash":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#
        );
    }

    #[test]
    fn what_is_too_large_is_not_looked_at() {
        assert!(matches!(
            decode_record::<NoteRecord>(&vec![b' '; MAX_RECORD + 1]),
            Err(RecordError::TooLarge(_))
        ));
    }
}
