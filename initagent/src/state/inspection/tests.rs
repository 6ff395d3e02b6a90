use super::*;

const EXT4: PartitionContent = PartitionContent::Ext4 { has_errors: false };

fn facts(condition: StateCondition) -> StateFacts {
    StateFacts {
        record: StateRecord { device: "/dev/vda6".into(), condition, reason: None },
        content: Ok(EXT4),
        is_read_only: false,
        kernel_errors: 0,
        free: Some((100, 100)),
        deep: None,
        is_reset_ordered: false,
    }
}

fn volatile(reason: &str) -> StateFacts {
    let mut facts = facts(StateCondition::Volatile);
    facts.record.reason = Some(reason.to_owned());
    StateFacts { free: None, ..facts }
}

#[test]
fn a_whole_state_is_healthy_and_says_no_more() {
    let said = facts(StateCondition::Healthy).judge();

    assert!(said.is_well());
    assert_eq!(said.to_text(), "state: healthy (/dev/vda6)\n");
}

#[test]
fn a_state_without_a_file_system_says_how_to_keep_and_how_to_remake_it() {
    let said =
        StateFacts { content: Ok(PartitionContent::Empty), ..volatile("/dev/vda6 holds no file system") };
    let said = said.judge();

    assert!(said.damaged && !said.is_well());
    assert_eq!(
        said.to_text(),
        "state: NOT IN USE (/dev/vda6)
  not in use since this boot: /dev/vda6 holds no file system
  /dev/vda6 holds no file system: its beginning is zeros
  -> to keep what is there: copy it (dd), run 'e2fsck /dev/vda6', then restart
  -> to begin with an empty STATE: 'initagent state reset', then restart
"
    );
}

#[test]
fn a_state_that_was_mended_or_made_since_waits_for_a_restart() {
    let said = StateFacts { deep: Some(DeepVerdict::Clean), ..volatile("bad magic") }.judge();

    assert!(!said.damaged, "there is nothing to mend");
    assert!(!said.is_well(), "but it is not in use");
    assert_eq!(said.next, ["restart the machine: it uses this STATE again"]);
}

#[test]
fn each_fault_is_damage_and_comes_with_advice() {
    let whole = || facts(StateCondition::Healthy);
    for (fault, words) in [
        (StateFacts { is_read_only: true, ..whole() }, "read-only"),
        (StateFacts { kernel_errors: 3, ..whole() }, "met 3 errors"),
        (StateFacts { free: Some((0, 9)), ..whole() }, "no block is free"),
        (StateFacts { free: Some((9, 0)), ..whole() }, "no further file"),
        (StateFacts { content: Err("Input/output error".into()), ..whole() }, "cannot read /dev/vda6: Input"),
        (StateFacts { content: Err("Input/output error".into()), ..volatile("EIO") }, "Input/output error"),
        (StateFacts { deep: Some(DeepVerdict::Damaged("bad".into())), ..volatile("x") }, "finds faults: bad"),
        (StateFacts { content: Ok(PartitionContent::Foreign("swap space")), ..volatile("x") }, "swap space"),
    ] {
        let said = fault.judge();

        assert!(said.damaged && !said.next.is_empty(), "{words}: {said:?}");
        assert!(said.to_text().contains(words), "{words}: {}", said.to_text());
    }
}

#[test]
fn a_repair_and_an_ordered_end_are_said_but_are_no_damage() {
    let mut repaired = facts(StateCondition::Repaired);
    repaired.record.reason = Some("e2fsck mended /dev/vda6".into());
    let ordered = StateFacts { is_reset_ordered: true, ..facts(StateCondition::Healthy) };

    for (facts, words) in [(repaired, "at this boot, e2fsck mended"), (ordered, "everything on it is lost")] {
        let said = facts.judge();
        assert!(said.is_well() && said.to_text().contains(words), "{words}: {said:?}");
    }
}

#[test]
fn a_mount_is_read_only_by_itself_or_by_its_file_system() {
    let line = |mount: &str, file_system: &str| {
        format!("22 1 253:6 / /run/catamaran/state {mount},nosuid shared:1 - ext4 /dev/vda6 {file_system}\n")
    };

    assert!(!is_read_only_in(&line("rw", "rw,errors=remount-ro")));
    assert!(is_read_only_in(&line("ro", "rw")));
    assert!(is_read_only_in(&line("rw", "ro")));
    assert!(!is_read_only_in("22 1 253:6 / /var ro - ext4 /dev/vda6 ro\n"));
}
