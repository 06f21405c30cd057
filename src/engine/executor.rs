//! Walks a graph: order, bounded parallelism, cancellation.
//!
//! Knows neither what a step does nor who looks on. Starts a step only when its needs are done, starts none twice, and
//! tells the stream what happened. The first request to stop lets running steps finish; the second drops them.

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::BTreeSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{Stream, What};
use super::graph::Graph;
use super::outcome::StepEnd;
use crate::scenario::StepId;
use crate::steps::{Done, FailureKind, StepError};

/// Does the work of a step, whatever that is.
pub trait Work: Sync {
    /// Runs the step with this number to its end.
    fn run(&self, step: usize) -> BoxFuture<'_, Result<Done, StepError>>;
}

/// What to do with the rest when a step goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Start nothing more.
    Stop,
    /// Go on with what does not wait for it.
    Continue,
}

/// How a graph is walked.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How many steps run side by side, at least one.
    pub parallel: usize,
    /// What to do when a step goes wrong.
    pub after_failure: AfterFailure,
}

/// A request to stop, in two degrees.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Finish what is running, start nothing more. Waits may end early.
    pub soon: CancellationToken,
    /// Drop everything.
    pub now: CancellationToken,
}

struct Walk<'a> {
    graph: &'a Graph,
    stream: &'a Stream,
    ends: Vec<Option<StepEnd>>,
    waits: Vec<usize>,
    ready: BTreeSet<usize>,
    culprit: Option<StepId>,
}

/// Runs every step, and returns how each ended, in file order.
pub async fn execute(graph: &Graph, work: &dyn Work, policy: Policy, stop: &Stop, stream: &Stream) -> Vec<StepEnd> {
    let waits: Vec<usize> = (0..graph.len()).map(|step| graph.needs(step).len()).collect();
    let ready = (0..graph.len()).filter(|step| waits[*step] == 0).collect();
    let mut walk = Walk {
        graph,
        stream,
        ends: vec![None; graph.len()],
        waits,
        ready,
        culprit: None,
    };
    let mut running = FuturesUnordered::new();
    let mut started: Vec<(usize, Instant)> = Vec::new();
    let mut stopping = false;
    loop {
        let halted = stopping || (walk.culprit.is_some() && policy.after_failure == AfterFailure::Stop);
        while !halted && running.len() < policy.parallel.max(1) {
            let Some(step) = walk.ready.pop_first() else { break };
            stream.emit(What::StepStarted {
                step: graph.id(step).clone(),
            });
            started.push((step, Instant::now()));
            running.push(async move { (step, work.run(step).await) });
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            () = stop.now.cancelled() => {
                drop(running);
                for (step, since) in started {
                    walk.finish(step, StepEnd::Stopped, since);
                }
                return walk.remaining(true);
            }
            () = stop.soon.cancelled(), if !stopping => stopping = true,
            Some((step, result)) = running.next() => {
                let since = started.iter().position(|(one, _)| *one == step).map(|at| started.swap_remove(at).1);
                stopping |= matches!(&result, Err(error) if error.kind == FailureKind::Stopped);
                let end = match result {
                    Ok(done) => StepEnd::Done(done),
                    Err(error) if error.kind == FailureKind::Stopped => StepEnd::Stopped,
                    Err(error) => StepEnd::Failed(error),
                };
                walk.finish(step, end, since.unwrap_or_else(Instant::now));
            }
        }
    }
    walk.remaining(stopping)
}

