//! What one VersionFlag does: publishes, writes files, scales. I/O: through the writer and the flag
//! service.

use std::collections::BTreeMap;

use flag::config::{Role, Workload};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::{Flag, Hash, Look, Surroundings, TurnError};
use crate::resource::KEPT_AT;
use crate::workloads::Object;
use machine::checks::Questions;
use machine::envoy::{self, Filter};
use machine::plan::Effect;
use machine::spec::{Replicas, Spec};
use machine::status::{Phase, Status};
use service::Post;
use service::failpoint;

impl Flag {
    pub(super) async fn act(
        &mut self,
        look: &Look,
        effect: Effect,
        around: &Surroundings<'_>,
    ) -> Result<(), TurnError> {
        if !around.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        match effect {
            Effect::Publish(record) => {
                let audience = Some(look.audience.clone());
                let measure = Questions::of(&look.spec, &self.machine).is_some_and(|asked| asked.measures());
                if around.hub.publish(Post { audience, measure, ..Post::of(&self.machine, &record) }) {
                    failpoint::point("after the record was published");
                }
            }
            Effect::Route(record) if look.spec.routing.in_mesh() => {
                let done = self.route(look, &record, around).await;
                self.unwritten = done.as_ref().err().map(ToString::to_string);
                done?;
            }
            Effect::Configure(record) if look.spec.routing.in_mesh() => {
                self.configure(look, *record, around);
            }
            Effect::Route(record) => {
                self.gathered.insert("routes.json".to_owned(), envoy::routes(&look.spec.routing.header, &record)?);
            }
            Effect::Configure(record) => {
                let filter = Filter {
                    wasm: around.filter_path,
                    cluster: around.flag_service_cluster,
                    role: Role::Auto,
                    workload: None,
                    header: &look.spec.routing.header,
                };
                self.gathered.insert("filter.json".to_owned(), envoy::filter(filter.clone(), &record)?);
                for (name, workload) in sidecars(look) {
                    let filter = Filter { workload: Some(workload), ..filter.clone() };
                    self.gathered.insert(name, envoy::filter(filter, &record)?);
                }
            }
            Effect::Start { version } => self.start(look, &version, around).await?,
            Effect::Stop { version } => {
                self.write_gathered(around).await?;
                for scale in look.workloads.stop(&version) {
                    tracing::info!(flag = self.name, workload = %scale.object, "scaled to 0");
                    failpoint::point("before a workload is scaled down");
                    around.writer.scale(&scale).await?;
                    failpoint::point("after a workload was scaled down");
                }
            }
            Effect::Delete { version } => {
                self.write_gathered(around).await?;
                for object in look.workloads.objects(&version).into_iter().filter(|object| !object.is_ending()) {
                    failpoint::point("before a workload is deleted");
                    around.writer.delete(object).await?;
                    tracing::info!(flag = self.name, workload = %object, "deleted");
                    failpoint::point("after a workload was deleted");
                }
            }
        }
        Ok(())
    }

    async fn start(&self, look: &Look, version: &str, around: &Surroundings<'_>) -> Result<(), TurnError> {
        let machine = &self.machine;
        let active = version == machine.active_version;
        let rollback = machine.switch.as_ref().is_some_and(|switch| switch.rollback);
        if active && rollback && machine.phase == Phase::Switching {
            let epoch = machine.epoch();
            let marked = |object: &&&Object| {
                let annotations = object.metadata().annotations.as_ref();
                annotations.and_then(|all| all.get(KEPT_AT)).is_some_and(|at| *at == epoch.to_string())
            };
            for object in look.workloads.objects(version).iter().filter(|object| !marked(object)) {
                around.writer.keep(object, epoch).await?;
                failpoint::point("after a workload was marked to be kept");
            }
        }
        // Whoever scales the version that serves, and nothing else is going on, means it.
        if active && matches!(machine.phase, Phase::Adopting | Phase::Stable) {
            return Ok(());
        }
        let like = if active { None } else { like(&look.spec, machine) };
        for scale in look.workloads.start(version, like) {
            tracing::info!(flag = self.name, workload = %scale.object, replicas = scale.replicas, "scaled up");
            around.writer.scale(&scale).await?;
            failpoint::point("after a workload was scaled up");
        }
        Ok(())
    }

    /// All files that are to be written now, at once.
    pub(super) async fn write_gathered(&mut self, around: &Surroundings<'_>) -> Result<(), TurnError> {
        let mut files = std::mem::take(&mut self.gathered);
        files.retain(|name, text| self.files.get(name) != Some(&hash(text)));
        if files.is_empty() {
            return Ok(());
        }
        if !around.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        let name = format!("versionflag-{}", self.resource.name_any());
        around.writer.files(&self.resource.namespace().unwrap_or_default(), &name, &files).await?;
        failpoint::point("after the files of the proxies were written");
        self.files.extend(files.into_iter().map(|(name, text)| (name, hash(&text))));
        Ok(())
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

/// The version whose strength a new one gets.
pub(super) fn like<'a>(spec: &Spec, machine: &'a Status) -> Option<&'a str> {
    (spec.coexistence.replicas == Replicas::MatchActive).then_some(machine.active_version.as_str())
}

/// One file a version of a service, for the proxies beside it.
fn sidecars(look: &Look) -> BTreeMap<String, Workload> {
    let groups = look.workloads.services.iter().flat_map(|(service, groups)| {
        groups.keys().map(move |version| Workload { service: service.clone(), version: version.clone() })
    });
    groups.map(|workload| (format!("{}-{}.json", workload.service, workload.version), workload)).collect()
}
