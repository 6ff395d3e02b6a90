//! What an agent does next: from the units a machine should hold and those it holds to one batch.
//!
//! Knows the order in which systemd has to be told; refuses to know systemd and files. Invariant: a
//! batch carried out leaves nothing to do, and a unit that is as it should be is in no batch.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        machine::{Machine, MachineId},
        state::JobState,
        unit_file::UnitFile,
        unit_name::UnitName,
    },
    plan::{
        globals,
        machine_units::{ActualUnit, DesiredUnit},
        ordering::in_dependency_order,
        rules::{MachineGuests, is_wanted},
    },
    store::{
        cluster::{Cluster, SubmittedUnit},
        registry::ClusterChange,
    },
};

/// Tasks, to be carried out in the order of the fields; then nothing is left to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskBatch {
    /// Stop if running, then forget.
    pub unload: Vec<UnitName>,
    /// Write and make known to systemd; those in `unload` too are replaced.
    pub load: Vec<UnitName>,
    /// Stop and keep.
    pub stop: Vec<UnitName>,
    /// Restart in place.
    pub restart: Vec<UnitName>,
    /// Start, in this order.
    pub start: Vec<UnitName>,
}

impl TaskBatch {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what should be with what is.
#[must_use]
pub fn plan_batch(
    wanted: &BTreeMap<UnitName, DesiredUnit>,
    held: &BTreeMap<UnitName, ActualUnit>,
) -> TaskBatch {
    let mut batch = TaskBatch { unload: units_to_remove(wanted, held), ..TaskBatch::default() };
    let mut start = BTreeSet::new();
    for (name, wish) in wanted {
        let launched = wish.job == JobState::Launched;
        match held.get(name) {
            Some(held) if held.hash != wish.file.hash() => {
                batch.unload.push(name.clone());
                batch.load.push(name.clone());
                if launched {
                    start.insert(name.clone());
                }
            }
            Some(held) if held.job == JobState::Launched && !launched => batch.stop.push(name.clone()),
            Some(held) if held.job != JobState::Launched && launched => {
                start.insert(name.clone());
            }
            Some(held) if launched && held.restarts < wish.restarts => batch.restart.push(name.clone()),
            Some(_) => {}
            None => {
                batch.load.push(name.clone());
                if launched {
                    start.insert(name.clone());
                }
            }
        }
    }
    batch.start = in_dependency_order(&start, wanted);
    batch
}

fn units_to_remove(
    wanted: &BTreeMap<UnitName, DesiredUnit>,
    held: &BTreeMap<UnitName, ActualUnit>,
) -> Vec<UnitName> {
    held.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect()
}

/// What concerns one machine, kept up to date change by change, so that no change costs a look at the
/// whole cluster.
#[derive(Debug)]
pub struct MachineAssignments {
    me: MachineId,
    assigned: BTreeSet<UnitName>,
    globals: BTreeSet<UnitName>,
}

impl MachineAssignments {
    /// Of a machine about whose duties nothing is known.
    #[must_use]
    pub fn of_machine(me: MachineId) -> Self {
        Self { me, assigned: BTreeSet::new(), globals: BTreeSet::new() }
    }

    /// Takes in a change; returns whether it concerns this machine.
    pub fn observe_change(&mut self, cluster: &Cluster, change: &ClusterChange) -> bool {
        match change {
            ClusterChange::Machine(id) => *id == self.me && !self.globals.is_empty(),
            ClusterChange::State(..) | ClusterChange::Order => false,
            ClusterChange::Unit(name) => self.observe_unit(cluster, name),
            ClusterChange::Everything => {
                let mine = cluster.assignments.iter().filter(|(_, place)| place.machine == self.me);
                self.assigned = mine.map(|(name, _)| name.clone()).collect();
                let globals = cluster.units.values().filter(|unit| unit.is_global());
                self.globals = globals.map(|unit| unit.name.clone()).collect();
                true
            }
        }
    }

    fn observe_unit(&mut self, cluster: &Cluster, name: &UnitName) -> bool {
        let mine = cluster.target_of(name.as_str()) == Some(&self.me);
        let was_mine = if mine { !self.assigned.insert(name.clone()) } else { self.assigned.remove(name) };
        let global = cluster.units.get(name).is_some_and(SubmittedUnit::is_global);
        let was_global = if global { !self.globals.insert(name.clone()) } else { self.globals.remove(name) };
        mine || was_mine || global || was_global
    }

