//! What one module says of others: its children, the names it binds, the paths it uses.
//!
//! Knows the grammar of `mod`, `use`, `pub(…)`, attributes and paths. Refuses to know where files lie. Invariant: an
//! item that is compiled for tests only is not seen.

use crate::tokens::Token;

/// A module as its own text shows it.
#[derive(Debug, Default)]
pub(crate) struct ModuleText {
    /// Children whose text stands in files of their own.
    pub(crate) files: Vec<String>,
    /// Children whose text stands here, between braces.
    pub(crate) inline: Vec<(String, Self)>,
    /// Every path that is used, `use` items included.
    pub(crate) paths: Vec<UsedPath>,
    /// The names that `use` items bind. Private ones count too, since a child may take them by `super::`.
    pub(crate) imports: Vec<Import>,
}

/// A path as it is written, such as `super::store::Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedPath {
    pub(crate) words: Vec<String>,
    pub(crate) line: usize,
}

/// A name in a module that stands for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) name: String,
    pub(crate) words: Vec<String>,
}

/// Reads the text of a module.
pub(crate) fn read_module(tokens: &[Token]) -> ModuleText {
    let mut module = ModuleText::default();
    let mut at = 0;
    while at < tokens.len() {
        at += read_item(&mut module, tokens, at).max(1);
    }
    module
}

