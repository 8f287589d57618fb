//! The one loop of every adapter: observe, plan, persist, execute. Pure: what does I/O is the [`World`].
//!
//! A change of the record is on disk before it is adopted, and so before anything is done by it. What else was
//! decided has no effect before it is acted on, so that a status that is only passed through is never written.

use crate::duration::Millis;
use crate::plan::{Effect, Pass, Plan, plan, stand_still};
use crate::status::Status;

/// Passes in a row before something else has its turn.
const PASSES: usize = 32;

/// Where a flag lives: one machine, one cluster, or a test.
pub trait World {
    /// Everything that was seen in one look.
    type Seen;
    /// Why a turn ends early.
    type Error;

    /// Looks at everything that concerns the flag.
    fn observe(&mut self) -> Self::Seen;

    /// What a look says of time, spec and observation.
    fn pass(seen: &Self::Seen) -> Pass<'_>;

    /// The status as it is remembered.
    fn status(&self) -> &Status;

    /// Remembers a status in this process.
    fn adopt(&mut self, status: Status);

    /// Has the status of a plan on disk, unless it is there. False: somebody else has written meanwhile, and
    /// everything has to be looked at again.
    fn persist(&mut self, seen: &Self::Seen, plan: &Plan) -> impl Future<Output = Result<bool, Self::Error>>;

    /// The status that is on disk, if it may be acted on while no other one can be written.
    fn stored(&self) -> Option<&Status> {
        None
    }

    /// Shows people where the flag stands and what it waits for.
    fn show(&mut self, seen: &Self::Seen, plan: &Plan);

    /// Does one thing that a plan says.
    fn execute(&mut self, seen: &Self::Seen, effect: Effect) -> impl Future<Output = Result<(), Self::Error>>;

    /// Ends what the effects began. False: what was done calls for another look at once.
    fn complete(&mut self, seen: &Self::Seen) -> impl Future<Output = Result<bool, Self::Error>>;
}

/// Everything that can be done now. In how long to look again, if time alone may move the flag.
pub async fn reconcile<W: World>(world: &mut W) -> Result<Option<Millis>, W::Error> {
    for _ in 0..PASSES {
        let seen = world.observe();
        let plan = plan(W::pass(&seen), world.status());
        let moved = plan.status != *world.status();
        if moved && plan.status.epoch() == world.status().epoch() {
            world.adopt(plan.status);
            continue;
        }
        match world.persist(&seen, &plan).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                let effects = world.stored().map(|stored| stand_still(W::pass(&seen), stored));
                for effect in effects.into_iter().flatten() {
                    world.execute(&seen, effect).await?;
                }
                return Err(error);
            }
        }
        if moved {
            world.adopt(plan.status);
            continue;
        }
        world.show(&seen, &plan);
        for effect in plan.effects {
            world.execute(&seen, effect).await?;
        }
        if world.complete(&seen).await? {
            return Ok(plan.requeue);
        }
    }
    Ok(Some(Millis(1)))
}
