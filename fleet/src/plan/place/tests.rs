use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        machine::{Resources, parse_metadata},
        state::JobState,
        unit_file::UnitFile,
    },
    plan::{
        explain::{explain_unit as explain, guests_by_machine},
        rules::check_placement,
    },
    store::{
        cluster::{Cluster, UnitAssignment},
        revision::Revision,
    },
};

fn machine(id: &str, metadata: &str) -> Machine {
    Machine { metadata: parse_metadata(metadata), ..Machine::new(MachineId::parse(id).unwrap()) }
}

fn unit(name: &str, requirements: &str) -> SubmittedUnit {
    let lines = requirements.replace("; ", "\n");
    let file = UnitFile::parse(&format!("[Service]\nExecStart=/bin/true\n[X-Fleet]\n{lines}\n")).unwrap();
    SubmittedUnit::new(UnitName::parse(name).unwrap(), file, JobState::Launched)
}

/// A placement and, beside it, the cluster as the store would show it.
#[derive(Debug, Default)]
struct Town {
    placement: UnitPlacement,
    cluster: Cluster,
}

impl Town {
    fn with(machines: &[(&str, &str)], units: &[(&str, &str)]) -> Self {
        let mut town = Self::default();
        for (id, metadata) in machines {
            town.join(machine(id, metadata));
        }
        for (name, requirements) in units {
            town.submit(unit(name, requirements));
        }
        town
    }

    fn join(&mut self, machine: Machine) {
        self.placement.set_machine(&machine);
        self.cluster.machines.insert(machine.id.clone(), machine);
    }

    fn lose(&mut self, id: &str) {
        let id = MachineId::parse(id).unwrap();
        self.cluster.machines.remove(&id);
        self.placement.lose_machine(&id);
        for unit in self.placement.units_on(&id) {
            self.placement.give_up(&unit, &id);
        }
    }

    fn submit(&mut self, unit: SubmittedUnit) {
        self.placement.set_unit(&unit);
        self.cluster.units.insert(unit.name.clone(), unit);
    }

    fn destroy(&mut self, name: &str) {
        let name = UnitName::parse(name).unwrap();
        self.placement.remove_unit(&name);
        self.cluster.units.remove(&name);
    }

    /// Decides and returns the decisions, one a line.
    fn decide(&mut self) -> String {
        let mut lines = String::new();
        for decision in self.placement.decide_all() {
            let show = |id: &Option<MachineId>| id.as_ref().map_or("-", MachineId::as_str).to_owned();
            let (from, to) = (show(&decision.from), show(&decision.to));
            writeln!(lines, "{}: {from} -> {to}, {}", decision.unit, decision.reason).unwrap();
            match decision.to {
                Some(machine) => {
                    let hash = self.cluster.units[&decision.unit].file.hash();
                    self.cluster
                        .assignments
                        .insert(decision.unit, UnitAssignment { machine, hash, revision: Revision::NEVER });
                }
                None => {
                    self.cluster.assignments.remove(&decision.unit);
                }
            }
        }
        lines
    }

    fn place_of(&self, unit: &str) -> &str {
        self.cluster.target_of(unit).map_or("-", MachineId::as_str)
    }
}

#[test]
fn units_go_to_the_least_loaded_machine_and_stay() {
    let mut town =
        Town::with(&[("m1", ""), ("m2", "")], &[("a.service", ""), ("b.service", ""), ("c.service", "")]);

    assert_eq!(
        town.decide(),
        "a.service: - -> m1, unit is to run\nb.service: - -> m2, unit is to run\nc.service: - -> m1, unit is to run\n"
    );
    town.join(machine("m3", ""));
    assert_eq!(town.decide(), "");
    town.submit(unit("d.service", ""));
    assert_eq!(town.decide(), "d.service: - -> m3, unit is to run\n");
}

