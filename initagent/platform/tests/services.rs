//! Every platform that is asked over HTTP, against a service that behaves in every way there is.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "the tests measure how long a fetch takes")]

mod service;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use platform::{Boot, Detected, FetchError, Host, Payload, Platform, Provision, Timing, Web};
use service::{Manner, Route, Service, nobody};

const PLATFORMS: [Platform; 15] = [
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

/// Patience for services that answer in the end, however slow the machine that runs the tests is.
const PATIENT: Timing = Timing {
    connect: Duration::from_secs(10),
    request: Duration::from_secs(20),
    total: Duration::from_mins(1),
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(4),
};

/// For services that never do.
const HASTY: Timing = Timing {
    connect: Duration::from_millis(100),
    request: Duration::from_millis(100),
    total: Duration::from_millis(300),
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_millis(40),
};

#[test]
fn an_honest_service_tells_every_fact() {
    for platform in PLATFORMS {
        let service = Service::start("127.0.0.1:0", routes(platform), Manner::Good);

        let provision = ask(platform, &[&service.base], PATIENT).unwrap();

        compare(platform, &provision);
    }
}

#[test]
fn a_service_that_recovers_loses_no_fact() {
    for manner in [Manner::Unauthorized, Manner::Busy, Manner::Fails, Manner::BreaksOff] {
        for platform in PLATFORMS {
            let service = Service::start("127.0.0.1:0", routes(platform), manner);

            let provision = ask(platform, &[&service.base], PATIENT);

            let provision = provision.unwrap_or_else(|error| panic!("{platform}, {manner:?}: {error:?}"));
            assert_eq!(printed(&provision), golden(platform), "{platform}, {manner:?}");
        }
    }
}

#[test]
fn a_service_on_ipv6_alone_tells_every_fact() {
    for platform in PLATFORMS {
        let service = Service::start("[::1]:0", routes(platform), Manner::Good);
        let bases = match platform {
            // These two have one address each, which a person wrote.
            Platform::CloudConfigUrl | Platform::NoCloud => vec![service.base.clone()],
            _ => vec![nobody(), service.base.clone()],
        };
        let bases: Vec<&str> = bases.iter().map(String::as_str).collect();

        let provision = ask(platform, &bases, PATIENT).unwrap();

        assert_eq!(printed(&provision), golden(platform), "{platform}");
    }
}

#[test]
fn a_silent_service_costs_the_total_deadline_and_no_more() {
    let refused = nobody();
    thread::scope(|scope| {
        for platform in PLATFORMS {
            scope.spawn({
                let refused = &refused;
                move || must_fail_in_time(platform, refused)
            });
            for manner in [Manner::Hangs, Manner::Slow] {
                scope.spawn(move || {
                    let service = Service::start("127.0.0.1:0", routes(platform), manner);
                    must_fail_in_time(platform, &service.base);
                });
            }
        }
    });
}

fn must_fail_in_time(platform: Platform, base: &str) {
    let started = Instant::now();

    let error = ask(platform, &[base], HASTY).unwrap_err();

    assert!(started.elapsed() < HASTY.total * 20, "{platform}: {:?}", started.elapsed());
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("gave up fetching http://127.0.0.1:"), "{platform}: {cause}");
}

#[test]
fn a_service_that_has_nothing_is_not_asked_twice() {
    for platform in PLATFORMS {
        let service = Service::start("127.0.0.1:0", routes(platform), Manner::Empty);

        let outcome = ask(platform, &[&service.base], PATIENT);

        if let Ok(provision) = outcome {
            assert_eq!(provision.user_data, None, "{platform}");
            assert_eq!(provision.ssh_keys, Vec::<String>::new(), "{platform}");
            assert_eq!(provision.problems, [], "{platform}");
        }
        let mut requests = service.requests();
        requests.sort();
        let count = requests.len();
        requests.retain(|request| !request.starts_with("PUT"));
        requests.dedup();
        assert!(count - requests.len() <= 1, "{platform}: {requests:?}");
    }
}

#[test]
fn documents_cut_short_are_reported_and_never_believed() {
    for platform in PLATFORMS {
        let service = Service::start("127.0.0.1:0", routes(platform), Manner::Truncates);

        let Ok(provision) = ask(platform, &[&service.base], PATIENT) else { continue };

        let believes = printed(&provision) == golden(platform);
        assert!(!believes, "{platform}");
        if has_document(platform) {
            assert!(!provision.problems.is_empty(), "{platform}: {provision:?}");
        }
    }
}

#[test]
fn bodies_without_end_are_refused_by_their_size() {
    for manner in [Manner::Huge, Manner::Endless] {
        for platform in PLATFORMS {
            let service = Service::start("127.0.0.1:0", routes(platform), manner);

            let error = match ask(platform, &[&service.base], PATIENT) {
                Err(error) => std::error::Error::source(&error).unwrap().to_string(),
                Ok(provision) => panic!("{platform} believed {provision:?}"),
            };

            assert!(error.contains("is larger than"), "{platform}: {error}");
        }
    }
}

