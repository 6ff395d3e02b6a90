//! Proxmox VE: <https://pve.proxmox.com/pve-docs/qm.1.html>
//!
//! Its cloud-init drive is a NoCloud seed; docs/platforms.md says what happens when it is edited.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "proxmox",
    title: "Proxmox VE",
    rules: &[
        PlaceRule::Formats(&["qcow2", "raw", "vmdk"]),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["virtio_blk", "virtio_scsi", "virtio_net"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("a NoCloud drive"),
    ],
    commands: r"qm create 100 --name one --memory 2048 --cores 2 --machine q35 --bios ovmf --scsihw virtio-scsi-single \
  --efidisk0 STORE:1,efitype=4m,pre-enrolled-keys=1 --net0 virtio,bridge=vmbr0 --serial0 socket \
  --scsi0 STORE:0,import-from=$(realpath {FILE}),discard=on --ide2 STORE:cloudinit --boot order=scsi0
qm set 100 --ciuser core --sshkeys ~/.ssh/id_ed25519.pub
qm start 100
",
    tested: "the file by qemu-img; rules",
};