#[test]
fn conflicting_units_spread_and_wait_when_there_is_no_room() {
    let mongo = "Conflicts=mongo@*.service";
    let mut town = Town::with(
        &[("m1", ""), ("m2", "")],
        &[("mongo@1.service", mongo), ("mongo@2.service", mongo), ("mongo@3.service", mongo)],
    );

    town.decide();
    assert_eq!(town.place_of("mongo@3.service"), "-");
    town.join(machine("m3", ""));
    assert_eq!(town.decide(), "mongo@3.service: - -> m3, unit is to run\n");
    let verdicts = explain(&town.cluster, "mongo@1.service").unwrap();
    assert_eq!(
        verdicts.iter().map(|v| v.refusal.as_ref().map(ToString::to_string)).collect::<Vec<_>>(),
        [
            None,
            Some("found conflict with locally-scheduled Unit([mongo@2.service])".to_owned()),
            Some("found conflict with locally-scheduled Unit([mongo@3.service])".to_owned()),
        ]
    );
}

#[test]
fn a_conflict_holds_in_both_directions_and_whoever_comes_first() {
    let mut town = Town::with(&[("m1", "")], &[("a.service", ""), ("b.service", "Conflicts=a.*")]);
    assert_eq!(town.decide(), "a.service: - -> m1, unit is to run\n");
    town.destroy("a.service");
    assert_eq!(
        town.decide(),
        "a.service: m1 -> -, target state inactive\nb.service: - -> m1, unit is to run\n"
    );
    town.submit(unit("a.service", ""));
    assert_eq!(town.decide(), "");
}

#[test]
fn a_follower_goes_where_its_peer_goes() {
    let mut town = Town::with(
        &[("m1", ""), ("m2", "")],
        &[("a-side.service", "MachineOf=z.service"), ("z.service", "")],
    );
    assert_eq!(
        town.decide(),
        "a-side.service: - -> m1, unit is to run\nz.service: - -> m1, unit is to run\n"
    );
    town.lose("m1");
    assert_eq!(
        town.decide(),
        "a-side.service: m1 -> m2, target Machine(m1) went away\nz.service: m1 -> m2, target Machine(m1) went away\n"
    );
    town.destroy("z.service");
    assert_eq!(
        town.decide(),
        "a-side.service: m2 -> -, target Machine(m2) unable to run unit: required peer Unit(z.service) is not scheduled locally\nz.service: m2 -> -, target state inactive\n"
    );
}

#[test]
fn metadata_and_machine_id_bind_and_changes_of_metadata_move() {
    let mut town = Town::with(
        &[("aaaaaaaa1", "zone=a"), ("bbbbbbbb1", "zone=b")],
        &[("a.service", "MachineMetadata=zone=b"), ("b.service", "MachineID=bbbbbbbb"), ("c.service", "")],
    );
    town.decide();
    assert_eq!(
        ["a", "b", "c"].map(|u| town.place_of(&format!("{u}.service"))),
        ["bbbbbbbb1", "bbbbbbbb1", "aaaaaaaa1"]
    );
    town.join(machine("bbbbbbbb1", "zone=c"));
    town.join(machine("aaaaaaaa1", "zone=b"));
    assert_eq!(
        town.decide(),
        "a.service: bbbbbbbb1 -> aaaaaaaa1, target Machine(bbbbbbbb1) unable to run unit: local Machine metadata insufficient\n"
    );
}

#[test]
fn a_replaced_unit_goes_elsewhere_and_two_that_replace_each_other_part() {
    let mut town = Town::with(
        &[("m1", ""), ("m2", ""), ("m3", "")],
        &[("old.service", ""), ("w.service", ""), ("x.service", "")],
    );
    town.decide();
    town.submit(unit("new.service", "Replaces=old.service; MachineMetadata=gone=no"));
    assert_eq!(town.decide(), "");
    town.join(machine("m1", "gone=no"));
    assert_eq!(
        town.decide(),
        "new.service: - -> m1, unit is to run\nold.service: m1 -> m2, target Machine(m1) unable to run unit: replaced by locally-scheduled Unit(new.service)\n"
    );

    let mut pair = Town::with(
        &[("m1", "")],
        &[("a.service", "Replaces=b.service"), ("b.service", "Replaces=a.service")],
    );
    assert_eq!(pair.decide(), "a.service: - -> m1, unit is to run\n");
}

