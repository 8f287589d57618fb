//! What a GitOps tool finds in every phase: `manifests/argocd/health_cases.lua` is made from it, and `make test-argocd`
//! has Argo CD's health check judge it. `UPDATE_GOLDENS=1` writes the file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cluster::reading::Reading;
use machine::fleet::ledger::{Fleet, Laggard};
use machine::reason::{Problem, Reason};
use machine::status::Phase;
use machine::time::UnixMs;
use serde_json::{Value, json};

use crate::golden;
use crate::objects::parse;
use crate::status::{DONE, RETAINING, SETTLING, SPREADING, STABLE, STARTING, World, world};

/// A flag that was taken back.
const TAKEN_BACK: &str = "phase: Stable, activeVersion: v1, previousVersion: v2, \
     override: {version: v1, forSpecVersion: v2, reason: 'check errors failed for v2', at: 1000000}";
const GOES_BACK: &str = "phase: Switching, activeVersion: v1, targetVersion: v1, previousVersion: v2, \
     switch: {from: v2, to: v1, rollback: true, startedAt: 1000000, flippedAt: 1000000}, \
     override: {version: v1, forSpecVersion: v2, reason: 'rollback by request', at: 1000000}";

/// The resource as Argo CD reads it, as far as that matters.
fn resource(world: &World) -> Value {
    let status = serde_json::to_value(world.status(1_000_000)).unwrap();
    let of = |key: &str| status.get(key).cloned().unwrap_or_default();
    json!({
        "metadata": { "name": "reviews", "generation": 4 },
        "spec": { "version": world.spec.version },
        "status": {
            "observedGeneration": of("observedGeneration"), "phase": of("phase"),
            "activeVersion": of("activeVersion"), "blockedBy": of("blockedBy"), "conditions": of("conditions"),
        },
    })
}

fn blocked(machine: &str, reason: &str) -> World {
    let mut world = world(machine);
    world.machine.blocked = parse(&format!("{{reason: {reason}, message: a sentence about it, since: 1000000}}"));
    world
}

fn in_phase(phase: Phase) -> World {
    let machine = STARTING.replace("phase: Coexisting", &format!("phase: {}", phase.name()));
    match phase {
        Phase::Adopting => world("phase: Adopting"),
        Phase::Stable => world(STABLE),
        Phase::Switching => world(SPREADING),
        Phase::Settling => world(SETTLING),
        Phase::Retaining => world(RETAINING),
        Phase::Removing => world(&RETAINING.replace("phase: Retaining", "phase: Removing")),
        Phase::Committing => world(&machine.replace("activeVersion: v1", "activeVersion: v2")),
        Phase::Coexisting | Phase::AwaitingPromotion | Phase::ProvingRoutes | Phase::Holding => world(&machine),
    }
}

/// A flag whose spec this controller does not understand, with the status that it is given.
fn unreadable() -> Value {
    let object = json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": { "name": "reviews", "namespace": "shop", "uid": "u", "generation": 4 },
        "spec": { "version": "v2", "services": "none" },
        // Of the edit before.
        "status": { "observedGeneration": 3 },
    });
    let found = Reading::of(object).unwrap();
    let Reading::Unreadable(flag) = found else { panic!("it was read: {found:?}") };
    let patch = flag.patch(UnixMs(1_000_000)).unwrap();
    json!({ "metadata": { "name": "reviews", "generation": 4 }, "spec": {}, "status": patch.get("status") })
}

fn cases() -> Vec<(String, Value)> {
    let mut laggards = blocked(SPREADING, "Laggards");
    laggards.fleet = Fleet { acked: 1, ..Fleet::unknown(2) };
    laggards.fleet.laggards = vec![Laggard { proxy: "cart.shop".to_owned(), why: "last seen 9 s ago".to_owned() }];
    let drifted = world(STABLE).with_problem(Problem::new(Reason::RouteConflict, "a VirtualService has its host too"));
    let mut unmoved = resource(&world(STABLE));
    *unmoved.pointer_mut("/metadata/generation").unwrap() = 5.into();
    let phases = Phase::ALL.iter().map(|phase| (phase.name().to_owned(), resource(&in_phase(*phase))));
    let others = [
        ("switched and cleaned up", resource(&world(DONE))),
        (
            "waits for a promotion",
            resource(&blocked(&STARTING.replace("Coexisting", "AwaitingPromotion"), "AwaitingPromotion")),
        ),
        ("suspended in a switch", resource(&blocked(SETTLING, "Suspended"))),
        ("suspended at rest", resource(&blocked(STABLE, "Suspended"))),
        ("blocked before the flip", resource(&blocked(STARTING, "HeadroomShort"))),
        ("blocked after the flip", resource(&laggards)),
        ("blocked while it settles", resource(&blocked(SETTLING, "QuietUnknown"))),
        ("a route leads past it", resource(&drifted)),
        ("the active version is not ready", resource(&blocked(STABLE, "ActiveNotReady"))),
        ("goes back", resource(&world(GOES_BACK))),
        ("taken back", resource(&world(TAKEN_BACK))),
        ("not understood", unreadable()),
        ("an edit that nobody has looked at", unmoved),
        ("a flag that nobody has looked at", json!({ "metadata": { "generation": 1 }, "spec": { "version": "v1" } })),
    ];
    phases.chain(others.map(|(name, resource)| (name.to_owned(), resource))).collect()
}

