//! Who carries out the routes and brings the filter to the proxies: one provider for each `spec.routing.provider`.
//! I/O: through the mesh.
//!
//! | module | provider |
//! | --- | --- |
//! | `istio` | VirtualServices and DestinationRules |
//! | `gateway_api` | HTTPRoutes and Services of versions |
//! | `in_mesh` | what those two have in common, and the plugin |
//! | `files` | files in a ConfigMap, for Envoys that read them |

mod files;
mod gateway_api;
mod in_mesh;
mod istio;

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;
use futures_util::future::LocalBoxFuture;
use machine::observation::{ServiceFacts, VersionState};
use machine::plan::RouteOrder;
use machine::reason::Problem;
use machine::spec::{self, Spec};
use machine::status::Status;
use machine::time::UnixMs;

use super::context::{Context, TurnError};
use super::resource::VersionFlag;
use super::service_facts::ServicePlace;
use super::workloads::{Objects, Workloads};

/// A flag as its provider looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) now: UnixMs,
    /// `NAMESPACE/NAME` of the flag.
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) resource: &'a VersionFlag,
    /// The spec in force.
    pub(crate) spec: &'a Spec,
    pub(crate) status: &'a Status,
    /// What is in the namespace of the flag, and the pods of its callers.
    pub(crate) objects: &'a Objects,
    pub(crate) workloads: &'a Workloads,
    /// What the state machine sees of each version.
    pub(crate) versions: &'a BTreeMap<String, VersionState>,
    /// Why its routes could not be written last.
    pub(crate) unwritten: Option<&'a str>,
}

/// The proxies of a flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxySet {
    /// Those that have to ack.
    pub(crate) expected: BTreeSet<String>,
    /// Those that are sent its record.
    pub(crate) audience: BTreeSet<String>,
}

/// Files that the proxies read, by name.
pub(crate) type Files = BTreeMap<String, String>;

/// Carries out routes and configurations.
pub(crate) trait Provider: Sync {
    /// The namespace by which proxies find themselves in a record; empty where they are told.
    fn namespace(&self, subject: &Subject<'_>) -> String;

    /// The proxies of the flag.
    fn proxies(&self, subject: &Subject<'_>) -> ProxySet;

    /// Since when what brings the filter to the proxies has been there, where it comes to those that run.
    fn filter_since(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<UnixMs>;

    /// What is known of each service, its routes among it.
    fn services(&self, subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts>;

    /// Everything that has to be put right before something can be done for the flag.
    fn problems(&self, subject: &Subject<'_>, context: &Context<'_>) -> Vec<Problem>;

    /// What is wrong with its routes.
    fn routes(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem>;

    /// Writes routes, or says which files have to be written for them.
    fn route<'a>(
        &'a self,
        subject: Subject<'a>,
        order: &'a RouteOrder,
        context: &'a Context<'a>,
    ) -> LocalBoxFuture<'a, Result<Files, TurnError>>;

    /// Brings the record to the configuration of the proxies, or says which files have to be written for it.
    fn configure(&self, subject: &Subject<'_>, record: &Record, context: &Context<'_>) -> Result<Files, TurnError>;
}

/// The provider that a spec asks for.
pub(crate) fn provider(spec: &Spec) -> &'static dyn Provider {
    match spec.routing.provider {
        spec::Provider::Istio => &istio::Istio,
        spec::Provider::GatewayAPI => &gateway_api::GatewayApi,
        spec::Provider::External => &files::External,
    }
}

impl Subject<'_> {
    /// Every version that a record may name.
    fn known_versions(&self) -> BTreeSet<String> {
        let recorded = self.status.record.iter().flat_map(|record| &record.versions);
        let found = self.workloads.versions().into_iter().map(str::to_owned);
        found.chain(recorded.cloned()).chain([self.spec.version.clone()]).collect()
    }

    fn place<'a>(&'a self, context: &Context<'a>) -> ServicePlace<'a> {
        ServicePlace {
            domain: context.domain,
            namespace: self.namespace,
            services: &self.objects.services,
            groups: &self.workloads.services,
        }
    }
}
