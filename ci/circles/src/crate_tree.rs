//! The modules of a crate, and which of them uses which.
//!
//! Knows how Rust finds a module's file and resolves a path, re-exports included. Refuses to know traits and methods:
//! what is found is a lower bound. Invariant: an arrow leads to the module that defines the name, not to one that
//! passes it on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::module::{ModuleText, UsedPath, read_module};
use crate::tokens::split_tokens;

/// A module's place below the crate's root, such as `["store", "etcd"]`.
pub(crate) type ModulePath = Vec<String>;

/// Reads a file: the disk, or the table of a test.
pub(crate) type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, std::io::Error>;

/// How many re-exports of re-exports are followed. Rust forbids endless ones only where a name is used.
const MAX_REEXPORTS: usize = 16;

/// A crate as the graph of its modules.
#[derive(Debug, Default)]
pub(crate) struct CrateTree {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    paths: Vec<UsedPath>,
    imports: BTreeMap<String, Vec<String>>,
}

/// One module uses another, first at this place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) from: ModulePath,
    pub(crate) to: ModulePath,
    pub(crate) place: String,
}

impl CrateTree {
    /// Reads the crate whose root is this file.
    pub(crate) fn read(root: &Path, read_file: ReadFile<'_>) -> Result<Self, String> {
        let mut tree = Self::default();
        let folder = root.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
        tree.add_file(Vec::new(), root, &folder, read_file)?;
        Ok(tree)
    }

    fn add_file(
        &mut self,
        path: ModulePath,
        file: &Path,
        folder: &Path,
        read_file: ReadFile<'_>,
    ) -> Result<(), String> {
        let source = read_file(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        self.add_module(path, read_module(&split_tokens(&source)), file, folder, read_file)
    }

    fn add_module(
        &mut self,
        path: ModulePath,
        text: ModuleText,
        file: &Path,
        folder: &Path,
        read_file: ReadFile<'_>,
    ) -> Result<(), String> {
        for name in &text.files {
            let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
            // Tried by reading, in rustc's order, so that a test needs no second way to ask the disk.
            let Some(child) = places.iter().find(|place| read_file(place).is_ok()) else {
                let [first, second] = places.map(|place| place.display().to_string());
                return Err(format!(
                    "cannot find module {name} of {}: neither {first} nor {second}",
                    file.display()
                ));
            };
            self.add_file(child_path(&path, name), child, &folder.join(name), read_file)?;
        }
        for (name, inline) in text.inline {
            self.add_module(child_path(&path, &name), inline, file, &folder.join(&name), read_file)?;
        }
        let imports = text.imports.into_iter().map(|import| (import.name, import.words)).collect();
        self.modules.insert(path, Module { file: file.to_path_buf(), paths: text.paths, imports });
        Ok(())
    }

    /// Every use of another module, each pair once.
    pub(crate) fn module_usages(&self) -> Vec<Usage> {
        let mut found: BTreeMap<(&ModulePath, ModulePath), String> = BTreeMap::new();
        for (from, module) in &self.modules {
            for used in &module.paths {
                let Some(to) = self.resolve_path(from, &used.words, 0) else { continue };
                let place = || format!("{}:{}", module.file.display(), used.line);
                found.entry((from, to)).or_insert_with(place);
            }
        }
        let usages = found.into_iter().filter(|((from, to), _)| *from != to);
        usages.map(|((from, to), place)| Usage { from: from.clone(), to, place }).collect()
    }

    /// The module that a path leads to, as seen from a module; none where it leaves the crate.
    fn resolve_path(&self, from: &[String], words: &[String], depth: usize) -> Option<ModulePath> {
        if depth > MAX_REEXPORTS {
            return None;
        }
        let (first, rest) = words.split_first()?;
        match first.as_str() {
            "crate" => Some(self.walk_path(Vec::new(), rest, depth)),
            "self" => Some(self.walk_path(from.to_vec(), rest, depth)),
            "super" => match from.split_last() {
                // A further `super` counts from there.
                Some((_, parent)) if rest.first().is_some_and(|word| word == "super") => {
                    self.resolve_path(parent, rest, depth)
                }
                Some((_, parent)) => Some(self.walk_path(parent.to_vec(), rest, depth)),
                None => None,
            },
            _ if self.modules.contains_key(&child_path(from, first)) => {
                Some(self.walk_path(from.to_vec(), words, depth))
            }
            _ => {
                let import = self.modules.get(from)?.imports.get(first)?;
                // `use serde;` binds serde to itself: another crate.
                if import.first() == Some(first) {
                    return None;
                }
                self.resolve_path(from, &[import, rest].concat(), depth + 1)
            }
        }
    }

    /// Follows words down from a module, through children and re-exports, as far as modules go.
    fn walk_path(&self, mut module: ModulePath, words: &[String], depth: usize) -> ModulePath {
        for (index, word) in words.iter().enumerate() {
            let child = child_path(&module, word);
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let import = self.modules.get(&module).and_then(|at| at.imports.get(word));
            // A name that a module takes from another crate is still asked of that module.
            let target = import.and_then(|import| {
                self.resolve_path(&module, &[import, &words[index + 1..]].concat(), depth + 1)
            });
            return target.unwrap_or(module);
        }
        module
    }
}

fn child_path(parent: &[String], name: &str) -> ModulePath {
    [parent, &[name.to_owned()]].concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The crate of these files, whose root is `lib.rs`.
    pub(crate) fn tree_of(files: &[(&str, &str)]) -> Result<CrateTree, String> {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        };
        CrateTree::read(Path::new("lib.rs"), &read)
    }

