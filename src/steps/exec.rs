//! `exec: { run, undo }`: a command of the host. The CLI asks for consent before the run.

use futures::future::BoxFuture;

use super::{Done, Explanation, Observation, Step, StepContext, StepError, Thing, ThingClass};
use crate::exec::CommandLine;
use crate::exec::script::Script;

pub(super) struct ExecStep {
    pub(super) run: Vec<String>,
    pub(super) undo: Vec<String>,
}

impl ExecStep {
    fn thing(&self) -> Thing {
        Thing {
            class: ThingClass::Command,
            name: CommandLine::new(&self.run).to_string(),
        }
    }

    async fn command(words: &[String], cx: &StepContext<'_>) -> Result<Done, StepError> {
        let line = CommandLine::new(words);
        cx.voice.note(line.to_string());
        let run = cx.around.host.run(&line);
        let output = tokio::select! {
            biased;
            () = tokio::time::sleep_until(cx.until) => {
                let limit = crate::scenario::duration::shown(cx.limit);
                let message = format!("running `{line}`: gave up after {limit}");
                return Err(StepError::new(super::FailureKind::NotReady, message));
            }
            output = run => output,
        };
        match output {
            Ok(output) => {
                let last = output.stdout.lines().last().unwrap_or_default();
                Ok(Done::changed(if last.is_empty() {
                    line.to_string()
                } else {
                    last.to_owned()
                }))
            }
            Err(error) => Err(StepError::new(super::FailureKind::Failed, error.to_string())),
        }
    }
}

impl Step for ExecStep {
    fn kind(&self) -> &'static str {
        "exec"
    }

    fn observe<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Observation, StepError>> {
        let done = cx.around.made.contains(&self.thing());
        let line = CommandLine::new(&self.run);
        Box::pin(async move {
            Ok(if done {
                Observation::Present(format!("`{line}` ran"))
            } else {
                Observation::Unknown(format!("runs `{line}`"))
            })
        })
    }

    fn run<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            if cx.around.made.contains(&self.thing()) {
                return Ok(Done::unchanged(format!("`{}` ran", CommandLine::new(&self.run))));
            }
            let done = Self::command(&self.run, cx).await?;
            // Noted afterwards: a command that was interrupted is run again.
            cx.voice.making(self.thing());
            Ok(done)
        })
    }

    fn undo<'a>(&'a self, cx: &'a StepContext<'_>) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            if self.undo.is_empty() || !cx.around.made.contains(&self.thing()) {
                return Ok(Done::unchanged("nothing to undo"));
            }
            let done = Self::command(&self.undo, cx).await?;
            cx.voice.gone(self.thing());
            Ok(done)
        })
    }

    fn explain(&self, cx: &Explanation<'_>, script: &mut Script) {
        let words = if cx.down { &self.undo } else { &self.run };
        if !words.is_empty() {
            script.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
