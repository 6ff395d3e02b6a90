//! Most or all machines are lost, and what they kept comes back.

use cluster::backup::{Backup, read_backup, take_backup};
use cluster::etcd::VoterStart;
use cluster::etcd_client::{COPY_PATIENCE, ClientCredentials, EtcdClient};
use cluster::finding::{FoundVoters, remember_voters};
use cluster::joining::Formation;
use cluster::promotion::promote_member;
use cluster::restore::{RestoreRun, RestoreSource, RestoredMember, import_keys, rebuild_member};
use cluster::voters::{VoterList, member_name, peer_url};
use user_data::cluster::ClusterDefinition;

use crate::keys::{classic_value, put, put_classic, value};
use crate::machine::{Machine, Machines, has_etcd};

fn patient_client(machine: &Machine) -> EtcdClient {
    let credentials = ClientCredentials::of_machine(&machine.site()).unwrap().unwrap();
    EtcdClient::new(Some(&credentials), COPY_PATIENCE).unwrap()
}

fn restored(machine: &Machine) -> RestoredMember {
    RestoredMember {
        name: member_name(machine.address),
        peer_url: peer_url(machine.address),
        token: "after-the-loss".to_owned(),
        data_folder: machine.data_folder(),
        keys: machine.site().runtime_path(""),
    }
}

fn backup_of(machine: &Machine, to: &std::path::Path) -> Backup {
    let taken =
        take_backup(&patient_client(machine), &machine.endpoint(), to, jiff::Timestamp::now()).unwrap();
    assert_eq!(read_backup(&taken.folder).unwrap(), taken);
    taken
}

/// What the verb does once the data are in place.
fn forget_others(machine: &Machine, definition: &ClusterDefinition) {
    let found = FoundVoters { voters: VoterList::new([machine.address]), formation: Formation::Before };
    remember_voters(&machine.site(), definition, &found).unwrap();
}

fn votes_with_all(machines: &Machines, joined: usize) {
    let machine = &machines.all[joined];
    let others: Vec<_> = machines.all.iter().map(Machine::socket).collect();
    promote_member(&machine.client(), machine.socket(), &others);
    machine.await_health();
}

#[test]
fn two_of_three_are_lost_and_the_third_brings_everything_back_from_its_own_disk() {
    if !has_etcd() {
        return;
    }
    let mut machines = Machines::running(3);
    put(&machines.all[0], "ship", "ahoy");
    put_classic(&machines.all[0], "fleet/unit a", "classic");
    // etcd notes that an entry was confirmed with the next one, and alone it believes only what was noted.
    for number in ["1", "2"] {
        put(&machines.all[0], "last words", number);
    }
    let definition = machines.definition.clone();
    for lost in [1, 2] {
        machines.all[lost].lose_disk();
    }
    machines.all[0].power_off();
    let first = &machines.all[0];

    let run =
        |run| rebuild_member(&patient_client(first), &restored(first), RestoreSource::OwnData, run).unwrap();
    let dry = run(RestoreRun::Dry);
    assert!(dry.old_data.is_none() && first.data_folder().exists(), "a dry run changes nothing");
    let real = run(RestoreRun::Real);

    assert_eq!((real.modern_keys, real.classic_keys), (dry.modern_keys, dry.classic_keys));
    assert_eq!((real.modern_keys, real.classic_keys), (2, 2));
    assert!(real.old_data.unwrap().join("member").exists());
    forget_others(first, &definition);
    machines.all[0].power_on();
    machines.all[0].await_health();
    for lost in [1, 2] {
        let start = machines.all[lost].power_on();
        assert!(matches!(start, VoterStart::Existing(_)), "{start:?}");
        votes_with_all(&machines, lost);
    }
    assert_eq!(value(&machines.all[2], "ship"), b"ahoy");
    assert_eq!(classic_value(&machines.all[2], "fleet/unit a").as_deref(), Some("classic"));
}

#[test]
fn all_are_lost_and_a_backup_comes_back_on_one_machine_to_which_the_others_come() {
    if !has_etcd() {
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let mut machines = Machines::running(3);
    put(&machines.all[1], "ship", "ahoy");
    put_classic(&machines.all[1], "coreos.com/network/config", "{\"Network\":\"10.1.0.0/16\"}");
    let backup = backup_of(&machines.all[1], kept.path());
    let definition = machines.definition.clone();
    for machine in &mut machines.all {
        machine.lose_disk();
    }
    let first = &machines.all[0];
    std::fs::create_dir_all(first.data_folder().parent().unwrap()).unwrap();

    let client = patient_client(first);
    let report =
        rebuild_member(&client, &restored(first), RestoreSource::Backup(&backup), RestoreRun::Real).unwrap();

    assert_eq!((report.modern_keys, report.old_data), (1, None));
    forget_others(first, &definition);
    for number in 0..3 {
        machines.all[number].power_on();
        votes_with_all(&machines, number);
    }
    assert_eq!(value(&machines.all[2], "ship"), b"ahoy");
    let config = classic_value(&machines.all[2], "coreos.com/network/config");
    assert_eq!(config.as_deref(), Some("{\"Network\":\"10.1.0.0/16\"}"));
}

#[test]
fn a_backup_comes_back_into_a_cluster_that_lives() {
    if !has_etcd() {
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let old = Machines::running(3);
    for number in 0..250 {
        put(&old.all[0], &format!("key {number:03}"), "ahoy");
    }
    put_classic(&old.all[0], "a", "b");
    let backup = backup_of(&old.all[0], kept.path());
    drop(old);
    // All disks are new, so that the machines have formed an empty cluster by themselves.
    let machines = Machines::running(3);
    let first = &machines.all[0];
    put(first, "key 007", "ahoy");
    put(first, "later", "stays");

    let import = |run| {
        let work = tempfile::tempdir().unwrap();
        let (client, member) = (patient_client(first), restored(first));
        import_keys(&client, &first.endpoint(), &backup, (&member, work.path()), run).unwrap()
    };
    let dry = import(RestoreRun::Dry);
    assert_eq!(value(first, "key 249"), b"");
    let real = import(RestoreRun::Real);

    assert_eq!((dry.modern_written, dry.modern_same, dry.classic_written), (249, 1, 1));
    assert_eq!((real.modern_written, real.modern_same, real.classic_written), (249, 1, 1));
    assert_eq!((value(first, "key 249"), value(first, "later")), (b"ahoy".to_vec(), b"stays".to_vec()));
    assert_eq!(classic_value(first, "a").as_deref(), Some("b"));
    assert_eq!(import(RestoreRun::Real).modern_written, 0);
}

#[test]
fn a_backup_whose_disk_lied_is_refused() {
    if !has_etcd() {
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let machines = Machines::running(3);
    put(&machines.all[0], "ship", "ahoy");
    let backup = backup_of(&machines.all[0], kept.path());
    let path = backup.folder.join("etcd.db");
    let mut content = std::fs::read(&path).unwrap();
    content[4096] ^= 1;
    std::fs::write(&path, content).unwrap();

    let error = read_backup(&backup.folder).unwrap_err().to_string();

    assert!(error.contains("damaged"), "{error}");
}
