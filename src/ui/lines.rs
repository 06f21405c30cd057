//! A run as lines: the line that a finished step leaves behind, and a listener that prints nothing else.

use std::collections::HashMap;

use super::out::{Format, Out};
use super::time::{of_day, took};
use crate::engine::event::{Event, Listener, StepInfo, What};
use crate::engine::outcome::StepEnd;
use crate::scenario::StepId;

/// The width of a summary; most fit.
const SUMMARY: usize = 66;
/// The narrowest column of ids.
const ID: usize = 7;

/// Columns of a run, wide enough for its ids.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    id: usize,
}

impl Default for Columns {
    fn default() -> Self {
        Self { id: ID }
    }
}

impl Columns {
    /// For these steps.
    pub fn of(steps: &[StepInfo]) -> Self {
        let widest = steps.iter().map(|step| step.id.as_str().chars().count()).max();
        Self {
            id: widest.unwrap_or(ID).max(ID),
        }
    }

    /// A step in the middle of its work.
    pub fn running(&self, step: &StepId, text: &str) -> String {
        format!("  {:<width$}   {text}", step.as_str(), width = self.id)
    }

    /// The line that a finished step leaves; stopped and skipped ones leave none.
    pub fn finished(&self, step: &StepId, end: &StepEnd, millis: u64) -> Option<String> {
        let summary = match end {
            StepEnd::Done(done) => done.summary.clone(),
            StepEnd::Failed(_) => "failed".to_owned(),
            StepEnd::Skipped { .. } | StepEnd::Stopped => return None,
        };
        let line = format!(
            "  {:<width$}   {summary:<SUMMARY$}   {}",
            step.as_str(),
            took(millis),
            width = self.id
        );
        Some(line)
    }

    /// A remark below a step.
    pub fn note(&self, step: &StepId, text: &str) -> String {
        format!("  {:<width$}   note: {text}", step.as_str(), width = self.id)
    }
}

/// Prints a line for each finished step; with `--output plain` also for what happens in between.
#[derive(Debug)]
pub struct Lines {
    out: Out,
    columns: Columns,
    seen: HashMap<StepId, String>,
}

impl Lines {
    /// Prints to `out`.
    pub fn new(out: Out) -> Self {
        Self {
            out,
            columns: Columns::default(),
            seen: HashMap::new(),
        }
    }
}

impl Listener for Lines {
    fn hear(&mut self, event: &Event) {
        let plain = self.out.format == Format::Plain;
        match &event.event {
            What::RunStarted { steps, .. } => self.columns = Columns::of(steps),
            What::StepNote { step, text } => self.out.say(self.columns.note(step, text)),
            What::StepSeen { step, text } if plain && self.seen.get(step) != Some(text) => {
                let line = format!("{} {text}", of_day(event.at));
                self.out.say(self.columns.running(step, &line));
                self.seen.insert(step.clone(), text.clone());
            }
            What::StepFinished { step, end, millis } => {
                if let Some(line) = self.columns.finished(step, end, *millis) {
                    self.out.say(line);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Done;

    #[test]
    fn a_finished_step_leaves_a_line_in_columns() {
        let columns = Columns::default();
        let line = |id: &str, summary: &str, millis| {
            columns
                .finished(&StepId::new(id), &StepEnd::Done(Done::changed(summary)), millis)
                .unwrap()
        };
        let lines = [
            line("metrics", "resource metrics, served by the cluster", 0),
            line("burner", "Deployment cpu-burner 1/1", 420),
            line(
                "cluster",
                "embedded, API at https://127.0.0.1:36443, context `k8slab-cpu-hpa`",
                200,
            ),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
          metrics   resource metrics, served by the cluster                              0.0 s
          burner    Deployment cpu-burner 1/1                                            0.4 s
          cluster   embedded, API at https://127.0.0.1:36443, context `k8slab-cpu-hpa`   0.2 s
        ");
        assert_eq!(columns.finished(&StepId::new("x"), &StepEnd::Stopped, 0), None);
    }
}