#[test]
fn a_login_page_in_place_of_the_service_gives_no_keys() {
    for platform in PLATFORMS {
        let service = Service::start("127.0.0.1:0", routes(platform), Manner::Portal);

        let Ok(provision) = ask(platform, &[&service.base], PATIENT) else { continue };

        assert_eq!(provision.ssh_keys, Vec::<String>::new(), "{platform}");
        assert_eq!(provision.addresses, platform::Addresses::default(), "{platform}");
        if has_document(platform) {
            assert!(!provision.problems.is_empty(), "{platform}");
        }
    }
}

#[test]
fn a_machine_that_is_up_says_so_where_that_is_wanted() {
    let goal =
        b"<GoalState><Incarnation>1</Incarnation><Container><ContainerId>c</ContainerId><RoleInstanceList>\
        <RoleInstance><InstanceId>i</InstanceId></RoleInstance></RoleInstanceList></Container></GoalState>";
    let mut azure = vec![get("/machine/?comp=goalstate", goal)];
    azure.push(Route { method: "POST", path: "/machine/?comp=health", body: vec![], wants: None });
    let scaleway = vec![Route { method: "PATCH", path: "/state", body: vec![], wants: None }];

    for (platform, routes, told) in [
        (Platform::Azure, azure, "POST /machine/?comp=health"),
        (Platform::Scaleway, scaleway, "PATCH /state"),
    ] {
        let service = Service::start("127.0.0.1:0", routes, Manner::Good);
        let web = Web::new(PATIENT, 7).redirected_to(vec![service.base.clone()]);

        detected(platform).check_in(Boot::First, &web).unwrap();

        assert_eq!(service.requests().last().unwrap(), told);
    }
}

#[test]
fn no_request_goes_to_amazon_without_a_token() {
    let service = Service::start("127.0.0.1:0", routes(Platform::Ec2), Manner::Good);

    ask(Platform::Ec2, &[&service.base], PATIENT).unwrap();

    let requests = service.requests();
    assert_eq!(requests[0], "PUT /latest/api/token");
    assert_eq!(requests.iter().filter(|request| request.starts_with("PUT")).count(), 1);
}

#[test]
fn a_lookalike_of_amazon_that_has_no_tokens_works_too() {
    let mut routes = routes(Platform::Ec2);
    routes.retain(|route| route.method == "GET");
    for route in &mut routes {
        route.wants = None;
    }
    let service = Service::start("127.0.0.1:0", routes, Manner::Good);

    let provision = ask(Platform::Ec2, &[&service.base], PATIENT).unwrap();

    assert_eq!(printed(&provision), golden(Platform::Ec2));
}

/// Platforms whose main answer is a document, so that a broken one shows.
fn has_document(platform: Platform) -> bool {
    !matches!(platform, Platform::CloudConfigUrl | Platform::Ec2 | Platform::Exoscale | Platform::Gce)
}

fn detected(platform: Platform) -> Detected {
    Detected { platform, evidence: "a test".to_owned(), needs_network: true }
}

fn ask(platform: Platform, bases: &[&str], timing: Timing) -> Result<Provision, FetchError> {
    let root = tempfile::tempdir().unwrap();
    let last = bases.last().unwrap();
    let command_line = match platform {
        Platform::CloudConfigUrl => format!("cloud-config-url={last}/user-data"),
        Platform::NoCloud => format!("ds=nocloud;s={last}/seed/"),
        _ => String::new(),
    };
    fs::create_dir(root.path().join("proc")).unwrap();
    fs::write(root.path().join("proc/cmdline"), command_line).unwrap();
    let web = Web::new(timing, 7).redirected_to(bases.iter().map(ToString::to_string).collect());
    detected(platform).fetch(&Host::at(root.path()), &web)
}

/// The facts as text, so that a person can read what is expected.
fn printed(provision: &Provision) -> String {
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
        ("public-ipv4", addresses.public_ipv4.map(|address| address.to_string())),
        ("private-ipv4", addresses.private_ipv4.map(|address| address.to_string())),
        ("public-ipv6", addresses.public_ipv6.map(|address| address.to_string())),
        ("private-ipv6", addresses.private_ipv6.map(|address| address.to_string())),
        ("user-data", payload(&provision.user_data)),
        ("vendor-data", payload(&provision.vendor_data)),
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
    for problem in &provision.problems {
        writeln!(text, "problem: {problem}").unwrap();
    }
    text
}

fn golden(platform: Platform) -> String {
    fs::read_to_string(golden_path(platform)).unwrap_or_default()
}

fn golden_path(platform: Platform) -> std::path::PathBuf {
    data().join(platform.name()).join("provision.txt")
}

/// With `BLESS=1` the expectation is written anew, to be read in review.
fn compare(platform: Platform, provision: &Provision) {
    let text = printed(provision);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(golden_path(platform).parent().unwrap()).unwrap();
        fs::write(golden_path(platform), &text).unwrap();
    }
    assert_eq!(text, golden(platform), "{platform}");
}

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

fn get(path: &'static str, body: &[u8]) -> Route {
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
fn routes(platform: Platform) -> Vec<Route> {
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
            file("/openstack/latest/user_data", "user-data"),
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
