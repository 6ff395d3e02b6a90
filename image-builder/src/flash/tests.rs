use std::fs::File;
use std::io::Write as _;

use disk_install::write::HEAD_BYTES;
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES};
use image_format::layout::{DiskLayout, PartitionSizes};

use super::*;

/// An image with two partitions' worth of data.
fn image() -> Vec<u8> {
    let sizes = PartitionSizes { root: Bytes::from_mib(8), state: Bytes::from_mib(4) };
    let layout = DiskLayout::plan_layout(uuid::Uuid::from_u128(7), sizes).unwrap();
    let size = layout.disk_size();
    let mut bytes = vec![0; usize::try_from(size.get()).unwrap()];
    let copies = gpt::encode_table(&layout.partition_table(), size).unwrap();
    bytes[..4].copy_from_slice(b"boot");
    bytes[512..512 + COPY_BYTES].copy_from_slice(&copies.primary);
    let backup = usize::try_from(gpt::backup_offset(size).unwrap().get()).unwrap();
    bytes[backup..].copy_from_slice(&copies.backup);
    for entry in &layout.partition_table().entries {
        let at = usize::try_from(entry.byte_offset().get()).unwrap();
        bytes[at..at + 5000].fill(9);
        bytes[at + 100_000..at + 100_010].fill(3);
    }
    bytes
}

/// A disk that was used before, a little larger.
fn used_disk(folder: &Path, image: &[u8]) -> PathBuf {
    let path = folder.join("disk");
    File::create_new(&path).unwrap().write_all(&vec![0xaa; image.len() + (5 << 20)]).unwrap();
    path
}

fn request<'a>(image: &'a str, device: &'a str) -> FlashRequest<'a> {
    FlashRequest {
        image,
        device,
        keys: Vec::new(),
        sha256: None,
        user_data: None,
        erase: EraseScope::Marks,
        keep: KeptData::Nothing,
        consent: Consent::Given,
        output: OutputFormat::Machines,
    }
}

#[test]
fn an_image_that_nobody_signed_leaves_no_disk_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let path = used_disk(folder.path(), &bytes);
    let [raw, packed] = ["disk.raw", "disk.raw.zst"].map(|name| folder.path().join(name));
    std::fs::write(&raw, &bytes).unwrap();
    std::fs::write(&packed, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();

    for (image, sha256) in [(&raw, None), (&packed, None), (&raw, Some("00")), (&packed, Some("00"))] {
        let request = request(image.to_str().unwrap(), path.to_str().unwrap());
        let failed = flash_image(&FlashRequest { sha256, ..request }, &InterruptFlag::default());

        let error = failed.unwrap_err();
        let says = if sha256.is_some() { "was promised" } else { "signed system" };
        assert!(error.source().unwrap().to_string().contains(says), "{error:?}");
        let found = std::fs::read(&path).unwrap();
        let ends = found[..HEAD_BYTES].iter().chain(&found[found.len() - (1 << 20)..]);
        assert!(ends.into_iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_is_no_image_or_too_large_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = image();
    let small = folder.path().join("small");
    std::fs::write(&small, vec![0xaa; bytes.len() - 512]).unwrap();
    let (image, text) = (folder.path().join("disk.raw"), folder.path().join("text"));
    std::fs::write(&image, &bytes).unwrap();
    std::fs::write(&text, vec![b'x'; 4 << 20]).unwrap();

    for (image, says) in [(&image, "the image needs"), (&text, "no partition table")] {
        let request = request(image.to_str().unwrap(), small.to_str().unwrap());
        let error = flash_image(&request, &InterruptFlag::default()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(std::fs::read(&small).unwrap().iter().all(|byte| *byte == 0xaa));
    }
}
