//! Amounts in lists of resources.
//!
//! Objects reach the strategies with canonical quantities ([`apimachinery::schema`] brings them into that form); what
//! is left is what depends on where a quantity stands.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::walk::{Object, inner};

/// The amount, if it can be read.
pub(crate) fn amount(value: &Value) -> Option<Quantity> {
    Quantity::from_json(value).ok()
}

/// Rounds the amounts of a resource list up to thousandths (k/k `SetDefaults_ResourceList`).
pub(crate) fn round_list(owner: &mut Object, list: &str) {
    let Some(list) = inner(owner, list) else { return };
    for value in list.values_mut() {
        let Some(quantity) = amount(value) else { continue };
        if quantity.nanos() % 1_000_000 != 0 {
            *value = Quantity::from_milli(quantity.milli(), quantity.format())
                .to_string()
                .into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn less_than_a_thousandth_is_a_thousandth() {
        let mut value = json!({"limits": {"cpu": "100u", "memory": "1Gi"}});
        round_list(value.as_object_mut().unwrap(), "limits");
        assert_eq!(value, json!({"limits": {"cpu": "1m", "memory": "1Gi"}}));
    }
}
