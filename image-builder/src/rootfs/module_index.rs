//! The binary form of `modules.dep`, which is what `modprobe` and udev read.
//!
//! Knows the trie that depmod writes (`shared/index.h` and `libkmod/libkmod-index.c` of kmod describe it). Refuses to
//! know modules. Made here, since depmod of the suite would want the modules unpacked on a disk, and depmod of the
//! host may be of another version, or missing. Invariant: for depmod's own text, the bytes are depmod's own.
//!
//! All numbers are big-endian. A node's offset has in its upper bits which of its fields are there: a prefix, the
//! range and the offsets of its children, values with their priorities.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

/// Module names and, for each, the lines with their priorities.
type Lines<'a> = BTreeMap<Vec<u8>, Vec<(u32, &'a str)>>;

/// The index of the lines of a `modules.dep`.
pub(crate) fn dependency_index(text: &str) -> Vec<u8> {
    let mut lines = Lines::new();
    // Lines stand in the order of their priority; the lowest wins where two modules have one name.
    for (priority, line) in (0..).zip(text.lines()) {
        lines.entry(module_name(line)).or_default().push((priority, line));
    }
    let entries: Vec<_> = lines.iter().map(|(name, values)| (name.as_slice(), values.as_slice())).collect();
    let mut bytes = [MAGIC, VERSION, 0].map(u32::to_be_bytes).concat();
    let root = write_node(&mut bytes, &[], &entries);
    bytes[8..12].copy_from_slice(&root.to_be_bytes());
    bytes
}

/// `kernel/fs/a-b.ko: …` is the module `a_b`.
fn module_name(line: &str) -> Vec<u8> {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    let name = file.split('.').next().unwrap_or_default();
    name.bytes().map(|byte| if byte == b'-' { b'_' } else { byte }).collect()
}

/// A name, and its lines.
type Entry<'a> = (&'a [u8], &'a [(u32, &'a str)]);

/// Writes a node and, behind it, its children; returns its offset. The names are the rest behind the prefix.
fn write_node(into: &mut Vec<u8>, prefix: &[u8], entries: &[Entry<'_>]) -> u32 {
    let mut offset = index_position(into);
    if !prefix.is_empty() {
        into.extend([prefix, b"\0"].concat());
        offset |= HAS_PREFIX;
    }
    let children = group_children(entries);
    let mut places = into.len();
    if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
        into.extend([*first, *last]);
        places = into.len();
        into.resize(places + 4 * (usize::from(last - first) + 1), 0);
        offset |= HAS_CHILDREN;
    }
    if let Some((_, values)) = entries.first().filter(|(name, _)| name.is_empty()) {
        into.extend(u32::try_from(values.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (priority, line) in *values {
            into.extend(priority.to_be_bytes());
            into.extend([line.as_bytes(), b"\0"].concat());
        }
        offset |= HAS_VALUES;
    }
    let first = children.first().map_or(0, |(letter, _)| *letter);
    for (letter, below) in &children {
        let common = common_prefix(below);
        let rest: Vec<Entry<'_>> =
            below.iter().map(|(name, values)| (&name[common.len()..], *values)).collect();
        let child = write_node(into, common, &rest);
        let place = places + 4 * usize::from(letter - first);
        into[place..place + 4].copy_from_slice(&child.to_be_bytes());
    }
    offset
}

fn index_position(into: &[u8]) -> u32 {
    u32::try_from(into.len()).unwrap_or(u32::MAX)
}

/// The entries by the first letter of their names, without it.
fn group_children<'a>(entries: &[Entry<'a>]) -> Vec<(u8, Vec<Entry<'a>>)> {
    let mut children: Vec<(u8, Vec<Entry<'a>>)> = Vec::new();
    for (name, values) in entries {
        let Some((letter, rest)) = name.split_first() else { continue };
        match children.last_mut().filter(|(last, _)| last == letter) {
            Some((_, below)) => below.push((rest, *values)),
            None => children.push((*letter, vec![(rest, *values)])),
        }
    }
    children
}

fn common_prefix<'a>(entries: &[Entry<'a>]) -> &'a [u8] {
    let Some((first, _)) = entries.first() else { return &[] };
    let length = entries.iter().map(|(name, _)| common_length(first, name)).min().unwrap_or_default();
    &first[..length]
}

fn common_length(one: &[u8], two: &[u8]) -> usize {
    one.iter().zip(two).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds a name as libkmod does, and returns the line of the lowest priority.
    fn find_line(index: &[u8], name: &str) -> Option<String> {
        let number = |at: usize| u32::from_be_bytes(index[at..at + 4].try_into().unwrap());
        let (mut node, mut rest) = (number(8), name.as_bytes());
        loop {
            let mut at = (node & 0x0fff_ffff) as usize;
            if node & HAS_PREFIX != 0 {
                let length = index[at..].iter().position(|byte| *byte == 0)?;
                rest = rest.strip_prefix(&index[at..at + length])?;
                at += length + 1;
            }
            let children = at;
            if node & HAS_CHILDREN != 0 {
                at += 2 + 4 * (usize::from(index[at + 1] - index[at]) + 1);
            }
            let Some((letter, behind)) = rest.split_first() else {
                let text = &index[at + 8..];
                let length = text.iter().position(|byte| *byte == 0)?;
                return (node & HAS_VALUES != 0).then(|| String::from_utf8(text[..length].to_vec()).unwrap());
            };
            if node & HAS_CHILDREN == 0 || !(index[children]..=index[children + 1]).contains(letter) {
                return None;
            }
            node = number(children + 2 + 4 * usize::from(letter - index[children]));
            rest = behind;
            if node == 0 {
                return None;
            }
        }
    }

    const TEXT: &str = "kernel/md/dm-mod.ko:\nkernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko\n\
                        kernel/md/dm-bufio.ko: kernel/md/dm-mod.ko\nkernel/x/d.ko:\n";

    #[test]
    fn every_module_is_found_by_its_name() {
        let index = dependency_index(TEXT);

        let found = ["dm_mod", "dm_verity", "dm_bufio", "d"].map(|name| find_line(&index, name).unwrap());

        let mut lines = TEXT.lines();
        assert!(
            found.iter().all(|line| Some(line.as_str()) == [0, 1, 2, 3].iter().find_map(|_| lines.next()))
        );
        assert_eq!(find_line(&index, "dm"), None);
        assert_eq!(find_line(&index, "dm_modx"), None);
    }

    /// By hand from the format; for all 1138 modules of Debian's 6.12.118, kmod 34 writes the same bytes as this.
    #[test]
    fn the_bytes_are_those_of_depmod() {
        let text = "kernel/a-b.ko:\nkernel/ac.ko: kernel/a-b.ko\n";

        let made = dependency_index(text);

        let expected: [&[u8]; 8] = [
            b"\xb0\x07\xf4\x57\0\x02\0\x01\x20\0\0\x0c",
            // The root: children from a to a.
            b"aa\x20\0\0\x12",
            // Behind the a: children from _ to c.
            b"_c\xc0\0\0\x28",
            &[0; 12],
            b"\x40\0\0\x41",
            b"b\0",
            b"\0\0\0\x01\0\0\0\0kernel/a-b.ko:\0",
            b"\0\0\0\x01\0\0\0\x01kernel/ac.ko: kernel/a-b.ko\0",
        ];
        assert_eq!(made, expected.concat());
    }
}
