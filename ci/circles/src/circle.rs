//! Sibling modules that use each other in a circle.
//!
//! Knows arrows between modules. Refuses to know what a child takes from the modules above it, and they from it: that
//! is how a folder shares. Invariant: an arrow is judged once, where the paths of its two ends part.

use std::collections::{BTreeMap, BTreeSet};

use crate::crate_tree::{ModulePath, Usage};

/// Siblings of which each uses each other, perhaps by way of a third. Whatever lies below a sibling is part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Circle {
    pub(crate) parent: ModulePath,
    pub(crate) members: BTreeSet<String>,
    /// Where one member uses another: the first place of each pair.
    pub(crate) places: Vec<String>,
}

type Arrows = BTreeMap<(String, String), String>;

/// The circles of a crate, level by level.
///
/// Whole subtrees are compared, not single files: a store that uses the plan above it is upside down even where no
/// two files of the two use each other.
pub(crate) fn find_circles(usages: &[Usage]) -> Vec<Circle> {
    let levels = split_levels(usages);
    levels.into_iter().flat_map(|(parent, arrows)| circles_of_level(&parent, &arrows)).collect()
}

/// The arrows between siblings, by the module that holds them.
fn split_levels(usages: &[Usage]) -> BTreeMap<ModulePath, Arrows> {
    let mut levels: BTreeMap<ModulePath, Arrows> = BTreeMap::new();
    for usage in usages {
        let shared = usage.from.iter().zip(&usage.to).take_while(|(from, to)| from == to).count();
        if let (Some(from), Some(to)) = (usage.from.get(shared), usage.to.get(shared)) {
            let level = levels.entry(usage.from[..shared].to_vec()).or_default();
            let place = format!("{from} uses {to} at {}", usage.place);
            level.entry((from.clone(), to.clone())).or_insert(place);
        }
    }
    levels
}

fn circles_of_level(parent: &ModulePath, arrows: &Arrows) -> Vec<Circle> {
    let names: BTreeSet<&String> = arrows.keys().map(|(from, _)| from).collect();
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        names.iter().map(|name| (*name, reachable_modules(name, arrows))).collect();
    let reaches = |from: &String, to: &String| reach.get(from).is_some_and(|all| all.contains(to));
    let mut circles: Vec<Circle> = Vec::new();
    for name in names.iter().filter(|name| reaches(name, name)) {
        if circles.iter().any(|circle| circle.members.contains(*name)) {
            continue;
        }
        let members: BTreeSet<String> = names
            .iter()
            .filter(|other| reaches(name, other) && reaches(other, name))
            .map(|other| (*other).clone())
            .collect();
        let inside = arrows.iter().filter(|((from, to), _)| members.contains(from) && members.contains(to));
        let places = inside.map(|(_, place)| place.clone()).collect();
        circles.push(Circle { parent: parent.clone(), members, places });
    }
    circles
}

/// All that a module uses, directly or by way of others.
fn reachable_modules<'a>(start: &String, arrows: &'a Arrows) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        for (_, to) in arrows.keys().filter(|(from, _)| from == name) {
            if found.insert(to) {
                open.push(to);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crate_tree::tests::tree_of;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let circles = find_circles(&tree_of(files).unwrap().module_usages());
        let named = circles.iter().map(|circle| {
            let members = circle.members.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            format!("{}: {members}", circle.parent.join("::"))
        });
        named.collect()
    }

    #[test]
    fn one_direction_is_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b; use crate::c;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", ""),
        ];

        assert!(circles(&files).is_empty());
    }

    #[test]
    fn a_circle_by_way_of_a_third_is_one_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b::X;"),
            ("b.rs", "fn f() { crate::c::g() }"),
            ("c.rs", "use super::a;"),
            ("d.rs", "use crate::a::Y;"),
        ];

        assert_eq!(circles(&files), [": a b c"]);
    }

    #[test]
    fn a_child_may_use_its_parent_and_the_parent_its_child() {
        let files =
            [("lib.rs", "mod a;"), ("a.rs", "mod b; use b::X;"), ("a/b.rs", "use super::Y; use crate::Z;")];

        assert!(circles(&files).is_empty());
    }

    #[test]
    fn two_folders_are_a_circle_even_if_no_two_files_are() {
        let files = [
            ("lib.rs", "mod store; mod plan;"),
            ("store.rs", "mod writes; pub mod keys;"),
            ("store/writes.rs", "use crate::plan::step::Step;"),
            ("store/keys.rs", ""),
            ("plan.rs", "pub mod step; mod place;"),
            ("plan/step.rs", ""),
            ("plan/place.rs", "use crate::store::keys::Key;"),
        ];

        assert_eq!(circles(&files), [": plan store"]);
    }

    #[test]
    fn circles_stand_at_the_level_of_the_siblings() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b; mod c; pub use b::X; pub use c::Y;"),
            ("a/b.rs", "use super::Y;"),
            ("a/c.rs", "use super::X;"),
        ];

        assert_eq!(circles(&files), ["a: b c"]);
    }

    #[test]
    fn a_circle_of_tests_is_none() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::X;"),
            ("b.rs", "#[cfg(test)] mod tests { use crate::a::Y; }"),
        ];

        assert!(circles(&files).is_empty());
    }
}
