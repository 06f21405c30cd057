//! The three conditions of an autoscaler: AbleToScale, ScalingActive, ScalingLimited.
//!
//! Pure. The order is that in which they were first set, and `lastTransitionTime` moves only with the status.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    AbleToScale,
    ScalingActive,
    ScalingLimited,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::AbleToScale => "AbleToScale",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
        }
    }
}

/// Sets a condition in place, or appends it.
pub(super) fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    type_: Type,
    is_true: bool,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let value = if is_true { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let index = conditions
        .iter()
        .position(|condition| condition.type_ == type_.as_str())
        .unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition {
                type_: type_.as_str().into(),
                ..Default::default()
            });
            conditions.len() - 1
        });
    let condition = &mut conditions[index];
    if condition.status != value {
        condition.status = value.into();
        condition.last_transition_time = Some(Time(now));
    }
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.into());
}

/// True if the autoscaler works on metrics.
pub(super) fn is_active(status: Option<&HorizontalPodAutoscalerStatus>) -> bool {
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == Type::ScalingActive.as_str() && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_place_and_its_time_until_it_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut status = HorizontalPodAutoscalerStatus::default();
        set(&mut status, Type::AbleToScale, true, "SucceededGetScale", "", at(1));
        set(
            &mut status,
            Type::ScalingActive,
            false,
            "FailedGetResourceMetric",
            "",
            at(1),
        );
        set(&mut status, Type::AbleToScale, true, "ReadyForNewScale", "x", at(2));
        set(&mut status, Type::ScalingActive, true, "ValidMetricFound", "y", at(3));
        let told: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|condition| {
                let since = condition.last_transition_time.as_ref().unwrap().0.as_second();
                (
                    condition.type_.as_str(),
                    condition.status.as_str(),
                    condition.reason.as_deref().unwrap(),
                    since,
                )
            })
            .collect();
        let expected = [
            ("AbleToScale", "True", "ReadyForNewScale", 1),
            ("ScalingActive", "True", "ValidMetricFound", 3),
        ];
        assert_eq!(told, expected);
        assert!(is_active(Some(&status)) && !is_active(None));
    }
}
