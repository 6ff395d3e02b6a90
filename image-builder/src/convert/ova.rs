//! OVA for VMware: an OVF that describes the machine, its manifest, and a streamOptimized VMDK, in a tar.
//!
//! Format: DMTF DSP0243. `VirtualBox` has an OVF of its own in its Vagrant box: each refuses the other's hardware family.

use std::fs::File;
use std::io;
use std::path::Path;

use disk_formats::bmap::encode_hex;
use disk_formats::disk::ReadDisk;
use disk_formats::format::Format;
use disk_install::stream::file_sha256;
use sha2::{Digest as _, Sha256};

use super::Job;
use super::archive::TarWriter;
use crate::artefact::ArtefactKind;
use crate::source::open_source;

/// Writes the OVA out of the VMDK that the pass made.
pub(crate) fn write(job: &Job<'_>, disk: &dyn ReadDisk) -> io::Result<()> {
    let vmdk = job.partial_path(Format::Vmdk.file_suffix());
    let (ovf_name, vmdk_name) = (format!("{}.ovf", job.stem), format!("{}-disk1.vmdk", job.stem));
    let machine = OvfMachine {
        name: &job.stem,
        disk_name: &vmdk_name,
        disk_bytes: disk.disk_size(),
        file_bytes: std::fs::metadata(&vmdk)?.len(),
        used_bytes: used_bytes(&vmdk)?,
    };
    let ovf = machine.for_vmware(job.request.hardware_version);
    let manifest = format!(
        "SHA256({ovf_name})= {}\nSHA256({vmdk_name})= {}\n",
        encode_hex(&Sha256::digest(ovf.as_bytes())),
        file_sha256(&vmdk)?
    );
    let path = job.partial_path(ArtefactKind::Ova.file_suffix());
    let mut tar = TarWriter::new(File::create_new(path)?);
    tar.add_text(&ovf_name, ovf.as_bytes())?;
    tar.add_text(&format!("{}.mf", job.stem), manifest.as_bytes())?;
    tar.add_file(&vmdk_name, &vmdk)?;
    tar.finish_archive()
}

/// Bytes of the disk in grains that are not zero, by which an importer sees whether there is room. They are counted in
/// the VMDK, since what is a hole in the image depends on who copied it.
pub(crate) fn used_bytes(vmdk: &Path) -> io::Result<u64> {
    let disk = open_source(vmdk).map_err(io::Error::other)?.disk;
    let (mut sum, mut at) = (0, 0);
    while let Some(run) = disk.next_data(at)? {
        sum += run.end - run.start;
        at = run.end;
    }
    Ok(sum)
}

/// The machine that an OVF describes.
pub(crate) struct OvfMachine<'a> {
    pub(crate) name: &'a str,
    pub(crate) disk_name: &'a str,
    pub(crate) disk_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) used_bytes: u64,
}

const CPUS: u32 = 2;
const MEMORY_MB: u32 = 2048;

impl OvfMachine<'_> {
    /// UEFI with Secure Boot, paravirtual SCSI, vmxnet3: what ESXi 6.5 and later have. `guestinfo` carries user-data.
    pub(crate) fn for_vmware(&self, hardware_version: u8) -> String {
        let items = "\
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI Controller 0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Hard Disk 1</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>7</rasd:AddressOnParent><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>Ethernet 1</rasd:ElementName><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>
      <vmw:Config ovf:required=\"false\" vmw:key=\"bootOptions.efiSecureBootEnabled\" vmw:value=\"true\"/>
";
        self.ovf_envelope(
            &format!("vmx-{hardware_version}"),
            items,
            "VM Network",
            "ovf:transport=\"com.vmware.guestInfo\"",
        )
    }

    /// BIOS and SATA, with the MAC that the box's Vagrantfile has: `VirtualBox` knows no firmware in a plain OVF.
    pub(crate) fn for_virtualbox(&self, mac: &str) -> String {
        let items = format!("\
      <Item><rasd:Address>0</rasd:Address><rasd:Caption>sataController0</rasd:Caption><rasd:ElementName>sataController0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>AHCI</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:Caption>disk1</rasd:Caption><rasd:ElementName>disk1</rasd:ElementName><rasd:HostResource>/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:Address>{mac}</rasd:Address><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Caption>Ethernet adapter on 'NAT'</rasd:Caption><rasd:Connection>NAT</rasd:Connection><rasd:ElementName>Ethernet adapter on 'NAT'</rasd:ElementName><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>E1000</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
");
        self.ovf_envelope("virtualbox-2.2", &items, "NAT", "")
    }

    fn ovf_envelope(&self, family: &str, items: &str, network: &str, transport: &str) -> String {
        let Self { name, disk_name, disk_bytes, file_bytes, used_bytes } = self;
        let (name, disk_name) = (escape_xml(name), escape_xml(disk_name));
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:href="{disk_name}" ovf:id="file1" ovf:size="{file_bytes}"/></References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:capacity="{disk_bytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="{used_bytes}"/>
  </DiskSection>
  <NetworkSection>
    <Info>The networks</Info>
    <Network ovf:name="{network}"><Description>The network of the machine</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A Catamaran machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="other5xLinux64Guest"><Info>Linux, 64 bits</Info></OperatingSystemSection>
    <VirtualHardwareSection {transport}>
      <Info>The hardware</Info>
      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier><vssd:VirtualSystemType>{family}</vssd:VirtualSystemType></System>
      <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits><rasd:ElementName>{CPUS} virtual CPUs</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>{CPUS}</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>{MEMORY_MB} MB of memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>{MEMORY_MB}</rasd:VirtualQuantity></Item>
{items}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#
        )
    }
}

/// A text as XML has it.
fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
