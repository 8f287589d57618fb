//! Services that are another name of a flag's Service, and nothing that the filter knows. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use machine::reason::Problem;

use crate::istio::check::{RouteNeeds, conflict};

/// A Service of type ExternalName that leads to the flag's, and that the flag does not list among its hosts: whoever
/// uses it chooses no version.
pub fn unlisted(wanted: &RouteNeeds<'_>, listed: &BTreeSet<String>, services: &[Arc<Service>]) -> Option<Problem> {
    let service = services.iter().find(|service| {
        let place = service.namespace().unwrap_or_default();
        let to = service.spec.as_ref().and_then(|spec| spec.external_name.as_deref());
        let leads = to.is_some_and(|to| to.contains('.') && wanted.is(to, &place));
        let names = wanted.domain.hosts(&service.name_any(), &place);
        leads && !listed.iter().any(|host| names.contains(flag::host::normalize(host).as_ref()))
    })?;
    let (name, place) = (service.name_any(), service.namespace().unwrap_or_default());
    let message = format!(
        "Service {place}/{name} (ExternalName) is another name of Service {}, and who uses it goes past the flag: add {} \
         to its hosts in spec.services, or let everybody use {}",
        wanted.service,
        wanted.domain.host(&name, &place),
        wanted.domain.host(wanted.service, wanted.namespace)
    );
    Some(conflict(message, String::new()))
}
