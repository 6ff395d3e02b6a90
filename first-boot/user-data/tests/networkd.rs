//! systemd-networkd itself reads every unit of the golden files, and has nothing to say about them; and the
//! kernel has the routes that come of it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, or says why it is skipped"
)]
#![expect(clippy::disallowed_methods, reason = "the test runs systemd-networkd")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use document::diagnostic::Diagnostics;
use user_data::plan::step::PlanStep;

const NETWORKD: &str = "/lib/systemd/systemd-networkd";
/// In name spaces of its own it can neither see nor change this machine's network.
const SCRIPT: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/network &&
    install -d -o systemd-network -g systemd-network /run/systemd/netif &&
    cp \"$1\"/* /run/systemd/network/ &&
    SYSTEMD_LOG_LEVEL=info SYSTEMD_LOG_TARGET=console timeout 2 \"$2\"; [ $? = 124 ] && echo ran";

/// With an interface of its own it does what the units say. Read-only, `/sys` tells it that no udev is there.
const LIVE_SCRIPT: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/network &&
    install -d -o systemd-network -g systemd-network /run/systemd/netif &&
    cp \"$1\"/* /run/systemd/network/ && mount -t sysfs -o ro sysfs /sys &&
    ip link add eth0 type veth peer name far && ip link set far up || exit 1
    timeout 20 \"$2\" & networkd=$!
    for try in $(seq 60); do
        routes=$(ip -4 route; ip -6 route)
        case $routes in *10.0.0.0/8*) [ \"$(echo \"$routes\" | grep -c ^default)\" = 2 ] && break ;; esac; sleep 0.1
    done
    kill $networkd; echo \"$routes\"; echo ran";

/// What a machine with a single address and a gateway in another network needs to be reached at all.
#[test]
fn the_kernel_takes_a_gateway_off_the_network() {
    let document = "version: 2\nethernets: {eth0: {addresses: [203.0.113.70/32, '2001:db8:1::70/128'], \
        gateway4: 198.51.100.1, gateway6: '2001:db8:2::1', routes: [{to: 10.0.0.0/8, type: blackhole}]}}\n";
    let folder = env::temp_dir().join(format!("networkd-live-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for planned in user_data::network::read(document.as_bytes(), 0, &mut Diagnostics::default()).steps {
        if let PlanStep::WriteUnit { name, content, .. } = planned.step {
            fs::write(folder.join(name), content.reveal()).unwrap();
        }
    }

    let routes = networkd(&folder, LIVE_SCRIPT);

    fs::remove_dir_all(&folder).unwrap();
    let Some(routes) = routes else { return };
    for route in
        ["default via 198.51.100.1 dev eth0", "default via 2001:db8:2::1 dev eth0", "blackhole 10.0.0.0/8"]
    {
        assert!(routes.contains(route), "{route}: {routes}");
    }
}

#[test]
fn networkd_understands_every_unit() {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/network/golden"));
    let folder = env::temp_dir().join(format!("networkd-units-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut expectations: Vec<_> = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    expectations.retain(|path| path.extension().is_some_and(|ending| ending == "units"));
    let count: usize = expectations.iter().map(|expectation| write_units(expectation, &folder)).sum();
    let samples = write_samples(&folder);
    // What is not understood must be seen to be reported: a key, and a value.
    fs::write(folder.join("broken.network"), "[Match]\nName=none\nNonsense=1\n").unwrap();
    fs::write(folder.join("broken.netdev"), "[NetDev]\nName=n\nKind=bond\n[Bond]\nMode=4\n").unwrap();

    let said = networkd(&folder, SCRIPT);

    fs::remove_dir_all(&folder).unwrap();
    let Some(said) = said else { return };
    let is_complaint = |line: &&str| line.contains(".network:") || line.contains(".netdev:");
    let complaints: Vec<&str> = said.lines().filter(is_complaint).collect();
    assert!(count > 20 && samples > 100, "{count}, {samples}");
    let broken = ["broken.network:3", "broken.netdev:5"];
    let expected = broken.iter().all(|place| complaints.iter().any(|line| line.contains(place)));
    assert!(expected && complaints.len() == broken.len(), "{complaints:#?}");
}

/// Writes a unit for every word and every end of a range that a unit may have; says how many there are.
fn write_samples(folder: &Path) -> usize {
    let samples = user_data::network::sample_settings();
    for (number, (section, setting, value)) in samples.iter().enumerate() {
        let made = |kind: &str| format!("[NetDev]\nName=s{number}\nKind={kind}\n");
        let matched = format!("[Match]\nName=none{number}\n");
        // A section is judged as a whole, so it has what makes it one.
        let (ending, head, section) = match *section {
            "Bond" => ("netdev", made("bond"), "[Bond]"),
            "Bridge" => ("netdev", made("bridge"), "[Bridge]"),
            "Bridge port" => ("network", matched, "[Bridge]"),
            "Route" => ("network", matched, "[Route]\nDestination=10.0.0.0/8"),
            "RoutingPolicyRule" => ("network", matched, "[RoutingPolicyRule]\nFrom=10.0.0.0/8"),
            other => ("network", format!("{matched}[{other}]"), ""),
        };
        let unit = format!("{head}{section}\n{setting}={value}\n");
        fs::write(folder.join(format!("sample-{number}-{setting}.{ending}")), unit).unwrap();
    }
    samples.len()
}

/// Writes the units of an expectation, each under a name of its own; says how many there were.
fn write_units(expectation: &Path, folder: &Path) -> usize {
    let document = expectation.file_stem().unwrap().to_str().unwrap();
    let text = fs::read_to_string(expectation).unwrap();
    let units = text.split("--- ").skip(1).filter_map(|unit| unit.split_once('\n'));
    let units = units.filter(|(name, _)| name.ends_with(".network") || name.ends_with(".netdev"));
    let write = |(name, body): (&str, &str)| {
        let end = ["\nerror[", "\nwarning[", "\nnote["].iter().filter_map(|mark| body.find(mark)).min();
        fs::write(folder.join(format!("{document}-{name}")), &body[..end.unwrap_or(body.len())]).unwrap();
    };
    units.map(write).count()
}

/// What a script says that runs networkd on the units in a folder; `None` when it cannot be run here.
fn networkd(folder: &Path, script: &str) -> Option<String> {
    let output =
        Command::new("unshare").args(["-mn", "sh", "-c", script, "sh"]).arg(folder).arg(NETWORKD).output();
    let said = output.map(|output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    });
    match said {
        Ok(said) if said.contains("ran\n") => Some(said),
        said => {
            let wants = "the test needs root, unshare of util-linux and systemd-networkd";
            assert!(env::var_os("CI").is_none_or(|value| value != "true"), "{wants}: {said:?}");
            eprintln!("skipped: {wants}: {said:?}");
            None
        }
    }
}
