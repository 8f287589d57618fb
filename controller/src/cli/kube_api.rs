//! The VersionFlags of a cluster, with the rights of whoever asks. I/O: the Kubernetes API, reads the
//! kubeconfig.

use cluster::names::REQUEST;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use super::ANSWER;
use cluster::driver::LEASE;
use cluster::resource::VersionFlag;
use cluster::writer::is_conflict;
use machine::action::{Action, Request};
use service::FlagView;
use service::id::unique;

const CONNECT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what can be done without.
const LIVE: Duration = Duration::from_secs(3);
/// Writes of the controller in between that a request may meet.
const TRIES: usize = 8;
/// Field manager of the annotation.
const MANAGER: &str = "versionflag-cli";

const HEADING: &str = "For a VersionFlag of a cluster";

/// Which cluster, and which namespace of it.
#[derive(Debug, Clone, Args)]
pub(super) struct Where {
    /// Its namespace; the context's unless given
    #[arg(short, long, help_heading = HEADING)]
    pub(super) namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, help_heading = HEADING)]
    context: Option<String>,
    /// The kubeconfig; $KUBECONFIG or ~/.kube/config unless given
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the controller
    #[arg(long, value_name = "NAMESPACE", default_value = "versionflag", help_heading = HEADING)]
    home: String,
}

impl Where {
    /// Whether anything of it was given.
    pub(super) fn is_given(&self) -> bool {
        self.namespace.is_some() || self.context.is_some() || self.kubeconfig.is_some()
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut found = match &self.kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        found.connect_timeout = Some(CONNECT);
        Ok(found)
    }
}

pub(super) struct Cluster {
    client: Client,
    url: String,
    namespace: Option<String>,
    /// What leads a command to the same cluster.
    options: String,
    /// Namespace of the controller.
    home: String,
}

impl Cluster {
    /// `all`: every namespace.
    pub(super) async fn connect(at: &Where, all: bool) -> anyhow::Result<Cluster> {
        // Who is not configured gets one sentence: the causes of the client say the same again and again.
        let config = at.config().await.map_err(|error| {
            let cause = error.root_cause();
            anyhow::anyhow!("no kubeconfig for a cluster ({cause}): set KUBECONFIG or --kubeconfig")
        })?;
        let namespace = at.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let quoted =
            |name: &str, value: Option<String>| value.map(|value| format!(" {name} {value}")).unwrap_or_default();
        let options = quoted("--context", at.context.clone())
            + &quoted("--kubeconfig", at.kubeconfig.as_ref().map(|path| path.display().to_string()));
        let url = config.cluster_url.to_string();
        let namespace = Some(namespace).filter(|_| !all);
        Ok(Cluster { client: Client::try_from(config)?, url, namespace, options, home: at.home.clone() })
    }

    /// Says whether anything answers there.
    pub(super) async fn reach(&self) -> anyhow::Result<()> {
        self.call(self.client.apiserver_version()).await.map(drop)
    }

    /// For other kinds than VersionFlags.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The controller's namespace.
    pub(super) fn home(&self) -> &str {
        &self.home
    }

    /// Its namespace; the context's unless one was given.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// What follows the name of a command that is about this flag.
    pub(super) fn at(&self, flag: &VersionFlag) -> String {
        format!("{} -n {}{}", flag.name_any(), flag.namespace().unwrap_or_default(), self.options)
    }

