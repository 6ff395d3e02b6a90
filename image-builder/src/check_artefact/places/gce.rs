//! Google Compute Engine: <https://cloud.google.com/compute/docs/import/import-existing-image>
//!
//! The archive holds nothing but disk.raw, in GNU's old sparse format.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "gce",
    title: "Google Compute Engine",
    rules: &[
        PlaceRule::Formats(&["gce"]),
        PlaceRule::DiskUnit(1 << 30),
        PlaceRule::MaxDisk(2048 << 30),
        PlaceRule::Boot(BootMode::Uefi),
        PlaceRule::Drivers(&["virtio_scsi", "virtio_net", "nvme", "gve"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the metadata service"),
    ],
    commands: r"gcloud storage cp {FILE} gs://BUCKET/catamaran.tar.gz
gcloud compute images create catamaran --source-uri gs://BUCKET/catamaran.tar.gz --architecture X86_64 \
  --guest-os-features=UEFI_COMPATIBLE,VIRTIO_SCSI_MULTIQUEUE,GVNIC,IDPF,SEV_CAPABLE,SEV_SNP_CAPABLE,TDX_CAPABLE
",
    tested: "the archive by GNU tar; rules",
};