    /// The units this machine should hold. `machine` is what it says of itself, `held` what it holds.
    #[must_use]
    pub fn desired_units(
        &self,
        cluster: &Cluster,
        machine: &Machine,
        held: &BTreeMap<UnitName, ActualUnit>,
    ) -> BTreeMap<UnitName, DesiredUnit> {
        let mut guests = MachineGuests::default();
        let mut wanted = BTreeMap::new();
        for name in &self.assigned {
            let Some(unit) = cluster.units.get(name) else { continue };
            if !is_wanted(unit) || unit.is_global() || !name.is_runnable() {
                continue;
            }
            guests.units.push((&unit.name, &unit.requirements));
            let ordered = cluster.assignments.get(name).map(|place| place.hash);
            let file = ordered.and_then(|hash| cluster.files.get(&hash)).unwrap_or(&unit.file);
            wanted.insert(name.clone(), desired_unit(unit, file));
        }
        let candidates: Vec<&SubmittedUnit> = self
            .globals
            .iter()
            .filter_map(|name| cluster.units.get(name))
            .filter(|unit| is_wanted(unit) && unit.name.is_runnable())
            .collect();
        for unit in globals::globals_on(machine, &candidates, &guests) {
            let holds = held.get(&unit.name).map(|held| held.hash);
            wanted.insert(
                unit.name.clone(),
                desired_unit(unit, globals::content_for(cluster, unit, machine, holds)),
            );
        }
        wanted
    }
}

fn desired_unit(unit: &SubmittedUnit, file: &UnitFile) -> DesiredUnit {
    DesiredUnit {
        file: file.clone(),
        job: unit.desired,
        restarts: unit.restarts,
        fence: unit.requirements.fence,
        global: unit.is_global(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{cluster::UnitAssignment, revision::Revision};

    fn name(text: &str) -> UnitName {
        UnitName::parse(&format!("{text}.service")).unwrap()
    }

    fn wanted(units: &[(&str, &str, JobState)]) -> BTreeMap<UnitName, DesiredUnit> {
        let wish = |text: &str, job| DesiredUnit {
            file: UnitFile::parse(&text.replace("; ", "\n")).unwrap(),
            job,
            restarts: 0,
            fence: false,
            global: false,
        };
        units.iter().map(|(unit, text, job)| (name(unit), wish(text, *job))).collect()
    }

    fn held(units: &[(&str, &str, JobState)]) -> BTreeMap<UnitName, ActualUnit> {
        let hold =
            |text: &str, job| ActualUnit { hash: UnitFile::parse(text).unwrap().hash(), job, restarts: 0 };
        units.iter().map(|(unit, text, job)| (name(unit), hold(text, *job))).collect()
    }

    fn show(batch: &TaskBatch) -> String {
        let part = |label: &str, names: &[UnitName]| {
            let names: Vec<&str> = names.iter().map(UnitName::stem).collect();
            if names.is_empty() { String::new() } else { format!("{label} {}; ", names.join(" ")) }
        };
        [
            part("unload", &batch.unload),
            part("load", &batch.load),
            part("stop", &batch.stop),
            part("restart", &batch.restart),
            part("start", &batch.start),
        ]
        .concat()
    }

    use JobState::{Launched, Loaded};

    #[test]
    fn each_difference_has_its_task() {
        let (one, two) = ("[Service]\nExecStart=1\n", "[Service]\nExecStart=2\n");
        for (should, is, tasks) in [
            (vec![("a", one, Launched)], vec![], "load a; start a; "),
            (vec![("a", one, Loaded)], vec![], "load a; "),
            (vec![("a", one, Launched)], vec![("a", one, Launched)], ""),
            (vec![("a", one, Launched)], vec![("a", one, Loaded)], "start a; "),
            (vec![("a", one, Loaded)], vec![("a", one, Launched)], "stop a; "),
            (vec![("a", one, Launched)], vec![("a", two, Launched)], "unload a; load a; start a; "),
            (vec![], vec![("a", one, Launched)], "unload a; "),
            (
                vec![("a", one, Launched), ("b", two, Launched)],
                vec![("c", one, Loaded)],
                "unload c; load a b; start a b; ",
            ),
        ] {
            assert_eq!(show(&plan_batch(&wanted(&should), &held(&is))), tasks);
        }
    }

    #[test]
    fn a_restart_is_obeyed_once() {
        let one = "[Service]\nExecStart=1\n";
        let mut should = wanted(&[("a", one, Launched)]);
        should.get_mut(&name("a")).unwrap().restarts = 2;
        let mut is = held(&[("a", one, Launched)]);

        assert_eq!(show(&plan_batch(&should, &is)), "restart a; ");
        is.get_mut(&name("a")).unwrap().restarts = 2;
        assert!(plan_batch(&should, &is).is_empty());
    }

    #[test]
    fn units_start_after_those_they_come_after() {
        let should = wanted(&[
            ("a", "[Unit]; After=c.service z.service; [Service]; ExecStart=1", Launched),
            ("b", "[Service]; ExecStart=1", Launched),
            ("c", "[Unit]; After=b.service; [Service]; ExecStart=1", Launched),
            ("d", "[Unit]; Before=b.service; After=a.service; [Service]; ExecStart=1", Launched),
        ]);

        assert_eq!(show(&plan_batch(&should, &BTreeMap::new())), "load a b c d; start d b c a; ");
    }

    #[test]
    fn duties_are_the_assigned_units_and_the_global_ones() {
        let me = MachineId::parse("m1").unwrap();
        let mut cluster = Cluster::default();
        let submit = |cluster: &mut Cluster, unit: &str, text: &str, to: Option<&str>| {
            let file = UnitFile::parse(text).unwrap();
            let hash = file.hash();
            cluster.units.insert(name(unit), SubmittedUnit::new(name(unit), file, Launched));
            if let Some(to) = to {
                let machine = MachineId::parse(to).unwrap();
                cluster
                    .assignments
                    .insert(name(unit), UnitAssignment { machine, hash, revision: Revision::NEVER });
            }
        };
        submit(&mut cluster, "mine", "[Service]\nExecStart=1\n", Some("m1"));
        submit(&mut cluster, "other", "[Service]\nExecStart=1\n", Some("m2"));
        submit(&mut cluster, "g", "[X-Fleet]\nGlobal=true\n", None);
        submit(&mut cluster, "h", "[X-Fleet]\nGlobal=true\nConflicts=mine.service\n", None);
        let mut duties = MachineAssignments::of_machine(me.clone());
        duties.observe_change(&cluster, &ClusterChange::Everything);

        let units: Vec<_> =
            duties.desired_units(&cluster, &Machine::new(me), &BTreeMap::new()).into_keys().collect();
        assert_eq!(units, [name("g"), name("mine")]);
        cluster.assignments.remove(&name("mine"));
        assert!(duties.observe_change(&cluster, &ClusterChange::Unit(name("mine"))));
        assert!(!duties.observe_change(&cluster, &ClusterChange::Unit(name("other"))));
    }
}
