//! What of an operator's file is not valid. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flag::record::{check_name, check_version};
use machine::duration::Millis;
use machine::spec::{CleanupPolicy, Management, Provider, Replicas};
use nix::sys::signal::Signal;

use super::file::{File, FilterConfig, VersionCommand};
use super::files::plain;

/// Files of a version's output that may be kept: each is renamed when there is one more.
const MAX_LOGS: u32 = 100;
/// The length of a longer name would have more than one byte in a message of gRPC.
const MAX_GRPC_SERVICE: usize = 127;

impl File {
    /// What a spec may ask for, but not of this machine.
    fn unsupported(&self) -> Vec<String> {
        let mut wrong = vec![];
        let mut refuse = |asked: bool, why: &str| wrong.extend(asked.then(|| why.to_owned()));
        let spec = &self.spec;
        refuse(
            !spec.callers.is_empty(),
            "spec.callers is not supported by `local`: its proxies are listed in local.proxies",
        );
        refuse(
            spec.coexistence.replicas == Replicas::AsDeclared,
            "spec.coexistence.replicas AsDeclared is not supported by `local`: a version is one process",
        );
        refuse(
            spec.routing.provider == Provider::GatewayAPI,
            "spec.routing.provider GatewayAPI is not supported by `local`: its Envoys read files",
        );
        refuse(
            spec.routing.management == Management::UserProvided,
            "spec.routing.management is not supported by `local`: leave local.filterConfig.routes out where the routes \
             are yours",
        );
        refuse(
            spec.cleanup.policy == CleanupPolicy::Delete,
            "spec.cleanup.policy Delete is not supported by `local`, where a stopped version leaves nothing: use \
             ScaleToZero",
        );
        wrong
    }

    /// What is read would be overwritten: the operator's file, which is at `path`, and what else it names. All paths are
    /// as they are opened.
    pub(crate) fn overwritten(&self, path: &Path) -> Vec<String> {
        let filter = self.local.filter_config.as_ref();
        let filters = [
            ("filterConfig.path", filter.map(|filter| &filter.path)),
            ("filterConfig.routes", filter.and_then(|filter| filter.routes.as_ref())),
            ("filterConfig.clusters", filter.and_then(|filter| filter.clusters.as_ref())),
            ("stateFile", Some(&self.local.state_file)),
        ];
        let sidecars = self.local.sidecars().map(|sidecar| ("proxies", Some(&sidecar.filter)));
        let written = filters.into_iter().chain(sidecars).filter_map(|(field, file)| Some((field, plain(file?))));
        let wasm = filter.map(|filter| ("local.filterConfig.wasm", plain(&filter.wasm)));
        let state = ("local.stateFile", plain(&self.local.state_file));
        let read: Vec<_> = [("this file itself", plain(path)), state].into_iter().chain(wasm).collect();
        let clash = |(field, file): (&str, PathBuf)| {
            let (what, _) = read.iter().find(|(what, one)| *one == file && *what != format!("local.{field}"))?;
            Some(format!("local.{field}: {} would be overwritten, which is {what}", file.display()))
        };
        written.filter_map(clash).collect()
    }

