//! A person's file opens what its role says, until its end.

use std::time::Duration;

use cluster::access::{AccessLevel, AccessOrder, format_access};
use cluster::etcd_client::{CALL_PATIENCE, ClientCredentials, EtcdClient};
use cluster::membership::confirm_membership;

use crate::machine::{Machine, Machines, has_etcd};

/// What a program that is given the file as its certificates makes of it.
fn client_of(machines: &Machines, level: AccessLevel, age: Duration) -> EtcdClient {
    let order = AccessOrder { name: "anna".to_owned(), level, days: 1 };
    let addresses: Vec<_> = machines.all.iter().map(|machine| machine.address).collect();
    let now = jiff::Timestamp::now().as_second().unsigned_abs() - age.as_secs();
    let text =
        format_access(&machines.definition, &order, (&addresses, &addresses), Duration::from_secs(now))
            .unwrap();
    // The authority is the second certificate.
    let authority = text.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    let credentials = ClientCredentials {
        authority: text[authority..].to_owned(),
        certificate: text.clone(),
        private_key: text,
    };
    EtcdClient::new(Some(&credentials), CALL_PATIENCE).unwrap()
}

#[test]
fn an_admins_file_opens_etcd_until_its_end_and_a_readers_never() {
    if !has_etcd() {
        return;
    }
    let machines = Machines::running(3);
    let machine: &Machine = &machines.all[0];
    let opens = |client: &EtcdClient| confirm_membership(client, &machine.endpoint()).is_ok();

    let admin = client_of(&machines, AccessLevel::Admin, Duration::ZERO);
    machine.await_that("an admin is let in", || opens(&admin).then_some(()));

    assert!(!opens(&client_of(&machines, AccessLevel::Reader, Duration::ZERO)));
    assert!(!opens(&client_of(&machines, AccessLevel::Admin, Duration::from_hours(25))));
}
