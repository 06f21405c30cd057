//! ConfigMap, Secret and ServiceAccount: what Pods are given. After k/k `pkg/apis/core` at 1.36.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Strategy;
use super::walk::{drop_key, ensure_at, fill_zero, object, object_mut, text};

/// Rules of ConfigMaps.
pub(super) static CONFIG_MAP: Strategy = Strategy::PLAIN;

/// Rules of Secrets.
pub(super) static SECRET: Strategy = Strategy {
    default: default_secret,
    prepare_update: |new, old| {
        // A client that leaves the type out means the one it has.
        let kind = text(old, &["type"]).to_owned();
        if let Some(map) = object_mut(new, &[]).filter(|_| !kind.is_empty()) {
            fill_zero(map, "type", kind);
        }
    },
    ..Strategy::PLAIN
};

/// Rules of ServiceAccounts.
pub(super) static SERVICE_ACCOUNT: Strategy = Strategy {
    delete_returns_object: true,
    ..Strategy::PLAIN
};

fn default_secret(secret: &mut Value) {
    merge_string_data(secret);
    if let Some(map) = secret.as_object_mut() {
        fill_zero(map, "type", "Opaque");
    }
}

/// `stringData` is write only: it goes into `data`, encoded, and over what is there.
fn merge_string_data(secret: &mut Value) {
    if let Some(strings) = object(secret, &["stringData"]).cloned()
        && let Some(data) = ensure_at(secret, &["data"])
    {
        for (key, value) in strings {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }
    if let Some(map) = secret.as_object_mut() {
        drop_key(map, "stringData");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn string_data_ends_up_encoded() {
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        default_secret(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "eQ==", "b": "eg=="}, "type": "Opaque"}));
    }
}
