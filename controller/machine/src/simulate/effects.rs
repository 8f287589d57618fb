//! Effects in words. Pure.

use std::collections::BTreeSet;

use flag::fence::Fence;
use flag::record::Gate;

use crate::plan::{Effect, RouteOrder};
use crate::publication::Publication;

/// What an effect does, for people.
pub(super) fn words(effect: &Effect) -> String {
    match effect {
        Effect::Protect { version, epoch } => {
            format!("protect {version}: no stop of it that was decided before epoch {epoch} may still happen")
        }
        Effect::Start { version, like: Some(like) } if like != version => {
            format!("have {version} running, as strong as {like}")
        }
        Effect::Start { version, .. } => format!("have {version} running"),
        Effect::Cluster { versions } => format!("have clusters of {}", listed(versions)),
        Effect::Publish(publication) => published(publication),
        Effect::Route(order) => routes(order),
        Effect::Configure(record) => format!("configure: proxies that start anew begin with epoch {}", record.epoch),
        Effect::Stop { version } => format!("stop {version}"),
        Effect::Delete { version } => format!("delete {version}"),
    }
}

fn published(publication: &Publication) -> String {
    let record = &publication.record;
    let preview = record
        .preview
        .as_ref()
        .map(|preview| format!("; those with {}: {} go to {}", preview.header, preview.value, preview.version));
    let also = [(publication.prove_routes, "show their routes"), (publication.measure, "measure answers")];
    let also: String = also.iter().filter(|(asked, _)| *asked).map(|(_, what)| format!(", {what}")).collect();
    let goes = if record.gate == Gate::Hold {
        "new requests wait, those of before go on; active is"
    } else {
        "requests go to"
    };
    let refused = publication.fence.as_ref().map(refused).unwrap_or_default();
    format!(
        "publish epoch {}: {goes} {}{} (versions {}){refused}; proxies report every {}{also}",
        record.epoch,
        record.active,
        preview.unwrap_or_default(),
        listed(&record.versions),
        publication.report_every,
    )
}

/// What proxies beside workloads refuse.
fn refused(fence: &Fence) -> String {
    let marked = fence.marked.iter().map(|version| format!("; {version} takes only what a filter sent there"));
    let closed = fence.closed.iter().map(|version| format!("; {version} refuses all"));
    marked.chain(closed).collect()
}

fn routes(order: &RouteOrder) -> String {
    let active = &order.record.active;
    if order.services.is_empty() {
        return format!("write routes to {}, by default to {active}", listed(&order.record.versions));
    }
    let services = order.services.iter().map(|(service, routes)| {
        let written = routes.routes.iter().map(|(name, versions)| format!("route {name} to {}", listed(versions)));
        let written = written.collect::<Vec<_>>().join(", ");
        let written =
            if written.is_empty() { "no route yet".to_owned() } else { format!("{written}, by default to {active}") };
        format!("{service} has destinations {} and {written}", listed(&routes.destinations))
    });
    format!("write routes: {}", services.collect::<Vec<_>>().join("; "))
}

fn listed(versions: &BTreeSet<String>) -> String {
    versions.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