    /// Each file that is written has one content, and one version stands behind each sidecar.
    fn validate_files(&self) -> Vec<String> {
        let mut wrong = vec![];
        let filter = self.local.filter_config.as_ref();
        let mut files: BTreeSet<&Path> = filter.iter().map(|filter| filter.path.as_path()).collect();
        let more = [
            ("routes", "path", filter.and_then(|filter| filter.routes.as_deref())),
            ("clusters", "path or routes", filter.and_then(|filter| filter.clusters.as_deref())),
        ];
        for (field, others, file) in more {
            if file.is_some_and(|file| !files.insert(file)) {
                wrong.push(format!("local.filterConfig.{field} is the same file as its {others}"));
            }
        }
        let named = filter.iter().flat_map(|filter| {
            let (path, wasm) = (("path", Some(&filter.path)), ("wasm", Some(&filter.wasm)));
            [path, ("routes", filter.routes.as_ref()), ("clusters", filter.clusters.as_ref()), wasm]
        });
        let empty = named.filter(|(_, file)| file.is_some_and(|file| file.as_os_str().is_empty()));
        wrong.extend(empty.map(|(field, _)| format!("local.filterConfig.{field} is empty: name a file")));
        if filter.is_some_and(|filter| filter.cluster.is_empty()) {
            wrong.push("local.filterConfig.cluster is empty: name Envoy's cluster of the flag service".to_owned());
        }
        for service in &self.spec.services {
            let all = self.clusters(service);
            let own = |filter: &&FilterConfig| all.values().flatten().any(|name| *name == filter.cluster);
            wrong.extend(filter.filter(own).map(|filter| {
                let (service, name) = (&service.name, &filter.cluster);
                format!("spec.services.clusters: {name:?} of {service} is the cluster of the flag service: rename one")
            }));
        }
        for sidecar in self.local.sidecars() {
            if filter.is_none() {
                wrong.push("local.filterConfig is missing: sidecars need its `wasm`".to_owned());
            }
            if !self.spec.services.iter().any(|service| service.name == sidecar.service) {
                wrong.push(format!("local.proxies.sidecar.service {:?} is not in spec.services", sidecar.service));
            }
            if !self.local.versions.contains_key(&sidecar.version) {
                wrong.push(format!("local.proxies.sidecar.version {:?} is not in local.versions", sidecar.version));
            }
            if sidecar.filter.as_os_str().is_empty() {
                wrong.push("local.proxies.sidecar.filter is empty: name a file".to_owned());
            }
            if sidecar.listen.port() == 0 {
                wrong.push(format!(
                    "local.proxies.sidecar.listen {} has no port: callers have to know it",
                    sidecar.listen
                ));
            }
            if !files.insert(&sidecar.filter) {
                wrong.push(format!("{} would be written twice: each sidecar needs its own", sidecar.filter.display()));
            }
        }
        wrong
    }

    /// Everything that is wrong with the file, in sentences. Empty: it is valid.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut wrong = self.spec.validate();
        if self.api_version != "versionflag.io/v1alpha1" {
            wrong.push(format!("apiVersion {:?} is not understood: it is versionflag.io/v1alpha1", self.api_version));
        }
        if self.kind != "VersionFlag" {
            wrong.push(format!("kind {:?} is not understood: it is VersionFlag", self.kind));
        }
        let name = check_version("metadata.name", &self.metadata.name);
        wrong.extend(name.err().map(|error| error.to_string()));
        if self.local.proxies.is_empty() {
            wrong.push("local.proxies is empty: without a proxy nothing can be switched or proved".to_owned());
        }
        let mut ids = BTreeSet::new();
        for proxy in &self.local.proxies {
            wrong.extend(check_name("local.proxies.id", &proxy.id).err().map(|error| error.to_string()));
            if !ids.insert(&proxy.id) {
                wrong.push(format!("local.proxies: {:?} occurs twice", proxy.id));
            }
        }
        if self.local.logs.max_bytes() == 0 || machine::quantity::parse(&self.local.logs.max_size).is_none() {
            let size = &self.local.logs.max_size;
            wrong.push(format!("local.logs.maxSize {size:?} is not understood: write it as 500Ki, 10Mi or 1Gi"));
        }
        if self.local.logs.keep > MAX_LOGS {
            wrong.push(format!("local.logs.keep is {}, at most {MAX_LOGS} files are kept", self.local.logs.keep));
        }
        wrong.extend(self.unsupported());
        wrong.extend(self.validate_files());
        if !self.local.versions.contains_key(&self.spec.version) {
            wrong.push(format!("spec.version {:?} is not in local.versions", self.spec.version));
        }
        let mut addresses = BTreeMap::new();
        for (name, version) in &self.local.versions {
            wrong.extend(check_version("local.versions", name).err().map(|error| error.to_string()));
            wrong.extend(version.validate().into_iter().map(|error| format!("local.versions.{name}.{error}")));
            let (address, listen) = (version.address, self.local.listen);
            let is_all = address.ip().is_unspecified() || listen.ip().is_unspecified();
            if address.port() == listen.port() && (is_all || address.ip() == listen.ip()) {
                wrong.push(format!(
                    "local.versions.{name}.address: {address} is that of the flag service (local.listen {listen})"
                ));
            }
            if let Some(other) = addresses.insert(version.address, name) {
                wrong.push(format!("local.versions: {other} and {name} share the address {}", version.address));
            }
        }
        wrong
    }
}

