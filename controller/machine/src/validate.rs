//! What of a spec is not valid. Pure.

use std::collections::BTreeSet;

use flag::record::{RecordError, check_name, check_version};

use crate::observation::Observation;
use crate::record::Draft;
use crate::spec::{NO_FENCE, NO_HEADER, Spec, SwitchMode, attach, check};

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
        let headers =
            [("routing", Some(&self.routing.header)), ("preview", self.preview.as_ref().map(|one| &one.header))];
        for (part, header) in headers {
            if let Some(header) = header.filter(|header| !flag::config::is_header(header)) {
                wrong.push(format!("spec.{part}.header {header:?} {NO_HEADER}"));
            }
        }
        if self.callers.gateways.iter().any(|gateway| gateway.match_labels.is_empty()) {
            wrong.push("spec.callers.gateways: matchLabels is empty: name at least one label".to_owned());
        }
        if self.switch.mode == SwitchMode::Fenced {
            wrong.push(format!("spec.switch.mode Fenced {NO_FENCE}"));
        }
        wrong.extend(attach::validate(self));
        wrong.extend(check::validate(&self.checks));
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
        let draft = Draft { uid: "spec", name: "spec", epoch, active, versions: &versions, preview };
        draft.record(self, &Observation::unknown()).seal().map(|_| ())
    }
}
