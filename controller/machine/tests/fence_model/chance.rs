//! Which of all orders are tried, where there are too many: some things happen more often than others.

use stateright::Chooser;

use crate::model_parts::Dice;
use crate::world::{Action, Protocol, State};

/// Chooses by weight.
#[derive(Debug, Clone)]
pub(crate) struct Chance;

/// The chance of one run.
#[derive(Debug)]
pub(crate) struct Run {
    dice: Dice,
    /// Less goes wrong in some runs.
    calm: bool,
}

fn weight(action: &Action, calm: bool) -> u64 {
    let often = if calm { 4_000 } else { 80 };
    match action {
        Action::Look(_) | Action::Write(_) | Action::Hear(..) | Action::Answer(..) | Action::Report(..) => often,
        Action::Arrive(..) | Action::Serve(_) | Action::End(_) | Action::Release(..) => often,
        Action::Begin(..) | Action::Pass(..) | Action::Stranger(_) => 16,
        Action::Deliver(_) => 4,
        Action::Expire(..) | Action::Jump(_) | Action::HearOlder(..) => 1,
        Action::Decide(_) | Action::Elect | Action::Join(_) | Action::Restart(_) => 2,
        Action::Incomplete(..) | Action::Delay(_) => 2,
    }
}

impl Chooser<Protocol> for Chance {
    type State = Run;

    fn new_state(&self, seed: u64) -> Run {
        Run { dice: Dice(seed), calm: !seed.is_multiple_of(3) }
    }

    fn choose_initial_state(&self, run: &mut Run, states: &[State]) -> usize {
        run.dice.roll(states.len() as u64)
    }

    fn choose_action(&self, run: &mut Run, _: &State, actions: &[Action]) -> usize {
        let calm = run.calm;
        run.dice.choose(actions.iter().map(|action| weight(action, calm)))
    }
}
