//! The requests of a proxy's clients.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::super::host::{Calls, lock};
use super::{Proxy, Worker};

const CONTINUE: i32 = 0;
/// What every client says that the version is.
pub(crate) const CLAIMED: &str = "v9";

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was sent, marked like this.
    Sent(String),
    Waits,
    /// It was answered in place of a version: with this status, for this reason.
    Refused(String),
}

impl Proxy {
    /// The version that a whole request at this worker is sent to; `None`: it is held, and its
    /// client goes away.
    pub(crate) fn request(&mut self, worker: usize) -> Result<Option<String>> {
        self.request_to(worker, "reviews", "reviews-v1")
    }

    /// The same to a host, where routes lead to a cluster as long as no version is chosen.
    pub(crate) fn request_to(&mut self, worker: usize, host: &str, cluster: &str) -> Result<Option<String>> {
        let headers = [(":authority", host), ("x-versionflag", CLAIMED)];
        self.request_with(worker, &headers, cluster, None)
    }

    /// The same with these headers; `served`: by this cluster, whatever was chosen.
    fn request_with(
        &mut self,
        worker: usize,
        headers: &[(&str, &str)],
        cluster: &str,
        served: Option<&str>,
    ) -> Result<Option<String>> {
        self.workers[worker].vm.store.data_mut().cluster = cluster.to_owned();
        let (context, action) = self.arrives(worker, headers)?;
        let vm = &mut self.workers[worker].vm;
        let mut version = None;
        if action == Some(CONTINUE) {
            let marked = vm.store.data().headers[&context].get("x-versionflag").cloned();
            let chosen = marked.as_ref().map(|version| format!("reviews-{version}"));
            let to = served.map(str::to_owned).or(chosen).unwrap_or_else(|| cluster.to_owned());
            vm.store.data_mut().sent_to.insert(context, to);
            vm.call("proxy_on_response_headers", context, &[context, 1, 0])?;
            version = Some(marked.unwrap_or_else(|| "unmarked".to_owned()));
        }
        vm.delete(context)?;
        vm.store.data_mut().headers.remove(&context);
        vm.store.data_mut().sent_to.remove(&context);
        Ok(version)
    }

    /// What a whole request at the first worker calls.
    pub(crate) fn calls_of(&mut self, headers: &[(&str, &str)], cluster: &str, served: Option<&str>) -> Result<Calls> {
        self.workers[0].vm.store.data_mut().calls = Some(Calls::default());
        ensure!(self.request_with(0, headers, cluster, served)?.is_some(), "it is held");
        Ok(self.workers[0].vm.store.data_mut().calls.take().unwrap_or_default())
    }

    /// One at each worker; whatever is wrong, one of these versions serves.
    pub(crate) fn requests_go_to(&mut self, versions: &[&str]) -> Result<()> {
        for worker in self.live() {
            let version = self.request(worker)?;
            let known = version.as_deref().is_some_and(|version| versions.contains(&version));
            ensure!(known, "worker {worker} sends to {version:?}, not {versions:?}: {:#?}", lock(&self.shared).log);
        }
        Ok(())
    }

    /// Begins a request, which stays open. It has not been sent to anybody yet.
    pub(crate) fn begin(&mut self, worker: usize, headers: &[(&str, &str)]) -> Result<i32> {
        self.arrives(worker, headers).map(|(context, _)| context)
    }

    /// A new request, and what the filter has Envoy do with it.
    fn arrives(&mut self, worker: usize, headers: &[(&str, &str)]) -> Result<(i32, Option<i32>)> {
        self.arrives_with(worker, headers, true)
    }

    /// The same; `ends`: it has no body.
    fn arrives_with(&mut self, worker: usize, headers: &[(&str, &str)], ends: bool) -> Result<(i32, Option<i32>)> {
        let context = self.next_context();
        let Worker { vm, plugin, .. } = &mut self.workers[worker];
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        vm.store.data_mut().headers.insert(context, headers.collect());
        vm.call("proxy_on_context_create", context, &[context, *plugin])?;
        let action = vm.call("proxy_on_request_headers", context, &[context, 1, ends.into()])?;
        if action != Some(CONTINUE) {
            vm.store.data_mut().stopped.insert(context);
        }
        Ok((context, action))
    }

    /// Begins a request, and says what becomes of it at once.
    pub(crate) fn meets(&mut self, worker: usize, headers: &[(&str, &str)], ends: bool) -> Result<(i32, Fate)> {
        let (request, _) = self.arrives_with(worker, headers, ends)?;
        Ok((request, self.fate(worker, request)?))
    }

    /// What has become of a request.
    pub(crate) fn fate(&self, worker: usize, request: i32) -> Result<Fate> {
        let scope = self.workers[worker].vm.store.data();
        if let Some(why) = scope.refused.get(&request) {
            return Ok(Fate::Refused(why.clone()));
        }
        let chosen = scope.headers[&request].get("x-versionflag").cloned().unwrap_or_default();
        let stopped = scope.stopped.contains(&request) && !scope.resumed.contains(&request);
        Ok(if stopped { Fate::Waits } else { Fate::Sent(chosen) })
    }

    /// Those that have waited and go on, in this order.
    pub(crate) fn resumed(&self, worker: usize) -> &[i32] {
        &self.workers[worker].vm.store.data().resumed
    }

    /// Its headers as they are now.
    pub(crate) fn headers(&self, worker: usize, request: i32) -> &BTreeMap<String, String> {
        &self.workers[worker].vm.store.data().headers[&request]
    }

    /// Somebody in the cluster gets it.
    pub(crate) fn send(&mut self, worker: usize, request: i32, cluster: &str) {
        self.workers[worker].vm.store.data_mut().sent_to.insert(request, cluster.to_owned());
    }

    /// Its stream ends.
    pub(crate) fn end(&mut self, worker: usize, request: i32) -> Result<()> {
        self.workers[worker].vm.delete(request)
    }

    /// What the worker calls from now on, and what it has called since.
    pub(crate) fn watch(&mut self, worker: usize) -> Calls {
        self.workers[worker].vm.store.data_mut().calls.replace(Calls::default()).unwrap_or_default()
    }

    /// Configures another plugin beside the one of the worker, which goes on getting requests.
    pub(crate) fn configure_beside(&mut self, worker: usize, configuration: &serde_json::Value) -> Result<()> {
        let plugin = self.next_context();
        let worker = &mut self.workers[worker];
        worker.vm.store.data_mut().configuration = serde_json::to_vec(configuration)?;
        let before = worker.plugin;
        worker.configure(plugin)?;
        worker.plugin = before;
        Ok(())
    }
}
