//! Amazon EC2: <https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-import-snapshot.html>
//!
//! `import-image` is not used: it rewrites fstab and the boot loader, which a signed root does not survive.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "aws",
    title: "Amazon EC2",
    rules: &[
        PlaceRule::Formats(&["raw", "vhd", "vhd-fixed", "vhdx", "vmdk"]),
        PlaceRule::MaxDisk(16 << 40),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["nvme", "ena"]),
        PlaceRule::Console("ttyS0"),
        PlaceRule::Agent("the instance metadata service, IMDSv2"),
    ],
    commands: r"aws s3 cp {FILE} s3://BUCKET/
aws ec2 import-snapshot --disk-container 'Format=RAW,UserBucket={S3Bucket=BUCKET,S3Key=KEY}'   # or VHD, VHDX, VMDK
aws ec2 describe-import-snapshot-tasks            # until it has a SnapshotId
aws ec2 register-image --name catamaran --architecture x86_64 --virtualization-type hvm \
  --boot-mode uefi-preferred --ena-support --sriov-net-support simple --imds-support v2.0 \
  --root-device-name /dev/xvda \
  --block-device-mappings 'DeviceName=/dev/xvda,Ebs={SnapshotId=SNAPSHOT,VolumeType=gp3}'
",
    tested: "rules only",
};
