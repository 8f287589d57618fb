//! Runs the pods of the mesh: starts what a pod consists of when it comes, says in its status
//! whether it is ready, and ends it when it is deleted. kwok gives it its address, and plays all
//! other pods. I/O: watches and patches pods; the rest is the pod's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod as Object;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::pod::Pod;
use crate::dir::TestDir;
use crate::wait::wait_for;

/// The label of the pods that have processes; kwok leaves them to the kubelet.
pub(super) const LABEL: &str = "test.versionflag.io/runs";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After a container was started again.
const BACK_OFF: Duration = Duration::from_millis(500);
const API_LIMIT: Duration = Duration::from_secs(120);

/// The kubelet of all nodes.
pub(super) struct Kubelet<'a> {
    dir: &'a TestDir,
    client: Client,
    /// By name: no two pods of the mesh share one.
    running: RefCell<BTreeMap<String, Rc<Pod>>>,
}

impl<'a> Kubelet<'a> {
    pub(super) fn new(dir: &'a TestDir, client: Client) -> Kubelet<'a> {
        Kubelet { dir, client, running: RefCell::default() }
    }

    /// The pods that have processes now.
    pub(super) fn pods(&self) -> Vec<Rc<Pod>> {
        self.running.borrow().values().cloned().collect()
    }

    /// Goes on until an error. While the API does not answer, all stays as it is.
    pub(super) async fn run(&self) -> Result<Infallible> {
        let mut events = watcher(Api::<Object>::all(self.client.clone()), watcher::Config::default().labels(LABEL))
            .default_backoff()
            .boxed_local();
        let mut lives = FuturesUnordered::new();
        // By uid: who is told that a pod shall end.
        let mut known: BTreeMap<String, watch::Sender<bool>> = BTreeMap::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event.context("the watch of pods has ended")?,
                Some(lived) = lives.next() => {
                    let () = lived?;
                    continue;
                }
            };
            // The watcher begins again by itself.
            let Ok(event) = event else { continue };
            let (pod, gone) = match event {
                Event::Apply(pod) | Event::InitApply(pod) => (pod, false),
                Event::Delete(pod) => (pod, true),
                Event::Init | Event::InitDone => continue,
            };
            let uid = pod.uid().context("a pod without a uid")?;
            if gone || pod.metadata.deletion_timestamp.is_some() {
                if let Some(end) = known.get(&uid) {
                    end.send_replace(true);
                }
            } else if !known.contains_key(&uid) && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
                let (end, ends) = watch::channel(false);
                known.insert(uid, end);
                lives.push(self.live(pod, ends));
            }
        }
    }

    /// The life of one pod.
    async fn live(&self, object: Object, mut ends: watch::Receiver<bool>) -> Result<()> {
        let name = object.name_any();
        let pod = Rc::new(Pod::start(self.dir, &self.client, &object).await.with_context(|| name.clone())?);
        self.running.borrow_mut().insert(name.clone(), pod.clone());
        let told = ends.wait_for(|ends| *ends);
        tokio::select! {
            told = told => drop(told?),
            kept = self.keep(&object, &pod) => kept.map(|never| match never {})?,
        }
        pod.end().await?;
        self.running.borrow_mut().remove(&name);
        self.delete(&object).await
    }

    /// Keeps it running, and tells when it becomes ready. Once it is, only an end of a container
    /// makes it unready: the probes of Istio would take a minute to notice anything else.
    async fn keep(&self, object: &Object, pod: &Pod) -> Result<Infallible> {
        let mut ready = false;
        loop {
            let revived = pod.revive(self.dir)?;
            if revived && ready {
                ready = false;
                self.report(object, ready).await?;
            } else if !ready && pod.is_ready().await.is_ok() {
                ready = true;
                self.report(object, ready).await?;
            }
            tokio::time::sleep(if revived { BACK_OFF } else { LOOK_EVERY }).await;
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]
    async fn report(&self, object: &Object, ready: bool) -> Result<()> {
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let status = if ready { "True" } else { "False" };
        let condition = |kind: &str| json!({ "type": kind, "status": status, "lastTransitionTime": now });
        let containers = object.status.as_ref().and_then(|status| status.container_statuses.clone());
        let mut containers = serde_json::to_value(containers.unwrap_or_default())?;
        for container in containers.as_array_mut().into_iter().flatten() {
            container["ready"] = Value::Bool(ready);
        }
        let patch = json!({ "status": {
            "conditions": [condition("ContainersReady"), condition("Ready")], "containerStatuses": containers,
        } });
        let pods = self.api(object);
        let name = object.name_any();
        wait_for(&format!("the status of {name}"), API_LIMIT, async || {
            let patched = pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
            gone_is_fine(patched.map(drop))
        })
        .await
    }

    async fn delete(&self, object: &Object) -> Result<()> {
        let pods = self.api(object);
        let name = object.name_any();
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let now =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        wait_for(&format!("the end of {name} in the API"), API_LIMIT, async || {
            gone_is_fine(pods.delete(&name, &now).await.map(drop))
        })
        .await
    }

    fn api(&self, object: &Object) -> Api<Object> {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }
}

/// A pod that is no longer there, or another of its name, needs nothing.
fn gone_is_fine(result: kube::Result<()>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        result => Ok(result?),
    }
}
