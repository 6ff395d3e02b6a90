use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use super::*;

/// A disk with something at its ends and in its middle.
fn disk(folder: &Path) -> PathBuf {
    let path = folder.join("disk.raw");
    let file = File::create_new(&path).unwrap();
    file.set_len(9 << 20).unwrap();
    for at in [0, 3 << 20, (9 << 20) - 512] {
        file.write_all_at(&[7; 512], at).unwrap();
    }
    path
}

fn convert(image: &Path, folder: &Path, kinds: &[ArtefactKind], threads: usize) -> Vec<MadeArtefact> {
    let request = ConvertRequest {
        image,
        kinds,
        folder,
        hardware_version: 15,
        box_url: Some("https://example.com/boxes/"),
        threads,
        output: OutputFormat::People,
    };
    convert_image(&request, &InterruptFlag::default()).unwrap()
}

fn whole(path: &Path) -> Vec<u8> {
    let disk = open_source(path).unwrap().disk;
    let mut bytes = vec![0; usize::try_from(disk.disk_size()).unwrap()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn every_kind_is_read_again_and_the_same_in_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path());
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));

    let made = convert(&image, &one, &ArtefactKind::ALL, 1);
    // Nor do holes matter that a copy has lost.
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("disk.raw"), fs::read(&image).unwrap()).unwrap();
    convert(&full.join("disk.raw"), &two, &ArtefactKind::ALL, 3);

    let plain = fs::read(&image).unwrap();
    assert_eq!(made.len(), ArtefactKind::ALL.len() + 1);
    for MadeArtefact { kind, path, .. } in made {
        let again = two.join(path.file_name().unwrap());
        assert!(fs::read(&path).unwrap() == fs::read(again).unwrap(), "{kind} differs");
        if !matches!(kind, "bmap" | "vagrant-catalogue") {
            let found = whole(&path);
            assert!(
                found[..plain.len()] == plain[..] && found[plain.len()..].iter().all(|byte| *byte == 0),
                "{kind}"
            );
        }
    }
    assert_eq!(fs::read_dir(&one).unwrap().count(), ArtefactKind::ALL.len() + 1, "nothing half-made is left");
}

fn members(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let mut members = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(entry.path().unwrap().to_str().unwrap().to_owned(), bytes);
    }
    members
}

#[test]
fn an_ova_says_the_truth_of_its_disk() {
    use disk_formats::bmap::encode_hex;
    use sha2::{Digest as _, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path());

    convert(&image, folder.path(), &[ArtefactKind::Ova], 1);

    let members = members(&folder.path().join("disk.ova"));
    let (ovf, vmdk) = (String::from_utf8(members["disk.ovf"].clone()).unwrap(), &members["disk-disk1.vmdk"]);
    assert!(ovf.contains(&format!("ovf:size=\"{}\"", vmdk.len())), "{ovf}");
    assert!(ovf.contains(&format!("ovf:capacity=\"{}\"", 9 << 20)) && ovf.contains(">vmx-15<"), "{ovf}");
    let manifest = String::from_utf8(members["disk.mf"].clone()).unwrap();
    assert!(
        manifest.contains(&format!("SHA256(disk-disk1.vmdk)= {}", encode_hex(&Sha256::digest(vmdk)))),
        "{manifest}"
    );
    assert!(!folder.path().join("disk.vmdk").exists(), "nobody asked for it");
}

#[test]
fn googles_archive_has_one_sparse_disk_of_whole_gibibytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path());

    convert(&image, folder.path(), &[ArtefactKind::Gce], 2);

    let file = File::open(folder.path().join("disk.gce.tar.gz")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let entries: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().into_owned(), entry.header().entry_type(), entry.size())
        })
        .collect();
    assert_eq!(entries, [(PathBuf::from("disk.raw"), tar::EntryType::GNUSparse, 1 << 30)]);
}

#[test]
fn a_catalogue_names_boxes_by_their_digest() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path());

    convert(&image, folder.path(), &[ArtefactKind::VagrantLibvirt, ArtefactKind::VagrantVirtualbox], 1);

    let text = fs::read_to_string(folder.path().join("disk-vagrant.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let providers = found["versions"][0]["providers"].as_array().unwrap();
    assert_eq!(providers[0]["url"], "https://example.com/boxes/disk-libvirt.box");
    let digest = disk_install::stream::file_sha256(&folder.path().join("disk-libvirt.box")).unwrap();
    assert_eq!(providers[0]["checksum"], digest);
    let metadata = &members(&folder.path().join("disk-libvirt.box"))["metadata.json"];
    let metadata: serde_json::Value = serde_json::from_slice(metadata).unwrap();
    assert_eq!((&metadata["provider"], &metadata["virtual_size"]), (&"libvirt".into(), &1.into()));
    let virtualbox = members(&folder.path().join("disk-virtualbox.box"));
    let text = |name: &str| String::from_utf8(virtualbox[name].clone()).unwrap();
    let mac = text("Vagrantfile").split('"').find(|word| word.starts_with("080027")).unwrap().to_owned();
    assert!(text("box.ovf").contains(&mac));
}

#[test]
fn an_image_is_never_its_own_artefact() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path());
    let request = ConvertRequest {
        image: &image,
        kinds: &[ArtefactKind::Disk(Format::Raw)],
        folder: folder.path(),
        hardware_version: 15,
        box_url: None,
        threads: 1,
        output: OutputFormat::People,
    };

    let error = convert_image(&request, &InterruptFlag::default()).unwrap_err();

    assert!(error.to_string().contains("is what would be written"), "{error}");
    assert_eq!(fs::metadata(&image).unwrap().len(), 9 << 20);
}

#[test]
fn the_stem_of_a_name_is_what_no_format_adds() {
    for (name, found) in
        [("disk.raw.zst", "disk"), ("a-fixed.vhd", "a"), ("x-libvirt.box", "x"), ("plain", "plain")]
    {
        assert_eq!(image_stem(Path::new(name)), found);
    }
}
