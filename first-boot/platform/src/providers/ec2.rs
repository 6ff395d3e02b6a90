//! Amazon EC2: a tree of small texts, read with a session token.
//!
//! Knows `IMDSv2`, and that lookalikes have no tokens. Refuses to walk the tree: only the items
//! wanted are asked for. Invariant: where the service hands out tokens, no request goes without.
//!
//! Documentation: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>, and for
//! the signs in the firmware
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html>.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    web::{MetadataService, TokenScheme},
};

// The second answers on Nitro instances only, where the owner has switched it on.
const BASES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:ec2::254]"];
// 21600 seconds are six hours: the longest that AWS allows, and what its examples ask for. One boot needs one
// token.
const TOKEN: TokenScheme = TokenScheme {
    path: "/latest/api/token",
    ask: ("X-aws-ec2-metadata-token-ttl-seconds", "21600"),
    send: "X-aws-ec2-metadata-token",
};
/// Attribute names of afterburn and where their values are.
const ITEMS: [(&str, &str); 9] = [
    ("AWS_AVAILABILITY_ZONE", "placement/availability-zone"),
    ("AWS_AVAILABILITY_ZONE_ID", "placement/availability-zone-id"),
    ("AWS_HOSTNAME", "hostname"),
    ("AWS_INSTANCE_TYPE", "instance-type"),
    ("AWS_IPV4_LOCAL", "local-ipv4"),
    ("AWS_IPV4_PUBLIC", "public-ipv4"),
    ("AWS_IPV6", "ipv6"),
    ("AWS_PUBLIC_HOSTNAME", "public-hostname"),
    ("AWS_REGION", "placement/region"),
];

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    let signs = [
        ("sys_vendor", "Amazon EC2"),
        // Xen instances write their UUID here as well.
        ("product_serial", "ec2*"),
        // Clouds that serve the same tree, and say who they are.
        ("sys_vendor", "3DS Outscale"),
        ("product_name", "3DS Outscale VM"),
        ("sys_vendor", "Tilaa*"),
    ];
    let by_name = PlatformEvidence::from_firmware(host, &signs);
    by_name.or_else(|| {
        // AWS warns that a UUID may begin so by chance, so the vendor's name goes first. Old Xen instances
        // have only this.
        let uuid = host.dmi_field("product_uuid").to_ascii_lowercase();
        let hypervisor = host.read_text("/sys/hypervisor/uuid").to_ascii_lowercase();
        // /sys/hypervisor is there on Xen alone, and says the same UUID.
        let found = uuid.starts_with("ec2") || is_swapped(&uuid) || hypervisor.starts_with("ec2");
        found.then(|| PlatformEvidence::from_network("SMBIOS product uuid begins with ec2"))
    })
}

/// Some firmware writes the first field's bytes in the other order: `45e12aec-...`.
fn is_swapped(uuid: &str) -> bool {
    uuid.get(4..8).is_some_and(|end| end.starts_with('2') && end.ends_with("ec"))
        && uuid.as_bytes().get(8) == Some(&b'-')
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let platform = Platform::Ec2;
    let service = web.metadata_service(&BASES).with_token(TOKEN);
    let mut provision = InstanceMetadata::new(platform);
    // No EC2 is without this item. Who does not serve it serves another tree, so nothing else is asked.
    provision.instance_id =
        // Dated versions of the tree were considered. Lookalikes serve few of them, but all serve `latest`.
        service.get_text("/latest/meta-data/instance-id").map_err(platform.fetch_failed())?;
    add_keys(&mut provision, &service);
    provision.take_user_data(service.get_data("/latest/user-data"));
    for (name, path) in ITEMS {
        let value = service.get_text(&format!("/latest/meta-data/{path}"));
        let value = provision.value_or_report(path, value);
        provision.set_attribute(name, value);
    }
    // Some clouds that serve the same tree do not number their machines.
    let index = service.get_text("/latest/meta-data/ami-launch-index").ok().flatten();
    provision.meta_data.insert_text("ami-launch-index", index);
    // `placement/region` came in 2020. The identity document is older, so it is what some lookalikes have.
    if !provision.attributes.contains_key("AWS_REGION") {
        let document = service.get_item("/latest/dynamic/instance-identity/document");
        let document = provision.value_or_report("identity document", document).unwrap_or_default();
        let region = DocumentTree::from_json(&document).ok().and_then(|tree| tree.text_at("/region"));
        provision.set_attribute("AWS_REGION", region);
    }
    Ok(facts(provision))
}

/// The list has lines such as `0=my-key`; the key itself lies below the number.
fn add_keys(provision: &mut InstanceMetadata, service: &MetadataService<'_>) {
    let list = service.get_text("/latest/meta-data/public-keys");
    let list = provision.value_or_report("ssh keys", list).unwrap_or_default();
    let number = |line: &str| line.split_once('=')?.0.trim().parse::<u16>().ok();
    for number in list.lines().filter_map(number) {
        let key = service.get_text(&format!("/latest/meta-data/public-keys/{number}/openssh-key"));
        if let Some(key) = provision.value_or_report("ssh keys", key) {
            provision.add_keys(&key);
        }
    }
}

/// Derives the general facts from the attributes; pure.
fn facts(mut provision: InstanceMetadata) -> InstanceMetadata {
    let value = |name: &str| provision.attributes.get(name).cloned();
    let (zone, region, kind) =
        (value("AWS_AVAILABILITY_ZONE"), value("AWS_REGION"), value("AWS_INSTANCE_TYPE"));
    let hostname = value("AWS_HOSTNAME");
    let address = |name: &str| value(name).and_then(|text| text.parse().ok());
    provision.addresses.private_ipv4 = address("AWS_IPV4_LOCAL");
    provision.addresses.public_ipv4 = address("AWS_IPV4_PUBLIC");
    provision.addresses.public_ipv6 = value("AWS_IPV6").and_then(|text| text.parse().ok());
    provision.set_hostname(hostname);
    provision.set_attribute("AWS_INSTANCE_ID", provision.instance_id.clone());
    InstanceMetadata { region, zone, instance_type: kind, ..provision }
}