/// What is wrong with a variable of an environment, if anything is.
fn unfit(name: &str, value: &str) -> Option<String> {
    let wrong = match () {
        () if name.is_empty() => "has an empty name",
        () if name.contains('=') => "has a = in its name",
        () if name.contains('\0') || value.contains('\0') => "has a NUL, which ends every text there",
        () if name.starts_with("VERSIONFLAG_") => "is the controller's, which finds its versions by such names",
        () => return None,
    };
    Some(format!("{name:?} {wrong}"))
}

impl VersionCommand {
    fn validate(&self) -> Vec<String> {
        let mut wrong = vec![];
        if self.command.first().is_none_or(String::is_empty) {
            wrong.push("command is empty".to_owned());
        }
        match self.stop.signal.parse::<Signal>() {
            Err(_) => wrong.push(format!("stop.signal {:?} is no signal, such as SIGTERM", self.stop.signal)),
            Ok(Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU) => {
                let signal = &self.stop.signal;
                wrong.push(format!("stop.signal {signal} only halts it: name one that ends it, such as SIGTERM"));
            }
            Ok(_) => {}
        }
        if self.address.port() == 0 {
            wrong.push(format!("address {} has no port: proxies have to know it", self.address));
        }
        wrong.extend(self.env.iter().filter_map(|(name, value)| Some(format!("env {}", unfit(name, value)?))));
        // What else is visible cannot be in a URL.
        let in_url = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '#' | '<' | '>' | '`');
        if self.ready.path.as_ref().is_some_and(|path| !path.starts_with('/') || !path.chars().all(in_url)) {
            wrong.push("ready.path has to start with / and have visible ASCII only, without # < > `".to_owned());
        }
        let spans = [("interval", self.ready.interval), ("timeout", Some(self.ready.timeout))];
        wrong.extend(
            spans.iter().filter(|(_, span)| *span == Some(Millis(0))).map(|(what, _)| format!("ready.{what} is 0s")),
        );
        let ways = [self.ready.path.is_some(), self.ready.grpc.is_some(), self.ready.command.is_some()];
        if ways.iter().filter(|asked| **asked).count() > 1 {
            wrong.push("ready has more than one of path, grpc and command".to_owned());
        }
        if self.ready.grpc.as_ref().is_some_and(|service| service.len() > MAX_GRPC_SERVICE) {
            wrong.push(format!("ready.grpc has more than {MAX_GRPC_SERVICE} bytes"));
        }
        if self.ready.command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty)) {
            wrong.push("ready.command is empty".to_owned());
        }
        let resources = [("memory", &self.resources.memory), ("cpu", &self.resources.cpu)];
        for (what, text) in resources {
            if let Some(text) = text
                && machine::quantity::parse(text).is_none()
            {
                wrong.push(format!("resources.{what} {text:?} is not understood: write it as 500m, 2, 100Mi or 1Gi"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// T34: nothing that is read is written for Envoy, by whatever way its name leads there.
    #[rstest]
    #[case::itself(
        "path: reviews.yaml, wasm: f.wasm",
        "local.filterConfig.path: /etc/flags/reviews.yaml would be over"
    )]
    #[case::by_another_way("path: ../flags/./reviews.yaml, wasm: f.wasm", "which is this file itself")]
    #[case::the_filter("path: f.wasm, wasm: f.wasm", "which is local.filterConfig.wasm")]
    #[case::as_clusters(
        "path: f.json, wasm: f.wasm, routes: r.json, clusters: ./f.wasm",
        "local.filterConfig.clusters: "
    )]
    #[case::the_state("path: reviews.state.json, wasm: f.wasm", "which is local.stateFile")]
    #[case::apart("path: f.json, wasm: f.wasm", "")]
    fn what_is_read_is_not_written(#[case] filter: &str, #[case] says: &str) {
        let text = format!(
            "{{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {{name: reviews}},
              spec: {{version: v1, services: [{{name: reviews, hosts: [reviews.example]}}]}},
              local: {{proxies: [{{id: edge}}], filterConfig: {{{filter}}},
                versions: {{v1: {{command: [server], address: '127.0.0.1:9001'}}}}}}}}"
        );
        let read = File::parse(&text, Path::new("/etc/flags/reviews.yaml"));
        let error = read.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{error}");
    }
}
