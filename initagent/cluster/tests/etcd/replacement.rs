//! A member loses its disk, and comes back as another.

use cluster::etcd::{ClusterPlace, VoterStart};
use cluster::membership::{MembershipView, confirm_membership};
use cluster::promotion::promote_member;
use serde_json::json;

use crate::keys::{put, value};
use crate::machine::{Machine, Machines, has_etcd};

fn view(machine: &Machine) -> MembershipView {
    let client = machine.client();
    // While a leader is elected none is confirmed.
    machine.await_that("the members are confirmed", || confirm_membership(&client, &machine.endpoint()).ok())
}

#[test]
fn a_member_that_lost_its_disk_is_replaced_and_votes_again() {
    if !has_etcd() {
        return;
    }
    let mut machines = Machines::running(3);
    put(&machines.all[0], "ship", "ahoy");
    let before = view(&machines.all[0]);
    machines.all[2].lose_disk();

    let start = machines.all[2].power_on();

    assert!(matches!(start, VoterStart::Existing(_)), "{start:?}");
    let [first, second, third] = &machines.all[..] else { panic!() };
    promote_member(&third.client(), third.socket(), &[first.socket(), second.socket()]);
    third.await_health();
    let after = view(third);
    let id = |view: &MembershipView| view.member_among(&[third.address]).unwrap().id;
    assert_ne!(id(&before), id(&after));
    assert!(after.members.iter().all(|member| !member.is_learner), "{after:?}");
    assert_eq!(value(third, "ship"), b"ahoy");
    let said = third.said.join("\n");
    assert!(said.contains("disk is new") && !said.contains("bootstrapped"), "{said}");
}

#[test]
fn a_worker_takes_the_place_that_a_person_freed_and_the_removed_one_steps_aside() {
    if !has_etcd() {
        return;
    }
    let mut machines = Machines::running(3);
    put(&machines.all[0], "ship", "ahoy");
    let worker = machines.add(4);
    assert!(matches!(worker.prepare(), ClusterPlace::Worker { .. }));
    machines.all[2].power_off();
    let lost = view(&machines.all[0]).member_among(&[machines.all[2].address]).unwrap().id;
    let first = &machines.all[0];
    let (client, remove) = (first.client(), json!({ "ID": lost.to_string() }));
    first.await_that("the member is removed", || {
        client.call(&first.endpoint(), "cluster/member/remove", &remove).ok()
    });

    let start = machines.all[3].power_on();

    assert!(matches!(start, VoterStart::Existing(_)), "{start:?}");
    let (first, fourth) = (&machines.all[0], &machines.all[3]);
    promote_member(&fourth.client(), fourth.socket(), &[first.socket()]);
    fourth.await_health();
    assert_eq!(value(fourth, "ship"), b"ahoy");
    // The one that was removed comes back with its disk, and is no second cluster.
    let third = &mut machines.all[2];
    let place = third.prepare();
    assert!(matches!(&place, ClusterPlace::Worker { voters } if voters.count() == 3), "{place:?}");
    assert!(third.said.join("\n").contains("went on without this machine"), "{:?}", third.said);
    assert!(!third.data_folder().exists());
}

#[test]
fn a_machine_of_a_formed_cluster_forms_none_with_a_new_disk_while_the_others_are_off() {
    if !has_etcd() {
        return;
    }
    let mut machines = Machines::running(3);
    for machine in &mut machines.all {
        machine.power_off();
        // The second start knows that there was data.
        machine.power_on();
    }
    for machine in &mut machines.all {
        machine.power_off();
    }
    std::fs::remove_dir_all(machines.all[0].data_folder()).unwrap();
    let (off, on) = machines.all.split_at_mut(1);

    let start = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| off[0].power_on());
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(!waiting.is_finished(), "it formed a cluster without the others");
        for machine in on.iter_mut() {
            machine.power_on();
        }
        waiting.join().unwrap()
    });

    assert!(matches!(start, VoterStart::Existing(_)), "{start:?}");
    assert!(off[0].said[0].contains("waiting for a majority"), "{:?}", off[0].said);
}
