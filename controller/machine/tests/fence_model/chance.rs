//! Which of all orders are tried, where there are too many: some things happen more often than others.

use stateright::Chooser;

use crate::world::{Action, Protocol, State};

/// Chooses by weight.
#[derive(Debug, Clone)]
pub(crate) struct Chance;

/// A generator of numbers that look like chance.
#[derive(Debug)]
pub(crate) struct Dice {
    state: u64,
    /// Less goes wrong in some runs.
    calm: bool,
}

impl Dice {
    fn roll(&mut self, sides: u64) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) % sides.max(1)) as usize
    }
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
    type State = Dice;

    fn new_state(&self, seed: u64) -> Dice {
        Dice { state: seed, calm: !seed.is_multiple_of(3) }
    }

    fn choose_initial_state(&self, dice: &mut Dice, states: &[State]) -> usize {
        dice.roll(states.len() as u64)
    }

    fn choose_action(&self, dice: &mut Dice, _: &State, actions: &[Action]) -> usize {
        let calm = dice.calm;
        let weight = |action| weight(action, calm);
        let sum = actions.iter().map(weight).sum();
        let mut left = dice.roll(sum) as u64;
        let chosen = actions.iter().position(|action| {
            let hit = left < weight(action);
            left = left.saturating_sub(weight(action));
            hit
        });
        chosen.unwrap_or(0)
    }
}
