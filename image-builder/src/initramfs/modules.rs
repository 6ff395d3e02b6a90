//! Which kernel modules go into the initramfs, and the index by which `initagent` loads them.
//!
//! Reads what depmod wrote into the tree: `modules.dep`, `modules.softdep`, `modules.alias`,
//! `modules.builtin` (`modules.dep(5)`, `modprobe.d(5)`). Names are compared as the kernel does: `-`
//! equals `_`. Nothing in an initramfs answers the kernel when it asks for a module itself, so what
//! a module would ask for (`softdep`: ext4 its checksums) is loaded before it, too.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use image_format::command_line::CommandLine;
use image_format::modules::ModuleIndex;

use crate::rootfs::inner;
use crate::rootfs::tree::RootTree;
use crate::spec::ModulesSpec;

/// The chosen modules.
#[derive(Debug, Default)]
pub(crate) struct ModuleSelection {
    pub(crate) index: ModuleIndex,
    /// Each module's bytes, uncompressed, by its name.
    pub(crate) modules: BTreeMap<String, Vec<u8>>,
}

/// What a signed module ends in (`Documentation/admin-guide/module-signing.rst`).
const SIGNED: &[u8] = b"~Module signature appended~\n";
/// The word of the command line with which the kernel loads no other.
const ENFORCED: &str = "module.sig_enforce=1";

/// Which modules the image's kernel loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// All.
    Any,
    /// Signed ones: with another, an image would not find its disk, and say so on its console at best.
    OnlySigned,
}

impl Policy {
    /// The policy of a kernel with this command line.
    pub(crate) fn from_command_line(line: &CommandLine) -> Self {
        if line.words().any(|word| word == ENFORCED) { Self::OnlySigned } else { Self::Any }
    }
}

/// Chooses from the tree's modules of that kernel release.
pub(crate) fn select_modules(
    tree: &RootTree,
    release: &str,
    wanted: &ModulesSpec,
    policy: Policy,
) -> Result<ModuleSelection, SelectError> {
    let folder = format!("usr/lib/modules/{release}");
    let read = |file: &str| {
        let path = format!("{folder}/{file}");
        tree.read_text(&path).map_err(|source| SelectError::Read { path, source })
    };
    let known_as = read("modules.alias")?;
    let available = AvailableModules::parse_dependencies(&read("modules.dep")?)
        // Debian's kernel for real machines has its CRC32C as modules, which ext4 asks modprobe for. Without
        // them no such image ever mounted its root.
        .with_soft(&read("modules.softdep")?, &known_as);
    // What is part of the kernel needs no file, so asking for it is no mistake.
    let builtin: BTreeSet<String> = read("modules.builtin")?.lines().map(module_name).collect();

    let mut index = ModuleIndex::default();
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
    index.aliases = parse_aliases(&known_as).filter(|(_, name)| on_demand.contains(name)).collect();
    let mut modules = BTreeMap::new();
    for name in index.depends.keys() {
        let path = format!("{folder}/{}", available.paths.get(name).map_or("", String::as_str));
        let bytes = read_module(tree, &path).map_err(|source| SelectError::Read { path, source })?;
        modules.insert(name.clone(), bytes);
    }
    let unsigned = modules.iter().find(|(_, bytes)| !bytes.ends_with(SIGNED));
    if let Some((name, _)) = unsigned.filter(|_| policy == Policy::OnlySigned) {
        return Err(SelectError::Unsigned { name: name.clone() });
    }
    Ok(ModuleSelection { index, modules })
}

/// What `modules.dep` says.
#[derive(Debug, Default)]
struct AvailableModules {
    paths: BTreeMap<String, String>,
    depends: BTreeMap<String, Vec<String>>,
}

impl AvailableModules {
    /// Each line: `PATH: PATH PATH`, the ones it needs.
    fn parse_dependencies(text: &str) -> Self {
        let mut available = Self::default();
        for (path, depends) in text.lines().filter_map(|line| line.split_once(':')) {
            let name = module_name(path);
            available.depends.insert(name.clone(), depends.split_whitespace().map(module_name).collect());
            available.paths.insert(name, path.to_owned());
        }
        available
    }

    /// Each line: `softdep NAME pre: WORD... post: WORD...`, a word being a module's name or an alias of
    /// several, of which some may not fit the machine.
    fn with_soft(mut self, text: &str, known_as: &str) -> Self {
        let mut providers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (alias, name) in parse_aliases(known_as) {
            providers.entry(kernel_name(&alias)).or_default().push(name);
        }
        for (name, rest) in text.lines().filter_map(|line| line.strip_prefix("softdep ")?.split_once(' ')) {
            let before = rest.split("post:").next().unwrap_or_default().split_once("pre:");
            let words = before.map_or("", |(_, words)| words).split_whitespace().map(kernel_name);
            let Some(depends) = self.depends.get_mut(&kernel_name(name)) else { continue };
            for word in words {
                let named = self.paths.contains_key(&word).then(|| vec![word.clone()]);
                for provider in named.or_else(|| providers.get(&word).cloned()).unwrap_or_default() {
                    if !depends.contains(&provider) {
                        depends.push(provider);
                    }
                }
            }
        }
        self
    }
}

