//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use image_format::bytes::Bytes;
use image_format::command_line::{CommandLine, GivenLine};
use image_format::manifest::Manifest;
use image_format::modules::ModuleIndex;
use image_format::signed::{PublicKey, Signed, SignedPayload};
use image_format::slot::{SlotTable, boot_decision};
use image_format::{gpt, trailer};

/// A slot table must read as what it writes, and the selector must agree.
pub(crate) fn slot_table(bytes: &[u8]) {
    if let Ok(table) = SlotTable::from_block(bytes) {
        assert_eq!(SlotTable::from_block(&table.to_block()), Ok(table));
        assert_eq!(boot_decision(bytes, &[]).attempts, boot_decision(&[], bytes).attempts);
    }
    let _ = boot_decision(bytes, bytes);
}

/// Envelopes, trailers, manifests and keys, none of which may panic or differ when written again.
pub(crate) fn envelope(bytes: &[u8]) {
    if let Ok(signed) = Signed::<Manifest>::from_envelope(bytes) {
        assert_eq!(Signed::from_envelope(&signed.to_envelope()), Ok(signed));
    }
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        let again = manifest.to_bytes().map(|bytes| Manifest::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(same)) if same == manifest));
    }
    if let Ok(key) = String::from_utf8_lossy(bytes).parse::<PublicKey>() {
        assert_eq!(key.to_text().parse(), Ok(key));
    }
    let _ = trailer::decode_trailer(bytes);
}

/// A command line of any bytes: if it can be signed, a kernel that was given it passes, and no kernel that was
/// given one more word.
pub(crate) fn command_line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = CommandLine::default().check(&GivenLine::parse(&text), "/k");
    if let Ok(line) = text.parse::<CommandLine>() {
        assert_eq!(line.to_string().parse(), Ok(line.clone()));
        let given = format!("BOOT_IMAGE=(hd0)/k {line} catamaran.slot=a");
        assert_eq!(line.check(&GivenLine::parse(&given), "/k"), Ok(()));
        let more = format!("BOOT_IMAGE=(hd0)/k {line} init=/x catamaran.slot=a");
        assert!(line.check(&GivenLine::parse(&more), "/k").is_err());
    }
}

/// A partition table of any bytes: read, planned for growth, and if whole, written as it was read.
pub(crate) fn partition_table(bytes: &[u8]) {
    let (primary, rest) = bytes.split_at(bytes.len().min(gpt::COPY_BYTES));
    let mut backup = rest.to_vec();
    backup.resize(gpt::COPY_BYTES, 0);
    let disk = Bytes::from_mib(64);
    let _ = gpt::plan_growth(disk, primary, &backup, "STATE", [7; 16]);
    if let Ok(found) = gpt::read_primary(primary, disk)
        && let Ok(copies) = gpt::encode_table(&found.table, disk)
    {
        let again = gpt::read_primary(&copies.primary, disk);
        assert!(matches!(again, Ok(again) if again.table == found.table));
    }
}

/// A module index, and the walks over it.
pub(crate) fn modules(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(index) = ModuleIndex::parse(text) {
        let names: Vec<&str> = index.depends.keys().map(String::as_str).collect();
        assert_eq!(index.load_order(names.iter().copied()).len(), names.len());
        assert_eq!(ModuleIndex::parse(&index.to_string()), Ok(index.clone()));
        let _ = index.drivers_of(text).count();
    }
}
