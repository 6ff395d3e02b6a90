//! All machines, their store and their people: what happens to them, and what must hold all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use fleet::{
    model::{
        machine::MachineId, moment::MonotonicTime, state::JobState, unit_file::UnitFile, unit_name::UnitName,
    },
    plan::converge::SafetyLimits,
    store::{
        keys::{DEFAULT_PREFIX, KeySpace, StoreKey},
        picture::ClusterView,
        registry::DrainChange,
        registry::RegistryCommand,
        revision::Revision,
        writes,
    },
};

use crate::{
    dice::Dice,
    node::{Node, TTL},
    store::Store,
};

const STEP: Duration = Duration::from_millis(250);

const ASKS: [&str; 9] = [
    "",
    "Conflicts=%p@*.service",
    "MachineMetadata=zone=z1",
    "Fence=yes",
    "Fence=yes\nConflicts=%p@*.service",
    "MachineOf=u0@0.service",
    "Global=true",
    "ReserveMemory=300M",
    "SpreadBy=zone",
];

pub(crate) struct World {
    seed: u64,
    pub(crate) dice: Dice,
    now: MonotonicTime,
    pub(crate) store: Store,
    pub(crate) nodes: Vec<Node>,
    caution: SafetyLimits,
    /// A picture of a client that always reaches the store.
    client: ClusterView,
    /// A picture of people, who do not always look before they speak.
    hasty: ClusterView,
    pub(crate) brakes: usize,
    pub(crate) story: String,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        // Now and then a life of many machines.
        let count = if seed % 20 == 5 { 200 } else { [3, 3, 5, 8, 20][dice.roll(5)] };
        let nodes = (0..count).map(|number| Node::new(number, &mut dice)).collect();
        Self {
            seed,
            dice,
            now: MonotonicTime::from_millis(1),
            store: Store::new(),
            nodes,
            caution: SafetyLimits { ttl: TTL, brake_percent: 50, settle: STEP },
            client: ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX)),
            hasty: ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX)),
            brakes: 0,
            story: String::new(),
        }
    }

    fn tell(&mut self, event: &str) {
        let _ = writeln!(self.story, "{:?} {event}", self.now);
    }

    pub(crate) fn mishap(&mut self) {
        let at = self.dice.roll(self.nodes.len());
        let span = STEP * u32::try_from(self.dice.roll(120)).unwrap();
        let now = self.now;
        let event = match self.dice.roll(13) {
            0 => {
                self.nodes[at].powered = false;
                self.nodes[at].restart(true);
                "power cut"
            }
            1..=3 => {
                let dark: Vec<usize> =
                    (0..self.nodes.len()).filter(|node| !self.nodes[*node].powered).collect();
                for node in dark {
                    self.nodes[node].powered = true;
                }
                "power back"
            }
            4 => {
                self.nodes[at].restart(false);
                "daemon restarted"
            }
            5 => {
                self.nodes[at].linked = false;
                "cable cut"
            }
            6 | 7 => {
                self.nodes.iter_mut().for_each(|node| node.linked = true);
                "cables mended"
            }
            8 => {
                self.nodes[at].frozen_until = now + span;
                "daemon frozen"
            }
            9 => {
                self.store.compacted = self.store.revision;
                self.store.log.clear();
                "history compacted"
            }
            11 => {
                self.nodes[at].ahead += span;
                "clock jumped"
            }
            12 if self.dice.chance(30) => {
                let most = self.nodes.len() * 2 / 3;
                self.nodes[..most].iter_mut().for_each(|node| node.linked = false);
                "most cables cut at once"
            }
            10 if self.dice.chance(30) => {
                self.store.up = false;
                "store down"
            }
            _ => {
                self.raise_store();
                "store up"
            }
        };
        self.tell(&format!("{event} {at}"));
    }

    /// A new etcd leader gives each lease its full time.
    fn raise_store(&mut self) {
        if !std::mem::replace(&mut self.store.up, true) {
            let now = self.now;
            self.store.leases.values_mut().for_each(|end| *end = now + TTL);
        }
    }

    pub(crate) fn user(&mut self) {
        let name = format!(
            "u{}@{}.service",
            self.dice.roll(4),
            self.dice.roll(if self.nodes.len() > 10 { 30 } else { 5 })
        );
        let name = UnitName::parse(&name).unwrap();
        let ask = ASKS[self.dice.roll(ASKS.len())];
        let text =
            format!("[Service]\nExecStart=/bin/x {}\n[X-Fleet]\nHealthyAfter=1s\n{ask}\n", self.dice.roll(3));
        let file = UnitFile::parse(&text).unwrap();
        let machine = self.nodes[self.dice.roll(self.nodes.len())].id.clone();
        let desired = JobState::Launched;
        let command = match self.dice.roll(10) {
            0..=4 => RegistryCommand::Create { name, file, desired },
            5 => RegistryCommand::Destroy { name },
            6 => RegistryCommand::SetDesired {
                name,
                desired: [JobState::Inactive, JobState::Loaded, desired][self.dice.roll(3)],
            },
            7 => RegistryCommand::Replace { name, file, desired },
            8 => RegistryCommand::Restart { name },
            _ => RegistryCommand::Drain {
                machine,
                drain: if self.dice.chance(40) { DrainChange::Begin } else { DrainChange::End },
            },
        };
        if self.store.up {
            if self.dice.chance(70) {
                catch_up(&mut self.hasty, &self.store);
            }
            if let Ok(write) = writes::command_write(&self.hasty, command.clone()) {
                self.store.commit_among_others(&write, usize::MAX / 4);
                self.tell(&format!("{command:?}"));
            }
        }
    }

    fn look(&mut self) {
        catch_up(&mut self.client, &self.store);
    }

    pub(crate) fn step(&mut self) {
        self.now = self.now + STEP;
        self.store.tick(self.now);
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if !node.awake(self.now) {
                continue;
            }
            // A slow link brings news late.
            let clock = node.clock(self.now);
            if !self.dice.chance(10) {
                node.listen(&self.store, clock);
            }
            node.keep_lease(&mut self.store, self.now);
            node.lead(&mut self.store, self.caution, self.now);
            node.decide(&mut self.store, &mut self.dice, clock, &mut self.brakes);
            node.sweep(&mut self.store, &mut self.dice);
            node.work(&mut self.store, &mut self.dice, clock);
            node.tell(&mut self.store);
        }
        for node in &mut self.nodes {
            node.guard(self.now);
        }
        self.check_always();
    }

    fn fail(&self, what: &str) -> ! {
        let tail: Vec<&str> = self.story.lines().rev().take(60).collect();
        let tail: String = tail.into_iter().rev().fold(String::new(), |text, line| text + line + "\n");
        panic!(
            "seed {}: {what} at {:?}\n{tail}\nreplay: FLEET_SEED={} cargo test -p fleet --test simulation",
            self.seed, self.now, self.seed
        );
    }

    /// What holds at every moment, whatever broke.
    fn check_always(&mut self) {
        self.look();
        if self.client.orphaned_assignments().next().is_some() {
            self.fail("a unit has two assignments");
        }
        self.check_files();
        self.check_company();
        self.check_fences();
    }

    /// The content that a unit or a machine is to have is never swept away.
    fn check_files(&self) {
        let cluster = self.client.cluster();
        let records = cluster.units.keys().filter_map(|unit| self.client.unit_record(unit));
        let wanted = records.flat_map(|(record, _)| [Some(record.hash), record.previous]).flatten();
        for hash in wanted.chain(cluster.assignments.values().map(|place| place.hash)) {
            if !self.store.data.contains_key(&self.store.keys.key_path(&StoreKey::File(hash))) {
                self.fail(&format!("the file {hash} is needed and gone"));
            }
        }
    }

    /// Two launched units that conflict are never assigned to one machine.
    fn check_company(&self) {
        let cluster = self.client.cluster();
        let mut by_machine: BTreeMap<&MachineId, Vec<&UnitName>> = BTreeMap::new();
        for (unit, place) in &cluster.assignments {
            by_machine.entry(&place.machine).or_default().push(unit);
        }
        for units in by_machine.values() {
            for (at, one) in units.iter().enumerate() {
                for other in &units[at + 1..] {
                    let (Some(a), Some(b)) = (cluster.units.get(*one), cluster.units.get(*other)) else {
                        continue;
                    };
                    let changed = self.was_changed(one) || self.was_changed(other);
                    let hits = |patterns: &BTreeSet<String>, name: &UnitName| {
                        patterns
                            .iter()
                            .any(|pattern| fleet::model::glob::glob_matches(pattern, name.as_str()))
                    };
                    if !changed
                        && (hits(&a.requirements.conflicts, other) || hits(&b.requirements.conflicts, one))
                    {
                        self.fail(&format!("{one} and {other} conflict and share a machine"));
                    }
                }
            }
        }
    }

    /// Whether the unit was changed after it was placed: the engine may not have come round to it yet.
    fn was_changed(&self, unit: &UnitName) -> bool {
        let cluster = self.client.cluster();
        let key = cluster
            .assignments
            .get(unit)
            .map(|place| StoreKey::Assignment(place.machine.clone(), unit.clone()));
        let placed = key
            .and_then(|key| self.store.data.get(&self.store.keys.key_path(&key)))
            .map_or(Revision::NEVER, |stored| stored.created);
        cluster.units.get(unit).is_none_or(|unit| unit.revision > placed)
    }

    /// A fenced unit runs on one machine at most.
    fn check_fences(&self) {
        let cluster = self.client.cluster();
        for unit in cluster.units.values().filter(|unit| unit.requirements.fence && !unit.is_global()) {
            // Who became fenced while running somewhere unreachable was not promised anything.
            let runs: Vec<usize> = self
                .nodes
                .iter()
                .filter(|node| node.powered)
                .filter(|node| {
                    let held = node.running.get(&unit.name);
                    held.is_some_and(|held| held.job == JobState::Launched && held.hash == unit.file.hash())
                })
                .map(|node| node.number)
                .collect();
            if runs.len() > 1 {
                self.fail(&format!("{} is fenced and runs on {runs:?}", unit.name));
            }
        }
    }

    /// What the store says of each unit on each machine is what the machine would say now, and no more.
    fn check_states(&self) {
        let cluster = self.client.cluster();
        for node in &self.nodes {
            let said = cluster.states.iter().filter_map(|(unit, states)| Some((unit, states.get(&node.id)?)));
            for unit in node.running.keys().chain(said.map(|(unit, _)| unit)) {
                let said = cluster
                    .state_on(unit.as_str(), node.id.as_str())
                    .map(|state| (state.hash, state.active.clone()));
                let is = node.would_say(unit).map(|record| (record.hash, record.active));
                if said != is || said.as_ref().is_some_and(|(_, active)| active == "deactivating") {
                    self.fail(&format!("{unit} on {} is {is:?}, and the store says {said:?}", node.id));
                }
            }
        }
    }

    /// Everything mended and time to settle: the cluster must be exactly as wanted.
    pub(crate) fn settle_and_check(&mut self) {
        self.raise_store();
        for node in &mut self.nodes {
            node.powered = true;
            node.linked = true;
            node.frozen_until = MonotonicTime::START;
        }
        self.tell("everything mended");
        for _ in 0..400 {
            self.step();
        }
        self.look();
        let cluster = self.client.cluster();
        if cluster.machines.len() != self.nodes.len() {
            self.fail("not every machine is back");
        }
        if let Some((hash, _)) = self.client.unused_files().first() {
            self.fail(&format!("the file {hash} is left behind"));
        }
        self.check_states();
        for unit in cluster.units.values() {
            let runs: Vec<&Node> =
                self.nodes.iter().filter(|node| node.running.contains_key(&unit.name)).collect();
            let is_over = unit.rollout.is_none() || runs.is_empty() || unit.desired != JobState::Launched;
            if !is_over {
                self.fail(&format!("the change of {} never ends", unit.name));
            }
            if unit.is_global() {
                if runs.iter().any(|node| node.running[&unit.name].hash != unit.file.hash()) {
                    self.fail(&format!("{} runs in another content somewhere", unit.name));
                }
                continue;
            }
            let target = cluster.target_of(unit.name.as_str());
            #[expect(clippy::single_match_else, reason = "the two cases are of one rank")]
            match target {
                Some(target) => {
                    if runs.len() != 1 || runs[0].id != *target {
                        self.fail(&format!("{} belongs on {target} and is on {}", unit.name, runs.len()));
                    }
                    let held = runs[0].running[&unit.name];
                    if held.job != unit.desired
                        || held.hash != unit.file.hash()
                        || held.restarts < unit.restarts && held.job == JobState::Launched
                    {
                        self.fail(&format!(
                            "{} is {held:?}, wanted {:?} {}",
                            unit.name,
                            unit.desired,
                            unit.file.hash()
                        ));
                    }
                }
                None => {
                    if !runs.is_empty() {
                        self.fail(&format!("{} belongs nowhere and runs", unit.name));
                    }
                    let verdicts = fleet::plan::explain::explain_unit(cluster, unit.name.as_str()).unwrap();
                    let able = verdicts.iter().find(|verdict| verdict.refusal.is_none());
                    if unit.desired != JobState::Inactive
                        && let Some(able) = able
                    {
                        self.fail(&format!("{} waits, yet {} could take it", unit.name, able.machine));
                    }
                }
            }
        }
    }
}

fn catch_up(picture: &mut ClusterView, store: &Store) {
    let last = picture.cluster().revision;
    if last < store.compacted {
        picture.reset_to(&store.everything(), store.revision);
        return;
    }
    for event in store.since(last) {
        picture.apply_event(event, &mut Vec::new()).unwrap();
    }
}
