//! Runs by chance, each from a seed: what a seed does it does again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use stateright::{Chooser, Model};

use crate::acts::Chance;
use crate::laws::Law;
use crate::model_parts::hash;
use crate::mutation::Mutation;
use crate::world::{Protocol, State};
use crate::{BACK, DEEP, LAST, wild};

/// In `make test-unit`; `make simulate` has more.
const SEEDS: u64 = 300;
/// Between two lines that say how far it is, in seeds.
const SHOWN: u64 = 1_000;

/// All that goes wrong, in a world of one proxy or two, with one controller at a time or two.
fn worlds(mutation: Option<Mutation>) -> Vec<Protocol> {
    let mut worlds = vec![];
    for more in ["", BACK] {
        for both in [false, true] {
            for small in [false, true] {
                let world = if small { Protocol::new(more, 1, 1) } else { wild(more) };
                let wild = wild(more);
                worlds.push(Protocol { start: world.start, both, mutation, sample: 0, ..wild });
            }
        }
    }
    worlds
}

/// The last state of a run, and how many steps it took; or the law that was broken, and what led there.
fn run(worlds: &[Protocol], seed: u64) -> Result<(State, u64), (Law, String)> {
    let world = &worlds[(seed % worlds.len() as u64) as usize];
    let laws: Vec<_> = Law::ALL.into_iter().zip(world.properties()).collect();
    let (mut state, mut chance, mut steps) = (world.start.clone(), Chance.new_state(seed), vec![]);
    let broken = |law: Law, steps: &[String]| {
        let last = steps.len().saturating_sub(LAST);
        (law, format!("{} after {} steps:\n{}", law.name(), steps.len(), steps[last..].join("\n")))
    };
    for _ in 0..DEEP {
        let mut actions = vec![];
        world.actions(&state, &mut actions);
        if actions.is_empty() {
            break;
        }
        let action = actions[Chance.choose_action(&mut chance, &state, &actions)].clone();
        steps.push(format!("{} {action:?}", state.sketch()));
        let Some(next) = world.next_state(&state, action) else { continue };
        state = next;
        if let Some((law, _)) = laws.iter().find(|(_, property)| !(property.condition)(world, &state)) {
            return Err(broken(*law, &steps));
        }
    }
    // From wherever it got to, all comes to its end once nothing goes wrong any more.
    let world = Protocol { sample: 1, ..world.clone() };
    if world.ends(&state) { Ok((state, steps.len() as u64)) } else { Err(broken(Law::Ends, &steps)) }
}

/// The first of these seeds that breaks a law, if one does; and in how many runs a version was stopped.
fn try_all(worlds: &[Protocol], seeds: std::ops::Range<u64>) -> (Option<(u64, Law, String)>, u64) {
    let (next, steps, began) = (AtomicU64::new(seeds.start), AtomicU64::new(0), Instant::now());
    let stopped = AtomicU64::new(0);
    let found = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while found.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match run(worlds, seed) {
                        Ok((state, more)) => {
                            steps.fetch_add(more, Ordering::Relaxed);
                            stopped.fetch_add(state.stopped.into(), Ordering::Relaxed);
                        }
                        Err((law, how)) => *found.lock().unwrap() = Some((seed, law, how)),
                    }
                    let done = seed + 1 - seeds.start;
                    if done.is_multiple_of(SHOWN) {
                        println!("{done} seeds, {:.0} s", began.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let (steps, stopped) = (steps.into_inner(), stopped.into_inner());
    println!("seeds {seeds:?}: {steps} steps, {stopped} stopped a version, {:.1} s", began.elapsed().as_secs_f64());
    (found.into_inner().unwrap(), stopped)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

#[test]
fn no_seed_breaks_a_law() {
    let (first, count) = (number("SEED", 1), number("SEEDS", SEEDS));
    let (found, stopped) = try_all(&worlds(None), first..first + count);
    if let Some((seed, _, how)) = found {
        panic!("`make simulate SEED={seed} SEEDS=1` does this again: {how}");
    }
    assert!(stopped > count / 10 || count < SEEDS, "hardly one run came to a switch's end");
}

#[test]
fn a_seed_does_the_same_again() {
    let worlds = worlds(None);
    let last = |seed| run(&worlds, seed).map(|(state, steps)| (hash(&state), steps)).unwrap();
    assert_eq!(last(7), last(7));
    assert_ne!(last(7), last(15), "both in one world");
}

/// What is wrong is found by one seed of those that are always tried.
#[test]
fn a_seed_finds_what_is_wrong() {
    let (found, _) = try_all(&worlds(Some(Mutation::StopsAtOnce)), 1..1 + SEEDS);
    assert_eq!(found.map(|(_, law, _)| law), Some(Law::StillUsed));
}
