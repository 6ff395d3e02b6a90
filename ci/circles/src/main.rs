//! Refuses modules of a crate that import each other in a circle: `circles LIST FOLDER ...`.
//!
//! LIST holds the circles that are allowed, each FOLDER a crate. Knows source text only: no types, no macros. Refuses
//! to know which circle is good. Invariant: it fails for a circle that the list lacks and for a line that no circle
//! needs, so the list can only shrink.

mod allowed;
mod circle;
mod crate_tree;
mod module;
mod tokens;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::allowed::{compare_circles, parse_allowed};
use crate::circle::{Circle, find_circles};
use crate::crate_tree::CrateTree;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let complaints = match arguments.split_first() {
        Some((list, folders)) if !folders.is_empty() => {
            check_crates(list, folders).unwrap_or_else(|error| vec![error])
        }
        _ => vec!["usage: circles LIST FOLDER ...".to_owned()],
    };
    for complaint in &complaints {
        // Nobody is left to hear of a broken standard error.
        let _ignored = writeln!(std::io::stderr(), "circles: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check_crates(list: &Path, folders: &[PathBuf]) -> Result<Vec<String>, String> {
    let text =
        std::fs::read_to_string(list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let allowed = parse_allowed(&text).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let mut found: Vec<(String, Circle)> = Vec::new();
    for folder in folders {
        for (name, root) in crate_roots(folder)? {
            let tree = CrateTree::read(&root, &|path| std::fs::read_to_string(path))?;
            found
                .extend(find_circles(&tree.module_usages()).into_iter().map(|circle| (name.clone(), circle)));
        }
    }
    Ok(compare_circles(&allowed, &found))
}

/// The root of each crate in a folder: its library, its programs. The first bears the folder's name.
fn crate_roots(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let source = folder.join("src");
    let mut roots: Vec<PathBuf> = ["lib.rs", "main.rs"]
        .map(|name| source.join(name))
        .into_iter()
        .filter(|root| root.is_file())
        .collect();
    if let Ok(programs) = std::fs::read_dir(source.join("bin")) {
        let mut programs: Vec<PathBuf> = programs.filter_map(|entry| Some(entry.ok()?.path())).collect();
        programs.retain(|program| program.extension().is_some_and(|extension| extension == "rs"));
        programs.sort();
        roots.extend(programs);
    }
    let name = |(index, root): (usize, PathBuf)| {
        let shown = if index == 0 { folder } else { &root };
        (shown.display().to_string(), root)
    };
    let named: Vec<(String, PathBuf)> = roots.into_iter().enumerate().map(name).collect();
    // Without this, a crate that moved would pass for one that has no circle.
    if named.is_empty() { Err(format!("{} holds no crate", folder.display())) } else { Ok(named) }
}
