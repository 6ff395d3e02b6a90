//! What a machine and its platform are called in templates.
//!
//! Knows cloud-init's standard names, and which of its names for platforms are ours. Refuses to ask anybody: the
//! platform has answered. Invariants: what is not known is left out, so that a template that needs it is refused;
//! names stay what they were when the instance was configured, as cloud-init keeps them, so that no volume that
//! is attached later puts words into the commands of each boot.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/instancedata.html>, "Standardized keys".

use std::fs;

use nix::sys::utsname;
use platform::{InstanceMetadata, Platform};
use serde_json::{Map, Value, json};
use user_data::template::InstanceData;

use crate::record;
use crate::root::MachineRoot;
use crate::step_error::StepError;

const OS_RELEASE: &str = "/etc/os-release";
/// The file below the record's folder, which is root's alone.
const FILE: &str = "instance-data.json";

/// The names of an instance, and which of those it is that were started together.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Names {
    standard: Map<String, Value>,
    meta_data: Map<String, Value>,
    pub(crate) launch_index: Option<u32>,
}

impl Names {
    /// As the platform says them now.
    pub(crate) fn from_metadata(provision: &InstanceMetadata, instance_id: &str, root: &MachineRoot) -> Self {
        let mut names = of_platform(provision, instance_id);
        names.extend(of_system(&fs::read_to_string(root.path_of(OS_RELEASE)).unwrap_or_default()));
        Self {
            standard: present_names(names),
            meta_data: meta_data(provision, instance_id),
            launch_index: provision.launch_index(),
        }
    }

    /// As they were when this instance was configured; `None` if an older release configured it.
    pub(crate) fn read_kept(root: &MachineRoot) -> Option<Self> {
        let value: Value = serde_json::from_slice(&record::read(root, FILE)?).ok()?;
        let map = |name: &str| value.get(name)?.as_object().cloned();
        let launch_index = value.get("launch_index").and_then(Value::as_u64);
        Some(Self {
            standard: map("standard")?,
            meta_data: map("meta_data")?,
            launch_index: launch_index.and_then(|index| index.try_into().ok()),
        })
    }

    /// Keeps them for the instance's later boots.
    pub(crate) fn keep_names(&self, root: &MachineRoot) -> Result<(), StepError> {
        let Self { standard, meta_data, launch_index } = self;
        let value = json!({ "standard": standard, "meta_data": meta_data, "launch_index": launch_index });
        record::write(root, FILE, value.to_string().as_bytes())
    }

    /// For templates.
    pub(crate) fn instance_data(&self) -> InstanceData {
        InstanceData::new(self.standard.clone(), self.meta_data.clone())
    }
}

