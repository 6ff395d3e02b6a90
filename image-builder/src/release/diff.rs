//! Which packages two releases have, and how they differ: read from their bills of materials.
//!
//! Pure: two SPDX documents in, the differences out. Refuses to know where they lie.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A package that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PackageDifference {
    /// Where it comes from and its name, as its package URL begins: `deb/debian/openssl`, `cargo/rustls`.
    pub(super) package: String,
    /// Its versions in the older release: none, if it is new there.
    pub(super) from: Vec<String>,
    /// Its versions in the newer release: none, if it was left out.
    pub(super) to: Vec<String>,
}

impl fmt::Display for PackageDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, from, to } = self;
        match (from.as_slice(), to.as_slice()) {
            ([], to) => write!(f, "+ {package} {}", to.join(", ")),
            (from, []) => write!(f, "- {package} {}", from.join(", ")),
            (from, to) => write!(f, "  {package} {} -> {}", from.join(", "), to.join(", ")),
        }
    }
}

/// The differences of two bills, by package.
pub(super) fn compare_bills(old: &[u8], new: &[u8]) -> Result<Vec<PackageDifference>, serde_json::Error> {
    let (old, new) = (read_packages(old)?, read_packages(new)?);
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    let mut differences: Vec<PackageDifference> = names
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| {
            let of = |bill: &Packages| bill.get(name).cloned().unwrap_or_default();
            PackageDifference { package: name.clone(), from: of(&old), to: of(&new) }
        })
        .collect();
    differences.sort_by(|one, other| one.package.cmp(&other.package));
    Ok(differences)
}

/// Versions by package. A program of Rust may have two versions of one crate.
type Packages = BTreeMap<String, Vec<String>>;

fn read_packages(bill: &[u8]) -> Result<Packages, serde_json::Error> {
    let bill: serde_json::Value = serde_json::from_slice(bill)?;
    let mut packages = Packages::new();
    for package in bill["packages"].as_array().into_iter().flatten() {
        let url = package["externalRefs"][0]["referenceLocator"].as_str();
        // The entry of the image itself has no package URL.
        let Some(name) = url.and_then(|url| url.strip_prefix("pkg:")?.split('@').next()) else { continue };
        let version = package["versionInfo"].as_str().unwrap_or("unknown").to_owned();
        packages.entry(name.replace("%2B", "+")).or_default().push(version);
    }
    for versions in packages.values_mut() {
        versions.sort();
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bill(packages: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(url, version): &(&str, &str)| {
            serde_json::json!({
                "versionInfo": version, "externalRefs": [{ "referenceLocator": format!("pkg:{url}@{version}?arch=amd64") }],
            })
        };
        let mut entries = vec![serde_json::json!({ "name": "cloud", "versionInfo": "1.0.0" })];
        entries.extend(packages.iter().map(entry));
        serde_json::to_vec(&serde_json::json!({ "packages": entries })).unwrap()
    }

    #[test]
    fn what_moved_came_and_went_is_listed() {
        let old = bill(&[
            ("deb/debian/openssl", "3.5.1-1"),
            ("deb/debian/nano", "8"),
            ("cargo/syn", "1"),
            ("cargo/syn", "2"),
        ]);
        let new = bill(&[
            ("deb/debian/openssl", "3.5.1-2"),
            ("deb/debian/libstdc%2B%2B6", "14"),
            ("cargo/syn", "2"),
        ]);

        let lines: Vec<String> =
            compare_bills(&old, &new).unwrap().iter().map(PackageDifference::to_string).collect();

        assert_eq!(
            lines,
            [
                "  cargo/syn 1, 2 -> 2",
                "+ deb/debian/libstdc++6 14",
                "- deb/debian/nano 8",
                "  deb/debian/openssl 3.5.1-1 -> 3.5.1-2",
            ]
        );
        assert_eq!(compare_bills(&old, &old).unwrap(), []);
        assert!(compare_bills(b"<html>", &new).is_err());
    }
}
