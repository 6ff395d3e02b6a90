//! A whole cluster in one thread: the real picture, mind, writes and duties over a pretended store and
//! pretended machines, under thousands of random mishaps. What is checked after each step is what users
//! rely on. A seed decides everything: `FLEET_SEED=n cargo test --test simulation` replays a failure.
#![expect(clippy::disallowed_methods, reason = "the seed to replay comes from the environment")]
#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on has found something")]

mod dice;
mod node;
mod store;
mod world;

use world::World;

fn live_through(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed);
    let rounds = if world.nodes.len() > 50 { 120 } else { 1500 };
    for _ in 0..rounds {
        if world.dice.chance(12) {
            world.mishap();
        }
        if world.dice.chance(25) {
            world.user();
        }
        world.step();
    }
    world.settle_and_check();
    (rounds, world.brakes)
}

#[test]
fn whatever_breaks_the_promises_hold() {
    if let Some(seed) = std::env::var("FLEET_SEED").ok().and_then(|seed| seed.parse().ok()) {
        live_through(seed);
        return;
    }
    let lives: u64 = std::env::var("FLEET_LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(10);
    let (mut steps, mut brakes) = (0, 0);
    for seed in 1..=lives {
        let (more_steps, more_brakes) = live_through(seed);
        steps += more_steps;
        brakes += more_brakes;
    }
    println!("{lives} clusters, {steps} steps, the brake was on in {brakes}");
    assert!(brakes > 0, "the brake was never tried");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    let tell = |seed| {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.mishap();
            world.user();
            world.step();
        }
        (world.story, format!("{:?}", world.store.everything()))
    };

    assert_eq!(tell(7), tell(7));
    assert_ne!(tell(7).0, tell(8).0);
}
