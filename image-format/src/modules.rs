//! The index of the kernel modules in the initramfs: which are always loaded, which depend on
//! which, and which drive a device.
//!
//! Knows the text, the order of loading and the patterns of device names. Refuses to know files
//! and devices. Invariant: a module is loaded after everything it depends on, and once.
//!
//! The text, one fact a line, words separated by one space:
//! ```text
//! catamaran-modules-v1
//! always dm_verity
//! module dm_verity dm_bufio
//! module dm_bufio
//! alias virtio:d00000002v* virtio_blk
//! module virtio_blk
//! ```
//!
//! Documentation: modules.dep(5), depmod(8), and fnmatch(3) for the patterns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use crate::glob::glob_matches;

/// Bytes of the longest index that is read.
pub const MAX_INDEX: usize = 8 << 20;

const MAGIC: &str = "catamaran-modules-v1";
// The kernel's own bound, `MODULE_NAME_LEN`, is 56 on 64-bit machines.
const MAX_NAME: usize = 64;

/// What the initramfs knows about its modules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModuleIndex {
    /// Modules that every machine needs, in order.
    pub always: Vec<String>,
    /// What each module depends on.
    pub depends: BTreeMap<String, Vec<String>>,
    /// Patterns of device names, and the module that drives such devices.
    pub aliases: Vec<(String, String)>,
}

impl ModuleIndex {
    /// Reads the text. Every module that is named must have a line of its own.
    pub fn parse(text: &str) -> Result<Self, ParseIndexError> {
        if text.len() > MAX_INDEX {
            return Err(ParseIndexError::TooLarge { given: text.len() });
        }
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, line)| line != MAGIC) {
            return Err(ParseIndexError::Magic);
        }
        let mut index = Self::default();
        for (number, line) in lines {
            let refused = || ParseIndexError::Line { line: number + 1 };
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["always", name] if is_name(name) => index.always.push(name.to_owned()),
                ["alias", pattern, name] if is_name(name) && !pattern.is_empty() => {
                    index.aliases.push((pattern.to_owned(), name.to_owned()));
                }
                ["module", name, ref needs @ ..] if is_name(name) && needs.iter().all(|n| is_name(n)) => {
                    let needs = needs.iter().copied().map(ToOwned::to_owned).collect();
                    // Of two lines with one name one would be lost without a word.
                    if index.depends.insert(name.to_owned(), needs).is_some() {
                        return Err(refused());
                    }
                }
                _ => return Err(refused()),
            }
        }
        index.check_names()?;
        Ok(index)
    }

    /// Everything that must be loaded for these modules, in an order in which it can be.
    #[must_use]
    pub fn load_order<'a>(&'a self, wanted: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit_dependencies(name, &mut seen, &mut order);
        }
        order
    }

    /// The modules that drive a device of that name.
    pub fn drivers_of<'a>(&'a self, modalias: &'a str) -> impl Iterator<Item = &'a str> {
        let fits = |(pattern, _): &&(String, String)| glob_matches(pattern.as_bytes(), modalias.as_bytes());
        self.aliases.iter().filter(fits).map(|(_, name)| name.as_str())
    }

    /// Walks the dependencies without recursion, so that no index can exhaust the stack.
    fn visit_dependencies<'a>(
        &'a self,
        name: &'a str,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<&'a str>,
    ) {
        let mut stack = vec![(name, false)];
        while let Some((name, needs_done)) = stack.pop() {
            if needs_done {
                order.push(name);
            } else if let Some((name, needs)) = self.depends.get_key_value(name).filter(|_| seen.insert(name))
            {
                stack.push((name, true));
                stack.extend(needs.iter().rev().map(|need| (need.as_str(), false)));
            }
        }
    }

    fn check_names(&self) -> Result<(), ParseIndexError> {
        let needed = self.depends.values().flatten();
        let mut named = self.always.iter().chain(self.aliases.iter().map(|(_, name)| name)).chain(needed);
        match named.find(|name| !self.depends.contains_key(*name)) {
            Some(name) => Err(ParseIndexError::Unknown { name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ModuleIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MAGIC}")?;
        self.always.iter().try_for_each(|name| writeln!(f, "always {name}"))?;
        for (name, needs) in &self.depends {
            write!(f, "module {name}")?;
            needs.iter().try_for_each(|need| write!(f, " {need}"))?;
            f.write_char('\n')?;
        }
        self.aliases.iter().try_for_each(|(pattern, name)| writeln!(f, "alias {pattern} {name}"))
    }
}

/// Why a text is not an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseIndexError {
    #[error("line {line} of the module index is none of 'always', 'module' (once each) and 'alias'")]
    Line { line: usize },
    #[error("the module index does not begin with the line {MAGIC:?}")]
    Magic,
    #[error("the module index has {given} bytes, at most {MAX_INDEX} are read")]
    TooLarge { given: usize },
    #[error("the module index names {name}, but has no 'module' line for it")]
    Unknown { name: String },
}

