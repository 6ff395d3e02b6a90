//! dpkg's status database: what is installed, and what of it a set of packages needs.
//!
//! An image lists what it is for; everything no listed package needs is left out, and so is what the
//! spec drops by name (the package manager, Perl). Source: Debian Policy 7, `dpkg(1)`.

use std::collections::{BTreeMap, BTreeSet};

use super::stanza;

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstalledPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// The source package and, where it differs, its version.
    pub(crate) source: Option<String>,
    pub(crate) homepage: Option<String>,
    /// Each dependency as its alternatives' names.
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
}

/// Reads `/var/lib/dpkg/status`.
pub(crate) fn parse_status(text: &str) -> Vec<InstalledPackage> {
    stanza::parse_stanzas(text)
        .iter()
        // dpkg(1) keeps what was removed with its configuration.
        .filter(|entry| entry.field_value("Status").is_some_and(|status| status.ends_with(" installed")))
        .filter_map(|entry| {
            Some(InstalledPackage {
                name: entry.field_value("Package")?.to_owned(),
                version: entry.field_value("Version")?.to_owned(),
                architecture: entry.field_value("Architecture")?.to_owned(),
                source: entry.field_value("Source").map(str::to_owned),
                homepage: entry.field_value("Homepage").map(str::to_owned),
                depends: ["Pre-Depends", "Depends"]
                    .iter()
                    .filter_map(|field| entry.field_value(field))
                    .flat_map(|list| list.split(',').map(dependency_alternatives))
                    .collect(),
                provides: entry
                    .field_value("Provides")
                    .map(|list| list.split(',').map(name_of).collect())
                    .unwrap_or_default(),
            })
        })
        .collect()
}

fn dependency_alternatives(dependency: &str) -> Vec<String> {
    dependency.split('|').map(name_of).collect()
}

/// `libc6:any (>= 2.38)` names `libc6`.
fn name_of(relation: &str) -> String {
    let relation = relation.trim();
    let end = relation.find([' ', '(', ':', '[']).unwrap_or(relation.len());
    relation[..end].to_owned()
}

/// Names of the packages that `roots` need, themselves included, never passing through `dropped`.
/// Roots that are not installed are given back as the error.
pub(crate) fn needed_packages(
    installed: &[InstalledPackage],
    roots: &[String],
    dropped: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Vec<String>> {
    let mut by_name: BTreeMap<&str, &InstalledPackage> = BTreeMap::new();
    for package in installed {
        for provided in &package.provides {
            // A real package of the name goes before one that only provides it.
            by_name.entry(provided).or_insert(package);
        }
    }
    by_name.extend(installed.iter().map(|package| (package.name.as_str(), package)));

    let missing: Vec<String> =
        roots.iter().filter(|root| !by_name.contains_key(root.as_str())).cloned().collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let mut kept = BTreeSet::new();
    let mut pending: Vec<&str> = roots.iter().map(String::as_str).collect();
    while let Some(name) = pending.pop() {
        let Some(package) = by_name.get(name) else { continue };
        if dropped.contains(&package.name) || !kept.insert(package.name.clone()) {
            continue;
        }
        let choices = package.depends.iter().filter_map(|choices| {
            // The first alternative that is installed, since apt has chosen already. Versions were its
            // concern, too.
            choices.iter().map(String::as_str).find(|choice| by_name.contains_key(choice))
        });
        pending.extend(choices);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: sshd\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nDepends: libc (>= 2), awk | perl, debconf:any | cdebconf\n\n\
Package: libc\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n\n\
Package: mawk\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\nProvides: awk\n\n\
Package: debconf\nStatus: install ok installed\nVersion: 2\nArchitecture: all\nDepends: perl\n\n\
Package: perl\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n\n\
Package: gone\nStatus: deinstall ok config-files\nVersion: 2\nArchitecture: amd64\n";

    #[test]
    fn what_only_a_dropped_package_needs_goes_with_it() {
        let dropped = BTreeSet::from(["debconf".to_owned()]);

        let kept = needed_packages(&parse_status(STATUS), &["sshd".to_owned()], &dropped).unwrap();

        assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["libc", "mawk", "sshd"]);
    }

    #[test]
    fn a_removed_package_is_not_installed() {
        let missing = needed_packages(&parse_status(STATUS), &["gone".to_owned()], &BTreeSet::new());

        assert_eq!(missing, Err(vec!["gone".to_owned()]));
    }
}
