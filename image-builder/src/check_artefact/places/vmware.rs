//! VMware vSphere and ESXi: <https://docs.vmware.com/en/VMware-vSphere/index.html>
//!
//! qemu-img's VMDK is refused by vSphere (flatcar/scripts#540). Ours has version 3 and a footer; no ESXi was at hand.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "vmware",
    title: "VMware vSphere and ESXi",
    rules: &[
        PlaceRule::Formats(&["ova", "vmdk"]),
        PlaceRule::Boot(BootMode::Uefi),
        PlaceRule::Drivers(&["vmw_pvscsi", "vmxnet3"]),
        PlaceRule::Agent("guestinfo properties"),
    ],
    commands: r#"govc import.ova -name one {FILE}
govc vm.change -vm one -e guestinfo.userdata="$(base64 -w0 user-data.yaml)" -e guestinfo.userdata.encoding=base64
govc vm.power -on one
"#,
    tested: "the disk by qemu-img, the manifest by us; not on ESXi",
};
