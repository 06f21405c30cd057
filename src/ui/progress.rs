//! A run on a terminal: a live line for each step at work, with what it sees and how long it takes, above it the lines
//! of finished steps.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::Columns;
use crate::engine::event::{Event, Listener, What};
use crate::scenario::StepId;

const FRAME: Duration = Duration::from_millis(100);

/// Draws the live lines.
#[derive(Debug)]
pub struct Progress {
    bars: MultiProgress,
    running: HashMap<StepId, ProgressBar>,
    columns: Columns,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            running: HashMap::new(),
            columns: Columns::default(),
        }
    }
}

impl Progress {
    fn print(&self, line: String) {
        // A terminal that is gone is nobody's problem.
        let _ = self.bars.println(line);
    }
}

impl Listener for Progress {
    fn hear(&mut self, event: &Event) {
        match &event.event {
            What::RunStarted { steps, .. } => self.columns = Columns::of(steps),
            What::StepStarted { step } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                let style = ProgressStyle::with_template("{msg}   {elapsed} {spinner}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_message(self.columns.running(step, ""));
                bar.enable_steady_tick(FRAME);
                self.running.insert(step.clone(), bar);
            }
            What::StepSeen { step, text } => {
                if let Some(bar) = self.running.get(step) {
                    bar.set_message(self.columns.running(step, text));
                }
            }
            What::StepNote { step, text } => self.print(self.columns.note(step, text)),
            What::StepFinished { step, end, millis } => {
                if let Some(bar) = self.running.remove(step) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                if let Some(line) = self.columns.finished(step, end, *millis) {
                    self.print(line);
                }
            }
            What::RunFinished { .. } => {
                let _ = self.bars.clear();
            }
            What::Making { .. } | What::Gone { .. } => {}
        }
    }
}
