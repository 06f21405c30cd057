//! A lab's steps, walked up or down: joins the scenario's steps with the graph, the executor and the stream.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::event::{StepInfo, Stream, Verb, What};
use super::executor::{AfterFailure, Policy, Stop, Work, execute};
use super::graph::{Graph, GraphError};
use super::outcome::{RunEnd, StepEnd};
use super::plan::Plan;
use crate::exec::script::Script;
use crate::providers::Presence;
use crate::scenario::StepId;
use crate::steps::{
    self, Action, CLUSTER, Done, Explanation, FailureKind, Intent, Observation, Session, Step, StepContext, StepError,
    Surroundings, Thing, Voice,
};

/// Steps side by side: enough to hide waiting, few enough to be read.
const PARALLEL: usize = 4;

/// The steps of a lab, ready to be walked.
pub struct Run<'r> {
    around: Surroundings<'r>,
    graph: Graph,
    steps: Vec<Box<dyn Step>>,
    timeouts: Vec<Option<Duration>>,
}

/// How a run is limited.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// For the whole run.
    pub total: Option<Duration>,
    /// How the user stops it.
    pub stop: Stop,
}

impl<'r> Run<'r> {
    /// The scenario's steps behind the one that brings the cluster.
    pub fn new(around: Surroundings<'r>) -> Result<Self, GraphError> {
        let cluster = StepId::new(CLUSTER);
        let mut nodes = vec![(cluster.clone(), Vec::new())];
        let mut steps = vec![steps::cluster()];
        let mut timeouts = vec![None];
        for step in &around.scenario.steps {
            let mut needs = step.needs.clone();
            if needs.is_empty() {
                needs.push(cluster.clone());
            }
            nodes.push((step.id.clone(), needs));
            steps.push(steps::build(step));
            timeouts.push(step.timeout);
        }
        Ok(Self {
            graph: Graph::new(&nodes)?,
            around,
            steps,
            timeouts,
        })
    }

    /// Towards a working lab.
    pub async fn up(&self, values: &BTreeMap<String, Value>, stream: &Stream, limits: &Limits) -> RunEnd {
        self.walk(Verb::Up, &self.graph, AfterFailure::Stop, values, stream, limits)
            .await
    }

    /// Towards nothing left.
    pub async fn down(&self, stream: &Stream, limits: &Limits) -> RunEnd {
        let graph = self.graph.clone().reversed();
        self.walk(
            Verb::Down,
            &graph,
            AfterFailure::Continue,
            &BTreeMap::new(),
            stream,
            limits,
        )
        .await
    }

    async fn walk(
        &self,
        verb: Verb,
        graph: &Graph,
        after_failure: AfterFailure,
        values: &BTreeMap<String, Value>,
        stream: &Stream,
        limits: &Limits,
    ) -> RunEnd {
        let since = Instant::now();
        let order = graph.order().into_iter();
        let info = |step: usize| StepInfo {
            id: graph.id(step).clone(),
            kind: self.steps[step].kind().to_owned(),
        };
        stream.emit(What::RunStarted {
            verb,
            lab: self.around.lab.clone(),
            steps: order.map(info).collect(),
            values: values.clone(),
            by: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let until = limits.total.map(|total| since + total);
        let work = LabWork {
            run: self,
            graph,
            verb,
            stream,
            limits,
            until,
        };
        let entered = match verb {
            Verb::Up => Ok(()),
            Verb::Down => work.enter().await,
        };
        let end = match entered {
            Ok(()) => {
                let policy = Policy {
                    parallel: PARALLEL,
                    after_failure,
                };
                RunEnd::of(&execute(graph, &work, policy, &limits.stop, stream).await)
            }
            Err(error) => {
                let kind = error.kind;
                let step = StepId::new(CLUSTER);
                stream.emit(What::StepFinished {
                    step,
                    end: StepEnd::Failed(error),
                    millis: 0,
                });
                RunEnd::Failed(kind)
            }
        };
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        stream.emit(What::RunFinished { end, millis });
        end
    }

    /// What a run would do. Looks, and changes nothing.
    pub async fn plan(&self, verb: Verb, limits: &Limits) -> Result<Plan, StepError> {
        let graph = match verb {
            Verb::Up => self.graph.clone(),
            Verb::Down => self.graph.clone().reversed(),
        };
        let mut intents: Vec<Option<(String, Intent)>> = Vec::new();
        // The cluster first, in both directions: without it there is nothing to look at.
        for step in 0..self.steps.len() {
            let until = Instant::now() + self.timeout(step);
            let cx = StepContext {
                around: &self.around,
                voice: &Silence,
                until,
                limit: self.timeout(step),
                stop: &limits.stop.soon,
            };
            let there = step == 0 || self.around.cluster.initialized();
            let seen = if there {
                self.steps[step].observe(&cx).await?
            } else {
                Observation::Missing
            };
            let mut intent = match verb {
                Verb::Up => self.steps[step].plan(&seen),
                Verb::Down => Intent::removing(&seen),
            };
            if !there && intent.action == Action::Create {
                "there is no cluster yet".clone_into(&mut intent.why);
            }
            intents.push(Some((self.steps[step].kind().to_owned(), intent)));
        }
        Ok(Plan::new(verb, &graph, intents, self.around.lab))
    }

    /// The commands that do the same by hand.
    pub fn explain(&self, verb: Verb) -> String {
        let around = &self.around;
        let title = format!("{}: {}", around.scenario.name, around.scenario.title);
        let mut script = Script::new(&title);
        let down = verb == Verb::Down;
        let graph = if down {
            self.graph.clone().reversed()
        } else {
            self.graph.clone()
        };
        let cx = Explanation {
            lab: around.lab,
            manifests: around.manifests,
            scenario: around.scenario,
            provider: around.provider,
            down,
        };
        for step in graph.order() {
            script.step(graph.id(step).as_str(), self.steps[step].kind());
            self.steps[step].explain(&cx, &mut script);
        }
        script.finish()
    }

    fn timeout(&self, step: usize) -> Duration {
        self.timeouts[step].unwrap_or_else(|| self.steps[step].default_timeout())
    }
}

/// Nobody listens to a plan.
struct Silence;

impl Voice for Silence {
    fn seen(&self, _text: String) {}
    fn note(&self, _text: String) {}
    fn making(&self, _thing: Thing) {}
    fn gone(&self, _thing: Thing) {}
}

/// What a step says becomes events.
struct StepVoice<'a> {
    stream: &'a Stream,
    step: &'a StepId,
}

impl Voice for StepVoice<'_> {
    fn seen(&self, text: String) {
        self.stream.emit(What::StepSeen {
            step: self.step.clone(),
            text,
        });
    }

