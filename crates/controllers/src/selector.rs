//! A workload's `spec.selector` against the labels of typed objects.

use std::collections::BTreeMap;

use apimachinery::labels::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::error::{Error, Result};

/// The selector as written in a workload. An empty one selects everything.
pub(crate) fn of(selector: &LabelSelector) -> Result<Selector> {
    let wire = serde_json::to_value(selector).map_err(|error| Error::new(format!("encoding a selector: {error}")))?;
    Selector::from_label_selector(&wire).map_err(|error| Error::new(format!("reading the selector: {error}")))
}

pub(crate) fn matches(selector: &Selector, labels: Option<&BTreeMap<String, String>>) -> bool {
    selector.matches_with(|key| labels?.get(key).map(String::as_str))
}

/// A Service's selector: plain equality on every key.
pub(crate) fn matches_map(selector: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}
