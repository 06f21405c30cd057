//! A run for programs: every event as one line of JSON.

use super::out::Out;
use crate::engine::event::{Event, Listener};

/// Prints every event.
#[derive(Debug)]
pub struct JsonLines(Out);

impl JsonLines {
    /// Prints to `out`.
    pub fn new(out: Out) -> Self {
        Self(out)
    }
}

impl Listener for JsonLines {
    fn hear(&mut self, event: &Event) {
        self.0.json_line(event);
    }
}
