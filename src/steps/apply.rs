//! `apply: PATH`: the objects of a manifest are there, as the manifest says, and have become what they ask for.

use futures::future::BoxFuture;
use serde_json::Value;

use super::{Done, Effect, Explanation, Observation, Step, StepContext, StepError, Thing, ThingClass};
use crate::exec::script::Script;
use crate::k8s::apply::{Applier, Found, prepare, scaled_by_autoscalers};
use crate::k8s::ready::{self, judge};
use crate::k8s::{self, ObjectName, wait};
use crate::lab::LABEL;
use crate::scenario::manifest;

pub(super) struct ApplyStep {
    pub(super) path: String,
}

/// A manifest made ready for a lab.
struct Prepared {
    documents: Vec<Value>,
    scaled: Vec<(String, String)>,
}

impl ApplyStep {
    fn prepare(&self, cx: &StepContext<'_>) -> Prepared {
        let images = cx.images();
        let documents = cx
            .around
            .manifests
            .get(&self.path)
            .map(Vec::as_slice)
            .unwrap_or_default();
        Prepared {
            documents: documents
                .iter()
                .map(|document| prepare(document, &cx.around.lab.id, &images))
                .collect(),
            scaled: scaled_by_autoscalers(cx.around.manifests.values().flatten()),
        }
    }

    fn applier<'a>(cx: &'a StepContext<'_>, prepared: &'a Prepared) -> Result<Applier<'a>, StepError> {
        Ok(Applier {
            resources: cx.resources()?,
            lab: &cx.around.lab.id,
            namespace: &cx.around.lab.namespace,
            scaled: &prepared.scaled,
        })
    }
}

impl Step for ApplyStep {
    fn kind(&self) -> &'static str {
        "apply"
    }

    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        Box::pin(async move {
            let prepared = self.prepare(cx);
            let applier = Self::applier(cx, &prepared)?;
            let (mut missing, mut differing, mut summaries) = (Vec::new(), Vec::new(), Vec::new());
            for document in &prepared.documents {
                let name = manifest::label(document);
                match applier.observe(document).await {
                    Ok(Found::Missing) => missing.push(name),
                    Ok(Found::Present { live, differences }) => {
                        differing.extend(differences.iter().map(|line| format!("{name} {line}")));
                        let standing = judge(&live, None);
                        if differences.is_empty() && !standing.ready {
                            differing.push(format!("{}: {}", standing.summary, standing.why.unwrap_or_default()));
                        }
                        summaries.push(standing.summary);
                    }
                    // Its CRD may come with an earlier step of the run.
                    Err(k8s::Error::UnknownKind { .. }) => missing.push(name),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(match (missing.is_empty(), differing.is_empty()) {
                (true, true) => Observation::Present(summaries.join(", ")),
                (false, true) if summaries.is_empty() => Observation::Missing,
                _ => {
                    differing.extend(missing.iter().map(|name| format!("{name} missing")));
                    Observation::Differs(differing)
                }
            })
        })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let prepared = self.prepare(cx);
            let applier = Self::applier(cx, &prepared)?;
            let mut effect = Effect::Unchanged;
            let mut summaries = Vec::new();
            for document in &prepared.documents {
                let (name, _) = applier.resources.locate(document, &cx.around.lab.namespace).await?;
                let live = match applier.observe(document).await? {
                    Found::Present { live, differences } if differences.is_empty() => *live,
                    found => {
                        if found == Found::Missing {
                            cx.voice.making(Thing {
                                class: ThingClass::Object,
                                name: name.key(),
                            });
                        }
                        effect = Effect::Changed;
                        applier.apply(document).await?
                    }
                };
                let standing = judge(&live, None);
                // Waits even where nothing changed: an earlier run may have died between the two.
                if standing.ready {
                    summaries.push(standing.summary);
                } else {
                    effect = Effect::Changed;
                    summaries.push(self.wait(cx, &applier, &name).await?);
                }
            }
            Ok(Done {
                effect,
                summary: summaries.join(", "),
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let prepared = self.prepare(cx);
            let applier = Self::applier(cx, &prepared)?;
            let (mut gone, mut effect) = (Vec::new(), Effect::Unchanged);
            for document in prepared.documents.iter().rev() {
                let located = applier.resources.locate(document, &cx.around.lab.namespace).await;
                let name = match located {
                    Ok((name, _)) => name,
                    Err(k8s::Error::UnknownKind { .. } | k8s::Error::Elsewhere { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                if applier.delete(&name).await? {
                    effect = Effect::Changed;
                    let seen = |text| cx.voice.seen(text);
                    wait::gone(applier.resources, &name, &cx.patience(&seen)).await?;
                    gone.push(format!("{} {}", name.kind, name.name));
                }
                cx.voice.gone(Thing {
                    class: ThingClass::Object,
                    name: name.key(),
                });
            }
            let summary = if gone.is_empty() {
                "was not there".to_owned()
            } else {
                format!("{} gone", gone.join(", "))
            };
            Ok(Done { effect, summary })
        })
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        let documents = cx.manifests.get(&self.path).map(Vec::as_slice).unwrap_or_default();
        let yaml: Vec<String> = documents
            .iter()
            .filter_map(|document| serde_yaml::to_string(document).ok())
            .collect();
        let kubectl = ["kubectl", "--context", &cx.lab.context];
        if cx.down {
            let words = [&kubectl[..], &["delete", "--ignore-not-found", "--wait", "-f", "-"]].concat();
            script.run_with_input(&words, &yaml.join("---\n"));
            return;
        }
        script.run_with_input(&[&kubectl[..], &["apply", "-f", "-"]].concat(), &yaml.join("---\n"));
        for document in documents {
            let (kind, name) = (
                manifest::text(document, "/kind"),
                manifest::text(document, "/metadata/name"),
            );
            let object = format!("{}/{name}", kind.to_lowercase());
            match kind {
                "Deployment" | "StatefulSet" | "DaemonSet" => {
                    script.run(&[&kubectl[..], &["rollout", "status", &object]].concat());
                }
                "HorizontalPodAutoscaler" => {
                    let wait = ["wait", "--for=condition=ScalingActive", "--timeout=120s", &object];
                    script.run(&[&kubectl[..], &wait].concat());
                }
                _ => {}
            }
        }
    }
}

impl ApplyStep {
    async fn wait(&self, cx: &StepContext<'_>, applier: &Applier<'_>, name: &ObjectName) -> Result<String, StepError> {
        if !ready::takes_time(&name.kind) {
            return Ok(format!("{} {}", name.kind, name.name));
        }
        let seen = |text| cx.voice.seen(text);
        let pods = format!("{LABEL}={}", cx.around.lab.id);
        let standing = wait::ready(applier.resources, name, None, Some(&pods), &cx.patience(&seen)).await?;
        Ok(standing.summary)
    }
}
