//! Hyper-V: <https://learn.microsoft.com/windows-server/virtualization/hyper-v/>
//!
//! Generation 2 starts by UEFI from a VHDX only; generation 1 by BIOS from either.

use super::Place;
use crate::check_artefact::rules::{BootMode, PlaceRule};

pub(super) const PLACE: Place = Place {
    name: "hyper-v",
    title: "Hyper-V",
    rules: &[
        PlaceRule::Formats(&["vhdx", "vhd", "vhd-fixed"]),
        PlaceRule::DiskUnit(1 << 20),
        PlaceRule::Boot(BootMode::Either),
        PlaceRule::Drivers(&["hv_storvsc", "hv_netvsc"]),
    ],
    commands: "New-VM -Name one -Generation 2 -MemoryStartupBytes 2GB -VHDPath {FILE} -SwitchName SWITCH
Set-VMFirmware one -EnableSecureBoot On -SecureBootTemplate MicrosoftUEFICertificateAuthority
Start-VM one
",
    tested: "the file by qemu-img; rules",
};
