//! Which kernel modules go into the initramfs, and the index by which `initagent` loads them.
//!
//! Reads what depmod wrote into the tree: `modules.dep`, `modules.alias`, `modules.builtin`
//! (`modules.dep(5)`). Names are compared as the kernel does: `-` equals `_`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};

use image_format::modules::Index;

use crate::rootfs::tree::Tree;
use crate::spec::Modules;

/// The chosen modules.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) index: Index,
    /// Each module's bytes, uncompressed, by its name.
    pub(crate) modules: BTreeMap<String, Vec<u8>>,
}

/// Chooses from the tree's modules of that kernel release.
pub(crate) fn select(tree: &Tree, release: &str, wanted: &Modules) -> Result<Selection, SelectError> {
    let folder = format!("usr/lib/modules/{release}");
    let read = |file: &str| {
        let path = format!("{folder}/{file}");
        tree.read_text(&path).map_err(|source| SelectError::Read { path, source })
    };
    let available = Available::parse(&read("modules.dep")?);
    let builtin: BTreeSet<String> = read("modules.builtin")?.lines().map(module_name).collect();

    let mut index = Index::default();
    let mut pending = Vec::new();
    for name in wanted.always.iter().map(|name| kernel_name(name)) {
        if available.paths.contains_key(&name) {
            pending.push(name.clone());
            index.always.push(name);
        } else if !builtin.contains(&name) {
            return Err(SelectError::Missing { name, release: release.to_owned() });
        }
    }
    let on_demand: BTreeSet<String> = wanted
        .on_demand
        .iter()
        .map(|name| kernel_name(name))
        .filter(|name| available.paths.contains_key(name))
        .collect();
    pending.extend(on_demand.iter().cloned());
    while let Some(name) = pending.pop() {
        let depends = available.depends.get(&name).cloned().unwrap_or_default();
        if let Entry::Vacant(place) = index.depends.entry(name) {
            pending.extend(depends.iter().cloned());
            place.insert(depends);
        }
    }
    index.aliases = aliases(&read("modules.alias")?, &on_demand);
    let mut modules = BTreeMap::new();
    for name in index.depends.keys() {
        let path = format!("{folder}/{}", available.paths.get(name).map_or("", String::as_str));
        let bytes = read_module(tree, &path).map_err(|source| SelectError::Read { path, source })?;
        modules.insert(name.clone(), bytes);
    }
    Ok(Selection { index, modules })
}

/// What `modules.dep` says.
#[derive(Debug, Default)]
struct Available {
    paths: BTreeMap<String, String>,
    depends: BTreeMap<String, Vec<String>>,
}

impl Available {
    /// Each line: `PATH: PATH PATH`, the ones it needs.
    fn parse(text: &str) -> Self {
        let mut available = Self::default();
        for (path, depends) in text.lines().filter_map(|line| line.split_once(':')) {
            let name = module_name(path);
            available.depends.insert(name.clone(), depends.split_whitespace().map(module_name).collect());
            available.paths.insert(name, path.to_owned());
        }
        available
    }
}

/// Lines `alias PATTERN NAME` of the wanted modules, in their order.
fn aliases(text: &str, wanted: &BTreeSet<String>) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("alias ")?.split_whitespace();
            let (pattern, name) = (words.next()?, kernel_name(words.next()?));
            wanted.contains(&name).then(|| (pattern.to_owned(), name))
        })
        .collect()
}

/// `kernel/fs/ext4/ext4.ko.xz` is `ext4`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    kernel_name(file.split('.').next().unwrap_or(file))
}

fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

fn read_module(tree: &Tree, path: &str) -> io::Result<Vec<u8>> {
    let bytes = tree.read(path)?;
    let mut module = Vec::new();
    match path.rsplit('.').next() {
        Some("xz") => {
            lzma_rust2::XzReader::new(bytes.as_slice(), true).read_to_end(&mut module)?;
        }
        Some("zst") => module = zstd::decode_all(bytes.as_slice())?,
        _ => module = bytes,
    }
    Ok(module)
}

/// Why the modules of an initramfs could not be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectError {
    #[error("cannot read /{path} of the root")]
    Read { path: String, source: io::Error },
    #[error("the kernel {release} has no module {name}, which `initramfs.always` asks for")]
    Missing { name: String, release: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::Entry as File;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let mut put = |path: &str, text: &str| {
            tree.insert(&format!("usr/lib/modules/6/{path}"), File::file(text.as_bytes(), 0o644));
        };
        put(
            "modules.dep",
            "kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko\nkernel/md/dm-bufio.ko: kernel/md/dm-mod.ko\nkernel/md/dm-mod.ko:\nkernel/b/nvme.ko:\n",
        );
        put("modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        put("modules.alias", "alias pci:v1* nvme\nalias pci:v2* other\n");
        for module in ["md/dm-verity", "md/dm-bufio", "md/dm-mod", "b/nvme"] {
            put(&format!("kernel/{module}.ko"), module);
        }
        tree
    }

    fn wanted(always: &[&str], on_demand: &[&str]) -> Modules {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Modules { always: names(always), on_demand: names(on_demand) }
    }

    #[test]
    fn what_a_module_needs_comes_along_and_what_is_built_in_does_not() {
        let selection =
            select(&tree(), "6", &wanted(&["dm-verity", "ext4"], &["nvme", "not_in_this_kernel"])).unwrap();

        assert_eq!(selection.index.always, ["dm_verity"]);
        assert_eq!(selection.modules.keys().collect::<Vec<_>>(), ["dm_bufio", "dm_mod", "dm_verity", "nvme"]);
        assert_eq!(selection.index.aliases, [("pci:v1*".to_owned(), "nvme".to_owned())]);
    }

    #[test]
    fn a_module_that_every_boot_needs_must_be_there() {
        let error = select(&tree(), "6", &wanted(&["zfs"], &[])).unwrap_err();

        assert_eq!(error.to_string(), "the kernel 6 has no module zfs, which `initramfs.always` asks for");
    }
}