    fn note(&self, text: String) {
        self.stream.emit(What::StepNote {
            step: self.step.clone(),
            text,
        });
    }

    fn making(&self, thing: Thing) {
        self.stream.emit(What::Making {
            step: self.step.clone(),
            thing,
        });
    }

    fn gone(&self, thing: Thing) {
        self.stream.emit(What::Gone {
            step: self.step.clone(),
            thing,
        });
    }
}

struct LabWork<'a, 'r> {
    run: &'a Run<'r>,
    graph: &'a Graph,
    verb: Verb,
    stream: &'a Stream,
    limits: &'a Limits,
    until: Option<Instant>,
}

impl LabWork<'_, '_> {
    /// On the way down the cluster is needed first and goes last. One that is stopped is started for it.
    async fn enter(&self) -> Result<(), StepError> {
        let around = &self.run.around;
        let step = StepId::new(CLUSTER);
        let voice = StepVoice {
            stream: self.stream,
            step: &step,
        };
        let cluster = match around.provider.find().await? {
            Presence::Absent => return Ok(()),
            Presence::Running(cluster) => *cluster,
            Presence::Stopped => around.provider.ensure(&|text| voice.note(text)).await?,
        };
        let session = Session::new(cluster);
        // Nobody else sets it: the steps have not started.
        let _ = around.cluster.set(session);
        Ok(())
    }
}

impl Work for LabWork<'_, '_> {
    fn run(&self, step: usize) -> BoxFuture<'_, Result<Done, StepError>> {
        Box::pin(async move {
            let limit = self.run.timeout(step);
            let own = Instant::now() + limit;
            let until = self.until.map_or(own, |total| total.min(own));
            let voice = StepVoice {
                stream: self.stream,
                step: self.graph.id(step),
            };
            let cx = StepContext {
                around: &self.run.around,
                voice: &voice,
                until,
                limit: until.saturating_duration_since(Instant::now()),
                stop: &self.limits.stop.soon,
            };
            let work = match self.verb {
                Verb::Up => self.run.steps[step].run(&cx),
                Verb::Down if step != 0 && !self.run.around.cluster.initialized() => {
                    return Ok(Done::unchanged("gone with the cluster"));
                }
                Verb::Down => self.run.steps[step].undo(&cx),
            };
            // Waits watch the clock themselves and say what they last saw; this is for whatever does not.
            let grace = until + Duration::from_secs(5);
            tokio::time::timeout_at(grace, work).await.unwrap_or_else(|_| {
                let limit = crate::scenario::duration::shown(limit);
                Err(StepError::new(
                    FailureKind::NotReady,
                    format!("step `{}`: gave up after {limit}", self.graph.id(step)),
                ))
            })
        })
    }
}
