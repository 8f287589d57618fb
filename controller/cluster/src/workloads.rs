//! Which workloads belong to which version, and how strong they are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::endpoints::Endpoints;
use super::labels::match_all;
use super::scaled_object::{Scale, ScaledObject};
use super::services::{cannot_be_switched, not_http, not_seen, ports, selector};
use super::version_group::strength;
use super::{field_managers, pods};
use machine::observation::VersionState;
use machine::spec::{Percent, Spec};

pub use super::version_group::VersionGroup;

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
    /// Those nodes that are asked about; `None`: nobody can tell which there are.
    pub nodes: Option<Vec<Arc<Node>>>,
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
    /// The share of its pods that a version needs to be ready.
    pub share: Percent,
}

impl Workloads {
    /// Finds what belongs to the services of a flag in `namespace`.
    pub fn find(namespace: &str, spec: &Spec, objects: &Objects) -> Workloads {
        let mut found = Workloads {
            autoscalers: objects.autoscaled(namespace),
            share: spec.coexistence.ready,
            ..Workloads::default()
        };
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
            if spec.routing.in_mesh() {
                found.errors.extend(ports(service).filter_map(|port| not_seen(name, port)));
            }
            found.errors.extend(cannot_be_switched(spec, service, selector));
            for object in objects.in_namespace(namespace).filter(|object| object.selected(selector)) {
                match object.version(&spec.version_label) {
                    Ok(version) => groups.entry(version).or_default().objects.push(object),
                    Err(why) => found.errors.push(format!("{object} is selected by Service {name}, but {why}")),
                }
            }
            let pods = objects.pods.iter().filter(|pod| pod.namespace().as_deref() == Some(namespace));
            for pod in pods.filter(|pod| match_all(pod.labels(), selector) && !pods::ended(pod)) {
                if let Some(version) = pod.labels().get(&spec.version_label) {
                    groups.entry(version.clone()).or_default().pods.push(Arc::clone(pod));
                }
            }
            let endpoints = Endpoints::of(service, &objects.slices);
            for group in groups.values_mut() {
                (group.endpoints, group.unserved_port) = endpoints.serving(service, &group.pods);
            }
            note_relabelled(groups);
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
            ready: any && groups().all(|group| group.is_some_and(|group| group.lacks(self.share).is_none())),
            ready_since: None,
            started: None,
            lacks: self.lacking(version),
            exited: groups().flatten().find_map(VersionGroup::exited),
            // The kubelet starts again what ended, and finds a port for it.
            next_start: None,
            barred: None,
            notes: vec![],
            exists,
            stopped: exists && groups().flatten().all(VersionGroup::is_stopped),
            ending: groups().flatten().filter(|group| group.is_stopped()).flat_map(VersionGroup::live).collect(),
            workloads: self.objects(version).into_iter().map(ScaledObject::identity).collect(),
            strength: self.groups(version).map(|(service, group)| (service.to_owned(), strength(group))).collect(),
            autoscalers: self.autoscalers_of(version),
            kept_at: self.kept_at(version),
            relabelled: groups().flatten().flat_map(|group| group.relabelled.iter().cloned()).collect(),
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

    /// The pods of a version by service, with how many of them it can spare.
    pub fn spare(&self, version: &str) -> impl Iterator<Item = (usize, &[Arc<Pod>])> {
        let groups = self.groups(version).filter_map(|(_, group)| group);
        groups.map(|group| (group.spare(self.share), group.pods.as_slice()))
    }

    /// The same as [`Workloads::lacks`] for who knows the version, and the service if there is but one.
    fn lacking(&self, version: &str) -> Option<String> {
        let several = self.services.len() > 1;
        self.groups(version).find_map(|(service, group)| {
            let why = group.map_or(Some("nothing of it is there".to_owned()), |group| {
                group.exited().or_else(|| group.lacks(self.share))
            })?;
            Some(if several { format!("Service {service}: {why}") } else { why })
        })
    }

    /// Why a version does not serve at full strength, in words.
    pub fn lacks(&self, version: &str) -> Option<String> {
        self.groups(version).find_map(|(service, group)| {
            let Some(group) = group.filter(|group| !group.objects.is_empty()) else {
                return Some(format!("Service {service} selects no Deployment or StatefulSet of version {version}"));
            };
            group
                .exited()
                .or_else(|| group.lacks(self.share))
                .map(|why| format!("{version} of Service {service}: {why}"))
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

impl Objects {
    fn autoscaled(&self, namespace: &str) -> BTreeMap<String, String> {
        let near = self.autoscalers.iter().filter(|one| one.metadata.namespace.as_deref() == Some(namespace));
        let targets = near.filter_map(|one| Some((&one.spec.as_ref()?.scale_target_ref, one.name_any())));
        targets.map(|(target, name)| (format!("{}/{}", target.kind, target.name), name)).collect()
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = ScaledObject> {
        let deployments = self.deployments.iter().map(|one| ScaledObject::Deployment(Arc::clone(one)));
        let sets = self.stateful_sets.iter().map(|one| ScaledObject::StatefulSet(Arc::clone(one)));
        deployments.chain(sets).filter(move |one| one.metadata().namespace.as_deref() == Some(namespace))
    }
}

fn is(metadata: &kube::core::ObjectMeta, namespace: &str, name: &str) -> bool {
    metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
}

/// Notes which workloads made pods of one version, and make another one now: that is no version beside the other.
fn note_relabelled(groups: &mut BTreeMap<String, VersionGroup>) {
    let makers = groups
        .iter()
        .flat_map(|(version, group)| group.objects.iter().map(move |object| (object.to_string(), version.clone())));
    let makers: BTreeMap<String, String> = makers.collect();
    for (version, group) in groups {
        let owners = group.pods.iter().filter_map(|pod| pods::owner(pod));
        let moved = owners.filter_map(|owner| {
            let now = makers.get(&owner).filter(|now| *now != version)?;
            Some(format!("{owner} makes {now}"))
        });
        group.relabelled = moved.collect();
    }
}
