use std::time::Duration;

use super::*;
use crate::{
    model::{machine::Machine, unit_file::UnitFile},
    plan::globals,
};

fn file(text: &str) -> UnitFile {
    UnitFile::parse(&format!(
        "[Service]\nExecStart={text}\n[X-Fleet]\nGlobal=true\nHealthyAfter=10s\nHealthDeadline=60s\n"
    ))
    .unwrap()
}

fn name() -> UnitName {
    UnitName::parse("agent.service").unwrap()
}

fn machine(number: u8) -> MachineId {
    MachineId::parse(&format!("m{number}")).unwrap()
}

/// A cluster that runs `old` everywhere and was told to run `new`.
struct Story {
    cluster: Cluster,
    mind: GlobalRollouts,
    now: MonotonicTime,
}

impl Story {
    fn of(machines: u8) -> Self {
        let mut cluster = Cluster::default();
        for text in ["old", "new"] {
            cluster.files.insert(file(text).hash(), file(text));
        }
        for number in 1..=machines {
            cluster.machines.insert(machine(number), Machine::new(machine(number)));
        }
        let unit = SubmittedUnit {
            previous: Some(file("old").hash()),
            rollout: Some(ChangeDirection::Forward),
            ..SubmittedUnit::new(name(), file("new"), JobState::Launched)
        };
        cluster.units.insert(name(), unit);
        let mut story = Self { cluster, mind: GlobalRollouts::default(), now: MonotonicTime::START };
        for number in 1..=machines {
            story.say(number, "old", "active");
        }
        story
    }

    fn say(&mut self, number: u8, text: &str, active: &str) {
        let state = UnitState {
            name: name(),
            machine: machine(number),
            hash: file(text).hash(),
            job: JobState::Launched,
            load: "loaded".to_owned(),
            active: active.to_owned(),
            sub: "running".to_owned(),
            restarts: 0,
            error: String::new(),
        };
        self.cluster.states.entry(name()).or_default().insert(machine(number), state);
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now + Duration::from_secs(seconds);
        self
    }

    /// What the mind does now, done.
    fn act(&mut self) -> Vec<String> {
        self.mind.look_at(&self.cluster, &name(), self.now);
        let steps = self.mind.next_steps(&self.cluster, self.now);
        steps.iter().map(|step| self.obey(step)).collect()
    }

    fn obey(&mut self, step: &RolloutStep) -> String {
        let unit = self.cluster.units.get_mut(&name()).unwrap();
        match step {
            RolloutStep::Admit { machine, hash, .. } => {
                self.cluster.admissions.entry(name()).or_default().insert(machine.clone(), *hash);
                format!("admit {machine}")
            }
            RolloutStep::Change { .. } => unreachable!("the unit is global"),
            RolloutStep::Finish { .. } => {
                unit.rollout = None;
                "finish".to_owned()
            }
            RolloutStep::Revert { from, note, .. } => {
                let rollout = Some(ChangeDirection::Back);
                let back = SubmittedUnit::new(name(), file("old"), JobState::Launched);
                *unit = SubmittedUnit { previous: Some(*from), rollout, note: note.clone(), ..back };
                note.clone()
            }
        }
    }

    /// What each machine runs, by the rule that agents follow.
    fn contents(&self) -> Vec<&str> {
        let unit = &self.cluster.units[&name()];
        let content = |machine: &Machine| {
            let held = self.cluster.state_on("agent.service", machine.id.as_str()).map(|state| state.hash);
            globals::content_for(&self.cluster, unit, machine, held)
                .values_of("Service", "ExecStart")
                .next()
                .unwrap()
        };
        self.cluster.machines.values().map(content).collect()
    }
}

#[test]
fn machines_change_one_after_the_other() {
    let mut story = Story::of(3);

    assert_eq!(story.contents(), ["old", "old", "old"]);
    assert_eq!(story.act(), ["admit m1"]);
    assert_eq!(story.contents(), ["new", "old", "old"]);
    assert_eq!(story.act(), [""; 0], "the first has not come up yet");
    story.say(1, "new", "active");
    assert_eq!(story.act(), [""; 0], "nor proven that it stays up");
    assert_eq!(story.mind.next_wakeup(&story.cluster), Some(story.now + Duration::from_secs(10)));
    assert_eq!(story.wait(10).act(), ["admit m2"]);
    story.say(2, "new", "active");
    story.act();
    assert_eq!(story.wait(10).act(), ["admit m3"]);
    story.say(3, "new", "active");
    story.act();
    assert_eq!(story.wait(10).act(), ["finish"]);
    assert_eq!(story.contents(), ["new", "new", "new"]);
}

#[test]
fn one_failure_takes_all_back_machine_by_machine() {
    let mut story = Story::of(4);
    story.act();
    story.say(1, "new", "active");
    story.act();
    assert_eq!(story.wait(10).act(), ["admit m2"]);
    story.say(2, "new", "failed");

    let short = file("new").hash().short_hash();
    assert_eq!(story.act(), [format!("change to {short} taken back: agent.service on machine m2 failed")]);
    assert_eq!(story.contents(), ["new", "new", "old", "old"], "nobody moves before it is told");
    assert_eq!(story.act(), ["admit m1"]);
    story.say(1, "old", "active");
    story.act();
    assert_eq!(story.wait(10).act(), ["admit m2"]);
    story.say(2, "old", "active");
    story.act();
    assert_eq!(story.wait(10).act(), ["finish"]);
    assert_eq!(story.contents(), ["old"; 4]);
}

#[test]
fn a_machine_that_is_lost_is_not_waited_for_and_a_new_one_gets_what_is_proven() {
    let mut story = Story::of(2);
    assert_eq!(story.act(), ["admit m1"]);
    story.cluster.machines.remove(&machine(1));
    story.cluster.machines.insert(machine(9), Machine::new(machine(9)));

    assert_eq!(story.contents(), ["old", "old"]);
    assert_eq!(story.act(), ["admit m2"]);
}

#[test]
fn an_engine_that_takes_over_goes_on_where_the_last_one_was() {
    let mut story = Story::of(3);
    story.act();
    story.say(1, "new", "active");
    story.mind = GlobalRollouts::default();

    assert_eq!(story.act(), [""; 0]);
    assert_eq!(story.wait(10).act(), ["admit m2"]);
}

#[test]
fn without_a_launched_unit_there_is_nothing_to_be_careful_with() {
    let mut story = Story::of(3);
    story.cluster.units.get_mut(&name()).unwrap().desired = JobState::Loaded;

    assert_eq!(story.contents(), ["new"; 3]);
    assert_eq!(story.act(), ["finish"]);
}

#[test]
fn a_change_that_never_comes_up_is_taken_back_after_the_deadline() {
    let mut story = Story::of(2);
    story.act();

    assert!(story.wait(60).act()[0].ends_with("m1 was not up within 60 s"));
}
