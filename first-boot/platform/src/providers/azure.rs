//! Microsoft Azure: the instance metadata service, the provisioning CD and the wire server.
//!
//! Knows that most users hand over "custom data", which is only on the CD, and that Azure wants to
//! be told when a machine is ready. Refuses the password on the CD: this image logs in by key.
//! Invariant: what one source has counts even when the other is silent.
//!
//! Documentation: <https://learn.microsoft.com/en-us/azure/virtual-machines/instance-metadata-service>, and
//! for the wire server
//! <https://learn.microsoft.com/en-us/azure/virtual-network/what-is-ip-address-168-63-129-16> and
//! <https://learn.microsoft.com/en-us/azure/virtual-machines/linux/no-agent>.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    FetchError, Host, InstanceMetadata, MetaData, MetadataWeb, Payload, Platform, WebError, disk,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, ethernets_payload},
    one_document::{self, FieldPaths},
    ovf::OvfEnvironment,
    web::MAX_METADATA,
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
// DHCP's option 245 says the address as well. Microsoft promises this one for all regions and all its clouds,
// so no lease has to be read.
const WIRE_SERVER: [&str; 1] = ["http://168.63.129.16"];
// The version of the protocol that Microsoft's own agent and cloud-init send.
const WIRE_VERSION: &str = "2012-11-30";
// Vendor and product are the same on each Hyper-V. Only this tag says that the machine is in Azure.
const ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
// `userData` needs 2021-01-01 or later. cloud-init asks for this same version, so it will be served for long.
const INSTANCE: &str = "/metadata/instance?api-version=2021-08-01&format=json";
/// Of the interfaces that Hyper-V gives.
const DRIVER: &str = "hv_netvsc";
const CD_FILE: &str = "ovf-env.xml";
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/compute/vmId"],
    hostname: &["/compute/osProfile/computerName", "/compute/name"],
    region: &["/compute/location"],
    // cloud-init calls the fault domain the zone, and it is there where no zone was asked for.
    zone: &["/compute/zone", "/compute/platformFaultDomain"],
    instance_type: &["/compute/vmSize"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("chassis_asset_tag", ASSET_TAG)])
}

pub(crate) fn fetch(host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let platform = Platform::Azure;
    let cd = disk::find_file(host, CD_FILE, MAX_METADATA);
    // The service refuses requests without this header, so that nobody can trick a web program into asking
    // it.
    let document = web.metadata_service(&BASES).with_header("Metadata", "true").get_item(INSTANCE);
    let mut provision = match (document, &cd) {
        (Ok(Some(to_payload)), _) => instance_facts(&to_payload),
        (Ok(None), None) => return Err(platform.no_metadata()),
        // Custom data on the CD is enough to configure a machine, so a silent service is fatal only without a
        // CD.
        (Err(source), None) => return Err(platform.fetch_failed()(source)),
        (Ok(None), Some(_)) => InstanceMetadata::new(platform),
        (Err(source), Some(_)) => {
            let mut provision = InstanceMetadata::new(platform);
            provision.report_problem("metadata", &source);
            provision
        }
    };
    if let Some(xml) = cd {
        add_cd(&mut provision, &xml);
    }
    // The CD of the first boot is taken out one day, and any other disk may hold such a file.
    provision.is_by_volume = true;
    Ok(provision)
}

/// Tells the wire server that the machine is ready, or Azure calls the deployment failed.
pub(crate) fn check_in(web: &MetadataWeb) -> Result<(), WebError> {
    let service = web
        .metadata_service(&WIRE_SERVER)
        .with_header("x-ms-agent-name", "initagent")
        .with_header("x-ms-version", WIRE_VERSION);
    let goal = service.get_item("/machine/?comp=goalstate")?.unwrap_or_default();
    match health_report(&goal) {
        Some(report) => {
            let headers = [("Content-Type", "text/xml; charset=utf-8")];
            service.send_body("POST", "/machine/?comp=health", &headers, report.as_bytes()).map(drop)
        }
        None => Err(WebError::Address {
            url: "the Azure wire server's goal state".to_owned(),
            why: "it names no container, instance and incarnation".to_owned(),
        }),
    }
}

/// The answer to a goal state; `None` when that lacks one of the three identifiers.
fn health_report(goal_state: &[u8]) -> Option<String> {
    let environment = OvfEnvironment::parse_environment(goal_state).ok()?;
    // The report needs these three identifiers alone, so no library that writes XML is needed.
    // An identifier goes back into XML, so it may hold nothing that XML gives a meaning.
    let plain =
        |text: &&str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    let element = |name: &str| environment.element_text(name).filter(plain);
    let (incarnation, container, instance) =
        (element("Incarnation")?, element("ContainerId")?, element("InstanceId")?);
    Some(format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Health><GoalStateIncarnation>{incarnation}\
         </GoalStateIncarnation><Container><ContainerId>{container}</ContainerId><RoleInstanceList><Role>\
         <InstanceId>{instance}</InstanceId><Health><State>Ready</State></Health></Role></RoleInstanceList>\
         </Container></Health>"
    ))
}