/// Lines `alias PATTERN NAME`, in their order.
fn parse_aliases(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("alias ")?.split_whitespace();
        Some((words.next()?.to_owned(), kernel_name(words.next()?)))
    })
}

/// `kernel/fs/ext4/ext4.ko.xz` is `ext4`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    kernel_name(file.split('.').next().unwrap_or(file))
}

fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

fn read_module(tree: &RootTree, path: &str) -> io::Result<Vec<u8>> {
    inner::uncompress_file(path, &tree.read(path)?)
}

/// Why the modules of an initramfs could not be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectError {
    #[error("cannot read /{path} of the root")]
    Read { path: String, source: io::Error },
    #[error(
        "the module {name} is not signed, but the command line says {ENFORCED}: take a package whose modules are, or \
         give `kernel.command_line` without it"
    )]
    Unsigned { name: String },
    #[error("the kernel {release} has no module {name}, which `initramfs.always` asks for")]
    Missing { name: String, release: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::TreeEntry as File;

    fn tree() -> RootTree {
        let mut tree = RootTree::default();
        let mut put = |path: &str, text: &str| {
            tree.insert(&format!("usr/lib/modules/6/{path}"), File::file(text.as_bytes(), 0o644));
        };
        put(
            "modules.dep",
            "kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko\nkernel/md/dm-bufio.ko: kernel/md/dm-mod.ko\nkernel/md/dm-mod.ko:\nkernel/b/nvme.ko:\nkernel/j/jbd2.ko:\nkernel/c/crc32c-intel.ko:\nkernel/c/crc32c_generic.ko:\n",
        );
        put("modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        put(
            "modules.alias",
            "alias pci:v1* nvme\nalias pci:v2* other\nalias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c-generic\n",
        );
        put(
            "modules.softdep",
            "# by depmod\nsoftdep jbd2 pre: crypto-crc32c built-in post: dm-mod\nsoftdep other pre: jbd2\n",
        );
        for module in [
            "md/dm-verity",
            "md/dm-bufio",
            "md/dm-mod",
            "b/nvme",
            "j/jbd2",
            "c/crc32c-intel",
            "c/crc32c_generic",
        ] {
            put(&format!("kernel/{module}.ko"), module);
        }
        tree
    }

    fn wanted(always: &[&str], on_demand: &[&str]) -> ModulesSpec {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ModulesSpec { always: names(always), on_demand: names(on_demand) }
    }

    fn selected(wanted: &ModulesSpec) -> Result<ModuleSelection, SelectError> {
        select_modules(&tree(), "6", wanted, Policy::Any)
    }

    #[test]
    fn a_kernel_that_loads_only_signed_modules_gets_only_such() {
        let wanted = wanted(&["jbd2"], &["nvme"]);
        let mut tree = tree();
        for name in ["j/jbd2", "c/crc32c-intel", "c/crc32c_generic"] {
            let signed = [b"code signature ", SIGNED].concat();
            tree.insert(&format!("usr/lib/modules/6/kernel/{name}.ko"), File::file(signed, 0o644));
        }
        let line = |text: &str| Policy::from_command_line(&text.parse().unwrap());

        let error = select_modules(&tree, "6", &wanted, line("quiet module.sig_enforce=1")).unwrap_err();

        assert!(error.to_string().starts_with("the module nvme is not signed"), "{error}");
        assert!(select_modules(&tree, "6", &wanted, line("quiet")).is_ok());
        assert!(
            select_modules(&tree, "6", &ModulesSpec { on_demand: Vec::new(), ..wanted }, Policy::OnlySigned)
                .is_ok()
        );
    }

    #[test]
    fn what_a_module_needs_comes_along_and_what_is_built_in_does_not() {
        let selection = selected(&wanted(&["dm-verity", "ext4"], &["nvme", "not_in_this_kernel"])).unwrap();

        assert_eq!(selection.index.always, ["dm_verity"]);
        assert_eq!(selection.modules.keys().collect::<Vec<_>>(), ["dm_bufio", "dm_mod", "dm_verity", "nvme"]);
        assert_eq!(selection.index.aliases, [("pci:v1*".to_owned(), "nvme".to_owned())]);
    }

    #[test]
    fn what_a_module_would_ask_the_kernel_for_is_loaded_before_it() {
        let selection = selected(&wanted(&["jbd2"], &[])).unwrap();

        assert_eq!(selection.index.load_order(["jbd2"]), ["crc32c_intel", "crc32c_generic", "jbd2"]);
        assert_eq!(selection.modules.len(), 3, "{:?}", selection.modules.keys());
    }

    #[test]
    fn a_module_that_every_boot_needs_must_be_there() {
        let error = selected(&wanted(&["zfs"], &[])).unwrap_err();

        assert_eq!(error.to_string(), "the kernel 6 has no module zfs, which `initramfs.always` asks for");
    }
}