#[test]
fn reservations_and_the_most_units_are_respected() {
    let mut town = Town::default();
    let small =
        Machine { capacity: Some(Resources { memory_mib: 100, cpu_percent: 200 }), ..machine("m1", "") };
    town.join(small.clone());
    town.join(Machine { max_units: Some(1), ..machine("m2", "") });
    for name in ["a.service", "b.service", "c.service"] {
        town.submit(unit(name, "ReserveMemory=60M; MachineMetadata="));
    }
    town.decide();
    assert_eq!(["a.service", "b.service", "c.service"].map(|u| town.place_of(u)), ["m1", "m2", "-"]);
    town.join(Machine { capacity: Some(Resources { memory_mib: 50, cpu_percent: 0 }), ..small });
    assert_eq!(town.decide(), "", "what runs stays");
    let verdicts = explain(&town.cluster, "c.service").unwrap();
    assert_eq!(
        verdicts[0].refusal.as_ref().map(ToString::to_string).as_deref(),
        Some("machine has 0 MiB and 0% CPU left, unit reserves 60 MiB and 0%")
    );
}

#[test]
fn families_spread_over_zones_and_wishes_come_first() {
    let mut town = Town::with(
        &[("m1", "zone=a"), ("m2", "zone=a"), ("m3", "zone=b"), ("m4", "zone=c,disk=ssd")],
        &[
            ("w@1.service", "SpreadBy=zone"),
            ("w@2.service", "SpreadBy=zone"),
            ("w@3.service", "SpreadBy=zone"),
            ("w@4.service", "SpreadBy=zone"),
        ],
    );
    town.decide();
    assert_eq!([1, 2, 3, 4].map(|n| town.place_of(&format!("w@{n}.service"))), ["m1", "m3", "m4", "m2"]);
    town.submit(unit("ssd.service", "Prefer=disk=ssd"));
    town.submit(unit("nvme.service", "Prefer=disk=nvme"));
    town.decide();
    assert_eq!((town.place_of("ssd.service"), town.place_of("nvme.service")), ("m4", "m1"));
}

#[test]
fn global_units_count_and_conflict_but_are_not_scheduled() {
    let mut town = Town::with(
        &[("m1", "role=edge"), ("m2", "")],
        &[
            ("g.service", "Global=true; MachineMetadata=role=edge; Conflicts=a.service"),
            ("a.service", ""),
            ("b.service", ""),
        ],
    );
    town.decide();
    assert_eq!(["a.service", "b.service", "g.service"].map(|u| town.place_of(u)), ["m2", "m1", "-"]);
    town.destroy("g.service");
    assert_eq!(town.decide(), "");
}

#[test]
fn draining_empties_a_machine() {
    let mut town = Town::with(&[("m1", ""), ("m2", "")], &[("a.service", ""), ("b.service", "")]);
    town.decide();
    town.join(Machine { draining: true, ..machine("m1", "") });
    assert_eq!(
        town.decide(),
        "a.service: m1 -> m2, target Machine(m1) unable to run unit: machine is draining\n"
    );
    town.join(machine("m1", ""));
    assert_eq!(town.decide(), "");
    let moves = town.placement.rebalance_units(10);
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[0].unit.as_str(), moves[0].to.as_ref().unwrap().as_str()), ("a.service", "m1"));
}

#[test]
fn a_held_unit_waits() {
    let mut town = Town::with(&[("m1", "")], &[("a.service", "")]);
    let name = UnitName::parse("a.service").unwrap();
    town.placement.set_hold(&name, true);
    assert_eq!(town.decide(), "");
    town.placement.set_hold(&name, false);
    assert_eq!(town.decide(), "a.service: - -> m1, unit is to run\n");
}

