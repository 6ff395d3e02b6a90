//! Clusters of real etcds in network namespaces: how they form, and who gets in.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod link;

use link::{Link, can_run, new_secret};

/// Puts a key by version 3 at each address where etcd may answer, with whatever certificate is taken for one.
const INTRUDE: &str = "for at in http://127.0.0.1:2379 http://127.0.0.1:4001 https://127.0.0.1:2378 https://127.0.0.1:2380; do
    ETCDCTL_API=3 etcdctl --endpoints $at --insecure-skip-tls-verify --dial-timeout 1s --command-timeout 1s \
        put /_coreos.com/fleet/x y 2>&1 | grep -qx OK && echo \"$at let nobody in\"
    curl -sk -m 2 $at/v3/kv/put -d '{\"key\":\"YQ==\",\"value\":\"YQ==\"}' | grep -q revision && echo \"$at has a gateway\"
    curl -sk -m 2 $at/v2/members -H 'Content-Type: application/json' -d '{\"peerURLs\":[\"http://127.0.0.1:5555\"]}' \
        | grep -q peerURLs && echo \"$at takes members\"
    curl -sk -m 2 -X PUT $at/v2/auth/users/root -d '{\"user\":\"root\",\"password\":\"x\"}' | grep -q '\"user\"' \
        && echo \"$at takes passwords\"
done; true";

