//! `wait: { KIND: NAME, condition }`: an object has become ready, or meets a condition.

use futures::future::BoxFuture;

use super::{Done, Explanation, Intent, Observation, Step, StepContext, StepError};
use crate::exec::script::Script;
use crate::k8s::ready::{Standing, judge};
use crate::k8s::{ObjectName, wait};
use crate::lab::LABEL;
use crate::scenario::model::WaitTarget;

pub(super) struct WaitStep {
    pub(super) target: WaitTarget,
    pub(super) condition: Option<String>,
}

impl WaitStep {
    fn name(&self, cx: &StepContext<'_>) -> ObjectName {
        ObjectName {
            api_version: self.target.api_version.to_owned(),
            kind: self.target.kind.to_owned(),
            namespace: Some(cx.around.lab.namespace.clone()),
            name: self.target.name.clone(),
        }
    }

    async fn look(&self, cx: &StepContext<'_>) -> Result<Option<Standing>, StepError> {
        let live = cx.resources()?.get(&self.name(cx)).await?;
        Ok(live.map(|live| judge(&live, self.condition.as_deref())))
    }
}

impl Step for WaitStep {
    fn kind(&self) -> &'static str {
        "wait"
    }

    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        Box::pin(async move {
            Ok(match self.look(cx).await? {
                Some(standing) if standing.ready => Observation::Present(standing.summary),
                Some(standing) => {
                    Observation::Unknown(format!("{}: {}", standing.summary, standing.why.unwrap_or_default()))
                }
                None => Observation::Unknown(format!("{} {} is not there yet", self.target.kind, self.target.name)),
            })
        })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            if let Some(standing) = self.look(cx).await?.filter(|standing| standing.ready) {
                return Ok(Done::unchanged(standing.summary));
            }
            let seen = |text| cx.voice.seen(text);
            let pods = format!("{LABEL}={}", cx.around.lab.id);
            let condition = self.condition.as_deref();
            let patience = cx.patience(&seen);
            let standing = wait::ready(cx.resources()?, &self.name(cx), condition, Some(&pods), &patience).await?;
            // Waiting changes nothing.
            Ok(Done::unchanged(standing.summary))
        })
    }

    fn undo<'a>(&'a self, _cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { Ok(Done::unchanged("nothing to undo")) })
    }

    fn plan(&self, seen: &Observation) -> Intent {
        Intent::from_observation(seen)
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        if cx.down {
            return;
        }
        let condition = match (self.condition.as_deref(), self.target.kind) {
            (Some(condition), _) => condition,
            (None, "Deployment") => "Available",
            (None, "HorizontalPodAutoscaler") => "ScalingActive",
            (None, "Job") => "Complete",
            (None, "Pod") => "Ready",
            (None, kind) => {
                let object = format!("{}/{}", kind.to_lowercase(), self.target.name);
                return script.run(&["kubectl", "--context", &cx.lab.context, "rollout", "status", &object]);
            }
        };
        let object = format!("{}/{}", self.target.kind.to_lowercase(), self.target.name);
        let condition = format!("--for=condition={condition}");
        script.run(&[
            "kubectl",
            "--context",
            &cx.lab.context,
            "wait",
            &condition,
            "--timeout=120s",
            &object,
        ]);
    }
}
