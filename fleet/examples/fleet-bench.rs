//! Prints what the planner costs, in memory: `cargo run --release -p fleet --example fleet-bench`.
//!
//! All numbers of a line come from one run, so that ratios hold whatever else the machine does. Each
//! line is `name value unit`.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its caller")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set up its cluster has nothing to say")]

use std::time::{Duration, Instant};

use fleet::{
    model::{
        machine::{Machine, MachineId, Resources, parse_metadata},
        state::JobState,
        unit_file::UnitFile,
        unit_name::UnitName,
    },
    plan::place::UnitPlacement,
    store::cluster::SubmittedUnit,
};

const MACHINES: usize = 5000;
const UNITS: usize = 100_000;

/// What a unit asks, in turn: nothing, a zone, a zone or another and a disk, not beside its kin, room.
const ASKS: [&str; 5] = [
    "",
    "MachineMetadata=zone=z1\n",
    "MachineMetadata=\"zone=z2\" \"zone=z3\"\nMachineMetadata=disk=ssd\n",
    "Conflicts=%p@*.service\n",
    "ReserveMemory=512M\nReserveCPU=10%\n",
];

/// What one more unit may ask, each of them once more after all the others.
const KINDS: [(&str, &str); 10] = [
    ("anywhere", ""),
    ("apart_from_its_kin", "Conflicts=%p@*.service\n"),
    ("beside_a_global_unit", "MachineOf=everywhere.service\n"),
    ("beside_a_unit", "MachineOf=app0@5.service\n"),
    ("in_a_zone_with_a_disk", "MachineMetadata=\"zone=z2\" \"zone=z3\"\nMachineMetadata=disk=ssd\n"),
    ("never_seen", "Conflicts=%p.service\nMachineMetadata=zone=z4\n"),
    ("on_one_machine", "MachineID=9e3779b9\n"),
    ("preferring_a_disk", "Prefer=disk=ssd\n"),
    ("spread_over_racks", "SpreadBy=rack\n"),
    ("with_room", "ReserveMemory=512M\nReserveCPU=10%\n"),
];

fn machine(number: usize) -> Machine {
    let (zone, disk) = (number % 10, if number.is_multiple_of(3) { "hdd" } else { "ssd" });
    let rack = number % 200;
    Machine {
        metadata: parse_metadata(&format!("zone=z{zone},disk={disk},rack=r{rack}")),
        capacity: Some(Resources { memory_mib: 64 * 1024, cpu_percent: 6400 }),
        ..Machine::new(id(number))
    }
}

fn id(number: usize) -> MachineId {
    // Scattered, as machine IDs are.
    let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    MachineId::parse(&format!("{scattered:016x}{number:016x}")).unwrap()
}

fn unit(number: usize) -> SubmittedUnit {
    let name = format!("app{}@{number}.service", number / 1000 % 100);
    unit_asking(&name, ASKS[number / 1000 % ASKS.len()])
}

fn unit_asking(name: &str, ask: &str) -> SubmittedUnit {
    let file = UnitFile::parse(&format!("[Service]\nExecStart=/bin/app\n[X-Fleet]\n{ask}")).unwrap();
    SubmittedUnit::new(UnitName::parse(name).unwrap(), file, JobState::Launched)
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = act();
    (result, start.elapsed())
}

fn loaded(machines: usize, units: &[SubmittedUnit]) -> UnitPlacement {
    let mut placement = UnitPlacement::default();
    for number in 0..machines {
        placement.set_machine(&machine(number));
    }
    for unit in units {
        placement.set_unit(unit);
    }
    placement
}

#[expect(clippy::cast_precision_loss, reason = "rates are printed with few digits")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn cold(units: &[SubmittedUnit], count: usize) -> UnitPlacement {
    let (mut placement, load) = timed(|| loaded(MACHINES, &units[..count]));
    let (decisions, time) = timed(|| placement.decide_all());
    assert_eq!(decisions.len(), count, "every unit has a machine");
    println!("placement_cold_{count}_units_{MACHINES}_machines {:.0} decisions/s", rate(count, time));
    println!("placement_cold_{count}_with_reading {:.0} decisions/s", rate(count, time + load));
    placement
}

fn one_more(placement: &mut UnitPlacement, label: &str) {
    // Of all kinds alike, so that those that keep apart are fewer than the machines.
    let units = (0..1000).map(|number| unit(UNITS + number * 977));
    report(label, units.map(|unit| time_of(placement, &unit)).collect());
}

fn one_more_of_each_kind(placement: &mut UnitPlacement) {
    placement.set_unit(&unit_asking("everywhere.service", "Global=true\n"));
    placement.decide_all();
    for (kind, ask) in KINDS {
        let name = |number: usize| match kind {
            "never_seen" => format!("{kind}{number}.service"),
            _ => format!("{kind}@{number}.service"),
        };
        let units = (0..200).map(|number| unit_asking(&name(number), ask));
        report(kind, units.map(|unit| time_of(placement, &unit)).collect());
    }
}

fn time_of(placement: &mut UnitPlacement, unit: &SubmittedUnit) -> Duration {
    let (decisions, time) = timed(|| {
        placement.set_unit(unit);
        placement.decide_all()
    });
    assert!(decisions.iter().any(|decision| decision.unit == unit.name), "{} has a machine", unit.name);
    time
}

fn report(label: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("placement_one_more_p50_{label} {:.1} us", at(50));
    println!("placement_one_more_p99_{label} {:.1} us", at(99));
    println!("placement_one_more_worst_{label} {:.1} us", at(100));
}

fn lose_machines(placement: &mut UnitPlacement, count: usize) {
    let (decisions, time) = timed(|| {
        for number in 0..count {
            let id = id(number * 13);
            placement.lose_machine(&id);
            for unit in placement.units_on(&id) {
                placement.give_up(&unit, &id);
            }
        }
        placement.decide_all()
    });
    assert!(decisions.iter().all(|decision| decision.to.is_some()), "every unit has a new machine");
    println!(
        "placement_lose_{count}_machines {:.1} ms for {} units",
        time.as_secs_f64() * 1e3,
        decisions.len()
    );
}

fn main() {
    let units: Vec<SubmittedUnit> = (0..UNITS).map(unit).collect();
    cold(&units, UNITS / 4);
    let mut small = loaded(MACHINES / 100, &units[..UNITS / 100]);
    small.decide_all();
    one_more(&mut small, "at_a_hundredth");
    let mut placement = cold(&units, UNITS);
    one_more(&mut placement, "at_full_size");
    lose_machines(&mut placement, 100);
    one_more_of_each_kind(&mut placement);
}
