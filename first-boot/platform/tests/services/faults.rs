//! Every service, behaving in every way there is.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use platform::{BootKind, FetchError, Host, InstanceMetadata, MetadataWeb, Platform, WebTiming};

use crate::{
    service::{Manner, Route, Service, nobody},
    wire::{PLATFORMS, detected, get, golden, golden_path, printed, routes},
};

/// Patience for services that answer in the end, however slow the machine that runs the tests is.
const PATIENT: WebTiming = WebTiming {
    connect: Duration::from_secs(10),
    request: Duration::from_secs(20),
    total: Duration::from_mins(1),
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(4),
};

/// For services that never do.
const HASTY: WebTiming = WebTiming {
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
fn an_address_that_hangs_holds_up_no_other() {
    for platform in PLATFORMS {
        let hanging = Service::start("127.0.0.1:0", Vec::new(), Manner::Hangs);
        let service = Service::start("[::1]:0", routes(platform), Manner::Good);
        let bases = match platform {
            Platform::CloudConfigUrl | Platform::NoCloud => vec![service.base.as_str()],
            _ => vec![hanging.base.as_str(), service.base.as_str()],
        };
        let begin = Instant::now();

        let provision = ask(platform, &bases, PATIENT).unwrap();

        assert_eq!(printed(&provision), golden(platform), "{platform}");
        assert!(begin.elapsed() < PATIENT.request, "{platform} waited for the address that hangs");
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
        assert_eq!(provision.addresses, platform::MachineAddresses::default(), "{platform}");
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
        let web = MetadataWeb::new(PATIENT, 7).redirected_to(vec![service.base.clone()]);

        detected(platform).check_in(BootKind::First, &web).unwrap();

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

fn ask(platform: Platform, bases: &[&str], timing: WebTiming) -> Result<InstanceMetadata, FetchError> {
    let root = tempfile::tempdir().unwrap();
    let last = bases.last().unwrap();
    let command_line = match platform {
        Platform::CloudConfigUrl => format!("cloud-config-url={last}/user-data"),
        Platform::NoCloud => format!("ds=nocloud;s={last}/seed/"),
        _ => String::new(),
    };
    fs::create_dir(root.path().join("proc")).unwrap();
    fs::write(root.path().join("proc/cmdline"), command_line).unwrap();
    let web = MetadataWeb::new(timing, 7).redirected_to(bases.iter().map(ToString::to_string).collect());
    detected(platform).fetch_metadata(&Host::at_directory(root.path()), &web)
}

/// With `BLESS=1` the expectation is written anew, to be read in review.
fn compare(platform: Platform, provision: &InstanceMetadata) {
    let text = printed(provision);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(golden_path(platform).parent().unwrap()).unwrap();
        fs::write(golden_path(platform), &text).unwrap();
    }
    assert_eq!(text, golden(platform), "{platform}");
}
