//! Keys of both stores, as tests write and read them.

use cluster::etcd_client::{decode_bytes, encode_bytes};
use serde_json::json;

use crate::machine::Machine;

pub(crate) fn put(machine: &Machine, key: &str, value: &str) {
    let arguments = json!({ "key": encode_bytes(key.as_bytes()), "value": encode_bytes(value.as_bytes()) });
    let client = machine.client();
    machine.await_that("a key is written", || client.call(&machine.endpoint(), "kv/put", &arguments).ok());
}

pub(crate) fn value(machine: &Machine, key: &str) -> Vec<u8> {
    let arguments = json!({ "key": encode_bytes(key.as_bytes()) });
    let client = machine.client();
    let answer =
        machine.await_that("a key is read", || client.call(&machine.endpoint(), "kv/range", &arguments).ok());
    decode_bytes(&answer["kvs"][0]["value"])
}

pub(crate) fn put_classic(machine: &Machine, path: &str, value: &str) {
    let path = format!("keys/{}", path.replace(' ', "%20"));
    machine.client().classic_put(&machine.endpoint(), &path, &[("value", value.to_owned())]).unwrap();
}

pub(crate) fn classic_value(machine: &Machine, path: &str) -> Option<String> {
    let path = format!("keys/{}?quorum=true", path.replace(' ', "%20"));
    let answer = machine.client().classic_get(&machine.endpoint(), &path).ok()?;
    answer["node"]["value"].as_str().map(str::to_owned)
}