type Pairs = Vec<(&'static str, Option<Value>)>;

fn of_platform(provision: &InstanceMetadata, instance_id: &str) -> Pairs {
    let text = |text: &Option<String>| text.clone().map(Value::from);
    let cloud = cloud_name(provision.platform);
    // cloud-init's is the first label; the whole name is in `ds.meta_data`.
    // Where the platform gives none, as with cloud-init, it is the name that the machine has.
    let own = utsname::uname().ok().map(|kernel| kernel.nodename().to_string_lossy().into_owned());
    let own = own.filter(|name| !matches!(name.as_str(), "" | "(none)" | "localhost"));
    let hostname = provision.hostname.clone().or(own);
    let hostname = hostname.as_deref().and_then(|name| name.split('.').next());
    vec![
        ("availability-zone", text(&provision.zone)),
        ("cloud-name", Some(json!(cloud))),
        ("cloud_id", Some(json!(cloud))),
        ("instance-id", Some(json!(instance_id))),
        ("local-hostname", hostname.map(Value::from)),
        // cloud-init names the cloud by its brand here, and the platform by its service.
        ("platform", Some(json!(if cloud == "aws" { "ec2" } else { cloud }))),
        ("public_ssh_keys", Some(json!(provision.ssh_keys))),
        ("region", text(&provision.region)),
    ]
}

fn of_system(os_release: &str) -> Pairs {
    let field = |name: &str| {
        let mut values = os_release.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next().map(|value| Value::from(value.trim_matches(['"', '\''])))
    };
    let kernel = utsname::uname().ok();
    let of_kernel = |value: &std::ffi::OsStr| Value::from(value.to_string_lossy());
    let release = kernel.as_ref().map(|kernel| of_kernel(kernel.release()));
    let machine = kernel.as_ref().map(|kernel| of_kernel(kernel.machine()));
    let system = kernel.as_ref().map(|kernel| {
        let parts = [kernel.sysname(), kernel.release(), kernel.machine()].map(|part| part.to_string_lossy());
        Value::from(parts.join("-"))
    });
    vec![
        ("distro", field("ID")),
        ("distro_release", field("VERSION_CODENAME")),
        ("distro_version", field("VERSION_ID")),
        ("kernel_release", release),
        ("machine", machine),
        ("system_platform", system),
        ("variant", field("ID")),
    ]
}

/// What the platform's own document says, and the names that cloud-init's data sources add to it.
fn meta_data(provision: &InstanceMetadata, instance_id: &str) -> Map<String, Value> {
    let text = |text: &Option<String>| text.clone().map(Value::from);
    let (hostname, zone, region) =
        (text(&provision.hostname), text(&provision.zone), text(&provision.region));
    let addresses = &provision.addresses;
    let place = present_names(vec![("availability-zone", zone.clone()), ("region", region.clone())]);
    let mut names = present_names(vec![
        ("availability-zone", zone),
        ("hostname", hostname.clone()),
        ("instance-id", Some(json!(instance_id))),
        ("instance-type", text(&provision.instance_type)),
        ("local-hostname", hostname),
        ("local-ipv4", addresses.private_ipv4.map(|address| json!(address))),
        ("placement", Some(Value::from(place)).filter(|place| place != &json!({}))),
        ("public-ipv4", addresses.public_ipv4.map(|address| json!(address))),
        ("public-keys", Some(json!(provision.ssh_keys))),
        ("region", region),
    ]);
    // The document's own spelling of a name goes before ours.
    for (name, value) in provision.meta_data.names() {
        // cloud-init lets templates write either, so both at once would be two values of one name.
        names.remove(&name.replace('_', "-"));
        names.insert(name.clone(), value.clone());
    }
    names
}

fn present_names(names: Pairs) -> Map<String, Value> {
    names.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// As cloud-init calls the cloud.
fn cloud_name(platform: Platform) -> &'static str {
    match platform {
        Platform::Akamai => "akamai",
        Platform::Azure => "azure",
        Platform::CloudConfigUrl | Platform::NoCloud | Platform::Qemu => "nocloud",
        Platform::ConfigDrive => "configdrive",
        Platform::DigitalOcean => "digitalocean",
        Platform::Ec2 => "aws",
        Platform::Equinix => "equinix",
        Platform::Exoscale => "exoscale",
        Platform::Gce => "gce",
        Platform::Hetzner => "hetzner",
        Platform::Metal => "none",
        Platform::OpenStack => "openstack",
        Platform::Oracle => "oracle",
        Platform::Scaleway => "scaleway",
        Platform::UpCloud => "upcloud",
        Platform::Vmware => "vmware",
        Platform::Vultr => "vultr",
    }
}

#[cfg(test)]
mod tests {
    use user_data::template::expand_template;

    use super::*;

    #[test]
    fn each_standard_name_and_those_of_the_platform_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        fs::create_dir(root.path_of("/etc")).unwrap();
        fs::write(root.path_of(OS_RELEASE), "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n")
            .unwrap();
        let document = json!({"uuid": "u-1", "local_hostname": "own", "rack": {"row-number": 3}});
        let provision = InstanceMetadata {
            platform: Platform::Ec2,
            hostname: Some("web-1.example.net".to_owned()),
            region: Some("r".to_owned()),
            zone: Some("r-a".to_owned()),
            ssh_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            meta_data: platform::MetaData::from_value(document),
            ..InstanceMetadata::default()
        };
        let names = Names::from_metadata(&provision, "i-1", &root);
        names.keep_names(&root).unwrap();
        assert_eq!(Names::read_kept(&root).as_ref(), Some(&names));
        let data = names.instance_data();
        let expanded = |text: &str| expand_template(text, 0, &data).map(|expansion| expansion.text);

        for (name, value) in [
            ("v1.availability_zone", "r-a"),
            ("v1.cloud_name", "aws"),
            ("v1.distro", "debian"),
            ("v1.distro_release", "trixie"),
            ("v1.distro_version", "13"),
            ("v1.local_hostname", "web-1"),
            ("v1.platform", "ec2"),
            ("v1.public_ssh_keys[0]", "ssh-ed25519 AAAA"),
            ("instance_id", "i-1"),
            ("region", "r"),
            ("ds.meta_data.hostname", "web-1.example.net"),
            ("ds.meta_data.local_hostname", "own"),
            ("ds.meta_data.placement.availability_zone", "r-a"),
            ("ds.meta_data.rack.row_number", "3"),
            ("ds.meta_data['uuid']", "u-1"),
        ] {
            assert_eq!(expanded(&format!("{{{{ {name} }}}}")).unwrap(), value, "{name}");
        }
        for name in ["kernel_release", "machine", "system_platform"] {
            assert!(!expanded(&format!("{{{{ v1.{name} }}}}")).unwrap().is_empty(), "{name}");
        }
        for name in ["v1.python_version", "ds.meta_data.instance_type"] {
            assert!(expanded(&format!("{{{{ {name} }}}}")).is_err(), "{name}");
        }
    }
}
