use std::sync::LazyLock;

use fleet::store::registry::Registry;
use proptest::prelude::*;

use crate::support::Server;

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

fn path() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "/fleet/v1/units/a.service",
        "/fleet/v1/units/a@.service",
        "/fleet/v1/units/%2e%2e%2fx.service",
        "/fleet/v1/machines",
        "/fleet/v1/rebalance",
        "/fleet/v1/brake",
        "/fleet/v1/explain/a.service",
        "/fleet/v1/locks/default",
        "/fleet/v1/locks/default/holders/%00",
        "/fleet/v1/machines/a/drain",
        "/v1/pre-reboot",
        "/v1/steady-state",
        "/fleet/v1/state?unitName=%ff&machineID=&nextPageToken=ZAACAA==",
    ]);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => "/[!-~&&[^?#]]{0,30}"]
}

/// Bodies that are nearly right: that is where mistakes are.
fn body() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("null".to_owned()),
        Just("\"launched\"".to_owned()),
        Just("\"X-Fleet\"".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("1e999".to_owned()),
        "\"[ -~&&[^\"\\\\]]{0,12}\"",
    ];
    let key = prop::sample::select(vec![
        "name",
        "options",
        "desiredState",
        "section",
        "value",
        "op",
        "path",
        "maxMoves",
        "max",
        "client_params",
        "id",
        "group",
    ]);
    let object = prop::collection::vec((key, word), 0..5).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", pairs.join(","))
    });
    let nested = (object.clone(), object.clone())
        .prop_map(|(outer, inner)| outer.replace("[]", &format!("[{inner}]")).replace("{}", &inner));
    prop_oneof![2 => object.clone(), 2 => nested, 1 => object.prop_map(|each| format!("[{each}]")), 1 => "\\PC{0,60}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn gets_an_answer_that_can_be_read(method in "GET|PUT|POST|PATCH|DELETE|HEAD|BREW", path in path(), body in body()) {
        let headers = [("Content-Type", "application/json"), ("fleet-lock-protocol", "true")];
        let answer = SERVER.raw(&method, &path, &headers, &body);

        prop_assert!(answer.status < 500, "{} {} {}: {:?}", method, path, body, answer);
        if answer.status >= 400 && method != "HEAD" && !answer.body.is_empty() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&answer.body).is_ok(), "{:?}", answer);
        }
        // Whatever was taken can be read back and written to a disk.
        for unit in SERVER.registry.read(|cluster| cluster.units.values().cloned().collect::<Vec<_>>()) {
            let again = fleet::model::unit_file::UnitFile::parse(&unit.file.canonical_text()).map(|file| file.hash());
            prop_assert_eq!(again, Ok(unit.file.hash()));
        }
    }
}