#[test]
fn nobody_reaches_nothing_of_etcd_but_the_keys_of_version_2() {
    if !can_run() {
        return;
    }
    let link = Link::new(1);
    let machine = link.machine(0);
    machine.start_etcd();
    machine.await_health();

    let said = machine.run_as_nobody(INTRUDE);

    assert_eq!(said, "");
    let classic =
        "ETCDCTL_API=2 etcdctl set /coreos.com/network/config ahoy; ETCDCTL_API=2 etcdctl member list;
        curl -s http://127.0.0.1:4001/v2/keys/coreos.com/network/config";
    let said = machine.run_as_nobody(classic);
    assert!(said.contains("clientURLs=http://127.0.0.1:2379"), "{said}");
    assert!(said.contains(r#""value":"ahoy""#), "{said}");
    assert_eq!(machine.run_modern("put a b && $ETCDCTL get --print-value-only a"), "OK\nb\n");
    for file in [
        "run/catamaran/cluster/client.key",
        "run/catamaran/cluster/etcd/peer.key",
        "var/lib/catamaran/cluster/secret",
    ] {
        let said = machine.run_as_nobody(&format!("cat {}/{file} 2>&1", machine.folder().display()));
        assert!(said.contains("Permission denied"), "{said}");
    }
}

#[test]
fn a_client_that_leaves_frees_its_place_and_one_that_waits_hears_of_a_change() {
    if !can_run() {
        return;
    }
    let link = Link::new(1);
    let machine = link.machine(0);
    machine.start_etcd();
    machine.await_health();
    // More than there is room for, each of which leaves after a second.
    let crowd =
        "for i in $(seq 300); do curl -s -m 1 'http://127.0.0.1:2379/v2/keys/never?wait=true' & done; wait";
    machine.run_as_nobody(crowd);

    let said = machine.run_as_nobody(
        "curl -s -m 20 'http://127.0.0.1:4001/v2/keys/a?wait=true' & sleep 1
         curl -s -X PUT http://127.0.0.1:2379/v2/keys/a -d value=ahoy >/dev/null; wait",
    );

    assert!(said.contains(r#""value":"ahoy""#), "{said}");
}

#[test]
fn four_machines_of_one_secret_form_one_cluster_on_a_link_and_a_fifth_of_another_gets_nowhere() {
    if !can_run() {
        return;
    }
    let link = Link::new(5);
    let (secret, other) = (new_secret(), new_secret());
    for number in 0..5 {
        link.machine(number).define("lan", if number < 4 { &secret } else { &other });
        link.machine(number).start_etcd();
    }
    (0..4).for_each(|number| link.machine(number).await_health());

    let places: Vec<String> = (0..4).map(|number| link.machine(number).place()).collect();

    assert_eq!(places.iter().filter(|place| *place == "voter").count(), 3, "{places:?}");
    assert_eq!(places.iter().filter(|place| *place == "worker").count(), 1, "{places:?}");
    let voter = link.machine(places.iter().position(|place| place == "voter").unwrap());
    let worker = link.machine(places.iter().position(|place| place == "worker").unwrap());
    assert_eq!(voter.run_modern("put from voter"), "OK\n");
    assert_eq!(worker.run_modern("get --print-value-only from"), "voter\n");
    worker.run_as_nobody("curl -s -X PUT http://127.0.0.1:2379/v2/keys/from -d value=worker");
    let said = voter.run_as_nobody("curl -s http://127.0.0.1:4001/v2/keys/from?quorum=true");
    assert!(said.contains(r#""value":"worker""#), "{said}");
    assert_eq!(voter.run_as_nobody(INTRUDE), "");

    let stranger = link.machine(4);
    assert_eq!(stranger.place(), "none", "one machine of its secret is no three");
    let address = voter.address();
    let said = stranger.run_with_own_certificate(&address, "put a b");
    assert!(!said.contains("OK"), "{said}");

    // One loses its disk, and comes back under another number.
    let voters: Vec<_> = (0..4).filter(|number| places[*number] == "voter").collect();
    let [kept, lost] = [link.machine(voters[0]), link.machine(voters[2])];
    lost.lose_disk();
    lost.start_etcd();
    lost.await_three_voters();
    assert!(lost.said().contains("this machine's disk is new"), "{}", lost.said());
    // Then it is gone for good, and the worker takes its place.
    assert!(worker.run_verb(&format!("replace {}", lost.address())).is_empty(), "it answers");
    lost.stop();
    let said = worker.run_verb(&format!("replace {}", lost.address()));
    assert!(said.contains("this machine takes its place"), "{said}");
    worker.stop();
    worker.start_etcd();
    worker.await_three_voters();
    assert_eq!((kept.place().as_str(), worker.place().as_str()), ("voter", "voter"));
    // Without power for so long that it does not know of that, it comes back as a worker.
    lost.start_etcd();
    lost.await_health();
    assert_eq!(lost.place(), "worker", "{}", lost.said());

    // All at once without power, and on again: the list is remembered, and nobody is asked.
    (0..4).for_each(|number| link.machine(number).stop());
    (0..4).for_each(|number| link.machine(number).start_etcd());
    (0..4).for_each(|number| link.machine(number).await_health());
    assert_eq!(worker.run_modern("get --print-value-only from"), "voter\n");
}

#[test]
fn machines_meet_at_a_discovery_service_and_by_their_addresses() {
    if !can_run() {
        return;
    }
    let link = Link::new(4);
    let secret = new_secret();
    // Any etcd with the API of version 2 is a discovery service; this one is what the seeds call open.
    let service = link.machine(3);
    service.start_etcd_with(&[("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:2379")]);
    service.await_health();
    assert!(
        service.status().contains("whoever reaches any address of this machine is root"),
        "{}",
        service.status()
    );
    service.run_as_nobody("curl -s -X PUT http://127.0.0.1:2379/v2/keys/token/_config/size -d value=1");
    let url = format!("http://{}:2379/v2/keys/token", service.address());
    for number in 0..2 {
        link.machine(number).define_sized(&url, &secret, 1);
    }
    link.machine(0).start_etcd();
    link.machine(0).await_health();
    link.machine(1).start_etcd();
    link.machine(1).await_health();
    assert_eq!([link.machine(0).place(), link.machine(1).place()], ["voter", "worker"]);
    link.machine(0).run_modern("put a b");
    assert_eq!(link.machine(1).run_modern("get --print-value-only a"), "b\n");

    // What is open lets in whoever comes, which shows that the other tests knock at the right doors.
    let said = service.run_as_nobody(INTRUDE);
    assert!(said.contains("http://127.0.0.1:2379 let nobody in"), "{said}");
    assert!(said.contains("http://127.0.0.1:2379 takes members"), "{said}");

    let third = link.machine(2);
    third.define_sized(&third.address(), &secret, 1);
    third.start_etcd();
    third.await_health();
    assert_eq!(third.place(), "voter");
    assert_eq!(third.run_modern("get --print-value-only a"), "", "a cluster of its own");
}