    /// Where it looks, for people.
    pub(super) fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(|| "any namespace".to_owned(), |name| format!("namespace {name}"))
    }

    fn api(&self) -> Api<VersionFlag> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The one with this name, or all.
    pub(super) async fn flags(&self, name: Option<&str>) -> anyhow::Result<Vec<VersionFlag>> {
        match name {
            Some(name) => Ok(vec![self.flag(name).await?]),
            None => Ok(self.call(self.api().list(&ListParams::default())).await?.items),
        }
    }

    async fn flag(&self, name: &str) -> anyhow::Result<VersionFlag> {
        let found = self.call(async {
            match self.api().get(name).await {
                Err(kube::Error::Api(status)) if status.is_not_found() && !no_such_kind(&status.message) => Ok(None),
                found => found.map(Some),
            }
        });
        found.await?.with_context(|| {
            format!("no VersionFlag {name} in {}: `versionflag list -A` shows all, and -n names another", self.place())
        })
    }

    /// All that there are now and whenever one changes.
    pub(super) fn watch(&self, name: Option<&str>) -> impl Stream<Item = anyhow::Result<Vec<VersionFlag>>> + use<'_> {
        let config = watcher::Config::default();
        let config = match name {
            Some(name) => config.fields(&format!("metadata.name={name}")),
            None => config,
        };
        let key = |flag: &VersionFlag| (flag.namespace(), flag.name_any());
        let (mut flags, mut ready) = (BTreeMap::new(), false);
        watcher::watcher(self.api(), config).default_backoff().filter_map(move |event| {
            let event = event.map(|event| {
                match event {
                    watcher::Event::Init => {
                        flags.clear();
                        ready = false;
                    }
                    watcher::Event::InitDone => ready = true,
                    watcher::Event::Apply(flag) | watcher::Event::InitApply(flag) => {
                        flags.insert(key(&flag), flag);
                    }
                    watcher::Event::Delete(flag) => {
                        flags.remove(&key(&flag));
                    }
                }
                ready.then(|| flags.values().cloned().collect::<Vec<_>>())
            });
            let event = event.with_context(|| format!("the watch at {} was cut", self.url));
            std::future::ready(event.transpose())
        })
    }

    /// The pod of the controller that leads, if one has said so.
    pub(super) async fn leader(&self) -> Result<Option<String>, kube::Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.home);
        let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    }

    /// What the flag service knows of the one with this name, or of all: it is asked through the API
    /// server, at the pod that holds the Lease, with the rights of whoever asks.
    pub(super) async fn live(&self, name: Option<&str>) -> anyhow::Result<Vec<FlagView>> {
        let ask = async {
            let holder = self.leader().await?.context("no controller acts")?;
            let flag = self.namespace.as_deref().zip(name);
            let query = flag.map(|(namespace, name)| format!("?flag={namespace}/{name}")).unwrap_or_default();
            let path = format!("/api/v1/namespaces/{}/pods/{holder}/proxy/v1/status{query}", self.home);
            let body = self.client.request_text(hyper::Request::get(path).body(vec![])?).await?;
            anyhow::Ok(serde_json::from_str(&body).context("the answer is not that of a flag service")?)
        };
        let answer = tokio::time::timeout(LIVE, ask).await;
        answer.with_context(|| format!("no answer within {} s", LIVE.as_secs())).flatten().map_err(|error| {
            match error.downcast::<kube::Error>() {
                Ok(kube::Error::Api(status)) => anyhow::anyhow!("{}", status.message),
                Ok(error) => error.into(),
                Err(error) => error,
            }
        })
    }

    /// Asks by the annotation, and waits for the answer.
    pub(super) async fn ask(&self, name: &str, action: Action) -> anyhow::Result<VersionFlag> {
        let id = unique();
        let (mut tries, mut about) = (0, None);
        loop {
            let flag = self.flag(name).await?;
            let begun = flag.status.as_ref().and_then(|status| status.machine.as_ref()?.switch.as_ref());
            // What was seen first: a switch that begins in between is another one.
            let switch = *about.get_or_insert(begun.map(|switch| switch.started_at));
            let text = serde_json::to_string(&Request { id: id.clone(), action, switch })?;
            if let Some(other) = unanswered(&flag) {
                bail!(
                    "{} was asked for before and is not answered yet (id {}): wait for it, check that the controller \
                     runs, or take it back with `kubectl annotate versionflag {} {REQUEST}-`",
                    other.action.name(),
                    other.id,
                    self.at(&flag)
                );
            }
            // Of exactly this state: a request that came in between stays.
            let patch = Patch::Merge(json!({ "metadata": {
                "resourceVersion": flag.resource_version(), "annotations": { REQUEST: text },
            } }));
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let written = self.call(async {
                match self.api().patch_metadata(name, &params, &patch).await {
                    Err(error) if is_conflict(&error) => Ok(None),
                    written => written.map(Some),
                }
            });
            if written.await?.is_some() {
                break;
            }
            tries += 1;
            if tries >= TRIES {
                bail!("{name} changes all the time: nothing was asked for, try again");
            }
        }
        let answered = {
            let id = id.clone();
            move |flag: Option<&VersionFlag>| flag.is_none_or(|flag| last(flag) == Some(id.as_str()))
        };
        match tokio::time::timeout(ANSWER, await_condition(self.api(), name, answered)).await {
            Ok(Err(error)) => Err(error).context("asked for, but the answer cannot be watched"),
            Ok(Ok(found)) => found.with_context(|| format!("{name} was deleted")),
            Err(_) => bail!(
                "asked for, but not answered within {} s; it stays asked for (id {id}): check that the controller \
                 runs, or take it back with `kubectl annotate versionflag {name} -n {}{} {REQUEST}-`",
                ANSWER.as_secs(),
                self.namespace.as_deref().unwrap_or_default(),
                self.options
            ),
        }
    }

    /// That nobody answers there, and what to look at.
    pub(super) fn silent(&self) -> String {
        format!("the cluster at {} does not answer: is it running, and is the kubeconfig the right one?", self.url)
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> anyhow::Result<T> {
        let unreachable = || self.silent();
        match tokio::time::timeout(TIMEOUT, call).await {
            Err(_) => bail!("{}", unreachable()),
            Ok(Err(kube::Error::Api(status))) if no_such_kind(&status.message) => {
                bail!("the cluster at {} has no VersionFlags: install manifests/kubernetes first", self.url)
            }
            Ok(Err(kube::Error::Api(status))) => bail!("the cluster refuses: {}", status.message),
            Ok(answer) => answer.with_context(unreachable),
        }
    }
}

/// What the API server says to a kind that it does not know.
fn no_such_kind(message: &str) -> bool {
    message.contains("page not found") || message.contains("could not find the requested resource")
}

fn last(flag: &VersionFlag) -> Option<&str> {
    Some(flag.status.as_ref()?.last_request.as_ref()?.id.as_str())
}

/// A request that waits for its answer. What cannot be read is answered by nobody.
fn unanswered(flag: &VersionFlag) -> Option<Request> {
    let request: Request = serde_json::from_str(flag.annotations().get(REQUEST)?).ok()?;
    Some(request).filter(|request| last(flag) != Some(request.id.as_str()))
}
