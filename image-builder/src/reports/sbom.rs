//! The bill of materials, as SPDX 2.3 in JSON (spdx.github.io/spdx-spec/v2.3), with package URLs.
//!
//! Package URLs: <https://github.com/package-url/purl-spec>.

use std::collections::BTreeSet;

use image_format::digest::Sha256;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::debian::lock::LockedPackage;
use crate::debian::status::InstalledPackage;
use crate::reports::crates::Crate;

/// The program of an image that is not of a package.
pub(crate) const AGENT: &str = "initagent";

/// What the bill is about.
pub(crate) struct SbomSubject<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// Seconds since 1970.
    pub(crate) epoch: u64,
}

/// What is in an image.
pub(crate) struct Contents<'a> {
    /// The packages of its root, and those that only helped to make it.
    pub(crate) installed: &'a [InstalledPackage],
    /// Names of those whose files are in the root.
    pub(crate) kept: &'a BTreeSet<String>,
    /// What gives each one's digest.
    pub(crate) locked: &'a [LockedPackage],
    /// The packages whose boot loaders are on the disk, outside of any root.
    pub(crate) boot_loaders: Vec<&'a LockedPackage>,
    /// The digest of the agent: the first program of the boot, and the one that configures the machine.
    pub(crate) agent: Option<Sha256>,
    /// The agent's own crates, and those of others in it.
    pub(crate) crates: Vec<Crate>,
}

/// The bill of an image.
pub(crate) fn sbom_document(subject: &SbomSubject<'_>, contents: &Contents<'_>) -> Value {
    let SbomSubject { name, version, epoch } = subject;
    let Contents { installed, kept, locked, .. } = contents;
    let created = jiff::Timestamp::from_second(i64::try_from(*epoch).unwrap_or_default()).unwrap_or_default();
    let mut packages: Vec<&InstalledPackage> =
        installed.iter().filter(|package| kept.contains(&package.name)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let digests = locked.iter().chain(contents.boot_loaders.iter().copied()).map(|package| package.sha256);
    let identity: String = digests.chain(contents.agent).map(|digest| digest.to_string()).collect();
    // SPDX 2.3, 6.5: unique for each document. Derived, so that the same image has the same bill.
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{name} {version} {identity}").as_bytes());
    let image = json!({
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    });
    let of_root = packages.iter().map(|package| package_entry(package, locked));
    let of_boot = contents.boot_loaders.iter().map(|package| boot_loader(package));
    let of_agent = contents.crates.iter().map(|known| rust_crate(known, contents.agent));
    let parts: Vec<Value> = of_root.chain(of_boot).chain(of_agent).collect();
    let relationships: Vec<Value> = std::iter::once(json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image",
    }))
    .chain(parts.iter().map(|part| {
        json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": part["SPDXID"],
        })
    }))
    .collect();
    let listed: Vec<Value> = std::iter::once(image).chain(parts).collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        // SPDX 2.3, 6.2, allows no other.
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("urn:uuid:{namespace}"),
        "creationInfo": { "created": created.to_string(), "creators": ["Tool: image-builder"] },
        "packages": listed,
        "relationships": relationships,
    })
}

/// What all entries say.
fn sbom_part(id: &str, name: &str, version: &str, digest: Option<String>, url: &str) -> Value {
    let checksums: Vec<Value> =
        digest.into_iter().map(|digest| json!({ "algorithm": "SHA256", "checksumValue": digest })).collect();
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "checksums": checksums,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": url,
        }],
    })
}

fn debian_url(name: &str, version: &str, architecture: &str) -> String {
    format!("pkg:deb/debian/{}@{}?arch={architecture}", percent_encode(name), percent_encode(version))
}

fn boot_loader(package: &LockedPackage) -> Value {
    let LockedPackage { name, version, architecture, sha256, .. } = package;
    let url = debian_url(name, version, architecture);
    let id = spdx_id("boot", name);
    let mut value = sbom_part(&id, name, version, Some(sha256.to_string()), &url);
    value["supplier"] = json!("Organization: Debian");
    value["comment"] =
        json!("its boot loaders are on the EFI system partition or in the BIOS boot partition");
    value
}

