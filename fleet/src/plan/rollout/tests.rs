use std::time::Duration;

use super::*;
use crate::{
    model::{machine::MachineId, unit_file::UnitFile},
    store::{
        cluster::{ChangeDirection, UnitAssignment},
        revision::Revision,
    },
};

fn file(text: &str) -> UnitFile {
    UnitFile::parse(&format!("[Service]\nExecStart={text}\n")).unwrap()
}

fn name(number: u8) -> UnitName {
    UnitName::parse(&format!("w@{number}.service")).unwrap()
}

fn running(count: u8) -> Cluster {
    let machine = MachineId::parse("m1").unwrap();
    let mut cluster = Cluster::default();
    for number in 1..=count {
        let (name, old) = (name(number), file("old"));
        let hash = old.hash();
        cluster.units.insert(name.clone(), SubmittedUnit::new(name.clone(), old, JobState::Launched));
        cluster
            .assignments
            .insert(name.clone(), UnitAssignment { machine: machine.clone(), hash, revision: Revision(1) });
        say(&mut cluster, &name, hash, "active");
    }
    cluster
}

fn say(cluster: &mut Cluster, name: &UnitName, hash: UnitHash, active: &str) {
    let machine = MachineId::parse("m1").unwrap();
    let state = UnitState {
        name: name.clone(),
        machine: machine.clone(),
        hash,
        job: JobState::Launched,
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: "running".to_owned(),
        restarts: 0,
        error: String::new(),
    };
    cluster.states.entry(name.clone()).or_default().insert(machine, state);
}

fn submit(cluster: &mut Cluster, name: &UnitName, new: &UnitFile) {
    let unit = cluster.units.get_mut(name).unwrap();
    let previous = Some(unit.file.hash());
    let rollout = Some(ChangeDirection::Forward);
    *unit = SubmittedUnit {
        previous,
        rollout,
        ..SubmittedUnit::new(name.clone(), new.clone(), JobState::Launched)
    };
}

fn obey(cluster: &mut Cluster, steps: &[RolloutStep]) -> Vec<String> {
    let mut done = Vec::new();
    for step in steps {
        match step {
            RolloutStep::Change { unit, hash, .. } => {
                cluster.assignments.get_mut(unit).unwrap().hash = *hash;
                done.push(format!("change {unit}"));
            }
            RolloutStep::Revert { unit, .. } => {
                let old = SubmittedUnit {
                    previous: None,
                    ..SubmittedUnit::new(unit.clone(), file("old"), JobState::Launched)
                };
                cluster.units.insert(unit.clone(), old);
                done.push(format!("revert {unit}"));
            }
            RolloutStep::Finish { unit, note, .. } => {
                cluster.units.get_mut(unit).unwrap().rollout = None;
                done.push(format!("finish {unit} {note}").trim_end().to_owned());
            }
            RolloutStep::Admit { .. } => unreachable!("no unit here is global"),
        }
    }
    done
}

fn look(rollouts: &mut ClusterRollouts, cluster: &mut Cluster, now: MonotonicTime) -> Vec<String> {
    for number in 1..=3 {
        rollouts.look_at(cluster, &name(number), now);
    }
    let steps = rollouts.next_steps(cluster, now);
    obey(cluster, &steps)
}

#[test]
fn a_change_goes_on_only_after_the_last_one_is_proven() {
    let (mut cluster, mut rollouts, new) = (running(3), ClusterRollouts::default(), file("new"));
    let mut now = MonotonicTime::START;
    for number in 1..=3 {
        submit(&mut cluster, &name(number), &new);
    }

    assert_eq!(look(&mut rollouts, &mut cluster, now), ["change w@1.service"]);
    assert_eq!(look(&mut rollouts, &mut cluster, now), [""; 0]);
    say(&mut cluster, &name(1), new.hash(), "active");
    assert_eq!(look(&mut rollouts, &mut cluster, now), [""; 0], "not proven yet");
    assert_eq!(rollouts.next_wakeup(&cluster), Some(now + Duration::from_secs(10)));
    now = now + Duration::from_secs(10);
    assert_eq!(look(&mut rollouts, &mut cluster, now), ["finish w@1.service", "change w@2.service"]);
    assert_eq!(look(&mut rollouts, &mut cluster, now), [""; 0]);
}

#[test]
fn a_new_leader_proves_anew_what_is_not_finished() {
    let (mut cluster, new, mut now) = (running(1), file("new"), MonotonicTime::START);
    submit(&mut cluster, &name(1), &new);
    look(&mut ClusterRollouts::default(), &mut cluster, now);
    say(&mut cluster, &name(1), new.hash(), "active");
    let mut rollouts = ClusterRollouts::default();

    assert_eq!(look(&mut rollouts, &mut cluster, now), [""; 0]);
    now = now + Duration::from_secs(10);
    assert_eq!(look(&mut rollouts, &mut cluster, now), ["finish w@1.service"]);
}

#[test]
fn a_change_that_nobody_wants_back_ends_with_a_note() {
    let (mut cluster, mut rollouts) = (running(1), ClusterRollouts::default());
    let text = "[Service]\nExecStart=new\n[X-Fleet]\nAutoRevert=no\n";
    let new = UnitFile::parse(text).unwrap();
    submit(&mut cluster, &name(1), &new);
    look(&mut rollouts, &mut cluster, MonotonicTime::START);
    say(&mut cluster, &name(1), new.hash(), "failed");

    let done = look(&mut rollouts, &mut cluster, MonotonicTime::START);

    let note = format!("change to {} failed and stays: w@1.service failed", new.hash().short_hash());
    assert_eq!(done, [format!("finish w@1.service {note}")]);
}

#[test]
fn one_failure_takes_the_family_back() {
    let (mut cluster, mut rollouts, new) = (running(3), ClusterRollouts::default(), file("new"));
    let mut now = MonotonicTime::START;
    for number in 1..=3 {
        submit(&mut cluster, &name(number), &new);
    }
    look(&mut rollouts, &mut cluster, now);
    say(&mut cluster, &name(1), new.hash(), "active");
    look(&mut rollouts, &mut cluster, now);
    now = now + Duration::from_secs(10);
    look(&mut rollouts, &mut cluster, now);

    say(&mut cluster, &name(2), new.hash(), "failed");
    let reverted = look(&mut rollouts, &mut cluster, now);
    assert_eq!(reverted, ["revert w@1.service", "revert w@2.service", "revert w@3.service"]);
    assert_eq!(
        look(&mut rollouts, &mut cluster, now),
        ["change w@1.service"],
        "the way back is rolled out too"
    );
}

#[test]
fn a_change_that_never_comes_up_is_taken_back_after_the_deadline() {
    let (mut cluster, mut rollouts) = (running(1), ClusterRollouts::default());
    submit(&mut cluster, &name(1), &file("new"));
    look(&mut rollouts, &mut cluster, MonotonicTime::START);
    let deadline = rollouts.next_wakeup(&cluster).unwrap();

    assert_eq!(deadline, MonotonicTime::START + Duration::from_mins(5));
    assert_eq!(look(&mut rollouts, &mut cluster, deadline), ["revert w@1.service"]);
}

#[test]
fn a_unit_that_is_not_launched_changes_at_once() {
    let (mut cluster, mut rollouts) = (running(3), ClusterRollouts::default());
    for number in 1..=3 {
        submit(&mut cluster, &name(number), &file("new"));
        cluster.units.get_mut(&name(number)).unwrap().desired = JobState::Loaded;
    }

    assert_eq!(look(&mut rollouts, &mut cluster, MonotonicTime::START).len(), 3);
}
