//! `feature: NAME`: makes sure that the cluster has something. What that takes is the provider's business.

use futures::future::BoxFuture;

use super::{Done, Explanation, Observation, Step, StepContext, StepError};
use crate::exec::script::Script;
use crate::providers::Explained;
use crate::scenario::model::Feature;

pub(super) struct FeatureStep {
    pub(super) feature: Feature,
}

impl Step for FeatureStep {
    fn kind(&self) -> &'static str {
        "feature"
    }

    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        Box::pin(async move {
            let session = cx.session()?;
            let there = cx.around.provider.has_feature(session, self.feature).await?;
            Ok(there.map_or(Observation::Missing, Observation::Present))
        })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let session = cx.session()?;
            if let Some(summary) = cx.around.provider.has_feature(session, self.feature).await? {
                return Ok(Done::unchanged(summary));
            }
            let seen = |text| cx.voice.seen(text);
            cx.around
                .provider
                .ensure_feature(session, self.feature, &cx.patience(&seen))
                .await
        })
    }

    fn undo<'a>(&'a self, _cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        // A feature belongs to the cluster and may serve others.
        Box::pin(async { Ok(Done::unchanged("stays with the cluster")) })
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        if !cx.down {
            let what = Explained::Feature {
                feature: self.feature,
                context: &cx.lab.context,
            };
            cx.provider.explain(&what, script);
        }
    }
}
