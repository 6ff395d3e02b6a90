use super::*;
use crate::{
    model::{machine::Machine, state::UnitState, unit_file::UnitFile},
    store::{
        cluster::{SubmittedUnit, UnitAssignment},
        revision::Revision,
    },
};

const TTL: Duration = Duration::from_secs(30);

/// An engine, the picture it sees, and the time.
struct Watchroom {
    mind: ClusterConverger,
    cluster: Cluster,
    now: MonotonicTime,
}

fn id(number: u8) -> MachineId {
    MachineId::parse(&format!("m{number}")).unwrap()
}

fn name(text: &str) -> UnitName {
    UnitName::parse(&format!("{text}.service")).unwrap()
}

impl Watchroom {
    fn with_machines(count: u8) -> Self {
        let mut room = Self {
            mind: ClusterConverger::new(
                SafetyLimits { ttl: TTL, ..SafetyLimits::default() },
                MonotonicTime::START,
            ),
            cluster: Cluster::default(),
            now: MonotonicTime::START,
        };
        (1..=count).for_each(|number| room.join(number));
        room
    }

    fn tell(&mut self, change: &ClusterChange) {
        self.mind.observe_change(&self.cluster, change, self.now);
    }

    fn join(&mut self, number: u8) {
        self.cluster.machines.insert(id(number), Machine::new(id(number)));
        self.tell(&ClusterChange::Machine(id(number)));
    }

    fn lose(&mut self, number: u8) {
        self.cluster.machines.remove(&id(number));
        let states = &mut self.cluster.states;
        for said in states.values_mut() {
            said.remove(&id(number));
        }
        self.tell(&ClusterChange::Machine(id(number)));
        let names: Vec<UnitName> = self.cluster.units.keys().cloned().collect();
        for name in names {
            self.tell(&ClusterChange::State(name, id(number)));
        }
    }

    fn submit(&mut self, unit: &str, requirements: &str) {
        let file =
            UnitFile::parse(&format!("[Service]\nExecStart=/bin/x\n[X-Fleet]\n{requirements}\n")).unwrap();
        let unit = SubmittedUnit::new(name(unit), file, JobState::Launched);
        self.cluster.units.insert(unit.name.clone(), unit.clone());
        self.tell(&ClusterChange::Unit(unit.name));
    }

    fn say(&mut self, unit: &str, machine: u8, job: JobState) {
        let active = if job == JobState::Launched { "active" } else { "inactive" };
        self.say_active(unit, machine, job, active);
    }

