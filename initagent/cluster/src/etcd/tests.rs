//! What etcd is told, setting by setting.

use super::*;
use crate::voters::VoterList;

fn given(settings: &[(&str, &str)]) -> Variables {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn unplaced(settings: &[(&str, &str)]) -> EtcdPlan {
    plan_etcd(&given(settings), &ClusterPlace::Unplaced, Path::new("/keys"))
}

/// Without paths of certificates and sizes.
fn lines(plan: &EtcdPlan) -> String {
    let is_shown = |name: &str| name.ends_with("_URLS") || name.contains("INITIAL") || name == "ETCD_NAME";
    let shown = plan.variables.iter().filter(|(name, _)| is_shown(name));
    let lines: Vec<String> = shown.map(|(name, value)| [name, "=", value, "\n"].concat()).collect();
    lines.concat()
}

const CLOSED: &str = "\
ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://127.0.0.1:2380
ETCD_INITIAL_CLUSTER=core-1=https://127.0.0.1:2380
ETCD_LISTEN_CLIENT_URLS=https://127.0.0.1:2378
ETCD_LISTEN_PEER_URLS=https://127.0.0.1:2380
";

#[test]
fn a_machine_that_was_told_nothing_lets_nobody_in_without_a_certificate() {
    let plan = unplaced(&[("ETCD_NAME", "core-1")]);

    assert_eq!(lines(&plan), CLOSED);
    assert_eq!((plan.classic, plan.members), (CLASSIC.to_vec(), vec![LOCAL]));
    assert_eq!((plan.exposures, plan.runs_here), (vec![], true));
    assert_eq!(plan.variables["ETCD_CLIENT_CERT_AUTH"], "true");
    assert_eq!(plan.variables["ETCD_PEER_CLIENT_CERT_AUTH"], "true");
    assert_eq!(plan.variables["ETCD_KEY_FILE"], "/keys/etcd/server.key");
}

#[test]
fn plain_loopback_addresses_go_to_the_keys_of_version_2() {
    for listen in
        ["http://127.0.0.1:2379,http://127.0.0.1:4001", "http://localhost:2379, http://localhost:4001"]
    {
        let plan = unplaced(&[
            ("ETCD_NAME", "core-1"),
            ("ETCD_LISTEN_CLIENT_URLS", listen),
            ("ETCD_LISTEN_PEER_URLS", "http://127.0.0.1:2380"),
        ]);

        assert_eq!(lines(&plan), CLOSED, "{listen}");
        assert_eq!((plan.classic, plan.exposures), (CLASSIC.to_vec(), vec![]), "{listen}");
    }
    let elsewhere = unplaced(&[("ETCD_LISTEN_CLIENT_URLS", "http://[::1]:5001")]);
    assert_eq!(elsewhere.classic, ["[::1]:5001".parse().unwrap()]);
}

#[test]
fn the_seeds_stay_open_as_they_are_written_and_it_is_said() {
    let plan = unplaced(&[
        ("ETCD_DISCOVERY", "https://discovery.etcd.io/3445fa65423d8b04df07f59fb40218f8"),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://10.0.0.10:2380"),
        ("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:2379,http://0.0.0.0:4001"),
        ("ETCD_LISTEN_PEER_URLS", "http://10.0.0.10:2380,http://10.0.0.10:7001"),
        ("ETCD_ADVERTISE_CLIENT_URLS", "http://192.0.2.10:2379"),
    ]);

    assert_eq!(
        lines(&plan),
        "ETCD_LISTEN_CLIENT_URLS=https://127.0.0.1:2378,http://0.0.0.0:2379,http://0.0.0.0:4001\n"
    );
    assert_eq!(plan.exposures.len(), 4, "{:?}", plan.exposures);
    assert_eq!((plan.classic, plan.members), (vec![], vec![LOCAL]));
}

#[test]
fn certificates_of_a_persons_own_stay() {
    let plan = unplaced(&[
        ("ETCD_CERT_FILE", "/etc/ssl/cert.pem"),
        ("ETCD_KEY_FILE", "/etc/ssl/key.pem"),
        ("ETCD_LISTEN_CLIENT_URLS", "https://0.0.0.0:2379"),
        ("ETCD_PEER_CERT_FILE", "/etc/ssl/peer.pem"),
    ]);

    assert_eq!(lines(&plan), "");
    assert_eq!((plan.classic, plan.members, plan.exposures), (vec![], vec![], vec![]));
    assert!(!plan.variables.keys().any(|name| name.ends_with("_FILE")));
    let mixed = unplaced(&[
        ("ETCD_CERT_FILE", "/etc/ssl/cert.pem"),
        ("ETCD_LISTEN_CLIENT_URLS", "https://0.0.0.0:2379,http://127.0.0.1:4001"),
    ]);
    assert_eq!(mixed.exposures.len(), 1);
}

#[test]
fn plain_members_are_said_wherever_they_come() {
    let exposed = |settings: &[(&str, &str)]| unplaced(settings).exposures.len();

    assert_eq!(exposed(&[("ETCD_LISTEN_PEER_URLS", "http://10.0.0.1:2380")]), 1);
    assert_eq!(exposed(&[("ETCD_DISCOVERY_SRV", "example.org")]), 1);
    assert_eq!(exposed(&[("ETCD_INITIAL_CLUSTER", "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380")]), 1);
    assert_eq!(exposed(&[("ETCD_INITIAL_CLUSTER", "a=http://127.0.0.1:2380"), ("ETCD_NAME", "a")]), 0);
}

#[test]
fn a_voter_speaks_with_certificates_only_and_follows_no_other_way_to_a_cluster() {
    let voters = VoterList::new(["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap()));
    let place = ClusterPlace::Voter {
        address: "10.0.0.2".parse().unwrap(),
        voters,
        token: "feed".to_owned(),
        start: VoterStart::New,
    };
    let settings = given(&[
        ("ETCD_NAME", "core-1"),
        ("ETCD_DISCOVERY", "https://discovery.etcd.io/3445fa"),
        ("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:2379"),
        ("ETCD_SNAPSHOT_COUNT", "5000"),
    ]);

    let plan = plan_etcd(&settings, &place, Path::new("/keys"));

    assert_eq!(
        lines(&plan),
        "\
ETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.2:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.2:2380
ETCD_INITIAL_CLUSTER=10-0-0-1=https://10.0.0.1:2380,10-0-0-2=https://10.0.0.2:2380,10-0-0-3=https://10.0.0.3:2380
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN=feed
ETCD_LISTEN_CLIENT_URLS=https://127.0.0.1:2378,https://10.0.0.2:2379
ETCD_LISTEN_PEER_URLS=https://10.0.0.2:2380
ETCD_NAME=10-0-0-2
"
    );
    assert_eq!(plan.variables["ETCD_DISCOVERY"], "");
    assert_eq!(plan.ignored, ["ETCD_DISCOVERY", "ETCD_LISTEN_CLIENT_URLS", "ETCD_NAME"]);
    assert_eq!(plan.members[0], LOCAL);
    assert_eq!(plan.members.len(), 3);
    assert!(plan.exposures.is_empty());
}

#[test]
fn a_worker_runs_no_etcd_and_offers_the_voters_keys() {
    let voters = VoterList::new(["10.0.0.1".parse().unwrap()]);

    let plan = plan_etcd(&given(&[]), &ClusterPlace::Worker { voters }, Path::new("/keys"));

    assert!(!plan.runs_here);
    assert_eq!(plan.members, ["10.0.0.1:2379".parse().unwrap()]);
    assert_eq!(plan.classic, CLASSIC);
}

#[test]
fn what_a_person_sets_stays_before_the_defaults() {
    let plan = unplaced(&[("ETCD_QUOTA_BACKEND_BYTES", "1000000"), ("ETCD_MAX_WALS", "0")]);

    assert!(!plan.variables.contains_key("ETCD_QUOTA_BACKEND_BYTES"));
    assert!(!plan.variables.contains_key("ETCD_MAX_WALS"));
    assert_eq!(plan.variables["ETCD_ENABLE_V2"], "true");
    assert_eq!(unplaced(&[]).variables["ETCD_QUOTA_BACKEND_BYTES"], QUOTA_BYTES.to_string());
}

#[test]
fn a_voter_that_comes_later_names_the_members_as_they_are() {
    let members = "10-0-0-1=https://10.0.0.1:2380,10-0-0-4=https://10.0.0.4:2380".to_owned();
    let place = ClusterPlace::Voter {
        address: "10.0.0.4".parse().unwrap(),
        voters: VoterList::new(["10.0.0.1".parse().unwrap(), "10.0.0.4".parse().unwrap()]),
        token: "feed".to_owned(),
        start: VoterStart::Existing(members.clone()),
    };

    let plan = plan_etcd(&Variables::new(), &place, Path::new("/keys"));

    assert_eq!(plan.variables["ETCD_INITIAL_CLUSTER"], members);
    assert_eq!(plan.variables["ETCD_INITIAL_CLUSTER_STATE"], "existing");
    assert_eq!(plan.variables["ETCD_NAME"], "10-0-0-4");
}
