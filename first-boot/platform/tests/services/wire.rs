//! What each provider serves, in its real shape, and what is to be made of it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use platform::{DetectedPlatform, InstanceMetadata, Payload, Place, Platform};

use crate::service::Route;

/// The platforms that are asked over HTTP.
pub(crate) const PLATFORMS: [Platform; 15] = [
    Platform::Akamai,
    Platform::Azure,
    Platform::CloudConfigUrl,
    Platform::DigitalOcean,
    Platform::Ec2,
    Platform::Equinix,
    Platform::Exoscale,
    Platform::Gce,
    Platform::Hetzner,
    Platform::NoCloud,
    Platform::OpenStack,
    Platform::Oracle,
    Platform::Scaleway,
    Platform::UpCloud,
    Platform::Vultr,
];

pub(crate) fn detected(platform: Platform) -> DetectedPlatform {
    DetectedPlatform { platform, evidence: "a test".to_owned(), needs_network: true, place: Place::Firmware }
}

/// The facts as text, so that a person can read what is expected.
pub(crate) fn printed(provision: &InstanceMetadata) -> String {
    let mut text = String::new();
    let payload = |payload: &Option<Payload>| {
        payload.as_ref().map(|payload| String::from_utf8_lossy(payload.as_bytes()).into_owned())
    };
    let addresses = provision.addresses;
    for (name, value) in [
        ("instance-id", provision.instance_id.clone()),
        ("hostname", provision.hostname.clone()),
        ("region", provision.region.clone()),
        ("zone", provision.zone.clone()),
        ("instance-type", provision.instance_type.clone()),
        ("launch-index", provision.launch_index().map(|index| index.to_string())),
        ("public-ipv4", addresses.public_ipv4.map(|address| address.to_string())),
        ("private-ipv4", addresses.private_ipv4.map(|address| address.to_string())),
        ("public-ipv6", addresses.public_ipv6.map(|address| address.to_string())),
        ("private-ipv6", addresses.private_ipv6.map(|address| address.to_string())),
        ("user-data", payload(&provision.user_data)),
        ("vendor-data", payload(&provision.vendor_data)),
        ("files", payload(&provision.files)),
        ("network-config", payload(&provision.network_config)),
    ] {
        if let Some(value) = value {
            writeln!(text, "{name}: {}", value.trim_end().replace('\n', "\n    ")).unwrap();
        }
    }
    for key in &provision.ssh_keys {
        writeln!(text, "key: {key}").unwrap();
    }
    for (name, value) in &provision.attributes {
        writeln!(text, "{name}={value}").unwrap();
    }
    let names: Vec<&str> = provision.meta_data.names().keys().map(String::as_str).collect();
    if !names.is_empty() {
        writeln!(text, "template names: {}", names.join(" ")).unwrap();
    }
    for problem in &provision.problems {
        writeln!(text, "problem: {problem}").unwrap();
    }
    text
}

pub(crate) fn golden(platform: Platform) -> String {
    fs::read_to_string(golden_path(platform)).unwrap_or_default()
}

pub(crate) fn golden_path(platform: Platform) -> PathBuf {
    data().join(platform.name()).join("provision.txt")
}

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

pub(crate) fn get(path: &'static str, body: &[u8]) -> Route {
    Route { method: "GET", path, body: body.to_vec(), wants: None }
}

