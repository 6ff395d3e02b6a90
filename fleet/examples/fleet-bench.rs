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
    plan::place::Placement,
    store::cluster::Unit,
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

fn machine(number: usize) -> Machine {
    let (zone, disk) = (number % 10, if number.is_multiple_of(3) { "hdd" } else { "ssd" });
    Machine {
        metadata: parse_metadata(&format!("zone=z{zone},disk={disk}")),
        capacity: Some(Resources { memory_mib: 64 * 1024, cpu_percent: 6400 }),
        ..Machine::new(id(number))
    }
}

fn id(number: usize) -> MachineId {
    // Scattered, as machine IDs are.
    let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    MachineId::parse(&format!("{scattered:016x}{number:016x}")).unwrap()
}

fn unit(number: usize) -> Unit {
    let name = UnitName::parse(&format!("app{}@{number}.service", number / 1000 % 100)).unwrap();
    let ask = ASKS[number / 1000 % ASKS.len()];
    let file = UnitFile::parse(&format!("[Service]\nExecStart=/bin/app\n[X-Fleet]\n{ask}")).unwrap();
    Unit::new(name, file, JobState::Launched)
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = act();
    (result, start.elapsed())
}

fn loaded(machines: usize, units: &[Unit]) -> Placement {
    let mut placement = Placement::default();
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

fn cold(units: &[Unit], count: usize) -> Placement {
    let (mut placement, load) = timed(|| loaded(MACHINES, &units[..count]));
    let (decisions, time) = timed(|| placement.decide());
    assert_eq!(decisions.len(), count, "every unit has a machine");
    println!("placement_cold_{count}_units_{MACHINES}_machines {:.0} decisions/s", rate(count, time));
    println!("placement_cold_{count}_with_reading {:.0} decisions/s", rate(count, time + load));
    placement
}

fn one_more(placement: &mut Placement, label: &str) {
    let mut times = Vec::new();
    let rounds = 1000;
    for number in 0..rounds {
        // Of all kinds alike, so that those that keep apart are fewer than the machines.
        let unit = unit(UNITS + number * 977);
        let (decisions, time) = timed(|| {
            placement.set_unit(&unit);
            placement.decide()
        });
        assert_eq!(decisions.len(), 1);
        times.push(time);
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("placement_one_more_p50_{label} {:.1} us", at(50));
    println!("placement_one_more_p99_{label} {:.1} us", at(99));
    println!("placement_one_more_worst_{label} {:.1} us", at(100));
}

fn lose_machines(placement: &mut Placement, count: usize) {
    let (decisions, time) = timed(|| {
        for number in 0..count {
            let id = id(number * 13);
            placement.lose_machine(&id);
            for unit in placement.units_on(&id) {
                placement.give_up(&unit, &id);
            }
        }
        placement.decide()
    });
    assert!(decisions.iter().all(|decision| decision.to.is_some()), "every unit has a new machine");
    println!(
        "placement_lose_{count}_machines {:.1} ms for {} units",
        time.as_secs_f64() * 1e3,
        decisions.len()
    );
}

fn main() {
    let units: Vec<Unit> = (0..UNITS).map(unit).collect();
    cold(&units, UNITS / 4);
    let mut small = loaded(MACHINES / 100, &units[..UNITS / 100]);
    small.decide();
    one_more(&mut small, "at_a_hundredth");
    let mut placement = cold(&units, UNITS);
    one_more(&mut placement, "at_full_size");
    lose_machines(&mut placement, 100);
}
