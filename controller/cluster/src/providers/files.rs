//! Envoys that read files: their routes and their filter in a ConfigMap. No I/O: who asks writes the files.

use std::collections::BTreeMap;

use flag::config::{Role, Workload};
use flag::record::Record;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use machine::envoy::{self, Filter};
use machine::observation::ServiceFacts;
use machine::plan::RouteOrder;
use machine::reason::Problem;

use super::{Files, Provider, ProxySet, Subject};
use crate::context::{Context, TurnError};
use crate::proxies;
use crate::status::unsupported;

/// `spec.routing.provider: External`.
pub(super) struct External;

impl Provider for External {
    fn namespace(&self, _: &Subject<'_>) -> String {
        String::new()
    }

    fn proxies(&self, subject: &Subject<'_>) -> ProxySet {
        let expected = proxies::expected(subject.namespace, subject.spec, &subject.objects.pods);
        ProxySet { audience: expected.clone(), expected }
    }

    fn services(&self, subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        subject.place(context).by_files(subject.spec)
    }

    fn problem(&self, subject: &Subject<'_>, _: &Context<'_>) -> Option<Problem> {
        unsupported(subject.spec)
    }

    fn routes(&self, _: &Subject<'_>, _: &Context<'_>) -> Option<Problem> {
        None
    }

    fn route<'a>(
        &'a self,
        subject: Subject<'a>,
        order: &'a RouteOrder,
        _: &'a Context<'a>,
    ) -> LocalBoxFuture<'a, Result<Files, TurnError>> {
        let text = envoy::routes(&subject.spec.routing.header, &order.record);
        let files = text.map(|text| Files::from([("routes.json".to_owned(), text)]));
        async { Ok(files?) }.boxed_local()
    }

    fn configure(&self, subject: &Subject<'_>, record: &Record, context: &Context<'_>) -> Result<Files, TurnError> {
        let filter = Filter {
            wasm: context.filter_path,
            cluster: context.flag_service_cluster,
            role: Role::Auto,
            workload: None,
            header: &subject.spec.routing.header,
        };
        let mut files = Files::from([("filter.json".to_owned(), envoy::filter(filter.clone(), record)?)]);
        for (name, workload) in sidecars(subject) {
            let filter = Filter { workload: Some(workload), ..filter.clone() };
            files.insert(name, envoy::filter(filter, record)?);
        }
        Ok(files)
    }
}

/// One file for each version of a service, for the proxies beside it.
fn sidecars(subject: &Subject<'_>) -> BTreeMap<String, Workload> {
    let groups = subject.workloads.services.iter().flat_map(|(service, groups)| {
        groups.keys().map(move |version| Workload { service: service.clone(), version: version.clone() })
    });
    groups.map(|workload| (format!("{}-{}.json", workload.service, workload.version), workload)).collect()
}
