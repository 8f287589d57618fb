//! Envoys that read files: their routes and their filter in a ConfigMap. No I/O: who asks writes the files.

use std::collections::BTreeMap;

use flag::config::{Role, Workload};
use flag::record::Record;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use machine::envoy::{self, Filter};
use machine::observation::ServiceFacts;
use machine::plan::RouteOrder;
use machine::reason::{Problem, Reason};
use machine::time::UnixMs;

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
        let (namespace, spec) = (subject.namespace, subject.spec);
        let expected = proxies::expected(namespace, spec, subject.objects);
        ProxySet { expected, audience: proxies::audience(namespace, spec, &subject.objects.pods) }
    }

    fn filter_since(&self, _: &Subject<'_>, _: &Context<'_>) -> Option<UnixMs> {
        None
    }

    fn services(&self, subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        subject.place(context).by_files(subject.spec)
    }

    fn problems(&self, subject: &Subject<'_>, _: &Context<'_>) -> Vec<Problem> {
        let same = two_of_one_name(pairs(subject)).map(|message| Problem::new(Reason::Workloads, message));
        unsupported(subject.spec).into_iter().chain(same).collect()
    }

    fn routes(&self, subject: &Subject<'_>, _: &Context<'_>) -> Option<Problem> {
        subject.unwritten.map(|message| Problem::new(Reason::FilesNotWritten, message))
    }

    fn route<'a>(
        &'a self,
        subject: Subject<'a>,
        order: &'a RouteOrder,
        _: &'a Context<'a>,
    ) -> LocalBoxFuture<'a, Result<Files, TurnError>> {
        let text = envoy::routes(&[(subject.spec.routing.header.as_str(), &order.record)]);
        let files = text.map(|text| Files::from([("routes.json".to_owned(), text)]));
        async { Ok(files?) }.boxed_local()
    }

    fn configure(&self, subject: &Subject<'_>, record: &Record, context: &Context<'_>) -> Result<Files, TurnError> {
        let filter = Filter {
            wasm: context.filter_path,
            build: "",
            cluster: context.flag_service_cluster,
            role: Role::Auto,
            workload: None,
            header: &subject.spec.routing.header,
        };
        let mut files = Files::from([("filter.json".to_owned(), envoy::filter(filter.clone(), &[record])?)]);
        for (name, workload) in sidecars(subject) {
            let filter = Filter { workload: Some(workload), ..filter.clone() };
            files.insert(name, envoy::filter(filter, &[record])?);
        }
        Ok(files)
    }
}

/// Every version of every service.
fn pairs<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a String, &'a String)> {
    let services = subject.workloads.services.iter();
    services.flat_map(|(service, groups)| groups.keys().map(move |version| (service, version)))
}

/// The file of a version of a service, for the proxies beside it.
fn file_name(service: &str, version: &str) -> String {
    format!("{service}-{version}.json")
}

/// One file for each version of a service.
fn sidecars(subject: &Subject<'_>) -> BTreeMap<String, Workload> {
    let workload = |(service, version): (&String, &String)| {
        (file_name(service, version), Workload { service: service.clone(), version: version.clone() })
    };
    pairs(subject).map(workload).collect()
}

/// Says which two versions would have one file: `reviews` with `v2-canary` and `reviews-v2` with `canary` have.
fn two_of_one_name<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Option<String> {
    let mut names = BTreeMap::new();
    pairs.into_iter().find_map(|(service, version)| {
        let name = file_name(service, version);
        let (other, its) = names.insert(name.clone(), (service, version))?;
        Some(format!(
            "the file {name} would be that of {its} of Service {other} and of {version} of Service {service}: give one \
             of the versions another name"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::two_of_one_name;

    #[test]
    fn two_versions_with_one_file_are_named() {
        let owned = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        let mut all = vec![owned("reviews", "v1"), owned("reviews", "v2-canary"), owned("reviews-v2", "v1")];
        let told = |all: &[(String, String)]| two_of_one_name(all.iter().map(|(service, version)| (service, version)));
        assert_eq!(told(&all), None);
        all.push(owned("reviews-v2", "canary"));
        assert!(
            told(&all).unwrap().starts_with("the file reviews-v2-canary.json would be that of v2-canary of Service")
        );
    }
}
