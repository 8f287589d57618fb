//! Where proxies reach each version, and under which names. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use super::file::{File, Local};
use super::process::Process;

/// Where a version takes requests, and how it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// It speaks HTTP/2 without TLS, and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
}

/// The endpoints of these versions: as each was started, otherwise as the file says, otherwise as they were before. A
/// version of which none of that is known has none.
pub(crate) fn endpoints(
    versions: &BTreeSet<String>,
    local: &Local,
    processes: &BTreeMap<String, Process>,
    before: &BTreeMap<String, Endpoint>,
) -> BTreeMap<String, Endpoint> {
    let endpoint = |version: &String| {
        let started = processes.get(version).and_then(|process| process.started_as.as_ref());
        let (how, before) = (local.versions.get(version), before.get(version));
        let file = how.map(|how| how.address);
        let address = started.map(|started| started.address).or(file).or(before.map(|before| before.address))?;
        let http2 = how.map(|how| how.http2).or(before.map(|before| before.http2)).unwrap_or_default();
        Some((version.clone(), Endpoint { address, http2 }))
    };
    versions.iter().filter_map(endpoint).collect()
}

/// The clusters of all services by name: callers reach a version through the proxy in front of it, if it has one.
pub(crate) fn clusters(file: &File, endpoints: &BTreeMap<String, Endpoint>) -> BTreeMap<String, Endpoint> {
    let of_service = file.spec.services.iter().flat_map(|service| {
        endpoints.iter().flat_map(move |(version, endpoint)| {
            let in_front = file.local.in_front(&service.name, version).map(|sidecar| sidecar.listen);
            let endpoint = Endpoint { address: in_front.unwrap_or(endpoint.address), ..*endpoint };
            service.clusters_of(version).into_iter().map(move |name| (name, endpoint))
        })
    });
    of_service.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::*;

    fn file() -> File {
        let text = "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews}, \
                    spec: {version: v1, services: [{name: reviews, clusters: {v1: [r-1, r-one]}}]}, \
                    local: {proxies: [{id: edge}, {id: s, sidecar: {service: reviews, version: v2, filter: f.json, \
                    listen: '127.0.0.1:9102'}}], filterConfig: {path: e.json, wasm: w}, versions: { \
                    v1: {command: [a], address: '127.0.0.1:9001'}, \
                    v2: {command: [a], address: '127.0.0.1:9002', http2: true}}}}";
        File::parse(text, Path::new("/etc/reviews.yaml")).unwrap()
    }

    fn at(port: u16) -> Endpoint {
        Endpoint { address: SocketAddr::from(([127, 0, 0, 1], port)), http2: false }
    }

    fn started(port: u16) -> Process {
        let json = format!("{{\"id\": \"1\", \"startedAs\": {{\"command\": [], \"address\": \"127.0.0.1:{port}\"}}}}");
        serde_json::from_str(&json).unwrap()
    }

    /// T10: an address that was edited counts from the next start; what is not in the file any more stays where it was.
    #[rstest]
    #[case::as_the_file_says(&[], &[], &["v1"], &[("v1", at(9001))])]
    #[case::as_it_was_started(&[("v1", 9011)], &[], &["v1"], &[("v1", at(9011))])]
    #[case::as_it_was_before(&[], &[("v0", at(9000)), ("v1", at(9))], &["v0", "v1"], &[("v0", at(9000)), ("v1", at(9001))])]
    #[case::undeclared_and_runs(&[("v0", 9010)], &[("v0", at(9000))], &["v0"], &[("v0", at(9010))])]
    #[case::nobody_knows(&[], &[], &["v0"], &[])]
    fn a_version_is_where_it_was_started(
        #[case] processes: &[(&str, u16)],
        #[case] before: &[(&str, Endpoint)],
        #[case] versions: &[&str],
        #[case] expected: &[(&str, Endpoint)],
    ) {
        let owned = |all: &[(&str, Endpoint)]| all.iter().map(|(name, one)| ((*name).to_owned(), *one)).collect();
        let processes = processes.iter().map(|(name, port)| ((*name).to_owned(), started(*port))).collect();
        let versions = versions.iter().map(|name| (*name).to_owned()).collect();
        let expected: BTreeMap<String, Endpoint> = owned(expected);
        assert_eq!(endpoints(&versions, &file().local, &processes, &owned(before)), expected);
    }

    #[test]
    fn a_cluster_has_the_names_of_the_spec_and_leads_to_the_proxy_in_front() {
        let all = BTreeMap::from([("v1".to_owned(), at(9001)), ("v2".to_owned(), at(9002))]);
        let names = [("r-1", at(9001)), ("r-one", at(9001)), ("reviews-v2", at(9102))];
        let expected = names.map(|(name, endpoint)| (name.to_owned(), endpoint)).into();
        assert_eq!(clusters(&file(), &all), expected);
    }
}
