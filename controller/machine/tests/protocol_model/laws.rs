//! What must be so in every state, and what has to be seen in some.

use machine::status::Phase;
use stateright::Property;

use crate::proxy::Count;
use crate::world::{Protocol, State};

/// What must never be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Law {
    EpochGrows,
    TwoContents,
    AckOfAll,
    Flip,
    StillUsed,
    WayBack,
    StoppedStays,
    Counts,
    Drain,
    ThirdVersion,
    Says,
    Ends,
}

impl Law {
    pub(crate) const ALL: [Law; 12] = [
        Law::EpochGrows,
        Law::TwoContents,
        Law::AckOfAll,
        Law::Flip,
        Law::StillUsed,
        Law::WayBack,
        Law::StoppedStays,
        Law::Counts,
        Law::Drain,
        Law::ThirdVersion,
        Law::Says,
        Law::Ends,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Law::EpochGrows => "what is in effect never falls back in a process",
            Law::TwoContents => "one epoch has one content, and the one on disk grows",
            Law::AckOfAll => "an ack is of every instance",
            Law::Flip => "a flip rests on what is ready, strong enough and reached",
            Law::StillUsed => "what is stopped is what nobody uses",
            Law::WayBack => "nothing that is gone back to is stopped by what was decided before",
            Law::StoppedStays => {
                "what was stopped is started again only to go back to it, or where its proof broke before that was seen"
            }
            Law::Counts => "each request that began ends once",
            Law::Drain => "no drain is shorter than was asked for",
            Law::ThirdVersion => "a third version is not touched",
            Law::Says => "it never says that nothing is waited for while something is",
            Law::Ends => "without more faults all comes to its end, and stays there",
        }
    }
}

/// Whether a law has not been broken on the way to a state.
fn kept<const LAW: usize>(_: &Protocol, state: &State) -> bool {
    state.wrong != Some(Law::ALL[LAW])
}

pub(crate) fn all() -> Vec<Property<Protocol>> {
    const STEPS: [fn(&Protocol, &State) -> bool; 12] = [
        kept::<0>,
        kept::<1>,
        kept::<2>,
        kept::<3>,
        kept::<4>,
        kept::<5>,
        kept::<6>,
        |model, state| kept::<7>(model, state) && state.counts(),
        kept::<8>,
        kept::<9>,
        kept::<10>,
        |model, state| kept::<11>(model, state) && model.ends(state),
    ];
    let laws = Law::ALL.into_iter().zip(STEPS).map(|(law, holds)| Property::always(law.name(), holds));
    let seen = [
        Property::sometimes("it is flipped", |_, state: &State| state.phase() == Phase::Switching),
        Property::sometimes("it is settled", |_, state: &State| state.phase() == Phase::Retaining),
        Property::sometimes("it is stopped", |_, state: &State| state.stopped),
    ];
    laws.chain(seen).collect()
}

impl State {
    fn counts(&self) -> bool {
        let all = self.proxies.iter().enumerate().flat_map(|(proxy, one)| {
            one.vms.iter().enumerate().flat_map(move |(vm, one)| (0..3).map(move |of| ((proxy, vm), of, one.sent[of])))
        });
        all.into_iter().all(|(at, of, Count { started, finished })| {
            let open = self.streams.iter().filter(|stream| **stream == (at, of)).count();
            started.checked_sub(finished) == u8::try_from(open).ok()
        })
    }
}
