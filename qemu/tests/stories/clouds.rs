//! The places where a machine can be, and what each tells it in its own words.
//!
//! The firmware says which cloud it is; the metadata service is at its link-local address, on the guest's own
//! network. Invariant: nothing is handed over by other ways, so what a machine knows it has from its cloud.

use std::ffi::OsString;
use std::io::{Cursor, Write};

use vm::builder::MachineBuilder;
use vm::options::SeedBy;

use crate::metadata_service::{self, Page};
use crate::scene::Scene;

/// A machine in a place, and what it must know of it.
pub(crate) struct Cloud {
    pub(crate) builder: MachineBuilder,
    pub(crate) hostname: &'static str,
    /// Lines of `/run/metadata/catamaran`
    pub(crate) facts: &'static [&'static str],
}

pub(crate) fn ec2(scene: &Scene, user_data: &str) -> Cloud {
    let item = |path, body: &str| Page::get(path, body).wanting("x-aws-ec2-metadata-token: t0ken");
    let pages = vec![
        Page::get("/latest/api/token", "t0ken")
            .by("PUT")
            .wanting("x-aws-ec2-metadata-token-ttl-seconds: 21600"),
        item("/latest/meta-data/hostname", "ip-10-0-2-15.eu-central-1.compute.internal"),
        item("/latest/meta-data/instance-id", "i-0a1b2c3d4e5f67890"),
        item("/latest/meta-data/instance-type", "t3.medium"),
        item("/latest/meta-data/local-ipv4", "10.0.2.15"),
        item("/latest/meta-data/placement/availability-zone", "eu-central-1b"),
        item("/latest/meta-data/placement/region", "eu-central-1"),
        item("/latest/meta-data/public-ipv4", "203.0.113.20"),
        item("/latest/meta-data/public-keys", "0=story"),
        item("/latest/meta-data/public-keys/0/openssh-key", scene.public_key()),
        item("/latest/user-data", user_data),
    ];
    let firmware = "type=1,manufacturer=Amazon EC2,product=t3.medium";
    Cloud {
        builder: in_cloud(scene, "ec2", firmware, pages),
        hostname: "ip-10-0-2-15.eu-central-1.compute.internal",
        facts: &[
            "AFTERBURN_AWS_INSTANCE_TYPE=t3.medium",
            "CATAMARAN_INSTANCE_ID=i-0a1b2c3d4e5f67890",
            "CATAMARAN_PLATFORM=ec2",
            "CATAMARAN_REGION=eu-central-1",
            "CATAMARAN_ZONE=eu-central-1b",
            "COREOS_EC2_IPV4_PUBLIC=203.0.113.20",
            "COREOS_PUBLIC_IPV4=203.0.113.20",
        ],
    }
}

pub(crate) fn gce(scene: &Scene, user_data: &str) -> Cloud {
    let item = |path, body: &str| Page::get(path, body).wanting("metadata-flavor: google");
    let interfaces = r#"[{"accessConfigs": [{"externalIp": "203.0.113.20", "type": "ONE_TO_ONE_NAT"}], "ip": "10.0.2.15"}]"#;
    let pages = vec![
        item("/computeMetadata/v1/instance/attributes/ssh-keys", &expiring_keys(scene)),
        item("/computeMetadata/v1/instance/attributes/user-data", user_data),
        item("/computeMetadata/v1/instance/hostname", "node1.europe-west3-c.c.story.internal"),
        item("/computeMetadata/v1/instance/id", "5241352356321472323"),
        item("/computeMetadata/v1/instance/machine-type", "projects/123/machineTypes/e2-small"),
        item("/computeMetadata/v1/instance/network-interfaces/?recursive=true", interfaces),
        item("/computeMetadata/v1/instance/zone", "projects/123/zones/europe-west3-c"),
    ];
    let firmware = "type=1,manufacturer=Google,product=Google Compute Engine";
    Cloud {
        builder: in_cloud(scene, "gce", firmware, pages),
        hostname: "node1.europe-west3-c.c.story.internal",
        facts: &[
            "AFTERBURN_GCP_IP_EXTERNAL_0=203.0.113.20",
            "CATAMARAN_INSTANCE_ID=5241352356321472323",
            "CATAMARAN_INSTANCE_TYPE=e2-small",
            "CATAMARAN_PLATFORM=gce",
            "CATAMARAN_ZONE=europe-west3-c",
            "COREOS_GCE_IP_LOCAL_0=10.0.2.15",
        ],
    }
}

/// The key with a date that sshd must know how to read, and the same key as one whose date has passed.
fn expiring_keys(scene: &Scene) -> String {
    let key: Vec<&str> = scene.public_key().split_whitespace().take(2).collect();
    let line = |user: &str, date: &str| {
        format!("{user}:{} google-ssh {{\"userName\":\"{user}\",\"expireOn\":\"{date}\"}}\n", key.join(" "))
    };
    line("core", "2099-12-31T23:59:59+0000") + &line("gone", "2020-01-01T00:00:00+0000")
}

