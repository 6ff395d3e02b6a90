//! Every service at the addresses it really has, in a network of its own.
//!
//! Nothing is redirected here: the addresses that the platforms have built in are given to the
//! loop-back interface of a new network name space, and a service listens on them.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use platform::{Host, MetadataWeb, Platform, WebTiming};

use crate::{
    service::{Manner, Service},
    wire::{PLATFORMS, detected, golden, printed, routes},
};

const V4: [&str; 2] = ["169.254.169.254/32", "169.254.42.42/32"];
const V6: [&str; 5] = [
    "fd00:42::42/128",
    "fd00:a9fe:a9fe::1/128",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
];
/// Answers at an address that exists once on every link.
const LINK_LOCAL: &str = "fe80::a9fe:a9fe/64";

/// A name space needs a process of its own, so the test below is run once more inside one.
#[test]
fn services_are_found_at_their_real_addresses() {
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--net", "--"]).arg(env::current_exe().unwrap());
    inside.args(["--exact", "addresses::in_a_network_of_its_own", "--ignored", "--nocapture"]);

    let (worked, said) = match inside.stdin(Stdio::null()).output() {
        Ok(output) => {
            let said = [output.stdout.as_slice(), &output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&said).into_owned())
        }
        Err(error) => (false, format!("cannot run unshare of util-linux: {error}")),
    };
    if worked || said.contains("running 1 test") || is_ci() {
        assert!(worked && said.contains("1 passed"), "{said}");
    } else {
        eprintln!("skipped, because no network name space can be made: {said}");
    }
}

fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

#[test]
#[ignore = "only in a network of its own; the test above runs it there"]
fn in_a_network_of_its_own() {
    ip(&["link", "set", "lo", "up"]);
    for address in V4 {
        ip(&["address", "add", address, "dev", "lo"]);
    }
    let v4 = PLATFORMS.into_iter().filter(|platform| {
        // The first two are at an address that a person wrote, the third behind a certificate.
        !matches!(platform, Platform::CloudConfigUrl | Platform::NoCloud | Platform::Equinix)
    });
    for platform in v4 {
        answers(platform, "0.0.0.0:80", &[]);
    }

    for address in V4 {
        ip(&["address", "delete", address, "dev", "lo"]);
    }
    for address in V6 {
        ip(&["address", "add", address, "dev", "lo", "nodad"]);
    }
    for platform in [Platform::Akamai, Platform::Ec2, Platform::Gce, Platform::Oracle, Platform::Scaleway] {
        answers(platform, "[::]:80", &[]);
    }

    ip(&["link", "add", "near", "type", "veth", "peer", "name", "far"]);
    ip(&["address", "add", "fe80::1/64", "dev", "near", "nodad"]);
    ip(&["address", "add", LINK_LOCAL, "dev", "far", "nodad"]);
    ip(&["link", "set", "near", "up"]);
    ip(&["link", "set", "far", "up"]);
    let number = number_of("near");
    for platform in [Platform::Hetzner, Platform::OpenStack] {
        answers(platform, "[::]:80", &[("sys/class/net/near/ifindex", &number)]);
    }
}

fn answers(platform: Platform, listen: &str, files: &[(&str, &str)]) {
    let service = Service::start(listen, routes(platform), Manner::Good);
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    let provision = detected(platform)
        .fetch_metadata(&Host::at_directory(root.path()), &MetadataWeb::new(WebTiming::default(), 7));

    let provision = provision.unwrap_or_else(|error| panic!("{platform} at {listen}: {error:?}"));
    assert_eq!(printed(&provision), golden(platform), "{platform} at {listen}");
    service.stop();
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

fn number_of(interface: &str) -> String {
    let output = Command::new("ip").args(["-oneline", "link", "show", interface]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(':').next().unwrap().to_owned()
}
