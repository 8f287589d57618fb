//! How VirtualServices of others lead to a Service past its flag. Pure.

use serde_json::json;

use super::check::{IstioObjects, RouteNeeds, conflict, yaml};
use super::object::{
    Delegate, HttpRoute, MeshObject, RouteDestination, StreamRoute, VirtualService, VirtualServiceSpec,
};
use super::routes::{delegate_name, delegate_of_port};
use machine::reason::Problem;
use machine::spec::Management;

/// How a VirtualService leads to the Service past the flag. Where routes are managed it can delegate.
pub(super) fn past(
    wanted: &RouteNeeds<'_>,
    object: &MeshObject<VirtualService>,
    found: &IstioObjects,
    management: Management,
) -> Option<Problem> {
    let (place, routes) = (object.namespace(), object.looked_at());
    if !wanted.sees(routes, place) {
        return None;
    }
    let title = || format!("VirtualService {} leads past the flag of Service {}", object.name(), wanted.service);
    if let Some(why) = wanted.blind(routes, place) {
        return Some(conflict(format!("{}: {why}", title()), String::new()));
    }
    let managed = management == Management::Managed;
    if managed && wanted.asks_for_port(routes, place) {
        return Some(port_asked(wanted, object));
    }
    // Those are looked at as a whole.
    let why = if wanted.claims(routes, place) { None } else { bypass(wanted, routes, place, found) }?;
    if !managed {
        return Some(conflict(format!("{}: {why}", title()), String::new()));
    }
    let names = delegates(wanted);
    let delegate = json!({ "delegate": { "name": names.first(), "namespace": wanted.namespace } });
    Some(conflict(format!("{}: {why}; let it delegate", title()), yaml(&delegate)))
}

/// What can be delegated to: the routes of each port where there are several.
fn delegates(wanted: &RouteNeeds<'_>) -> Vec<String> {
    match wanted.ports {
        [] | [_] => vec![delegate_name(wanted.service)],
        several => several.iter().map(|port| delegate_of_port(wanted.service, *port)).collect(),
    }
}

/// Istio would go on with the port of the gateway's listener.
fn port_asked(wanted: &RouteNeeds<'_>, object: &MeshObject<VirtualService>) -> Problem {
    let names = delegates(wanted);
    let message = format!(
        "VirtualService {} delegates to {} of Service {}, which has several ports, and does not say which: delegate to {}",
        object.name(),
        delegate_name(wanted.service),
        wanted.service,
        names.join(" or ")
    );
    let snippet = json!({ "delegate": { "name": names.first(), "namespace": wanted.namespace } });
    conflict(message, yaml(&snippet))
}

impl RouteNeeds<'_> {
    /// How a VirtualService sends requests to the Service where no flag can choose.
    pub(crate) fn blind(&self, routes: &VirtualServiceSpec, place: &str) -> Option<&'static str> {
        let to = |one: &RouteDestination| self.is(&one.host, place);
        let led = |routes: &[StreamRoute]| routes.iter().flat_map(|it| &it.route).any(|it| to(&it.destination));
        let mut mirrors =
            routes.http.iter().flat_map(|it| it.mirror.iter().chain(it.mirrors.iter().map(|one| &one.destination)));
        if mirrors.any(to) {
            return Some("it mirrors requests there, which keep an old version busy; take the mirror out");
        }
        if led(&routes.tcp) {
            return Some("it has tcp routes there, and a filter sees only requests; make them http routes");
        }
        let tls = "it has tls routes there, and a filter sees only requests; end TLS before, and make them http routes";
        led(&routes.tls).then_some(tls)
    }

    /// Whether a VirtualService of `place` delegates without a port where the Service has several.
    fn asks_for_port(&self, routes: &VirtualServiceSpec, place: &str) -> bool {
        let plain = delegate_name(self.service);
        let is_ours = |it: &Delegate| {
            let namespace = if it.namespace.is_empty() { place } else { &it.namespace };
            it.name == plain && namespace == self.namespace
        };
        self.ports.len() > 1 && routes.http.iter().filter_map(|route| route.delegate.as_ref()).any(is_ours)
    }
}

/// How routes of another host get to the Service without the flag.
fn bypass(wanted: &RouteNeeds<'_>, routes: &VirtualServiceSpec, place: &str, found: &IstioObjects) -> Option<String> {
    let leading = || routes.http.iter().map(|route| (route, wanted.leads(route, place, found)));
    if leading().all(|(_, to)| to.is_empty()) {
        return None;
    }
    let missing = wanted.versions.iter().find(|version| {
        let led = |(route, to): (&HttpRoute, Vec<Option<String>>)| {
            !to.is_empty()
                && route.r#match.iter().any(|one| wanted.marks(one, version))
                && to.iter().all(|to| to.as_ref() == Some(version))
        };
        !leading().any(led)
    });
    if let Some(version) = missing {
        return Some(format!("it has no route for {version}"));
    }
    let caught = wanted.versions.iter().find(|version| {
        let mut before =
            routes.http.iter().take_while(|route| !route.r#match.iter().any(|one| wanted.marks(one, version)));
        before.any(|route| {
            let to = wanted.leads(route, place, found);
            wanted.catches(route, version) && to.iter().any(|to| to.as_ref() != Some(*version))
        })
    });
    if let Some(version) = caught {
        return Some(format!("a route for other values of the header comes before that for {version}"));
    }
    let strays = leading()
        .find(|(route, to)| wanted.unmarked(route) && to.iter().any(|to| to.as_deref() != Some(wanted.active)));
    strays.map(|_| format!("requests without a version do not go to {} there", wanted.active))
}
