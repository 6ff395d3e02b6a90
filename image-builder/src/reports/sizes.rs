//! Where an image's bytes are: by package and by folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::json;

use crate::rootfs::compose::DpkgDatabase;
use crate::rootfs::tree::{EntryKind, RootTree};

/// Bytes of files by who owns them and where they lie, the largest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SizeReport {
    total: u64,
    packages: Vec<(String, u64)>,
    folders: Vec<(String, u64)>,
}

/// What no package owns: made by maintainer scripts, overlays or this program.
const UNOWNED: &str = "(no package)";

/// Measures a root.
pub(crate) fn measure_sizes(tree: &RootTree, database: &DpkgDatabase, kept: &BTreeSet<String>) -> SizeReport {
    let mut packages: BTreeMap<String, u64> = BTreeMap::new();
    let mut folders: BTreeMap<String, u64> = BTreeMap::new();
    let mut total = 0;
    for (path, entry) in tree.iter() {
        let EntryKind::File(content) = &entry.kind else { continue };
        let owner = database
            .owners_of(path)
            // A path of several packages is counted once, for the first of them that is in the image.
            .and_then(|owners| owners.iter().find(|owner| kept.contains(*owner)))
            .map_or(UNOWNED, String::as_str);
        let folder: Vec<&str> = path.split('/').take(3).collect();
        let folder = folder[..folder.len().saturating_sub(1).max(1)].join("/");
        *packages.entry(owner.to_owned()).or_default() += content.content_size();
        *folders.entry(format!("/{folder}")).or_default() += content.content_size();
        total += content.content_size();
    }
    SizeReport { total, packages: largest_first(packages), folders: largest_first(folders) }
}

fn largest_first(sizes: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut sizes: Vec<(String, u64)> = sizes.into_iter().collect();
    sizes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sizes
}

impl SizeReport {
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let list = |sizes: &[(String, u64)]| -> Vec<serde_json::Value> {
            sizes.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect()
        };
        json!({ "bytes": self.total, "packages": list(&self.packages), "folders": list(&self.folders) })
    }
}

impl fmt::Display for SizeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12}  all files of the root", self.total)?;
        for (title, sizes) in [("package", &self.packages), ("folder", &self.folders)] {
            writeln!(f, "\n{:>12}  {title}", "bytes")?;
            for (name, bytes) in sizes {
                writeln!(f, "{bytes:>12}  {name}")?;
            }
        }
        Ok(())
    }
}
