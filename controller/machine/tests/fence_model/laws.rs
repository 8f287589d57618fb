//! What must be so in every state, and what has to be seen in some.

use flag::fence::{Held, Passage};
use flag::record::Gate;
use machine::status::Phase;
use stateright::Property;

use crate::model_parts::Published;
use crate::proxy::{Count, Vm};
use crate::world::{Place, Protocol, State, Stream};

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(
            "no stream is open on one version while one is on the other",
            |model: &Protocol, state: &State| !state.overlaps(model.rejects()),
        ),
        Property::always("each step rests on the word of everybody", |_, state: &State| state.wrong.is_none()),
        Property::always("nothing waits without a hold", |_, state: &State| {
            state.proxies.iter().flat_map(|proxy| &proxy.vms).all(|vm| vm.is_held_rightly(&state.published))
        }),
        Property::always("each request ends once", |_, state: &State| state.counts()),
        Property::always("without more faults all comes to its end", |model: &Protocol, state: &State| {
            model.ends(state)
        }),
        Property::sometimes("it is committed", |_, state: &State| state.phase() == Phase::Committing),
        Property::sometimes("it is open", |_, state: &State| state.phase() == Phase::Settling),
        Property::sometimes("it is aborted", |_, state: &State| state.aborted()),
        Property::sometimes("a commit is taken back", |_, state: &State| state.goes_back()),
        Property::sometimes("a hold runs out", |_, state: &State| state.expired),
        Property::sometimes("what waited goes to the new version", |_, state: &State| {
            state.streams.iter().any(|stream| stream.version == 1)
        }),
        Property::sometimes("another controller gives it up", |model: &Protocol, state: &State| {
            model.faults == 0 || model.only_older || state.abandoned()
        }),
    ]
}

impl Vm {
    /// What waits does so at a gate that is closed and has not run out, or for the first answer.
    fn is_held_rightly(&self, published: &[Published]) -> bool {
        let view = self.view(published);

        let waits = view.passage(false).0 == Passage::Wait;
        !waits || !view.knows() || (view.gate == Gate::Hold && view.held() == Some(Held::Holding))
    }
}

impl State {
    /// Versions with an open stream: where filters count them, or at the workloads alone.
    fn overlaps(&self, at_callers: bool) -> bool {
        let open = |stream: &&Stream| {
            let sent = at_callers && stream.from.is_some();
            sent || matches!(stream.place, Place::Open(_))
        };
        let mut versions = self.streams.iter().filter(open).map(|stream| stream.version);
        versions.next().is_some_and(|first| versions.any(|other| other != first))
    }

    fn counts(&self) -> bool {
        let vms = || self.proxies.iter().flat_map(|proxy| &proxy.vms);
        let waiting: u8 = vms().map(|vm| vm.waiting).sum();
        let open = self.streams.iter().filter(|stream| stream.from.is_some()).count();
        let counted =
            |of: fn(&Vm) -> &[Count; 2]| vms().flat_map(of).map(|count| count.started - count.finished).sum::<u8>();
        let arrived = self.streams.iter().filter(|stream| matches!(stream.place, Place::Open(Some(_)))).count();
        self.begun == self.ended + waiting + open as u8
            && usize::from(counted(|vm| &vm.sent)) == open
            && usize::from(counted(|vm| &vm.arrived)) == arrived
    }

    fn why(&self) -> Option<&str> {
        self.disk.0.status.switch.as_ref()?.fence.as_ref()?.aborted.as_deref()
    }

    pub(crate) fn aborted(&self) -> bool {
        self.why().is_some()
    }

    fn abandoned(&self) -> bool {
        self.why().is_some_and(|why| why.contains("another controller"))
    }

    fn goes_back(&self) -> bool {
        let fence = self.disk.0.status.switch.as_ref().and_then(|switch| switch.fence.as_ref());
        fence.is_some_and(|fence| fence.going_back_at.is_some())
    }
}
