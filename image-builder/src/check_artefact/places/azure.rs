//! Microsoft Azure: <https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic>
//!
//! NVMe disk controllers are offered to generation 2 only, and only if the definition of the image says so.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "azure",
    title: "Microsoft Azure",
    rules: &[
        PlaceRule::Formats(&["vhd-fixed"]),
        PlaceRule::DiskUnit(1 << 20),
        PlaceRule::MinDisk(20 << 20),
        PlaceRule::MaxDisk(1023 << 30),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["hv_storvsc", "hv_netvsc", "udf"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("IMDS and the provisioning DVD"),
    ],
    commands: r#"az disk create -g GROUP -n DISK --upload-type Upload --upload-size-bytes $(stat -c %s {FILE}) \
  --os-type Linux --hyper-v-generation V2 --sku Standard_LRS
azcopy copy {FILE} "$(az disk grant-access -g GROUP -n DISK --access-level Write --duration-in-seconds 86400 \
  --query accessSas -o tsv)" --blob-type PageBlob      # skips what is zero
az disk revoke-access -g GROUP -n DISK
az sig image-definition create -g GROUP -r GALLERY -i catamaran --publisher P --offer O --sku S --os-type Linux \
  --hyper-v-generation V2 --features "DiskControllerTypes=SCSI,NVMe SecurityType=TrustedLaunchSupported"
az sig image-version create -g GROUP -r GALLERY -i catamaran -e 1.0.0 --os-snapshot DISK
"#,
    tested: "the file by qemu-img; rules",
};
