//! `image: { name, dockerfile }`: the image is on the cluster's nodes, under its name and under its content.

use futures::future::BoxFuture;

use super::{Done, Explanation, Observation, Step, StepContext, StepError, Thing, ThingClass};
use crate::exec::script::Script;
use crate::images::Recipe;
use crate::providers::Explained;

pub(super) struct ImageStep {
    pub(super) name: String,
}

impl ImageStep {
    fn recipe<'a>(&self, cx: &'a StepContext<'_>) -> Result<&'a Recipe, StepError> {
        match cx.around.recipes.get(&self.name) {
            Some(Ok(recipe)) => Ok(recipe),
            Some(Err(error)) => Err(error.clone()),
            None => Err(StepError::new(
                super::FailureKind::Failed,
                format!("the image `{}` has no recipe", self.name),
            )),
        }
    }
}

impl Step for ImageStep {
    fn kind(&self) -> &'static str {
        "image"
    }

    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        Box::pin(async move {
            let recipe = self.recipe(cx)?;
            let there = cx.around.provider.has_image(recipe).await?;
            let found = Observation::Present(format!("{} in the node", recipe.reference()));
            Ok(if there { found } else { Observation::Missing })
        })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let recipe = self.recipe(cx)?;
            if cx.around.provider.has_image(recipe).await? {
                return Ok(Done::unchanged(format!("{} in the node", recipe.reference())));
            }
            cx.voice.making(Thing {
                class: ThingClass::Image,
                name: recipe.reference(),
            });
            cx.around.provider.load_image(recipe).await?;
            Ok(Done::changed(format!("{} assembled, in the node", recipe.reference())))
        })
    }

    fn undo<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            for thing in cx.around.made.iter().filter(|thing| thing.class == ThingClass::Image) {
                if thing.name.split(':').next() == Some(&self.name) {
                    cx.voice.gone(thing.clone());
                }
            }
            Ok(Done::unchanged("kept in the image cache"))
        })
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        if !cx.down {
            let dockerfile = cx.scenario.steps.iter().find_map(|step| match &step.kind {
                crate::scenario::model::StepKind::Image { name, dockerfile } if *name == self.name => Some(dockerfile),
                _ => None,
            });
            let text = dockerfile.and_then(|path| cx.scenario.dockerfiles.get(path));
            let dockerfile = text.map(String::as_str).unwrap_or_default();
            cx.provider.explain(
                &Explained::Image {
                    name: &self.name,
                    dockerfile,
                },
                script,
            );
        }
    }
}
