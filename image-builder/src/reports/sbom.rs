//! The bill of materials, as SPDX 2.3 in JSON (spdx.github.io/spdx-spec/v2.3), with package URLs.

use std::collections::BTreeSet;

use image_format::digest::Sha256;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::debian::lock::Package;
use crate::debian::status::Installed;

/// What the bill is about.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// Seconds since 1970.
    pub(crate) epoch: u64,
}

/// The bill of an image with these packages; `locked` gives each one's digest.
pub(crate) fn document(
    subject: &Subject<'_>,
    installed: &[Installed],
    kept: &BTreeSet<String>,
    locked: &[Package],
) -> Value {
    let Subject { name, version, epoch } = subject;
    let created = jiff::Timestamp::from_second(i64::try_from(*epoch).unwrap_or_default()).unwrap_or_default();
    let mut packages: Vec<&Installed> =
        installed.iter().filter(|package| kept.contains(&package.name)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let identity: String = locked.iter().map(|package| package.sha256.to_string()).collect();
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{name} {version} {identity}").as_bytes());
    let image = json!({
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    });
    let listed: Vec<Value> =
        std::iter::once(image).chain(packages.iter().map(|package| entry(package, locked))).collect();
    let relationships: Vec<Value> = std::iter::once(json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image",
    }))
    .chain(packages.iter().map(|package| {
        json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": spdx_id(&package.name),
        })
    }))
    .collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("urn:uuid:{namespace}"),
        "creationInfo": { "created": created.to_string(), "creators": ["Tool: image-builder"] },
        "packages": listed,
        "relationships": relationships,
    })
}

fn entry(package: &Installed, locked: &[Package]) -> Value {
    let Installed { name, version, architecture, source, homepage, .. } = package;
    let checksums: Vec<Value> = locked
        .iter()
        .find(|locked| locked.name == *name)
        .map(|Package { sha256, .. }| checksum(*sha256))
        .into_iter()
        .collect();
    let mut value = json!({
        "SPDXID": spdx_id(name),
        "name": name,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "checksums": checksums,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator":
                format!("pkg:deb/debian/{}@{}?arch={architecture}", escaped(name), escaped(version)),
        }],
    });
    if let Some(homepage) = homepage {
        value["homepage"] = json!(homepage);
    }
    if let Some(source) = source {
        value["sourceInfo"] = json!(format!("built from the Debian source package {source}"));
    }
    value
}

fn checksum(digest: Sha256) -> Value {
    json!({ "algorithm": "SHA256", "checksumValue": digest.to_string() })
}

/// Identifiers are letters, digits, `.` and `-`.
fn spdx_id(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    format!("SPDXRef-deb-{plain}")
}

/// Percent-encoding as package URLs want it.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".-_~".contains(c) {
                c.to_string()
            } else {
                format!("%{:02X}", u32::from(c))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::status;

    #[test]
    fn a_package_is_named_by_its_url_and_digest() {
        let installed = status::parse(
            "Package: libstdc++6\nStatus: install ok installed\nVersion: 1:14.2-1\nArchitecture: amd64\nHomepage: http://gcc.gnu.org/\n",
        );
        let locked = [Package {
            name: "libstdc++6".to_owned(),
            version: "1:14.2-1".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: Sha256::of(b"deb"),
            size: 3,
        }];
        let subject = Subject { name: "cloud", version: "1.0.0", epoch: 0 };

        let bill = document(&subject, &installed, &BTreeSet::from(["libstdc++6".to_owned()]), &locked);

        let package = &bill["packages"][1];
        assert_eq!(
            package["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2-1?arch=amd64"
        );
        assert_eq!(package["checksums"][0]["checksumValue"], Sha256::of(b"deb").to_string());
        assert_eq!(bill["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        assert_eq!(bill["relationships"][1]["relatedSpdxElement"], "SPDXRef-deb-libstdc--6");
    }
}