/// Whether a name can stand for a file in the modules' folder.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "catamaran-modules-v1
always dm_verity
module dm_bufio
module dm_mod
module dm_verity dm_mod dm_bufio
module virtio_blk virtio
module virtio
alias virtio:d00000002v* virtio_blk
";

    #[test]
    fn a_module_comes_after_what_it_depends_on_and_once() {
        let index = ModuleIndex::parse(TEXT).unwrap();

        let order = index.load_order(["dm_verity", "virtio_blk", "dm_mod"]);

        assert_eq!(order, ["dm_mod", "dm_bufio", "dm_verity", "virtio", "virtio_blk"]);
    }

    #[test]
    fn dependencies_in_a_circle_end() {
        let index = ModuleIndex::parse("catamaran-modules-v1\nmodule a b\nmodule b a\n").unwrap();

        assert_eq!(index.load_order(["a"]), ["b", "a"]);
    }

    #[test]
    fn a_device_finds_its_driver() {
        let index = ModuleIndex::parse(TEXT).unwrap();

        assert_eq!(index.drivers_of("virtio:d00000002v00001AF4").collect::<Vec<_>>(), ["virtio_blk"]);
        assert_eq!(index.drivers_of("virtio:d00000003v00001AF4").count(), 0);
    }

    #[test]
    fn an_index_survives_its_text() {
        let index = ModuleIndex::parse(TEXT).unwrap();

        assert_eq!(ModuleIndex::parse(&index.to_string()), Ok(index));
    }

    #[test]
    fn what_is_not_exactly_an_index_is_refused() {
        let parse = |body: &str| ModuleIndex::parse(&format!("{MAGIC}\n{body}")).unwrap_err().to_string();
        let line = "line 2 of the module index is none of 'always', 'module' (once each) and 'alias'";

        assert_eq!(parse("always ../../evil\n"), line);
        assert_eq!(parse("load x\n"), line);
        assert_eq!(parse("\n"), line);
        assert_eq!(parse("alias x\n"), line);
        assert_eq!(parse("module a\nmodule a\n"), line.replace("line 2", "line 3"));
        assert_eq!(parse("always a\n"), "the module index names a, but has no 'module' line for it");
        assert_eq!(ModuleIndex::parse("").unwrap_err(), ParseIndexError::Magic);
    }

    proptest! {
        #[test]
        fn the_parser_takes_any_text(text in "(always|module|alias| |\n|[a-c*?\\[\\]-]){0,40}") {
            if let Ok(index) = ModuleIndex::parse(&format!("{MAGIC}\n{text}")) {
                let names: Vec<&str> = index.depends.keys().map(String::as_str).collect();
                prop_assert_eq!(index.load_order(names.iter().copied()).len(), names.len());
                let _ = index.drivers_of(&text).count();
            }
        }
    }
}