/// Reads the metadata service's document, or the CD's; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    if !document.trim_ascii_start().starts_with(b"<") {
        return instance_facts(document);
    }
    let mut provision = InstanceMetadata::new(Platform::Azure);
    add_cd(&mut provision, document);
    provision
}

fn instance_facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::Azure, document, &PLACES);
    provision.meta_data = template_names(&tree);
    for key in tree.list_at("/compute/publicKeys").iter().filter_map(|entry| entry.text_at("/keyData")) {
        provision.add_keys(&key);
    }
    let interface = "/network/interface/0";
    provision.addresses.private_ipv4 =
        tree.parse_at(&format!("{interface}/ipv4/ipAddress/0/privateIpAddress"));
    provision.addresses.public_ipv4 = tree.parse_at(&format!("{interface}/ipv4/ipAddress/0/publicIpAddress"));
    provision.addresses.private_ipv6 =
        tree.parse_at(&format!("{interface}/ipv6/ipAddress/0/privateIpAddress"));
    provision.network_config = render_network(&tree.list_at("/network/interface"));
    provision.set_attribute("AZURE_IPV4_DYNAMIC", provision.addresses.public_ipv4);
    provision.set_attribute("AZURE_IPV4_VIRTUAL", provision.addresses.private_ipv4);
    provision.set_attribute("AZURE_VMSIZE", provision.instance_type.clone());
    if let Some(text) = tree.text_at("/compute/userData") {
        set_user_data(&mut provision, &text);
    }
    provision
}

/// cloud-init keeps the service's document under this name: `ds.meta_data.imds.compute.tags`. What is user-data itself
/// is left out, since it may be large and hold secrets.
fn template_names(tree: &DocumentTree) -> MetaData {
    let mut names = tree.meta_data().names().clone();
    if let Some(compute) = names.get_mut("compute").and_then(Value::as_object_mut) {
        compute.retain(|name, _| !["customData", "userData"].contains(&name.as_str()));
    }
    MetaData::from_value(json!({ "imds": names }))
}

/// DHCP gives each interface its first address alone, so further ones are written down; without any, the
/// image's own configuration does.
fn render_network(interfaces: &[DocumentTree]) -> Option<Payload> {
    let addresses =
        |interface: &DocumentTree, family: &str| interface.list_at(&format!("/{family}/ipAddress"));
    let has_more = |one: &DocumentTree| addresses(one, "ipv4").len() > 1 || addresses(one, "ipv6").len() > 1;
    if !interfaces.iter().any(has_more) {
        return None;
    }
    let link = |(index, interface): (usize, &DocumentTree)| {
        // Accelerated networking adds a second device of the same address below this driver's.
        let mut link =
            InterfaceLink::with_mac(&with_colons(&interface.text_at("/macAddress")?))?.of_driver(DRIVER);
        (link.dhcp4, link.dhcp6) = (true, !addresses(interface, "ipv6").is_empty());
        // cloud-init counts metrics in hundreds, too, which leaves room for routes that the owner adds.
        // The first interface carries what leaves the network.
        link.metric = u32::try_from(index + 1).ok().map(|place| place * 100);
        for family in ["ipv4", "ipv6"] {
            let prefix = interface.text_at(&format!("/{family}/subnet/0/prefix"));
            // What cloud-init assumes where the service says no prefix.
            let prefix = prefix.unwrap_or_else(|| if family == "ipv4" { "24" } else { "128" }.to_owned());
            for address in addresses(interface, family).iter().skip(1) {
                link.add_address(address.text_at("/privateIpAddress").as_deref(), Some(&prefix));
            }
        }
        Some(link)
    };
    ethernets_payload(&interfaces.iter().enumerate().filter_map(link).collect::<Vec<InterfaceLink>>())
}

/// The service writes `000D3A047598`.
// Hyper-V's notation has no separators, while networkd's `MACAddress=` wants them.
fn with_colons(mac: &str) -> String {
    let pairs: Vec<String> =
        mac.chars().collect::<Vec<_>>().chunks(2).map(|pair| pair.iter().collect()).collect();
    pairs.join(":")
}

/// Adds what only the CD has; pure.
fn add_cd(provision: &mut InstanceMetadata, xml: &[u8]) {
    let parsed = OvfEnvironment::parse_environment(xml).map(Some);
    let Some(environment) = provision.value_or_report(CD_FILE, parsed) else { return };
    if provision.hostname.is_none() {
        provision.set_hostname(environment.element_text("HostName").map(str::to_owned));
    }
    // A key's element is called Value; so are others, which are no keys.
    for key in environment.element_texts("Value").filter(|text| crate::keys::is_public_key(text)) {
        provision.add_keys(key);
    }
    for name in ["CustomData", "UserData"] {
        if let Some(text) = environment.element_text(name)
            && provision.user_data.is_none()
        {
            set_user_data(provision, text);
        }
    }
}

