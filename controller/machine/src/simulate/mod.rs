//! `versionflag simulate`: a script of what is seen and asked for, and what the controller makes of it, for people
//! who want to know what it does. The real loop drives the real plan; only the world is made up. Pure.
//!
//! | module | does |
//! | --- | --- |
//! | `script`, `sight`, `words` | read a script, and say which step is not understood, and why |
//! | `world` | what the loop looks at and acts on: memory, disk, and the facts |
//! | `facts` | versions, checks and routes: what is there, and what an effect makes of it |
//! | `proxies` | who has to ack, and who does |
//! | `fence` | what they hold, and for how long |
//! | `report`, `effects` | the text that comes out |

mod effects;
mod facts;
mod fence;
mod proxies;
mod report;
mod script;
mod sight;
mod words;
mod world;

use serde_json::Value;

use crate::duration::Millis;
use crate::time::UnixMs;
use script::{Change, Crash, Script, Step};
use world::Simulated;

pub use script::ScriptError;

/// Turns of the loop in one step before it counts as never coming to rest.
const TURNS: usize = 100_000;
/// Between two turns of the loop, at least.
const TICK: Millis = Millis(1);

/// Plays a script, and tells what happened.
pub fn simulate(script: &Value) -> Result<String, ScriptError> {
    let script = Script::read(script)?;
    let mut world = Simulated::new(script.spec, &script.shown);
    for (number, step) in (1..).zip(&script.steps) {
        play(&mut world, step).map_err(|message| ScriptError::at(number, message))?;
    }
    Ok(world.told())
}

/// Changes what a step changes, and lets the loop run for as long as it says.
fn play(world: &mut Simulated, step: &Step) -> Result<(), String> {
    world.announce(step);
    for change in &step.changes {
        match change {
            Change::Takes(takes) => world.takes(takes),
            Change::See(sights) => sights.iter().for_each(|sight| world.see(sight)),
            Change::Spec(edit) => world.edit(edit),
            Change::Ask(action) => world.ask(*action),
            Change::Conflict => world.refuse_next_write(),
            Change::Crash(Crash::Now) => world.restart(),
            Change::Crash(Crash::OnWrite) => world.die_at_next_write(),
        }
    }
    run(world, world.now.plus(step.pass))
}

/// Lets time pass: the loop runs when it asks to, and when something happens.
fn run(world: &mut Simulated, end: UnixMs) -> Result<(), String> {
    for _ in 0..TURNS {
        world.happen();
        let again = world.turn().map(|wait| world.now.plus(wait.max(TICK)));
        let Some(next) = again.into_iter().chain(world.due()).min().filter(|next| *next <= end) else {
            world.now = end;
            return Ok(());
        };
        if next > world.now {
            world.now = next;
        } else if world.now == end {
            return Ok(());
        }
    }
    Err(format!("the controller does not come to rest within {TURNS} turns: let less time pass in one step"))
}