#[derive(Debug, Clone)]
enum Event {
    Join(u8, u8, bool),
    Lose(u8),
    Submit(u8, u8),
    Destroy(u8),
    Stop(u8),
    Displace(u8, u8),
    Hide(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..6_u8, 0..3_u8, prop::bool::weighted(0.2)).prop_map(|(m, z, d)| Event::Join(m, z, d)),
        1 => (0..6_u8).prop_map(Event::Lose),
        5 => (0..14_u8, 0..16_u8).prop_map(|(u, r)| Event::Submit(u, r)),
        1 => (0..14_u8).prop_map(Event::Destroy),
        1 => (0..14_u8).prop_map(Event::Stop),
        1 => (0..14_u8, 0..6_u8).prop_map(|(u, m)| Event::Displace(u, m)),
        1 => (0..14_u8).prop_map(Event::Hide),
    ]
}

fn random_machine(number: u8, zone: u8, draining: bool) -> Machine {
    Machine {
        capacity: (number == 1).then_some(Resources { memory_mib: 100, cpu_percent: 0 }),
        max_units: (number == 2).then_some(2),
        draining,
        ..machine(&format!("m{number}"), &format!("zone={zone}"))
    }
}

/// Requirements to draw from; `Replaces` stands last, because it makes some waits a matter of history.
const ASKS: [&str; 16] = [
    "",
    "Conflicts=u@*.service",
    "Conflicts=u@1*",
    "Conflicts=*",
    "MachineMetadata=zone=1",
    "MachineMetadata=\"zone=0\" \"zone=2\"",
    "MachineOf=u@3.service",
    "MachineOf=u@5.service",
    "MachineID=m1",
    "ReserveMemory=40M",
    "ReserveMemory=70M",
    "SpreadBy=zone",
    "Prefer=zone=2; Prefer=zone=1",
    "Global=yes",
    "Global=yes; Conflicts=u@2*; MachineMetadata=zone=1",
    "Replaces=u@1*",
];

impl Town {
    fn happen(&mut self, event: &Event) {
        let name = |number: u8| format!("u@{number}.service");
        match event {
            Event::Join(number, zone, draining) => self.join(random_machine(*number, *zone, *draining)),
            Event::Lose(number) => self.lose(&format!("m{number}")),
            Event::Submit(number, ask) => self.submit(unit(&name(*number), ASKS[*ask as usize])),
            Event::Destroy(number) => self.destroy(&name(*number)),
            Event::Stop(number) => {
                if let Some(unit) = self.cluster.units.get(name(*number).as_str()) {
                    self.submit(SubmittedUnit { desired: JobState::Inactive, ..unit.clone() });
                }
            }
            Event::Displace(number, to) => self.displace(&name(*number), &format!("m{to}")),
            Event::Hide(number) => {
                let name = UnitName::parse(&name(*number)).unwrap();
                self.cluster.assignments.remove(&name);
                self.placement.observe_assignment(&name, None);
            }
        }
    }

    /// Somebody else wrote another place into the store.
    fn displace(&mut self, name: &str, to: &str) {
        let (name, to) = (UnitName::parse(name).unwrap(), MachineId::parse(to).unwrap());
        if let Some(unit) = self.cluster.units.get(&name) {
            let hash = unit.file.hash();
            self.cluster.assignments.insert(
                name.clone(),
                UnitAssignment { machine: to.clone(), hash, revision: Revision::NEVER },
            );
            self.placement.observe_assignment(&name, Some(&to));
            if !self.cluster.machines.contains_key(&to) {
                self.placement.give_up(&name, &to);
            }
        }
    }

