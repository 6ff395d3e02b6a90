//! Oracle Cloud: <https://docs.oracle.com/iaas/Content/Compute/Tasks/importingcustomimagelinux.htm>
//!
//! A qcow2 is accepted and does not start; the streamOptimized VMDK does (talos#12557).

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "oracle",
    title: "Oracle Cloud",
    rules: &[
        PlaceRule::Formats(&["vmdk"]),
        PlaceRule::MaxDisk(400 << 30),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["virtio_scsi", "virtio_net"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the instance metadata service"),
    ],
    commands: r"oci os object put -bn BUCKET --file {FILE} --name catamaran.vmdk
oci compute image import from-object -bn BUCKET -ns NAMESPACE --name catamaran.vmdk -c COMPARTMENT \
  --display-name catamaran --source-image-type VMDK --launch-mode PARAVIRTUALIZED
",
    tested: "the file by qemu-img; rules",
};