/// A crate in the agent; our own program's digest is that of the program.
fn rust_crate(known: &Crate, agent: Option<Sha256>) -> Value {
    let Crate { name, version, sha256, .. } = known;
    let program = agent.filter(|_| name == AGENT).map(|digest| digest.to_string());
    let url = format!("pkg:cargo/{}@{}", percent_encode(name), percent_encode(version));
    let id = spdx_id("cargo", &format!("{name}-{version}"));
    sbom_part(&id, name, version, program.or_else(|| sha256.clone()), &url)
}

fn package_entry(package: &InstalledPackage, locked: &[LockedPackage]) -> Value {
    let InstalledPackage { name, version, architecture, source, homepage, .. } = package;
    let digest = locked.iter().find(|locked| locked.name == *name).map(|locked| locked.sha256.to_string());
    let url = debian_url(name, version, architecture);
    let mut value = sbom_part(&spdx_id("deb", name), name, version, digest, &url);
    value["supplier"] = json!("Organization: Debian");
    if let Some(homepage) = homepage {
        value["homepage"] = json!(homepage);
    }
    if let Some(source) = source {
        value["sourceInfo"] = json!(format!("built from the Debian source package {source}"));
    }
    value
}

/// Identifiers are letters, digits, `.` and `-`.
fn spdx_id(kind: &str, name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    format!("SPDXRef-{kind}-{plain}")
}

/// Percent-encoding as package URLs want it.
fn percent_encode(text: &str) -> String {
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
    use crate::reports::crates;

    #[test]
    fn all_that_is_on_the_disk_is_named_by_its_url_and_digest() {
        let installed = status::parse_status(
            "Package: libstdc++6\nStatus: install ok installed\nVersion: 1:14.2-1\nArchitecture: amd64\nHomepage: http://gcc.gnu.org/\n",
        );
        let locked = [LockedPackage {
            name: "libstdc++6".to_owned(),
            version: "1:14.2-1".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: Sha256::digest_of(b"deb"),
            size: 3,
        }];
        let subject = SbomSubject { name: "cloud", version: "1.0.0", epoch: 0 };

        let shim = LockedPackage { name: "shim-signed".to_owned(), ..locked[0].clone() };
        let contents = Contents {
            installed: &installed,
            kept: &BTreeSet::from(["libstdc++6".to_owned()]),
            locked: &locked,
            boot_loaders: vec![&shim],
            agent: Some(Sha256::digest_of(b"agent")),
            crates: crates::of_program(AGENT),
        };

        let bill = sbom_document(&subject, &contents);

        let package = &bill["packages"][1];
        assert_eq!(
            package["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2-1?arch=amd64"
        );
        assert_eq!(package["checksums"][0]["checksumValue"], Sha256::digest_of(b"deb").to_string());
        assert_eq!(bill["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        assert_eq!(bill["relationships"][1]["relatedSpdxElement"], "SPDXRef-deb-libstdc--6");

        let packages = bill["packages"].as_array().unwrap();
        let digest_of = |url: &str| {
            let begins = |package: &&Value| {
                package["externalRefs"][0]["referenceLocator"]
                    .as_str()
                    .is_some_and(|found| found.starts_with(url))
            };
            let found = packages.iter().find(begins).unwrap_or_else(|| panic!("{url} is missing"));
            found["checksums"][0]["checksumValue"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(digest_of("pkg:cargo/initagent@"), Sha256::digest_of(b"agent").to_string());
        assert_eq!(digest_of("pkg:cargo/rustls@").len(), 64);
        assert_eq!(digest_of("pkg:deb/debian/shim-signed@"), Sha256::digest_of(b"deb").to_string());
        assert_eq!(bill["relationships"].as_array().unwrap().len(), packages.len());
        let ids: BTreeSet<&str> = packages.iter().filter_map(|package| package["SPDXID"].as_str()).collect();
        assert_eq!(ids.len(), packages.len(), "an identifier stands twice");
    }
}
