//! Which units an image starts: exactly those the spec lists, whatever the packages would enable.
//!
//! Does what `systemctl --root enable` does, from the units' own `[Install]` sections.
//! Source: `systemd.unit(5)`, "[INSTALL] SECTION OPTIONS".

use super::tree::{EntryKind, RootTree, TreeEntry};

const UNITS: &str = "etc/systemd/system";

/// Disables whatever the packages enabled, then enables `wanted`. Names that are no unit of the tree
/// are given back.
pub(crate) fn enable_only(tree: &mut RootTree, wanted: &[String]) -> Result<(), Vec<String>> {
    tree.retain(|path, entry| {
        !(path.starts_with(UNITS)
            // Masks stay: an overlay or package that masks a unit says that nobody shall start it.
            && matches!(&entry.kind, EntryKind::Symlink(target) if target != "/dev/null"))
    });
    tree.retain(|path, entry| {
        !(path.starts_with(UNITS)
            && matches!(entry.kind, EntryKind::Directory)
            && [".wants", ".requires"].iter().any(|suffix| path.ends_with(suffix)))
    });
    let missing: Vec<String> = wanted.iter().filter(|unit| !enable_unit(tree, unit)).cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn enable_unit(tree: &mut RootTree, unit: &str) -> bool {
    let Some((path, text)) = read(tree, unit) else { return false };
    for (key, value) in install_section(&text) {
        for word in value.split_whitespace() {
            match key {
                "Alias" => add_link(tree, &format!("{UNITS}/{word}"), &path),
                "Also" => {
                    enable_unit(tree, word);
                }
                "RequiredBy" => add_link(tree, &format!("{UNITS}/{word}.requires/{unit}"), &path),
                "WantedBy" => add_link(tree, &format!("{UNITS}/{word}.wants/{unit}"), &path),
                _ => {}
            }
        }
    }
    true
}

/// The unit's path and text; an instance is read from its template.
fn read(tree: &RootTree, unit: &str) -> Option<(String, String)> {
    let template = unit.split_once('@').map_or_else(
        || unit.to_owned(),
        |(prefix, rest)| format!("{prefix}@.{}", rest.rsplit('.').next().unwrap_or_default()),
    );
    // systemd.unit(5): /etc goes before /usr/lib.
    ["etc/systemd/system", "usr/lib/systemd/system"].iter().find_map(|folder| {
        let path = format!("{folder}/{template}");
        Some((path.clone(), tree.read_text(&path).ok()?))
    })
}

fn install_section(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .map(str::trim)
        .skip_while(|line| *line != "[Install]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .collect()
}

fn add_link(tree: &mut RootTree, path: &str, target: &str) {
    tree.insert(path, TreeEntry::symlink(&format!("/{target}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_enabled() {
        let mut tree = RootTree::default();
        let unit = "[Unit]\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n";
        tree.insert("usr/lib/systemd/system/ssh.service", TreeEntry::file(unit.as_bytes(), 0o644));
        tree.insert("etc/systemd/system/multi-user.target.wants/docker.service", TreeEntry::symlink("/x"));
        tree.insert("etc/systemd/system/hwdb.service", TreeEntry::symlink("/dev/null"));

        enable_only(&mut tree, &["ssh.service".to_owned()]).unwrap();

        let links: Vec<&str> = tree
            .iter()
            .filter(|(_, entry)| matches!(entry.kind, EntryKind::Symlink(_)))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(
            links,
            [
                "etc/systemd/system/hwdb.service",
                "etc/systemd/system/multi-user.target.wants/ssh.service",
                "etc/systemd/system/sshd.service"
            ]
        );
    }

    #[test]
    fn a_unit_the_tree_has_not_is_named() {
        assert_eq!(
            enable_only(&mut RootTree::default(), &["no.service".to_owned()]),
            Err(vec!["no.service".to_owned()])
        );
    }
}
