//! `http: { endpoint, path, status }`: something of the lab answers as it should.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{Done, Explanation, FailureKind, Observation, Step, StepContext, StepError};
use crate::exec::script::Script;
use crate::k8s::forward;
use crate::scenario::duration;

/// Between two questions: there is nothing to watch inside a program that does not answer yet.
const AGAIN: Duration = Duration::from_millis(250);

pub(super) struct HttpStep {
    pub(super) endpoint: String,
    pub(super) path: String,
    pub(super) status: u16,
}

impl HttpStep {
    /// One question; what was seen where it is not the wanted answer.
    async fn ask(&self, cx: &StepContext<'_>) -> Result<String, String> {
        let namespace = &cx.around.lab.namespace;
        let client = cx.resources().map_err(|error| error.to_string())?.client();
        let endpoint = cx
            .around
            .scenario
            .endpoint(&self.endpoint)
            .ok_or("the endpoint is not in the scenario")?;
        let (pod, port) = forward::pod_behind(client, namespace, endpoint)
            .await
            .map_err(|error| super::chain(&error))?;
        let answer = forward::get(client, namespace, &pod, port, &self.path)
            .await
            .map_err(|error| super::chain(&error))?;
        if answer.status == self.status {
            return Ok(format!("GET {} of `{}`: {}", self.path, self.endpoint, answer.status));
        }
        let first: String = answer
            .body
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(120)
            .collect();
        Err(format!("pod `{pod}` answered {} {first}", answer.status))
    }
}

impl Step for HttpStep {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn observe<'a>(&'a self, _cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        // A GET may change state in a lab: it is asked in a run only.
        Box::pin(async move { Ok(Observation::Unknown(format!("asks for {}", self.path))) })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            let mut last = "nothing was asked yet".to_owned();
            loop {
                let asked = tokio::select! {
                    biased;
                    () = cx.stop.cancelled() => return Err(StepError::stopped()),
                    () = tokio::time::sleep_until(cx.until) => None,
                    asked = self.ask(cx) => Some(asked),
                };
                match asked {
                    Some(Ok(summary)) => return Ok(Done::unchanged(summary)),
                    Some(Err(seen)) => {
                        cx.voice.seen(seen.clone());
                        last = seen;
                    }
                    None => {
                        let message = format!(
                            "waiting for GET {} of `{}` to answer {}: gave up after {}",
                            self.path,
                            self.endpoint,
                            self.status,
                            duration::shown(cx.limit)
                        );
                        return Err(StepError::new(FailureKind::NotReady, message).last_seen([last]));
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }

    fn undo<'a>(&'a self, _cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { Ok(Done::unchanged("nothing to undo")) })
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        let Some(endpoint) = cx.scenario.endpoint(&self.endpoint).filter(|_| !cx.down) else {
            return;
        };
        let target = format!("{:?}/{}", endpoint.target, endpoint.target_name).to_lowercase();
        let port = format!("18080:{}", endpoint.port);
        script.comment(&format!(
            "in another terminal: kubectl --context {} port-forward {target} {port}",
            cx.lab.context
        ));
        script.comment(&format!("then: curl -i http://localhost:18080{}", self.path));
    }
}