fn set_user_data(provision: &mut InstanceMetadata, text: &str) {
    let packed: String = text.split_whitespace().collect();
    let decoded = BASE64_STANDARD.decode(packed).map(Some).map_err(|_| "it is not base64");
    provision.user_data = provision.value_or_report("user-data", decoded).and_then(Payload::from_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CD: &[u8] = include_bytes!("../../tests/data/azure/ovf-env.xml");

    #[test]
    fn user_data_of_the_service_goes_before_custom_data_of_the_cd() {
        let service = br#"{"compute": {"userData": "I2Nsb3VkLWNvbmZpZwo="}}"#;
        let mut provision = instance_facts(service);

        add_cd(&mut provision, CD);

        assert_eq!(provision.user_data.unwrap().as_bytes(), b"#cloud-config\n");
    }

    #[test]
    fn templates_find_the_document_where_cloud_init_has_it() {
        let said = |zone: &str| {
            instance_facts(
                format!(
                    r#"{{"compute": {{"zone": "{zone}", "platformFaultDomain": "0", "location": "westeurope",
                        "tags": "role:web", "userData": "eA==", "customData": ""}},
                        "network": {{"interface": [{{"macAddress": "000D3A047598"}}]}}}}"#
                )
                .as_bytes(),
            )
        };

        let names = Value::from(said("2").meta_data.names().clone());

        assert_eq!(names.pointer("/imds/compute/tags").unwrap(), "role:web");
        assert_eq!(names.pointer("/imds/network/interface/0/macAddress").unwrap(), "000D3A047598");
        assert_eq!(names.pointer("/imds/compute/userData"), None);
        assert_eq!(said("2").zone.as_deref(), Some("2"));
        assert_eq!(said("").zone.as_deref(), Some("0"));
    }

    #[test]
    fn addresses_beyond_the_first_are_not_lost() {
        let config_of = |more: &str| {
            let text = format!(
                r#"{{"network": {{"interface": [{{"macAddress": "000D3A047598",
                    "ipv4": {{"subnet": [{{"prefix": "24", "address": "10.0.0.0"}}],
                             "ipAddress": [{{"privateIpAddress": "10.0.0.4", "publicIpAddress": "192.0.2.4"}}{more}]}},
                    "ipv6": {{"ipAddress": []}}}}]}}}}"#
            );
            let config = instance_facts(text.as_bytes()).network_config;
            config.map(|config| String::from_utf8_lossy(config.as_bytes()).into_owned())
        };

        assert_eq!(config_of(""), None);
        assert_eq!(
            config_of(r#", {"privateIpAddress": "10.0.0.5", "publicIpAddress": ""}"#).unwrap(),
            "{\"ethernets\":{\"nic0\":{\"addresses\":[\"10.0.0.5/24\"],\"dhcp4\":true,\
             \"dhcp4-overrides\":{\"route-metric\":100},\"dhcp6\":false,\
             \"match\":{\"driver\":\"hv_netvsc\",\"macaddress\":\"00:0d:3a:04:75:98\"}}},\"version\":2}"
        );
    }

    #[test]
    fn the_cd_alone_gives_name_keys_and_custom_data() {
        let mut provision = InstanceMetadata::new(Platform::Azure);

        add_cd(&mut provision, CD);

        assert_eq!(provision.hostname.as_deref(), Some("node7"));
        assert_eq!(provision.ssh_keys.len(), 1);
        assert_eq!(provision.user_data.unwrap().as_bytes(), b"#cloud-config\nhostname: from-cd\n");
    }

    #[test]
    fn the_health_report_answers_the_goal_state() {
        // As the wire server says it.
        let goal = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?>
<GoalState xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:noNamespaceSchemaLocation=\"goalstate10.xsd\">
  <Version>2012-11-30</Version>
  <Incarnation>2</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>
    <LBProbePorts><Port>16001</Port></LBProbePorts>
    <ExpectHealthReport>FALSE</ExpectHealthReport>
  </Machine>
  <Container>
    <ContainerId>c-1</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>i_1.vm</InstanceId>
        <State>Started</State>
        <Configuration>
          <HostingEnvironmentConfig>http://168.63.129.16:80/machine/c-1/i_1.vm?comp=config&amp;type=hostingEnvironmentConfig</HostingEnvironmentConfig>
          <ConfigName>1.0.1.xml</ConfigName>
        </Configuration>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>";

        let report = health_report(goal).unwrap();

        assert!(report.contains("<GoalStateIncarnation>2<") && report.contains("<ContainerId>c-1<"));
        assert!(report.contains("<InstanceId>i_1.vm<") && report.contains("<State>Ready<"));
        assert_eq!(health_report(b"<GoalState><Incarnation>&lt;x&gt;</Incarnation></GoalState>"), None);
    }
}