impl Walk<'_> {
    fn finish(&mut self, step: usize, end: StepEnd, since: Instant) {
        let id = self.graph.id(step).clone();
        if matches!(end, StepEnd::Done(_)) {
            for dependent in self.graph.dependents(step) {
                self.waits[dependent] -= 1;
                if self.waits[dependent] == 0 {
                    self.ready.insert(dependent);
                }
            }
        } else if self.culprit.is_none() && matches!(end, StepEnd::Failed(_)) {
            self.culprit = Some(id.clone());
        }
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.stream.emit(What::StepFinished {
            step: id,
            end: end.clone(),
            millis,
        });
        self.ends[step] = Some(end);
    }

    /// Gives the steps that never started their end: stopped, or skipped because of the need that went wrong.
    fn remaining(mut self, stopped: bool) -> Vec<StepEnd> {
        for step in self.graph.order() {
            if self.ends[step].is_some() {
                continue;
            }
            let broken = self
                .graph
                .needs(step)
                .into_iter()
                .find_map(|need| match &self.ends[need] {
                    Some(StepEnd::Failed(_)) => Some(self.graph.id(need).clone()),
                    Some(StepEnd::Skipped { because }) => Some(because.clone()),
                    _ => None,
                });
            let end = match broken.or_else(|| self.culprit.clone().filter(|_| !stopped)) {
                Some(because) => StepEnd::Skipped { because },
                None => StepEnd::Stopped,
            };
            self.stream.emit(What::StepFinished {
                step: self.graph.id(step).clone(),
                end: end.clone(),
                millis: 0,
            });
            self.ends[step] = Some(end);
        }
        self.ends
            .into_iter()
            .map(|end| end.unwrap_or(StepEnd::Stopped))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{Event, Listener};
    use apimachinery::clock::ManualClock;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// A step of the model: which earlier steps it needs, how long it takes, whether it fails.
    #[derive(Clone, Debug)]
    struct Model {
        needs: Vec<usize>,
        millis: u64,
        fails: bool,
    }

    fn models() -> impl Strategy<Value = Vec<Model>> {
        (1usize..12).prop_flat_map(|count| {
            (0..count)
                .map(|step| {
                    let needs = prop::collection::btree_set(0..step.max(1), 0..=step.min(3));
                    (needs, 0u64..50, prop::bool::weighted(0.12)).prop_map(move |(needs, millis, fails)| Model {
                        needs: needs.into_iter().filter(|need| *need < step).collect(),
                        millis,
                        fails,
                    })
                })
                .collect::<Vec<_>>()
        })
    }

    struct Play {
        models: Vec<Model>,
        log: Mutex<Vec<(usize, bool)>>,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Work for Play {
        fn run(&self, step: usize) -> BoxFuture<'_, Result<Done, StepError>> {
            Box::pin(async move {
                self.log.lock().unwrap().push((step, true));
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(self.models[step].millis)).await;
                self.now.fetch_sub(1, Ordering::SeqCst);
                self.log.lock().unwrap().push((step, false));
                if self.models[step].fails {
                    return Err(StepError::new(FailureKind::Failed, "as the model says"));
                }
                Ok(Done::changed("done"))
            })
        }
    }

    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<Event>>>);

    impl Listener for Ear {
        fn hear(&mut self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn graph(models: &[Model]) -> Graph {
        let id = |step: usize| StepId::new(&format!("s{step}"));
        let steps: Vec<_> = models
            .iter()
            .enumerate()
            .map(|(step, model)| (id(step), model.needs.iter().map(|n| id(*n)).collect()))
            .collect();
        Graph::new(&steps).unwrap()
    }

    fn play(
        graph: &Graph,
        models: &[Model],
        policy: Policy,
        stop_after: Option<u64>,
    ) -> (Play, Vec<StepEnd>, Vec<Event>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let work = Play {
            models: models.to_vec(),
            log: Mutex::default(),
            now: 0.into(),
            most: 0.into(),
        };
        let ear = Ear::default();
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let stream = Stream::new(clock, vec![Box::new(ear.clone())]);
        let stop = Stop::default();
        let ends = runtime.block_on(async {
            let soon = stop.soon.clone();
            let stopper = async move {
                if let Some(millis) = stop_after {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    soon.cancel();
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = stopper => unreachable!(),
                ends = execute(graph, &work, policy, &stop, &stream) => ends,
            }
        });
        let heard = ear.0.lock().unwrap().clone();
        (work, ends, heard)
    }

    proptest! {
        #[test]
        fn no_step_runs_before_its_needs_none_twice_and_never_too_many(
            models in models(), parallel in 1usize..5, go_on in any::<bool>(), stop_after in prop::option::of(0u64..80),
        ) {
            let graph = graph(&models);
            let after_failure = if go_on { AfterFailure::Continue } else { AfterFailure::Stop };
            let (work, ends, heard) = play(&graph, &models, Policy { parallel, after_failure }, stop_after);
            let log = work.log.lock().unwrap().clone();
            for (step, model) in models.iter().enumerate() {
                let begun: Vec<usize> = log.iter().enumerate().filter(|(_, e)| **e == (step, true)).map(|(at, _)| at).collect();
                prop_assert!(begun.len() <= 1, "step {step} ran twice");
                let Some(begun) = begun.first() else { continue };
                for need in &model.needs {
                    let done = log.iter().position(|entry| *entry == (*need, false));
                    prop_assert!(done.is_some_and(|done| done < *begun), "step {step} ran before {need}");
                    prop_assert!(matches!(ends[*need], StepEnd::Done(_)));
                }
            }
            prop_assert!(work.most.load(Ordering::SeqCst) <= parallel);
            // Every step ends exactly once in the stream, whether it ran or not.
            let finished = heard.iter().filter(|event| matches!(event.event, What::StepFinished { .. })).count();
            prop_assert_eq!(finished, models.len());
            // Nothing that could still run is left out without a reason.
            for (step, end) in ends.iter().enumerate() {
                if let StepEnd::Skipped { .. } = end {
                    prop_assert!(ends.iter().any(|end| matches!(end, StepEnd::Failed(_))), "step {step}");
                }
            }
            if stop_after.is_none() && models.iter().all(|model| !model.fails) {
                prop_assert!(ends.iter().all(|end| matches!(end, StepEnd::Done(_))));
            }
        }

        #[test]
        fn the_way_down_is_the_way_up_turned_round(models in models()) {
            let models: Vec<Model> = models.into_iter().map(|model| Model { fails: false, ..model }).collect();
            let graph = graph(&models);
            let policy = Policy { parallel: 4, after_failure: AfterFailure::Continue };
            let down = graph.clone().reversed();
            let (work, _, _) = play(&down, &models, policy, None);
            let log = work.log.lock().unwrap().clone();
            let at = |entry: (usize, bool)| log.iter().position(|other| *other == entry).unwrap();
            for (step, model) in models.iter().enumerate() {
                for need in &model.needs {
                    prop_assert!(at((step, false)) < at((*need, true)), "{need} was undone before {step}");
                }
            }
            let up: Vec<usize> = graph.order();
            prop_assert_eq!(up.len(), down.order().len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_request_to_stop_drops_what_runs() {
        let models = vec![
            Model {
                needs: vec![],
                millis: 3_600_000,
                fails: false,
            },
            Model {
                needs: vec![0],
                millis: 1,
                fails: false,
            },
        ];
        let graph = graph(&models);
        let work = Play {
            models,
            log: Mutex::default(),
            now: 0.into(),
            most: 0.into(),
        };
        let stream = Stream::new(Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH)), vec![]);
        let stop = Stop::default();
        let policy = Policy {
            parallel: 2,
            after_failure: AfterFailure::Stop,
        };
        let run = execute(&graph, &work, policy, &stop, &stream);
        let ends = tokio::join!(run, async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            stop.soon.cancel();
            tokio::time::sleep(Duration::from_millis(5)).await;
            stop.now.cancel();
        });
        assert_eq!(ends.0, [StepEnd::Stopped, StepEnd::Stopped]);
        assert_eq!(work.log.lock().unwrap().len(), 1);
    }
}
