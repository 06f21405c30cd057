//! HorizontalPodAutoscaler `autoscaling/v2`.

mod moves;

pub(crate) use moves::Moves;
pub use moves::{Held, Limit, NextMove};