    fn assert_sound(&mut self) {
        let replacing = self.cluster.units.values().any(|unit| !unit.requirements.replaces.is_empty());
        for unit in self.cluster.units.values().filter(|unit| !unit.is_global()) {
            let guests = guests_by_machine(&self.cluster, &unit.name);
            let ask = |machine: &Machine| {
                check_placement(&unit.name, &unit.requirements, machine, &guests[&machine.id])
            };
            match self.cluster.target_of(unit.name.as_str()) {
                Some(id) => {
                    assert_eq!(unit.desired, JobState::Launched, "{} is not wanted, yet on {id}", unit.name);
                    let host = self.cluster.machines.get(id);
                    let host = host.unwrap_or_else(|| panic!("{} is on lost {id}", unit.name));
                    let refusal = ask(host).err().filter(|refusal| !refusal.is_want_of_room());
                    assert_eq!(refusal, None, "{} is on {id}", unit.name);
                }
                None if unit.desired == JobState::Launched && !replacing => {
                    for machine in self.cluster.machines.values() {
                        assert!(
                            ask(machine).is_err(),
                            "{} waits, yet {} could take it",
                            unit.name,
                            machine.id
                        );
                    }
                }
                None => {}
            }
        }
        assert_eq!(self.decide(), "", "a second look changes nothing");
    }
}

/// The rule in its plainest form: units by name, each to the best machine that takes it.
fn place_by_the_book(cluster: &Cluster) -> BTreeMap<UnitName, MachineId> {
    let mut cluster = cluster.clone();
    cluster.assignments.clear();
    for unit in cluster.units.clone().values().filter(|unit| !unit.is_global()) {
        let guests = guests_by_machine(&cluster, &unit.name);
        let able = cluster.machines.values().filter(|machine| {
            check_placement(&unit.name, &unit.requirements, machine, &guests[&machine.id]).is_ok()
        });
        let best = able.min_by_key(|machine| {
            let zone = |id: &MachineId| cluster.machines[id].metadata.get("zone").cloned();
            let wishes = &unit.requirements.prefer;
            let tier = wishes.iter().position(|(key, value)| machine.metadata.get(key) == Some(value));
            let kin = cluster.assignments.iter().filter(|(name, place)| {
                cluster.units[*name].requirements.spread_by.is_some()
                    && zone(&place.machine) == zone(&machine.id)
            });
            let spread = unit.requirements.spread_by.as_ref().map_or(0, |_| kin.count());
            (tier.unwrap_or(wishes.len()), spread, guests[&machine.id].units.len(), machine.id.clone())
        });
        if let Some(machine) = best.map(|machine| machine.id.clone()) {
            let place = UnitAssignment { machine, hash: unit.file.hash(), revision: Revision::NEVER };
            cluster.assignments.insert(unit.name.clone(), place);
        }
    }
    cluster.assignments.into_iter().map(|(name, place)| (name, place.machine)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_the_schedule_stays_sound(events in prop::collection::vec(event(), 1..60)) {
        let mut town = Town::default();
        for event in &events {
            town.happen(event);
            town.decide();
            town.assert_sound();
        }
    }

    #[test]
    fn a_cold_start_follows_the_book(
        zones in prop::collection::vec((0..3_u8, prop::bool::weighted(0.1)), 1..6),
        asks in prop::collection::vec(prop::sample::select(vec![0_usize, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14]), 1..14),
    ) {
        let mut town = Town::default();
        for (number, (zone, draining)) in zones.iter().enumerate() {
            town.join(random_machine(u8::try_from(number).unwrap(), *zone, *draining));
        }
        for (number, ask) in asks.iter().enumerate() {
            town.submit(unit(&format!("u@{number}.service"), ASKS[*ask]));
        }
        let expected = place_by_the_book(&town.cluster);
        town.decide();
        let actual: BTreeMap<_, _> =
            town.cluster.assignments.iter().map(|(name, place)| (name.clone(), place.machine.clone())).collect();
        prop_assert_eq!(actual, expected);
    }
}
