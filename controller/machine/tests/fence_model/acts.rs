//! What can happen next to proxies and requests.

use flag::fence::{Held, Passage};
use machine::status::Phase;

use crate::proxy::{Event, Vm};
use crate::world::{Action, Place, Protocol, State, Stream};

impl Protocol {
    pub(crate) fn proxies_act(&self, state: &State, actions: &mut Vec<Action>) {
        let faults_left = state.faults < self.faults && !self.only_older;
        let given_up = state.is_given_up(self.spec.switch.fence.attempts);
        let twice = self.passes || matches!(state.phase(), Phase::ProvingRoutes);
        for (number, proxy) in state.proxies.iter().enumerate() {
            for controller in 0..state.controllers.len() {
                if !given_up && state.has_news(number, controller, twice) {
                    actions.push(Action::Report(number, controller));
                    if proxy.answers.is_some() && faults_left {
                        actions.push(Action::Incomplete(number, controller));
                    }
                }
            }
            if faults_left && state.late.is_none() && state.has_news(number, 0, false) {
                actions.push(Action::Delay(number));
            }
            let outside = proxy.beside.is_none();
            if outside && faults_left && proxy.boot == 0 {
                actions.push(Action::Restart(number));
            }
            if outside && faults_left && !state.joined {
                actions.push(Action::Join(number));
            }
            for (id, vm) in proxy.vms.iter().enumerate() {
                self.instance_acts(state, (number, id), vm, actions);
                let said = proxy.answers.as_ref().and_then(|answers| answers[id].as_ref());
                if self.one_by_one
                    && said.is_none()
                    && (0..state.controllers.len()).any(|one| state.has_news(number, one, twice))
                {
                    actions.push(Action::Answer(number, id));
                }
            }
        }
    }

    fn instance_acts(&self, state: &State, at: (usize, usize), vm: &Vm, actions: &mut Vec<Action>) {
        let last =
            vm.log.iter().rev().find_map(|one| if let Event::Snapshot(number) = one { Some(*number) } else { None });
        for (number, controller) in state.controllers.iter().enumerate() {
            // Or two controllers contradict one another for ever.
            let older = controller.published < last;
            if controller.published.is_some() && controller.published != last && !(older && vm.log.len() > 3) {
                actions.push(Action::Hear(at.0, at.1, number));
            }
        }
        if self.only_older && state.faults < self.faults {
            let known = last.unwrap_or(0);
            actions.extend((0..known).map(|number| Action::HearOlder(at.0, at.1, number)));
        }
        let view = vm.view(&state.published);
        if view.held() == Some(Held::Holding) {
            actions.push(Action::Expire(at.0, at.1));
        }
        if state.proxies[at.0].beside.is_some() {
            return;
        }
        if state.begun < self.requests {
            actions.push(Action::Begin(at.0, at.1));
            let arrived = |stream: &Stream| matches!(stream.place, Place::Open(_)) && stream.version == 0;
            if self.passes
                && view.held().is_some()
                && view.passage(true).0 != Passage::Wait
                && state.streams.iter().any(arrived)
            {
                actions.push(Action::Pass(at.0, at.1));
            }
        }
        if vm.waiting > 0 && view.passage(false).0 != Passage::Wait {
            actions.push(Action::Release(at.0, at.1));
        }
    }

    pub(crate) fn requests_act(&self, state: &State, actions: &mut Vec<Action>) {
        if self.strangers && state.begun < self.requests {
            actions.extend([Action::Stranger(0), Action::Stranger(1)]);
        }
        for (number, stream) in state.streams.iter().enumerate() {
            match stream.place {
                Place::Underway => {
                    let vms = state.beside(stream.version).map_or(1, |proxy| state.proxies[proxy].vms.len());
                    actions.extend((0..vms).map(|vm| Action::Arrive(number, vm)));
                }
                Place::Open(_) => actions.push(Action::Serve(number)),
                Place::Ended => actions.push(Action::End(number)),
            }
        }
    }
}