/// A value as Lua writes it: what has nothing in it that has parts is one line. Sentences have no other signs than JSON
/// and Lua write alike.
fn lua(value: &Value, indent: usize) -> String {
    let parts: Vec<String> = match value {
        Value::Object(fields) => {
            let known: BTreeMap<_, _> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            known.into_iter().map(|(key, value)| format!("[{key:?}] = {}", lua(value, indent + 1))).collect()
        }
        Value::Array(all) => all.iter().map(|value| lua(value, indent + 1)).collect(),
        _ => return value.to_string(),
    };
    if parts.iter().any(|part| part.contains('{')) {
        let pad = "  ".repeat(indent);
        let lines: String = parts.iter().map(|part| format!("{pad}  {part},\n")).collect();
        return format!("{{\n{lines}{pad}}}");
    }
    format!("{{ {} }}", parts.join(", "))
}

#[test]
fn every_phase_is_a_case_of_the_health_check() {
    let mut out =
        "-- Made from the controller's code: UPDATE_GOLDENS=1 cargo test -p versionflag-cluster health::\nreturn {\n"
            .to_owned();
    for (name, resource) in cases() {
        writeln!(out, "  [{name:?}] = {},", lua(&resource, 1)).unwrap();
    }
    out.push_str("}\n");
    golden::compare("manifests/argocd/health_cases.lua", &out);
}

/// What Flux and Helm make of it: the rules of kstatus for a kind that it does not know, in its order.
fn kstatus(object: &Value) -> &'static str {
    let observed = object.pointer("/status/observedGeneration").filter(|observed| !observed.is_null());
    if observed.is_some_and(|observed| Some(observed) != object.pointer("/metadata/generation")) {
        return "InProgress";
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let of = |kind: &str| conditions?.iter().find(|one| one["type"] == kind).map(|one| one["status"] == "True");
    match (of("Reconciling"), of("Stalled"), of("Ready")) {
        (Some(true), Some(true), _) => "both",
        (Some(true), _, _) => "InProgress",
        (_, Some(true), _) => "Failed",
        (_, _, Some(false)) => "InProgress",
        _ => "Current",
    }
}

#[test]
fn who_waits_by_kstatus_waits_until_it_has_settled_and_no_longer_than_it_moves() {
    let expected = |name: &str| match name {
        "Stable" | "Retaining" | "Removing" | "switched and cleaned up" => "Current",
        // There are no conditions yet.
        "a flag that nobody has looked at" => "Current",
        "blocked before the flip" | "blocked after the flip" | "blocked while it settles" => "Failed",
        "a route leads past it" | "the active version is not ready" | "not understood" => "Failed",
        _ => "InProgress",
    };
    let found: Vec<_> = cases().iter().map(|(name, object)| (name.clone(), kstatus(object))).collect();
    let wanted: Vec<_> = found.iter().map(|(name, _)| (name.clone(), expected(name))).collect();
    assert_eq!(found, wanted);
}

/// While the old version stays, somebody asks for the next one: that goes on.
#[test]
fn the_next_version_is_waited_for_while_the_old_one_stays() {
    for phase in ["Retaining", "Removing"] {
        let mut world = world(&RETAINING.replace("phase: Retaining", &format!("phase: {phase}")));
        world.spec.version = "v3".to_owned();
        assert_eq!(kstatus(&resource(&world)), "InProgress", "{phase}");
        let reconciling = world.condition("Reconciling");
        assert_eq!(reconciling, Some(("True".to_owned(), phase.to_owned())), "{phase}");
    }
}
