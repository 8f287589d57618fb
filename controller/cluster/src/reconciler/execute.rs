//! What one VersionFlag does: every effect of a plan, as it comes. I/O: through the writer, the mesh and the flag
//! service.

use machine::plan::Effect;
use machine::reason::{Problem, Reason};
use service::failpoint;

use super::Reconciler;
use super::observe::Seen;
use crate::context::{Context, TurnError};
use crate::providers::provider;
use crate::scaled_object::ScaledObject;
use crate::writer::refusal;

impl Reconciler {
    pub(super) async fn execute(
        &mut self,
        seen: &Seen,
        effect: Effect,
        context: &Context<'_>,
    ) -> Result<(), TurnError> {
        if !context.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        let done = self.act(seen, effect, context).await;
        if let Err(TurnError::Api(error)) = &done {
            let refused = |why: &str| {
                let message = format!("the API server does not let the controller go on: {why}");
                Problem::new(Reason::Forbidden, message)
            };
            self.refused = refusal(error).map(refused).or_else(|| self.refused.take());
        }
        done
    }

    async fn act(&mut self, seen: &Seen, effect: Effect, context: &Context<'_>) -> Result<(), TurnError> {
        match effect {
            Effect::Protect { version, epoch } => self.protect(seen, &version, epoch, context).await,
            Effect::Start { version, like } => self.start(seen, &version, like.as_deref(), context).await,
            // They are Istio's, or the operator's: the observation has none.
            Effect::Cluster { .. } => Ok(()),
            Effect::Publish(publication) => {
                if context.hub.publish(*publication) {
                    failpoint::point("after the record was published");
                }
                Ok(())
            }
            Effect::Route(order) => {
                let subject = self.subject(&seen.look, &seen.observation.versions);
                let done = provider(&seen.look.spec).route(subject, &order, context).await;
                self.unwritten = done.as_ref().err().map(ToString::to_string);
                self.gathered.extend(done?);
                Ok(())
            }
            Effect::Configure(record) => {
                let subject = self.subject(&seen.look, &seen.observation.versions);
                let files = provider(&seen.look.spec).configure(&subject, &record, context)?;
                self.gathered.extend(files);
                Ok(())
            }
            Effect::Stop { version } => self.stop(seen, &version, context).await,
            Effect::Delete { version } => self.delete(seen, &version, context).await,
        }
    }

    async fn protect(&self, seen: &Seen, version: &str, epoch: u64, context: &Context<'_>) -> Result<(), TurnError> {
        let unmarked = |object: &&&ScaledObject| object.kept_at() != Some(epoch);
        for object in seen.look.workloads.objects(version).iter().filter(unmarked) {
            context.writer.keep(object, epoch).await?;
            failpoint::point("after a workload was marked to be kept");
        }
        Ok(())
    }

    async fn start(
        &self,
        seen: &Seen,
        version: &str,
        like: Option<&str>,
        context: &Context<'_>,
    ) -> Result<(), TurnError> {
        for scale in seen.look.workloads.start(version, like) {
            tracing::info!(flag = self.name, workload = %scale.object, replicas = scale.replicas, "scaled up");
            context.writer.scale(&scale).await?;
            failpoint::point("after a workload was scaled up");
        }
        Ok(())
    }

    async fn stop(&mut self, seen: &Seen, version: &str, context: &Context<'_>) -> Result<(), TurnError> {
        self.write_gathered(context).await?;
        for scale in seen.look.workloads.stop(version) {
            tracing::info!(flag = self.name, workload = %scale.object, "scaled to 0");
            failpoint::point("before a workload is scaled down");
            context.writer.scale(&scale).await?;
            failpoint::point("after a workload was scaled down");
        }
        Ok(())
    }

    async fn delete(&mut self, seen: &Seen, version: &str, context: &Context<'_>) -> Result<(), TurnError> {
        self.write_gathered(context).await?;
        for object in seen.look.workloads.objects(version).into_iter().filter(|object| !object.is_ending()) {
            failpoint::point("before a workload is deleted");
            context.writer.delete(object).await?;
            tracing::info!(flag = self.name, workload = %object, "deleted");
            failpoint::point("after a workload was deleted");
        }
        Ok(())
    }
}