/// Reads what begins at a token, and returns how many tokens it was.
fn read_item(module: &mut ModuleText, tokens: &[Token], at: usize) -> usize {
    let (here, next) = (text_at(tokens, at), text_at(tokens, at + 1));
    match here {
        "#" => read_attribute(tokens, at),
        // `pub(in crate::a)` names who may look in: it imports nothing.
        "pub" if next == "(" => 1 + group_length(&tokens[at + 1..]),
        "mod" if text_at(tokens, at + 2) == ";" => {
            module.files.push(next.to_owned());
            3
        }
        "mod" if text_at(tokens, at + 2) == "{" => {
            let length = group_length(&tokens[at + 2..]);
            let body = &tokens[at + 3..(at + 1 + length).max(at + 3)];
            module.inline.push((next.to_owned(), read_module(body)));
            2 + length
        }
        // `impl Trait + use<'a>` captures lifetimes.
        "use" if next != "<" => read_use(module, tokens, at),
        _ if next == "::" && is_word(here) && !continues_path(tokens, at) => read_path(module, tokens, at),
        _ => 1,
    }
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

fn is_word(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Whether the token is the later part of a path, such as `b` in `a::b` or `c` in `<A as B>::c`.
fn continues_path(tokens: &[Token], at: usize) -> bool {
    at > 0 && text_at(tokens, at - 1) == "::"
}

/// How many tokens the group is that the first one opens, both brackets included.
fn group_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The length of an attribute, and of the item behind it where that is for tests only.
fn read_attribute(tokens: &[Token], at: usize) -> usize {
    let inner = usize::from(text_at(tokens, at + 1) == "!");
    let open = at + 1 + inner;
    if text_at(tokens, open) != "[" {
        return 1;
    }
    let length = group_length(&tokens[open..]);
    let words: Vec<&str> = tokens[open..open + length].iter().map(|token| token.text.as_str()).collect();
    // `cfg(not(test))` is what ships.
    let for_tests = words.get(1) == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not");
    let is_test = words == ["[", "test", "]"];
    let end = open + length;
    if inner == 0 && (for_tests || is_test) { end - at + item_length(&tokens[end..]) } else { end - at }
}

/// How many tokens the item at the beginning is, its further attributes included.
fn item_length(tokens: &[Token]) -> usize {
    let is_use = tokens.iter().find(|token| !matches!(token.text.as_str(), "pub" | "crate" | "(" | ")"));
    let is_use = is_use.is_some_and(|token| token.text == "use");
    let mut at = 0;
    while at < tokens.len() {
        match text_at(tokens, at) {
            ";" => return at + 1,
            // The braces of `use a::{b, c};` end no item.
            "{" if !is_use => return at + group_length(&tokens[at..]),
            // The end of what surrounds the item: a field or a variant may be for tests too.
            "}" => return at,
            "(" | "[" | "{" => at += group_length(&tokens[at..]),
            _ => at += 1,
        }
    }
    tokens.len()
}

fn read_path(module: &mut ModuleText, tokens: &[Token], at: usize) -> usize {
    let mut words = vec![text_at(tokens, at).to_owned()];
    let mut end = at + 1;
    while text_at(tokens, end) == "::" && is_word(text_at(tokens, end + 1)) {
        words.push(text_at(tokens, end + 1).to_owned());
        end += 2;
    }
    module.paths.push(UsedPath { words, line: tokens[at].line });
    end - at
}

fn read_use(module: &mut ModuleText, tokens: &[Token], at: usize) -> usize {
    let end =
        tokens[at..].iter().position(|token| token.text == ";").map_or(tokens.len(), |length| at + length);
    let tree = &tokens[at + 1..end.max(at + 1)];
    // `use ::name` is another crate for sure.
    if text_at(tree, 0) != "::" {
        read_tree(module, &[], tree);
    }
    end - at + 1
}

/// Reads a tree such as `a::{self, b as c, d::*}` behind a prefix.
fn read_tree(module: &mut ModuleText, prefix: &[String], tree: &[Token]) {
    let Some(first) = tree.first() else { return };
    let mut words = prefix.to_vec();
    let mut at = 0;
    while at < tree.len() {
        match text_at(tree, at) {
            "{" => {
                let inside = &tree[at + 1..(at + group_length(&tree[at..])).saturating_sub(1).max(at + 1)];
                return split_branches(inside)
                    .into_iter()
                    .for_each(|branch| read_tree(module, &words, branch));
            }
            "as" => return add_leaf(module, words, text_at(tree, at + 1), first.line),
            "*" => return module.paths.push(UsedPath { words, line: first.line }),
            "::" => {}
            "self" if !words.is_empty() => {}
            word => words.push(word.to_owned()),
        }
        at += 1;
    }
    let name = words.last().cloned().unwrap_or_default();
    add_leaf(module, words, &name, first.line);
}

fn add_leaf(module: &mut ModuleText, words: Vec<String>, name: &str, line: usize) {
    module.imports.push(Import { name: name.to_owned(), words: words.clone() });
    module.paths.push(UsedPath { words, line });
}

/// The branches between the commas of a `use` tree.
fn split_branches(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut branches, mut start, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        match text_at(tokens, at) {
            "{" => at += group_length(&tokens[at..]),
            "," => {
                branches.push(&tokens[start..at]);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    branches.push(&tokens[start..]);
    branches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::split_tokens;

    fn paths(source: &str) -> Vec<String> {
        read_module(&split_tokens(source)).paths.into_iter().map(|path| path.words.join("::")).collect()
    }

    #[test]
    fn a_use_tree_is_each_of_its_leaves() {
        let source = "use crate::{a::{self, B as C}, d::*, e};";

        assert_eq!(paths(source), ["crate::a", "crate::a::B", "crate::d", "crate::e"]);
    }

    #[test]
    fn paths_in_code_and_types_are_found() {
        let source = "fn f(x: &crate::a::B<super::c::D>) -> E { <F as crate::g::H>::i(); j::k!(x) }";

        assert_eq!(paths(source), ["crate::a::B", "super::c::D", "crate::g::H", "j::k"]);
    }

    #[test]
    fn what_is_for_tests_only_is_not_seen() {
        let hidden = "#[cfg(test)] mod tests { use crate::a; } #[cfg(test)] mod files; #[cfg(test)] use crate::{b, c};
            #[cfg(all(test, unix))] #[path = \"x\"] pub(crate) fn f(x: [u8; 2]) { crate::d::e() } #[test] fn g() { crate::h::i() }
            struct S { #[cfg(test)] field: crate::j::K }";

        assert!(paths(hidden).is_empty(), "{:?}", paths(hidden));
        assert!(read_module(&split_tokens(hidden)).files.is_empty());
    }

    #[test]
    fn what_ships_is_seen_behind_an_attribute() {
        assert_eq!(
            paths("#[cfg(not(test))] use crate::a; #[derive(Debug)] struct B(crate::c::D);"),
            ["crate::a", "crate::c::D"]
        );
        assert_eq!(paths("#[cfg(test)] use crate::{a, b}; use crate::c;"), ["crate::c"]);
    }

    #[test]
    fn visibility_and_captures_are_no_imports() {
        assert!(paths("pub(in crate::a) fn f() -> impl G + use<> {}").is_empty());
    }

    #[test]
    fn another_crate_at_its_root_is_not_ours() {
        assert!(paths("use ::store::Key; fn f() { ::store::g() }").is_empty());
    }

    #[test]
    fn children_stand_in_files_or_between_braces() {
        let module = read_module(&split_tokens("pub mod a; mod b { mod c; use super::a::D; } mod e;"));

        assert_eq!(module.files, ["a", "e"]);
        assert_eq!(module.inline[0].0, "b");
        assert_eq!(module.inline[0].1.files, ["c"]);
    }

    #[test]
    fn a_text_cut_anywhere_does_no_harm() {
        let source = "#[cfg(test)] use a::{b as c, d::{e}}; pub(in f) mod g { h::i } #![x] use <";
        let tokens = split_tokens(source);

        for end in 0..=tokens.len() {
            let _read = read_module(&tokens[..end]);
        }
    }
}
