//! What of a spec is not valid. Pure.

use std::collections::BTreeSet;

use flag::host::is_host;
use flag::record::{RecordError, check_name, check_version};

use crate::observation::Observation;
use crate::record::Draft;
use crate::spec::{NO_HEADER, NO_HOST, NO_ROUTING_HEADER, Spec, attach, check, fence};

impl Spec {
    /// Everything that is wrong with it, in sentences. Empty: it is valid.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = vec![];
        let mut note = |result: Result<(), RecordError>| wrong.extend(result.err().map(|error| error.to_string()));
        note(check_version("spec.version", &self.version));
        note(self.drafted());
        note(check_name("spec.versionLabel", &self.version_label));
        if let Some(preview) = &self.preview {
            note(check_name("spec.preview.value", &preview.value));
        }
        let hosts = self.services.iter().flat_map(|service| &service.hosts).filter(|host| !is_host(host));
        wrong.extend(hosts.map(|host| format!("spec.services.hosts {host:?} {NO_HOST}")));
        wrong.extend(self.headers());
        if self.callers.gateways.iter().any(|gateway| gateway.match_labels.is_empty()) {
            wrong.push("spec.callers.gateways: matchLabels is empty: name at least one label".to_owned());
        }
        wrong.extend(fence::validate(self));
        wrong.extend(self.coexistence.validate());
        wrong.extend(self.coexistence.probe.validate());
        wrong.extend(self.settle.health_checks.validate());
        wrong.extend(attach::validate(self));
        wrong.extend(check::validate(&self.checks));
        wrong
    }

    /// What is wrong with the headers that proxies are to read or to write.
    fn headers(&self) -> Vec<String> {
        let mut wrong = vec![];
        let routing = &self.routing.header;
        let is_ours = routing.starts_with("x-") && routing.contains("version");
        if !flag::config::is_header(routing) || !is_ours {
            wrong.push(format!("spec.routing.header {routing:?} {NO_ROUTING_HEADER}"));
        }
        if let Some(header) = self.preview.as_ref().map(|preview| &preview.header) {
            if !flag::config::is_header(header) {
                wrong.push(format!("spec.preview.header {header:?} {NO_HEADER}"));
            }
            if header == routing {
                wrong.push(format!("spec.preview.header {header:?} is the routing header, which no client may choose"));
            }
        }
        wrong
    }

    /// Whether the services make a record, with every version that they name. One whose versions have names that
    /// are not valid says so elsewhere.
    fn drafted(&self) -> Result<(), RecordError> {
        let mut versions: BTreeSet<String> =
            self.services.iter().flat_map(|service| service.clusters.keys().cloned()).collect();
        versions.insert(self.version.clone());
        if versions.iter().any(|version| check_version("version", version).is_err()) {
            return Ok(());
        }
        let (epoch, active, preview) = (1, self.version.as_str(), None);
        let draft = Draft { uid: "spec", name: "spec", epoch, active, versions: &versions, preview, before: None };
        let sealed = draft.record(self, &Observation::unknown()).seal();
        sealed.map(|_| ()).map_err(|error| match error {
            // By its name in the spec.
            RecordError::Twice { field, value } => RecordError::Twice {
                field: match field {
                    "service" => "spec.services.name",
                    "cluster" => "spec.services.clusters",
                    "host" => "spec.services.hosts",
                    other => other,
                },
                value,
            },
            error => error,
        })
    }
}
