//! HorizontalPodAutoscaler `autoscaling/v2`: as many replicas as the metrics ask for, within limits.
//!
//! `controller` knows when to look, and acts on what `look` decides; `metric` reads one metric and words what it says;
//! `calculator` and `normalize` are the arithmetic; `metrics_client` and `scale` are the two APIs it talks to; `moves`
//! is the board that others read.

mod calculator;
mod conditions;
mod controller;
mod look;
mod metric;
mod metrics_client;
mod moves;
mod normalize;
mod scale;

pub(crate) use controller::start;
pub(crate) use moves::Moves;
pub use moves::{Held, Limit, NextMove};