    fn say_active(&mut self, unit: &str, machine: u8, job: JobState, active: &str) {
        let unit = &self.cluster.units[&name(unit)];
        let state = UnitState {
            name: unit.name.clone(),
            machine: id(machine),
            hash: unit.file.hash(),
            job,
            load: "loaded".to_owned(),
            active: active.to_owned(),
            sub: "running".to_owned(),
            restarts: 0,
            error: String::new(),
        };
        let change = ClusterChange::State(unit.name.clone(), id(machine));
        self.cluster.states.entry(state.name.clone()).or_default().insert(id(machine), state);
        self.tell(&change);
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// Plans, writes the decisions into the picture, and shows them.
    fn act(&mut self) -> Vec<String> {
        let plan = self.mind.plan_changes(&self.cluster, self.now);
        let show = |id: &Option<MachineId>| id.as_ref().map_or("-", MachineId::as_str).to_owned();
        let lines = plan.decisions.iter().map(|decision| {
            format!("{} {}>{}", decision.unit.stem(), show(&decision.from), show(&decision.to))
        });
        let lines: Vec<String> = lines.chain(plan.brake.iter().map(|_| "brake".to_owned())).collect();
        for decision in plan.decisions {
            match decision.to {
                Some(machine) => {
                    let hash = self.cluster.units[&decision.unit].file.hash();
                    let place = UnitAssignment { machine, hash, revision: Revision::NEVER };
                    self.cluster.assignments.insert(decision.unit.clone(), place);
                }
                None => {
                    self.cluster.assignments.remove(&decision.unit);
                }
            }
            self.tell(&ClusterChange::Unit(decision.unit));
        }
        lines
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_lost_machine_is_given_up_once_the_loss_has_settled() {
    let mut room = Watchroom::with_machines(3);
    room.submit("a", "");
    assert_eq!(room.act(), ["a ->m1"]);
    room.wait(TTL);
    room.lose(1);
    assert_eq!(room.act(), NOTHING);
    room.wait(Duration::from_millis(250));
    assert_eq!(room.act(), ["a m1>m2"]);
}

#[test]
fn after_the_store_was_away_nothing_moves_for_a_full_ttl() {
    let mut room = Watchroom::with_machines(3);
    room.submit("a", "");
    room.act();
    room.wait(TTL * 10);
    room.mind.note_interruption(room.now);
    room.lose(1);
    room.wait(TTL.saturating_sub(Duration::from_millis(1)));
    assert_eq!(room.act(), NOTHING);
    room.join(1);
    room.wait(TTL);
    assert_eq!(room.act(), NOTHING, "the machine was heard again in time");
}

#[test]
fn the_brake_holds_until_enough_machines_return() {
    let mut room = Watchroom::with_machines(5);
    for unit in ["a", "b", "c", "d", "e"] {
        room.submit(unit, "");
    }
    room.act();
    room.wait(TTL);
    (1..=3).for_each(|number| room.lose(number));
    room.wait(Duration::from_secs(1));
    assert_eq!(room.act(), ["brake"]);
    room.join(2);
    room.wait(TTL * 3);
    assert_eq!(room.act(), ["a m1>m2", "c m3>m4"]);
}

#[test]
fn a_person_can_release_the_brake() {
    let mut room = Watchroom::with_machines(3);
    for unit in ["a", "b", "c"] {
        room.submit(unit, "");
    }
    room.act();
    room.wait(TTL);
    room.lose(1);
    room.lose(2);
    room.wait(Duration::from_secs(1));
    assert_eq!(room.act(), ["brake"]);
    room.mind.release_brake();
    assert_eq!(room.act(), ["a m1>m3", "b m2>m3"]);
}

#[test]
fn a_fenced_unit_follows_after_its_machine_must_have_stopped_it() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.submit("b", "");
    assert_eq!(room.act(), ["a ->m1", "b ->m2"]);
    room.wait(TTL);
    room.lose(1);
    room.wait(Duration::from_secs(1));
    assert_eq!(room.act(), NOTHING);
    room.wait(Duration::from_secs(5));
    assert_eq!(room.act(), ["a m1>m2"]);
}

#[test]
fn a_fenced_unit_leaves_a_living_machine_before_it_starts_elsewhere() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.act();
    room.say("a", 1, JobState::Launched);
    room.cluster.machines.get_mut(&id(1)).unwrap().draining = true;
    room.tell(&ClusterChange::Machine(id(1)));
    assert_eq!(room.act(), ["a m1>-"]);
    assert_eq!(room.act(), NOTHING);
    room.say("a", 1, JobState::Inactive);
    assert_eq!(room.act(), ["a ->m2"]);
}

#[test]
fn a_fenced_unit_that_stops_slowly_runs_until_it_is_down() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.act();
    room.say("a", 1, JobState::Launched);
    room.cluster.machines.get_mut(&id(1)).unwrap().draining = true;
    room.tell(&ClusterChange::Machine(id(1)));
    assert_eq!(room.act(), ["a m1>-"]);
    room.say_active("a", 1, JobState::Loaded, "deactivating");
    assert_eq!(room.act(), NOTHING);
    room.say("a", 1, JobState::Loaded);
    assert_eq!(room.act(), ["a ->m2"]);
}

#[test]
fn a_picture_that_is_read_anew_lets_no_fenced_unit_go() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.act();
    room.say("a", 1, JobState::Launched);
    room.cluster.machines.get_mut(&id(1)).unwrap().draining = true;
    room.tell(&ClusterChange::Machine(id(1)));
    room.act();
    room.say_active("a", 1, JobState::Launched, "deactivating");

    room.tell(&ClusterChange::Everything);

    assert_eq!(room.act(), NOTHING);
    room.say("a", 1, JobState::Inactive);
    assert_eq!(room.act(), ["a ->m2"]);
}

#[test]
fn a_machine_that_returns_with_a_fenced_unit_is_waited_for_anew() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.act();
    room.say("a", 1, JobState::Launched);
    room.cluster.machines.get_mut(&id(1)).unwrap().draining = true;
    room.tell(&ClusterChange::Machine(id(1)));
    room.act();
    room.lose(1);
    assert_eq!(room.act(), NOTHING);
    room.join(1);
    room.say("a", 1, JobState::Launched);
    assert_eq!(room.act(), NOTHING);
    room.wait(Duration::from_secs(6));
    room.tell(&ClusterChange::Unit(name("a")));

    assert_eq!(room.act(), NOTHING, "it runs there");
}

#[test]
fn a_fenced_unit_whose_machine_falls_silent_in_the_middle_waits_for_its_deadline() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.act();
    room.say("a", 1, JobState::Launched);
    room.cluster.machines.get_mut(&id(1)).unwrap().draining = true;
    room.tell(&ClusterChange::Machine(id(1)));
    room.act();
    room.lose(1);
    assert_eq!(room.act(), NOTHING);
    room.wait(Duration::from_secs(6));
    assert_eq!(room.act(), ["a ->m2"]);
}

#[test]
fn a_new_leader_finds_what_the_old_one_left_half_done() {
    let mut room = Watchroom::with_machines(2);
    room.submit("a", "Fence=yes");
    room.say("a", 1, JobState::Launched);
    room.mind = ClusterConverger::new(SafetyLimits { ttl: TTL, ..SafetyLimits::default() }, room.now);
    room.tell(&ClusterChange::Everything);
    assert_eq!(room.act(), NOTHING, "it still runs on m1");
    room.say("a", 1, JobState::Inactive);
    assert_eq!(room.act(), ["a ->m1"]);
}