    fn arrows(files: &[(&str, &str)]) -> Vec<String> {
        let usages = tree_of(files).unwrap().module_usages();
        usages.iter().map(|usage| format!("{} {}", usage.from.join("::"), usage.to.join("::"))).collect()
    }

    #[test]
    fn both_places_of_a_module_file_are_known() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod c;"),
            ("a/c.rs", "use crate::b::d::E;"),
            ("b/mod.rs", "pub mod d;"),
            ("b/d.rs", ""),
        ];

        assert_eq!(arrows(&files), ["a::c b::d"]);
    }

    #[test]
    fn a_missing_file_is_told() {
        let error = tree_of(&[("lib.rs", "mod a;")]).unwrap_err();

        assert_eq!(error, "cannot find module a of lib.rs: neither a.rs nor a/mod.rs");
    }

    #[test]
    fn a_reexport_leads_to_the_child_that_it_names() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod deep; pub use deep::Name; pub(crate) use self::deep::other as renamed;"),
            ("a/deep.rs", ""),
            ("b.rs", "use crate::a::Name; fn f() { crate::a::renamed() }"),
        ];

        assert_eq!(arrows(&files), ["a a::deep", "b a::deep"]);
    }

    #[test]
    fn a_sibling_s_name_taken_through_the_parent_is_the_sibling_s() {
        let files = [("lib.rs", "mod a; mod b; use a::Name;"), ("a.rs", ""), ("b.rs", "use super::Name;")];

        assert_eq!(arrows(&files), [" a", "b a"]);
    }

    #[test]
    fn super_and_imported_modules_are_followed() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod c; mod d;"),
            ("a/c.rs", "mod e { use super::super::d::F; } use super::super::b; fn f() { b::g() }"),
            ("a/d.rs", ""),
            ("b.rs", ""),
        ];

        assert_eq!(arrows(&files), ["a::c b", "a::c::e a::d"]);
    }

    #[test]
    fn other_crates_and_circular_reexports_end() {
        let files = [
            ("lib.rs", "mod a; mod b; use serde; use std::fmt;"),
            ("a.rs", "pub use crate::b::X; use serde::Y; fn f() { serde::z(); fmt::w() }"),
            ("b.rs", "pub use crate::a::X;"),
        ];

        let _ends = arrows(&files);
    }

    #[test]
    fn a_usage_knows_its_first_place() {
        let files =
            [("lib.rs", "mod a; mod b;"), ("a.rs", "\nuse crate::b::C;\nuse crate::b::D;"), ("b.rs", "")];

        assert_eq!(tree_of(&files).unwrap().module_usages()[0].place, "a.rs:2");
    }
}
