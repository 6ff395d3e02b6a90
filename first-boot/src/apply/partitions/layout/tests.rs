use super::*;

/// A disk of 64 MiB with 512-byte sectors.
fn empty() -> Table {
    Table::new(64 * 2048, 512)
}

fn entry(number: u32, start_mib: u64, mib: u64, name: &str) -> Entry {
    Entry {
        number,
        start: start_mib * 2048,
        size: mib * 2048,
        kind: LINUX.to_owned(),
        guid: Some(format!("00000000-0000-0000-0000-00000000000{number}")),
        name: name.to_owned(),
        attributes: Some("GUID:63".to_owned()),
    }
}

fn wanted(number: u32, label: &str) -> WantedPartition {
    WantedPartition {
        number,
        label: Some(label.to_owned()).filter(|label| !label.is_empty()),
        start_mib: None,
        size_mib: None,
        type_guid: None,
        guid: None,
        rule: PartitionRule::Kept,
    }
}

fn sized(number: u32, label: &str, mib: u64) -> WantedPartition {
    WantedPartition { size_mib: Some(mib), ..wanted(number, label) }
}

fn edit(entries: Vec<Entry>, wanted: Vec<WantedPartition>) -> Result<Vec<(u32, u64, u64, String)>, String> {
    let before = Table { entries, ..empty() };
    let request = Partitions { device: "/dev/vdb".to_owned(), wipe_table: false, wanted };
    let after = edit_table(&before, &request).map_err(|flaw| flaw.to_string())?;
    let shown = |entry: &Entry| (entry.number, entry.start / 2048, entry.size / 2048, entry.name.clone());
    Ok(after.entries.iter().map(shown).collect())
}

fn shown(number: u32, start: u64, size: u64, name: &str) -> (u32, u64, u64, String) {
    (number, start, size, name.to_owned())
}

#[test]
fn a_partition_more_leaves_the_others_as_they_are() {
    let known = entry(1, 1, 8, "there");

    let after = edit(vec![known.clone()], vec![sized(1, "there", 8), sized(2, "new", 8)]);

    assert_eq!(after, Ok(vec![shown(1, 1, 8, "there"), shown(2, 9, 8, "new")]));
    let again = edit(vec![known, entry(2, 9, 8, "new")], vec![sized(1, "there", 8), sized(0, "new", 8)]);
    assert_eq!(again, Ok(vec![shown(1, 1, 8, "there"), shown(2, 9, 8, "new")]), "a second run adds nothing");
}

#[test]
fn the_rest_goes_to_the_largest_gap_and_after_those_with_a_size() {
    let request = vec![wanted(2, "rest"), sized(0, "a", 8), sized(0, "b", 4)];

    let after = edit(vec![entry(7, 30, 10, "middle")], request);

    // Free are 1 to 29 and 40 to 63 MiB, less the backup table in the last one.
    assert_eq!(
        after,
        Ok(vec![
            shown(1, 1, 8, "a"),
            shown(2, 9, 21, "rest"),
            shown(3, 40, 4, "b"),
            shown(7, 30, 10, "middle")
        ])
    );
}

#[test]
fn what_differs_is_named_and_nothing_is_done() {
    for (wish, what) in [
        (sized(1, "other", 8), "another label"),
        (sized(1, "there", 9), "another size"),
        (sized(1, "there", 0), "another size"),
        (WantedPartition { start_mib: Some(2), ..wanted(1, "there") }, "another start"),
        (WantedPartition { type_guid: Some("C".to_owned()), ..wanted(1, "there") }, "another type"),
        (WantedPartition { guid: Some("C".to_owned()), ..wanted(1, "there") }, "another GUID"),
        (WantedPartition { rule: PartitionRule::Forbidden, ..wanted(1, "") }, "must not exist"),
        (
            WantedPartition { rule: PartitionRule::Resized { replace: false }, ..sized(1, "other", 9) },
            "another label",
        ),
        (sized(2, "x", 60), "no 60 MiB left for partition x"),
        (WantedPartition { start_mib: Some(4), ..sized(2, "x", 1) }, "no 1 MiB left"),
    ] {
        let flaw = edit(vec![entry(1, 1, 8, "there")], vec![wish.clone()]).unwrap_err();

        assert!(flaw.contains(what), "{wish:?}: {flaw}");
    }
}

#[test]
fn what_may_be_replaced_resized_or_removed_is() {
    let there = || vec![entry(1, 1, 8, "there"), entry(2, 9, 8, "second")];
    let with = |rule, wish: WantedPartition| edit(there(), vec![WantedPartition { rule, ..wish }]);

    assert_eq!(
        with(PartitionRule::Replaced, sized(1, "new", 4)),
        Ok(vec![shown(1, 17, 4, "new"), shown(2, 9, 8, "second")])
    );
    assert_eq!(
        with(PartitionRule::Resized { replace: false }, sized(2, "second", 0)),
        Ok(vec![shown(1, 1, 8, "there"), shown(2, 9, 54, "second")])
    );
    assert!(
        with(PartitionRule::Resized { replace: false }, sized(1, "there", 9)).is_err(),
        "the next is in the way"
    );
    assert_eq!(with(PartitionRule::Absent, wanted(1, "")), Ok(vec![shown(2, 9, 8, "second")]));
    assert_eq!(with(PartitionRule::Absent, wanted(5, "")).map(|entries| entries.len()), Ok(2));
}

#[test]
fn what_is_kept_keeps_its_guid_and_attributes() {
    let before = Table { entries: vec![entry(1, 1, 8, "there")], ..empty() };
    let request = Partitions {
        device: String::new(),
        wipe_table: false,
        wanted: vec![sized(1, "there", 8), sized(2, "n", 1)],
    };

    let after = edit_table(&before, &request).unwrap();

    assert_eq!(after.entries[0], before.entries[0]);
    assert!(
        after
            .sfdisk_script()
            .contains("uuid=00000000-0000-0000-0000-000000000001, name=\"there\", attrs=\"GUID:63\"")
    );
}

#[test]
fn disks_with_large_sectors_count_in_them() {
    let table = Table::new(64 * 2048, 4096);

    assert_eq!((table.first, table.last, table.grain), (256, 64 * 256 - 6, 256));
}
