use fleet::lock::RebootLocks;
use fleet::lock::semaphore::GroupName;
use fleet::model::state::JobState;
use fleet::store::registry::Registry;

use crate::support::{self, Options, Server, three_machines};
use crate::{error, idle, until};

#[test]
fn who_wants_to_reboot_asks_first() {
    let server = idle();
    let ask = |path: &str, headers: &[(&str, &str)], body: &str| server.raw("POST", path, headers, body);
    let protocol = [("fleet-lock-protocol", "true")];
    let client = |id: &str, group: &str| format!(r#"{{"client_params":{{"id":"{id}","group":"{group}"}}}}"#);
    let kind = |answer: &support::Answer| {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["kind"].as_str().unwrap().to_owned())
    };

    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m1", "default")).both(), (200, ""));
    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m1", "default")).status, 200, "again, without harm");
    let full = ask("/v1/pre-reboot", &protocol, &client("m2", "default"));
    assert_eq!(kind(&full), (423, "failed_lock".into()));
    assert!(
        full.body.contains("all 1 semaphore slots of group default are currently locked by m1"),
        "{}",
        full.body
    );
    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m2", "workers")).status, 200, "another group");
    assert_eq!(ask("/v1/steady-state", &protocol, &client("m3", "default")).status, 200, "not held, no harm");
    assert_eq!(ask("/v1/steady-state", &protocol, &client("m1", "default")).status, 200);
    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m2", "default")).status, 200);

    assert_eq!(kind(&ask("/v1/pre-reboot", &[], &client("m1", "default"))), (400, "missing_header".into()));
    assert_eq!(kind(&ask("/v1/pre-reboot", &protocol, "{}")), (400, "decode_error".into()));
    assert_eq!(
        kind(&ask("/v1/pre-reboot", &protocol, &client("", "default"))),
        (400, "invalid_client_identity".into())
    );
    assert_eq!(
        kind(&ask("/v1/pre-reboot", &protocol, &client("m", "a b"))),
        (400, "invalid_client_identity".into())
    );
    assert_eq!(
        kind(&server.raw("GET", "/v1/steady-state", &protocol, "")),
        (405, "method_not_allowed".into())
    );
}

#[test]
fn a_machine_with_a_slot_is_emptied_and_filled_again() {
    let server = Server::with(three_machines(), Options { drain_on_lock: true, ..Options::default() });
    let a = "a".repeat(32);
    let body = r#"{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}"#;
    server.put("/fleet/v1/units/a.service", body);
    until(|| server.get("/fleet/v1/state/a.service").body.contains(&a));
    let ask = |path: &str| {
        let body = format!(r#"{{"client_params":{{"id":"{a}","group":"default"}}}}"#);
        server.raw("POST", path, &[("fleet-lock-protocol", "true")], &body).status
    };
    let draining = || server.registry.read(|cluster| cluster.machines.values().next().unwrap().draining);

    assert_eq!(ask("/v1/pre-reboot"), 200);
    assert!(draining());
    let elsewhere = server.registry.read(|cluster| {
        cluster.target_of("a.service").is_none_or(|machine| machine.as_str() != a)
            && cluster
                .all_states()
                .all(|state| state.machine.as_str() != a || state.job != JobState::Launched)
    });
    assert!(elsewhere, "200 means that nothing runs there any more");
    assert_eq!(ask("/v1/steady-state"), 200);
    assert!(!draining());
    assert_eq!(ask("/v1/steady-state"), 200);
}

#[test]
fn slots_are_seen_and_set_by_people() {
    let server = idle();

    assert_eq!(server.get("/fleet/v1/locks").both(), (200, "{}"));
    assert_eq!(server.get("/fleet/v1/locks/default").body, r#"{"available":1,"group":"default","max":1}"#);
    assert_eq!(
        server.put("/fleet/v1/locks/default", r#"{"max":2}"#).both(),
        (200, r#"{"max":2,"oldMax":1}"#)
    );
    assert_eq!(server.put("/fleet/v1/locks/default/holders/m1", r#"{"reason":"disk"}"#).both(), (204, ""));
    assert_eq!(
        server.get("/fleet/v1/locks").body,
        r#"{"groups":[{"available":1,"group":"default","holders":[{"id":"m1","reason":"disk","since":1700000000}],"max":2}]}"#
    );
    assert_eq!(server.raw("DELETE", "/fleet/v1/locks/default/holders/m1", &[], "").status, 204);
    let gone = server.raw("DELETE", "/fleet/v1/locks/default/holders/m1", &[], "");
    assert_eq!(gone.both(), (404, error(404, "holder does not exist").as_str()));
    assert_eq!(server.put("/fleet/v1/locks/a%20b", r#"{"max":2}"#).status, 400);
    let held = async { server.locks.group(&GroupName::default()).await.unwrap().holders.len() };
    assert_eq!(tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(held), 0);
}

#[test]
fn a_drain_of_nobody_is_refused() {
    let server = idle();

    let answer = server.raw("PUT", "/fleet/v1/machines/unknown/drain", &[], "{}");
    assert_eq!(answer.both(), (404, error(404, "machine does not exist").as_str()));
    assert_eq!(
        server.raw("DELETE", "/fleet/v1/machines/unknown/drain", &[], "").status,
        204,
        "to let it in is fine"
    );
    assert_eq!(server.raw("POST", "/fleet/v1/units/unknown.service/restart", &[], "{}").status, 404);
}
