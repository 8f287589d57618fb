//! Which workloads belong to which version, and how strong they are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::labels::match_all;
use super::scaled_object::{Scale, ScaledObject};
use super::{field_managers, pods};
use machine::observation::{Strength, VersionState};
use machine::spec::Spec;

/// What the caches hold, of all namespaces or of one.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Deployments.
    pub deployments: Vec<Arc<Deployment>>,
    /// StatefulSets.
    pub stateful_sets: Vec<Arc<StatefulSet>>,
    /// Pods.
    pub pods: Vec<Arc<Pod>>,
    /// EndpointSlices.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// ResourceQuotas.
    pub quotas: Vec<Arc<ResourceQuota>>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Vec<Arc<HorizontalPodAutoscaler>>,
    /// Nodes, if the pods are those of all namespaces; otherwise nobody can tell what is free.
    pub nodes: Option<Vec<Arc<Node>>>,
}

/// One version of one service.
#[derive(Debug, Clone, Default)]
pub struct VersionGroup {
    /// Its workloads.
    pub objects: Vec<ScaledObject>,
    /// Its pods, whoever made them, without those that have ended well.
    pub pods: Vec<Arc<Pod>>,
    /// How many of them the Service sends requests to.
    pub endpoints: usize,
}

/// All that belongs to one flag.
#[derive(Debug, Clone, Default)]
pub struct Workloads {
    /// By service of the spec, and version.
    pub services: BTreeMap<String, BTreeMap<String, VersionGroup>>,
    /// Names of the HorizontalPodAutoscalers by the workload that they scale.
    pub autoscalers: BTreeMap<String, String>,
    /// What has to be put right before anything can be switched, in sentences.
    pub errors: Vec<String>,
}

impl Workloads {
    /// Finds what belongs to the services of a flag in `namespace`.
    pub fn find(namespace: &str, spec: &Spec, objects: &Objects) -> Workloads {
        let mut found = Workloads { autoscalers: objects.autoscaled(namespace), ..Workloads::default() };
        for name in spec.services.iter().map(|service| &service.name) {
            let groups = found.services.entry(name.clone()).or_default();
            let service = objects.services.iter().find(|service| is(&service.metadata, namespace, name));
            let Some(service) = service else {
                found.errors.push(format!("there is no Service {name} in namespace {namespace}"));
                continue;
            };
            let Some(selector) = selector(service) else {
                let message = format!("Service {name} has no selector: its workloads cannot be found");
                found.errors.push(message);
                continue;
            };
            found.errors.extend(ports(service).filter_map(|port| not_http(name, port)));
            found.errors.extend(cannot_be_switched(spec, service, selector));
            for object in objects.in_namespace(namespace).filter(|object| object.selected(selector)) {
                match object.version(&spec.version_label) {
                    Ok(version) => groups.entry(version).or_default().objects.push(object),
                    Err(why) => found.errors.push(format!("{object} is selected by Service {name}, but {why}")),
                }
            }
            let pods = objects.pods.iter().filter(|pod| pod.namespace().as_deref() == Some(namespace));
            for pod in pods.filter(|pod| match_all(pod.labels(), selector) && !pods::succeeded(pod)) {
                if let Some(version) = pod.labels().get(&spec.version_label) {
                    groups.entry(version.clone()).or_default().pods.push(Arc::clone(pod));
                }
            }
            let ready = ready_pods(namespace, name, &objects.slices);
            for group in groups.values_mut() {
                group.endpoints = group.pods.iter().filter(|pod| ready.contains(pod.name_any().as_str())).count();
            }
        }
        found
    }

    /// Every version that something was found of.
    pub fn versions(&self) -> BTreeSet<&str> {
        self.services.values().flat_map(|groups| groups.keys().map(String::as_str)).collect()
    }

    /// One version's groups by service; none where nothing of it was found.
    pub fn groups(&self, version: &str) -> impl Iterator<Item = (&str, Option<&VersionGroup>)> {
        self.services.iter().map(move |(service, groups)| (service.as_str(), groups.get(version)))
    }