pub(crate) fn digital_ocean(scene: &Scene, user_data: &str) -> Cloud {
    const MAC: &str = "52:54:00:0c:ea:01";
    let document = serde_json::json!({
        "droplet_id": 2_756_294,
        "hostname": "sample-droplet",
        "user_data": user_data,
        "vendor_data": "#cloud-config\nmanage_etc_hosts: true\n",
        "public_keys": [scene.public_key()],
        "region": "nyc3",
        "interfaces": {"public": [{
            "ipv4": {"ip_address": "10.0.2.15", "netmask": "255.255.255.0", "gateway": "10.0.2.2"},
            "anchor_ipv4": {"ip_address": "10.17.0.7", "netmask": "255.255.0.0", "gateway": "10.17.0.1"},
            "mac": MAC,
            "type": "public",
        }]},
        "dns": {"nameservers": ["10.0.2.3"]},
    });
    let pages = vec![Page::get("/metadata/v1.json", document.to_string())];
    let machine = in_cloud(scene, "digitalocean", "type=1,manufacturer=DigitalOcean,product=Droplet", pages);
    Cloud {
        builder: machine.mac(MAC),
        hostname: "sample-droplet",
        facts: &[
            "AFTERBURN_DIGITALOCEAN_IPV4_ANCHOR_0=10.17.0.7",
            "CATAMARAN_INSTANCE_ID=2756294",
            "CATAMARAN_PLATFORM=digitalocean",
            "CATAMARAN_REGION=nyc3",
            "COREOS_DIGITALOCEAN_IPV4_PUBLIC_0=10.0.2.15",
            "COREOS_PUBLIC_IPV4=10.0.2.15",
        ],
    }
}

/// A CD, as `OpenStack` attaches it: its drivers are slow to come up.
pub(crate) fn config_drive(scene: &Scene, user_data: &str) -> Cloud {
    let meta_data = serde_json::json!({
        "uuid": "83679162-1378-4288-a2d4-70e13ec132aa",
        "hostname": "drive.novalocal",
        "availability_zone": "nova",
        "public_keys": {"story": scene.public_key()},
    });
    let ec2_meta_data = serde_json::json!({"local-ipv4": "10.0.2.15", "instance-type": "m1.small"});
    let disc = scene.keep(
        "config-2.img",
        &config_2(&[
            ("openstack/latest/meta_data.json", meta_data.to_string()),
            ("openstack/latest/user_data", user_data.to_owned()),
            ("ec2/latest/meta-data.json", ec2_meta_data.to_string()),
        ]),
    );
    let drive = serde_json::json!({
        "driver": "raw", "file": {"driver": "file", "filename": disc.to_str()}, "node-name": "cd", "read-only": true,
    });
    let words = ["-blockdev", &drive.to_string(), "-device", "ide-cd,drive=cd"].map(OsString::from);
    let machine = scene.fresh("config-drive").seed_by(SeedBy::Nothing).extra(words);
    Cloud {
        builder: machine,
        hostname: "drive.novalocal",
        facts: &[
            "AFTERBURN_OPENSTACK_INSTANCE_TYPE=m1.small",
            "CATAMARAN_INSTANCE_ID=83679162-1378-4288-a2d4-70e13ec132aa",
            "CATAMARAN_PLATFORM=config-drive",
            "CATAMARAN_ZONE=nova",
            "COREOS_PRIVATE_IPV4=10.0.2.15",
        ],
    }
}

/// A machine whose firmware says where it is, and whose metadata service has these pages.
fn in_cloud(scene: &Scene, name: &str, firmware: &str, pages: Vec<Page>) -> MachineBuilder {
    let port = metadata_service::serve(pages);
    let words = ["-smbios", firmware].map(OsString::from);
    scene.fresh(name).seed_by(SeedBy::Nothing).metadata_service(port).extra(words)
}

/// A FAT file system with the label of a configuration drive.
fn config_2(files: &[(&str, String)]) -> Vec<u8> {
    let mut disc = Cursor::new(vec![0; 2 << 20]);
    let format = fatfs::FormatVolumeOptions::new().volume_label(*b"CONFIG-2   ");
    fatfs::format_volume(&mut disc, format).unwrap();
    {
        let file_system = fatfs::FileSystem::new(&mut disc, fatfs::FsOptions::new()).unwrap();
        for (path, content) in files {
            let (folder, name) = path.rsplit_once('/').unwrap();
            let folder =
                folder.split('/').fold(file_system.root_dir(), |above, name| above.create_dir(name).unwrap());
            folder.create_file(name).unwrap().write_all(content.as_bytes()).unwrap();
        }
    }
    disc.into_inner()
}
