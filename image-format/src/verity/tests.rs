//! The tree against the kernel's own tool, and against flipped bits.
#![expect(clippy::disallowed_methods, reason = "asks the tool that is the measure")]

use std::process::Command;

use super::*;

/// Bytes that repeat nowhere, with a hole of zero blocks in the middle.
fn data(blocks: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..blocks * BLOCK_BYTES / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let hole = blocks / 3 * BLOCK_BYTES..blocks / 2 * BLOCK_BYTES;
    bytes[hole].fill(0);
    bytes
}

fn tree(data: &[u8], threads: usize) -> HashTree {
    build_tree(&data, data.len() as u64, &[0x5a; 32], threads).unwrap()
}

#[test]
fn the_number_of_tree_blocks_follows_from_the_data() {
    let blocks = [1, 2, 128, 129, 128 * 128, 128 * 128 + 1].map(tree_blocks);

    assert_eq!(blocks, [0, 1, 1, 3, 129, 129 + 2 + 1]);
}

#[test]
fn the_tree_does_not_depend_on_the_number_of_cores() {
    let data = data(1500);
    let one = tree(&data, 1);

    assert_eq!(one, tree(&data, 2));
    assert_eq!(one, tree(&data, 7));
    assert_eq!(one.bytes.len() as u64, tree_blocks(1500) * BLOCK_BYTES as u64);
}

#[test]
fn a_flipped_bit_is_found_in_its_block() {
    let mut data = data(300);
    let good = tree(&data, 2);
    let check = |data: &[u8], tree: &HashTree| verify_tree(&data, data.len() as u64, &[0x5a; 32], 2, tree);
    assert!(check(&data, &good).is_ok());

    data[217 * BLOCK_BYTES + 5] ^= 1;
    assert!(matches!(check(&data, &good), Err(VerifyTreeError::Data { block: 217 })));
    data[217 * BLOCK_BYTES + 5] ^= 1;

    let mut top = good.clone();
    top.bytes[3] ^= 1;
    assert!(matches!(check(&data, &top), Err(VerifyTreeError::Tree)));
    let other = HashTree { root_hash: Sha256::digest_of(b"other"), ..good };
    assert!(matches!(check(&data, &other), Err(VerifyTreeError::Tree)));
}

#[test]
fn one_block_can_be_checked_alone() {
    for blocks in [1, 2, 128, 129, 128 * 128 + 3] {
        let data = data(blocks);
        let tree = tree(&data, 2);
        let slot = [data.as_slice(), &tree.bytes].concat();
        let place = VerityPlacement {
            data_blocks: blocks as u64,
            tree_block: blocks as u64,
            salt: &[0x5a; 32],
            root_hash: tree.root_hash,
        };
        for block in [0, blocks / 2, blocks - 1] {
            let check = |slot: &[u8]| verify_block(&slot, place, block as u64);
            assert!(check(&slot).is_ok(), "{block} of {blocks}");
            let flipped = |at: usize| {
                let mut slot = slot.clone();
                slot[at] ^= 1;
                check(&slot)
            };
            assert!(matches!(flipped(block * BLOCK_BYTES + 77), Err(VerifyBlockError::Mismatch { .. })));
            if blocks > 1 {
                assert!(flipped(blocks * BLOCK_BYTES).is_err(), "the top of the tree");
            }
        }
    }
}

#[test]
fn data_that_ends_early_or_is_no_number_of_blocks_is_refused() {
    let data = data(600);

    let short = build_tree(&data.as_slice(), 700 * 4096, &[], 2).unwrap_err();

    assert_eq!(short.to_string(), "cannot read the data at byte 2097152");
    assert!(matches!(build_tree(&data.as_slice(), 4095, &[], 2), Err(BuildTreeError::Size { given: 4095 })));
    assert!(matches!(build_tree(&data.as_slice(), 0, &[], 2), Err(BuildTreeError::Size { given: 0 })));
}

#[test]
fn veritysetup_builds_the_same_tree() {
    if Command::new("veritysetup").arg("--version").output().is_err() {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "veritysetup (Debian package cryptsetup-bin) is not installed");
        eprintln!("skipped: veritysetup (Debian package cryptsetup-bin) is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (data_path, tree_path) = (folder.path().join("data"), folder.path().join("tree"));
    for blocks in [1, 2, 128, 129, 1500, 128 * 128 + 3] {
        let data = data(blocks);
        std::fs::write(&data_path, &data).unwrap();
        let _ = std::fs::remove_file(&tree_path);

        let output = Command::new("veritysetup")
            .args(["format", "--no-superblock", "--hash=sha256", "--salt", &"5a".repeat(32)])
            .args([&data_path, &tree_path])
            .output()
            .unwrap();

        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let root = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
        let ours = tree(&data, 2);
        assert_eq!(root.map(str::trim), Some(ours.root_hash.to_string().as_str()), "{blocks}: {output:?}");
        assert_eq!(std::fs::read(&tree_path).unwrap_or_default(), ours.bytes, "{blocks}");
    }
}