    /// Each workload of a version once, though several Services may select it.
    pub fn objects(&self, version: &str) -> Vec<&ScaledObject> {
        let all = self.groups(version).filter_map(|(_, group)| group).flat_map(|group| &group.objects);
        all.map(|object| (object.to_string(), object)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// What the state machine sees of a version. Since when it is ready is not known here.
    pub fn observe(&self, version: &str) -> VersionState {
        let groups = || self.groups(version).map(|(_, group)| group);
        let declared = groups().all(|group| group.is_some_and(|group| !group.objects.is_empty()));
        let exists = groups().flatten().any(|group| !group.objects.is_empty());
        let any = !self.services.is_empty();
        VersionState {
            declared: any && declared,
            running: groups().flatten().any(VersionGroup::running),
            ready: any && groups().all(|group| group.is_some_and(|group| group.lacks().is_none())),
            ready_since: None,
            lacks: self.lacking(version),
            exited: groups().flatten().find_map(VersionGroup::exited),
            exists,
            stopped: exists && groups().flatten().all(VersionGroup::is_stopped),
            ending: groups().flatten().filter(|group| group.is_stopped()).flat_map(VersionGroup::live).collect(),
            strength: self.groups(version).map(|(service, group)| (service.to_owned(), strength(group))).collect(),
            autoscalers: self.autoscalers_of(version),
            kept_at: self.kept_at(version),
        }
    }

    /// The epoch at which every workload of a version was marked to be kept.
    fn kept_at(&self, version: &str) -> Option<u64> {
        let marks: Option<Vec<u64>> = self.objects(version).into_iter().map(ScaledObject::kept_at).collect();
        let marks = marks?;
        marks.first().copied().filter(|first| marks.iter().all(|mark| mark == first))
    }

    /// Who else scales workloads of a version.
    pub fn autoscalers_of(&self, version: &str) -> Vec<String> {
        let names = self.objects(version).into_iter().filter_map(|object| self.autoscaler(object));
        names.map(str::to_owned).collect()
    }

    /// The pods of a version; one that several Services select comes several times.
    pub fn pods(&self, version: &str) -> impl Iterator<Item = &Pod> {
        self.groups(version).filter_map(|(_, group)| group).flat_map(|group| &group.pods).map(Arc::as_ref)
    }

    /// The same as [`Workloads::lacks`] for who knows the version, and the service if there is but one.
    fn lacking(&self, version: &str) -> Option<String> {
        let several = self.services.len() > 1;
        self.groups(version).find_map(|(service, group)| {
            let why = group
                .map_or(Some("nothing of it is there".to_owned()), |group| group.exited().or_else(|| group.lacks()))?;
            Some(if several { format!("Service {service}: {why}") } else { why })
        })
    }

    /// Why a version does not serve at full strength, in words.
    pub fn lacks(&self, version: &str) -> Option<String> {
        self.groups(version).find_map(|(service, group)| {
            let Some(group) = group.filter(|group| !group.objects.is_empty()) else {
                return Some(format!("Service {service} selects no Deployment or StatefulSet of version {version}"));
            };
            group.exited().or_else(|| group.lacks()).map(|why| format!("{version} of Service {service}: {why}"))
        })
    }

    /// How many pods a version is asked to have.
    pub fn replicas(&self, version: &str) -> i32 {
        self.objects(version).into_iter().map(ScaledObject::replicas).sum()
    }

    /// What has to be scaled so that the version runs: as strong as the version `like`, or, without
    /// one, with at least one pod each. Nothing is ever made smaller. What an autoscaler looks after
    /// is only woken: at zero pods it does nothing, and above it would fight.
    pub fn start(&self, version: &str, like: Option<&str>) -> Vec<Scale> {
        let mut wanted: BTreeMap<String, Scale> = BTreeMap::new();
        for (service, group) in self.groups(version) {
            let objects = group.map(|group| group.objects.as_slice()).unwrap_or_default();
            let strength = |version| self.services.get(service)?.get(version).map(VersionGroup::replicas);
            let strength = like.and_then(strength).unwrap_or(0);
            let share = i32::try_from(objects.len()).map_or(1, |count| (strength + count - 1) / count.max(1)).max(1);
            let asleep = |object: &ScaledObject| object.replicas() == 0 || self.autoscaler(object).is_none();
            for object in objects.iter().filter(|object| object.replicas() < share && asleep(object)) {
                let replicas = wanted.get(&object.to_string()).map_or(share, |scale| scale.replicas.max(share));
                wanted.insert(object.to_string(), Scale { object: object.clone(), replicas });
            }
        }
        wanted.into_values().collect()
    }

    /// Who else scales a workload.
    pub fn autoscaler(&self, object: &ScaledObject) -> Option<&str> {
        self.autoscalers.get(&object.to_string()).map(String::as_str)
    }

    /// Who else writes the number of pods of a version again and again, with one workload of each.
    pub fn managers(&self, version: &str) -> BTreeMap<String, &ScaledObject> {
        let objects = self.objects(version).into_iter().rev();
        objects
            .flat_map(|object| field_managers::of(object.metadata()).into_iter().map(move |name| (name, object)))
            .collect()
    }

    /// What has to be scaled so that the version does not run.
    pub fn stop(&self, version: &str) -> Vec<Scale> {
        let running = self.objects(version).into_iter().filter(|object| object.replicas() > 0);
        running.map(|object| Scale { object: object.clone(), replicas: 0 }).collect()
    }
}

impl VersionGroup {
    fn running(&self) -> bool {
        self.pods.iter().any(|pod| !pods::ended(pod))
            || self.objects.iter().any(|object| object.replicas() > 0 || object.created() > 0)
    }

    fn replicas(&self) -> i32 {
        self.objects.iter().map(ScaledObject::replicas).sum()
    }

    /// Whether nothing of it is meant to run.
    fn is_stopped(&self) -> bool {
        self.objects.iter().all(|object| object.replicas() == 0 || object.is_ending())
    }

    /// The names of its pods that have not ended.
    fn live(&self) -> impl Iterator<Item = String> {
        self.pods.iter().filter(|pod| !pods::ended(pod)).map(|pod| format!("pod {}", pod.name_any()))
    }

    /// Why it does not serve at full strength.
    fn lacks(&self) -> Option<String> {
        let replicas = self.replicas();
        let lacking = self.objects.iter().find_map(|object| object.lacks().map(|why| format!("{object} {why}")));
        let unserved = || {
            let few = self.endpoints < usize::try_from(replicas).unwrap_or(0);
            few.then(|| format!("{} of {replicas} pods are ready endpoints", self.endpoints))
        };
        let nothing = || (replicas == 0).then(|| "has no pods".to_owned());
        lacking.or_else(nothing).or_else(unserved)
    }

    /// How it ended, if nothing of it is available and at least one pod shows an error.
    fn exited(&self) -> Option<String> {
        let live: Vec<_> = self.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        if live.iter().any(|pod| pods::ready(pod)) {
            return None;
        }
        let (pod, why) = live.iter().find_map(|pod| pods::failure(pod).map(|why| (pod, why)))?;
        Some(format!("0 of {} pods are available: {why} ({})", live.len(), pod.name_any()))
    }
}

/// How strong a group is; none has no pods.
fn strength(group: Option<&VersionGroup>) -> Strength {
    let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
    group.map_or_else(Strength::default, |group| Strength {
        asked: u32::try_from(group.replicas()).unwrap_or(0),
        serving: count(group.endpoints),
    })
}

impl Objects {
    fn autoscaled(&self, namespace: &str) -> BTreeMap<String, String> {
        let near = self.autoscalers.iter().filter(|one| one.metadata.namespace.as_deref() == Some(namespace));
        let targets = near.filter_map(|one| Some((&one.spec.as_ref()?.scale_target_ref, one.name_any())));
        targets.map(|(target, name)| (format!("{}/{}", target.kind, target.name), name)).collect()
    }

    fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = ScaledObject> {
        let deployments = self.deployments.iter().map(|one| ScaledObject::Deployment(Arc::clone(one)));
        let sets = self.stateful_sets.iter().map(|one| ScaledObject::StatefulSet(Arc::clone(one)));
        deployments.chain(sets).filter(move |one| one.metadata().namespace.as_deref() == Some(namespace))
    }
}

fn is(metadata: &kube::core::ObjectMeta, namespace: &str, name: &str) -> bool {
    metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// What of a Service keeps its versions from being switched.
fn cannot_be_switched(spec: &Spec, service: &Service, selector: &BTreeMap<String, String>) -> Option<String> {
    let (name, label) = (service.name_any(), &spec.version_label);
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless && spec.routing.in_mesh() {
        return Some(format!(
            "Service {name} is headless (clusterIP: None): callers choose its pods by themselves, past all routes; give \
             it a cluster IP"
        ));
    }
    let only = selector.get(label).filter(|version| **version != spec.version)?;
    Some(format!(
        "Service {name} selects {label}: {only}, so that no other version ever serves it: take {label} out of its \
         selector, now that the routes of this flag lead to {only}"
    ))
}

pub(crate) fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// What is wrong with a port that says of itself that it is not HTTP.
fn not_http(service: &str, port: &ServicePort) -> Option<String> {
    const NAMES: [&str; 4] = ["http", "http2", "grpc", "grpc-web"];
    const PROTOCOLS: [&str; 6] = ["http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"];
    let transport = port.protocol.as_deref().filter(|protocol| *protocol != "TCP");
    let (said, http) = match (transport, port.app_protocol.as_deref(), port.name.as_deref()) {
        (Some(protocol), _, _) => (protocol, false),
        (None, Some(protocol), _) => (protocol, PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str())),
        (None, None, Some(name)) => (name, NAMES.contains(&name) || is_prefixed(name, &NAMES)),
        (None, None, None) => ("", true),
    };
    let message = || {
        format!(
            "port {} of Service {service} is not HTTP by its word ({said}), and only HTTP can be switched: if it is, \
             set its appProtocol to http or grpc",
            port.port
        )
    };
    (!http).then(message)
}

/// Whether a port's name is `PROTOCOL-ANYTHING`.
fn is_prefixed(name: &str, protocols: &[&str]) -> bool {
    protocols.iter().any(|protocol| name.strip_prefix(protocol).is_some_and(|rest| rest.starts_with('-')))
}

/// The pods that a Service sends requests to.
fn ready_pods<'a>(namespace: &str, service: &str, slices: &'a [Arc<EndpointSlice>]) -> BTreeSet<&'a str> {
    let of_service = slices.iter().filter(|slice| {
        slice.metadata.namespace.as_deref() == Some(namespace)
            && slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service)
    });
    let endpoints = of_service.flat_map(|slice| slice.endpoints.iter());
    // No word on readiness means ready, says the API.
    let ready = endpoints.filter(|one| one.conditions.as_ref().and_then(|is| is.ready).unwrap_or(true));
    let targets = ready.filter_map(|one| one.target_ref.as_ref());
    targets.filter(|target| target.kind.as_deref() == Some("Pod")).filter_map(|target| target.name.as_deref()).collect()
}
