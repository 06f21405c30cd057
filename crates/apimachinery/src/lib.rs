//! Kubernetes' arithmetic without I/O: quantities, selectors, `Status`, patches, clock and pace.
//!
//! Owns rules that are the same on every side of the API. Must not know of HTTP, stores, clients or containers; no
//! module here reads a clock, a file or a socket (but `SystemClock`, which is the clock).

pub mod clock;
pub mod cron;
pub mod duration;
pub mod field;
pub mod fields;
pub mod gvk;
pub mod labels;
pub mod names;
pub mod pace;
pub mod patch;
pub mod quantity;
pub mod quote;
pub mod schema;
pub mod status;
pub mod time;