fn file(path: &'static str, name: &str) -> Route {
    let body = fs::read(data().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    get(path, &body)
}

fn wanting(routes: Vec<Route>, name: &'static str, value: &'static str) -> Vec<Route> {
    routes.into_iter().map(|route| Route { wants: Some((name, value)), ..route }).collect()
}

/// What each provider serves, in its real shape.
pub(crate) fn routes(platform: Platform) -> Vec<Route> {
    match platform {
        Platform::Akamai => {
            let mut routes = wanting(
                vec![
                    file("/v1/instance", "akamai/instance.json"),
                    file("/v1/network", "akamai/network.json"),
                    file("/v1/ssh-keys", "akamai/ssh-keys.json"),
                    file("/v1/user-data", "akamai/user-data.base64"),
                ],
                "Metadata-Token",
                "t0ken",
            );
            routes.push(Route { method: "PUT", path: "/v1/token", body: b"t0ken".to_vec(), wants: None });
            routes
        }
        Platform::Azure => {
            let instance = "/metadata/instance?api-version=2021-08-01&format=json";
            wanting(vec![file(instance, "azure/instance.json")], "Metadata", "true")
        }
        Platform::CloudConfigUrl => vec![file("/user-data", "user-data")],
        Platform::DigitalOcean => vec![file("/metadata/v1.json", "digitalocean/v1.json")],
        Platform::Ec2 => ec2(),
        Platform::Equinix => vec![file("/metadata", "equinix/metadata.json"), file("/userdata", "user-data")],
        Platform::Exoscale => exoscale(),
        Platform::Gce => gce(),
        Platform::Hetzner => vec![
            file("/hetzner/v1/metadata", "hetzner/metadata"),
            file("/hetzner/v1/metadata/private-networks", "hetzner/private-networks"),
            file("/hetzner/v1/userdata", "user-data"),
        ],
        Platform::NoCloud => vec![
            file("/seed/meta-data", "nocloud/meta-data"),
            file("/seed/user-data", "user-data"),
            file("/seed/network-config", "nocloud/network-config"),
        ],
        Platform::OpenStack => vec![
            file("/openstack/latest/meta_data.json", "openstack/meta_data.json"),
            file("/openstack/latest/network_data.json", "openstack/network_data.json"),
            file("/openstack/latest/vendor_data.json", "openstack/vendor_data.json"),
            file("/openstack/latest/vendor_data2.json", "openstack/vendor_data2.json"),
            file("/openstack/latest/user_data", "user-data"),
            get("/openstack/content/0000", b"welcome"),
            get("/latest/meta-data/local-ipv4", b"10.0.0.9"),
            get("/latest/meta-data/public-ipv4", b"198.51.100.9"),
            get("/latest/meta-data/instance-type", b"m1.small"),
            get("/latest/meta-data/instance-id", b"i-0000abcd"),
        ],
        Platform::Oracle => wanting(
            vec![
                file("/opc/v2/instance/", "oracle/instance.json"),
                file("/opc/v2/vnics/", "oracle/vnics.json"),
            ],
            "Authorization",
            "Bearer Oracle",
        ),
        Platform::Scaleway => vec![
            file("/conf?format=json", "scaleway/conf.json"),
            file("/user_data/cloud-init", "user-data"),
            get("/vendor_data/cloud-init", b"#cloud-config\ntimezone: UTC\n"),
        ],
        Platform::UpCloud => {
            vec![file("/metadata/v1.json", "upcloud/v1.json"), file("/metadata/v1/user_data", "user-data")]
        }
        Platform::Vultr => wanting(
            vec![file("/v1.json", "vultr/v1.json"), file("/user-data/user-data", "user-data")],
            "Metadata-Token",
            "cloudinit",
        ),
        Platform::ConfigDrive | Platform::Metal | Platform::Qemu | Platform::Vmware => {
            unreachable!("{platform} is not asked over HTTP")
        }
    }
}

const KEY: &[u8] =
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTsz9TWGBkQYVQGOCzYqzkUXyX9DdGe0CQp9Jkz core@example\n";

fn ec2() -> Vec<Route> {
    let mut routes = wanting(
        vec![
            get("/latest/meta-data/instance-id", b"i-0a1b2c3d4e5f67890"),
            get("/latest/meta-data/instance-type", b"t3.medium"),
            get("/latest/meta-data/ami-launch-index", b"2"),
            get("/latest/meta-data/local-ipv4", b"172.31.7.9"),
            get("/latest/meta-data/public-ipv4", b"18.184.10.20"),
            get("/latest/meta-data/ipv6", b"2a05:d014:1:2::3"),
            get("/latest/meta-data/hostname", b"ip-172-31-7-9.eu-central-1.compute.internal"),
            get("/latest/meta-data/public-hostname", b"ec2-18-184-10-20.eu-central-1.compute.amazonaws.com"),
            get("/latest/meta-data/placement/availability-zone", b"eu-central-1b"),
            get("/latest/meta-data/placement/availability-zone-id", b"euc1-az3"),
            get("/latest/meta-data/public-keys", b"0=my-key\n1=../other\nrubbish"),
            get("/latest/meta-data/public-keys/0/openssh-key", KEY),
            file("/latest/user-data", "user-data"),
            file("/latest/dynamic/instance-identity/document", "ec2/identity.json"),
        ],
        "X-aws-ec2-metadata-token",
        "AQAEAtoken==",
    );
    let token = b"AQAEAtoken==".to_vec();
    let ask = Some(("X-aws-ec2-metadata-token-ttl-seconds", "21600"));
    routes.push(Route { method: "PUT", path: "/latest/api/token", body: token, wants: ask });
    routes
}

fn exoscale() -> Vec<Route> {
    vec![
        get("/1.0/meta-data/instance-id", b"0b5d6d7e-0d0b-4b0a-9c3a-5e6f7a8b9c0d"),
        get("/1.0/meta-data/availability-zone", b"ch-gva-2"),
        get("/1.0/meta-data/cloud-identifier", b"CloudStack-{1}"),
        get("/1.0/meta-data/local-hostname", b"node1"),
        get("/1.0/meta-data/local-ipv4", b"159.100.251.10"),
        get("/1.0/meta-data/public-ipv4", b"159.100.251.10"),
        get("/1.0/meta-data/service-offering", b"standard.small"),
        get("/1.0/meta-data/vm-id", b"0b5d6d7e"),
        get("/1.0/meta-data/public-keys", KEY),
        file("/1.0/user-data", "user-data"),
    ]
}

fn gce() -> Vec<Route> {
    let routes = vec![
        get("/computeMetadata/v1/instance/id", b"5241352356321472323"),
        get("/computeMetadata/v1/instance/hostname", b"node1.europe-west3-c.c.my-project.internal"),
        get("/computeMetadata/v1/instance/zone", b"projects/123/zones/europe-west3-c"),
        get("/computeMetadata/v1/instance/machine-type", b"projects/123/machineTypes/e2-small"),
        file(
            "/computeMetadata/v1/instance/network-interfaces/?recursive=true",
            "gce/network-interfaces.json",
        ),
        file("/computeMetadata/v1/instance/attributes/ssh-keys", "gce/ssh-keys"),
        get(
            "/computeMetadata/v1/project/attributes/ssh-keys",
            b"bob:ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB bob",
        ),
        file("/computeMetadata/v1/instance/attributes/user-data", "user-data"),
    ];
    wanting(routes, "Metadata-Flavor", "Google")
}
