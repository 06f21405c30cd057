//! What a user sees. The one room that prints.
//!
//! Progress, plain lines and JSON lines are listeners of `engine::event` and know nothing else of the engine; tables and
//! plans are drawn from plain data.

pub mod json;
pub mod lines;
pub mod out;
pub mod plan;
pub mod progress;
pub mod table;
pub mod time;

pub use out::{Format, Out};
