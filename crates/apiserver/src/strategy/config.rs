//! ConfigMap, Secret and ServiceAccount: what Pods are given. After k/k `pkg/apis/core` at 1.36.

use apimachinery::field::{Error, Path};
use apimachinery::names::config_map_key;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Strategy;
use super::check::{immutable, text_messages};
use super::walk::{at, drop_key, ensure_at, fill_zero, flag, object, object_mut, same, strings, text};

/// Rules of ConfigMaps.
pub(super) static CONFIG_MAP: Strategy = Strategy {
    validate: validate_config_map,
    validate_update: |new, old, errors| frozen(new, old, errors),
    ..Strategy::PLAIN
};

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
    validate: validate_secret,
    validate_update: |new, old, errors| {
        immutable(new, old, &["type"], errors);
        frozen(new, old, errors);
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

/// Most that a ConfigMap or a Secret may hold.
const SIZE_MAX: usize = 1 << 20;

fn validate_config_map(map: &Value, errors: &mut Vec<Error>) {
    let binary = object(map, &["binaryData"]);
    let mut size = 0;
    for (key, value) in strings(map, &["data"]) {
        let path = || Path::new("data").key(key);
        let found = config_map_key(key);
        if !found.is_empty() {
            text_messages(found, &path(), key, errors);
        }
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            errors.push(Error::invalid(&path(), key, "duplicate of key present in binaryData"));
        }
        size += value.len();
    }
    for (key, value) in strings(map, &["binaryData"]) {
        text_messages(config_map_key(key), &Path::new("binaryData").key(key), key, errors);
        size += decoded_length(value);
    }
    if size > SIZE_MAX {
        errors.push(Error::too_long(&Path::root(), SIZE_MAX));
    }
}

/// How many bytes base64 text stands for.
fn decoded_length(text: &str) -> usize {
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|byte| *byte == b'=').count().min(2))
}

fn validate_secret(secret: &Value, errors: &mut Vec<Error>) {
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in strings(secret, &["data"]) {
        text_messages(config_map_key(key), &path.key(key), key, errors);
        size += decoded_length(value);
    }
    if size > SIZE_MAX {
        errors.push(Error::too_long(&path, SIZE_MAX));
    }
    let given = |key: &str| at(secret, &["data", key]).is_some();
    let mut need = |key: &str| {
        let missing = !given(key);
        if missing {
            errors.push(Error::required(&path.key(key), ""));
        }
        !missing
    };
    match text(secret, &["type"]) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if text(secret, &["metadata", "annotations", key]).is_empty() {
                errors.push(Error::required(&Path::new("metadata.annotations").key(key), ""));
            }
        }
        "kubernetes.io/dockercfg" if need(".dockercfg") => {
            docker_config(secret, ".dockercfg", errors);
        }
        "kubernetes.io/dockerconfigjson" if need(".dockerconfigjson") => {
            docker_config(secret, ".dockerconfigjson", errors);
        }
        "kubernetes.io/basic-auth" if !given("username") && !given("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" if text(secret, &["data", "ssh-privatekey"]).is_empty() => {
            errors.push(Error::required(&path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        _ => {}
    }
}

/// Credentials for registries are JSON; what they are is not told.
fn docker_config(secret: &Value, key: &str, errors: &mut Vec<Error>) {
    let decoded = STANDARD.decode(text(secret, &["data", key])).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<super::walk::Object>(&decoded) {
        let path = Path::new("data").key(key);
        errors.push(Error::invalid(&path, "<secret contents redacted>", error.to_string()));
    }
}

/// Once `immutable` is set, nothing changes any more.
fn frozen(new: &Value, old: &Value, errors: &mut Vec<Error>) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !flag(old, &["immutable"]) {
        return;
    }
    if !flag(new, &["immutable"]) {
        errors.push(Error::forbidden(&Path::new("immutable"), DETAIL));
    }
    for key in ["data", "binaryData"] {
        if !same(new.get(key), old.get(key)) {
            errors.push(Error::forbidden(&Path::new(key), DETAIL));
        }
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

    fn problems(rules: &Strategy, mut object: Value) -> Vec<String> {
        object["metadata"]["name"] = json!("a");
        object["metadata"]["namespace"] = json!("b");
        rules
            .validate_create(true, &object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn keys_become_files() {
        let map = json!({"data": {"a b": "x", "k": "y"}, "binaryData": {"k": "eA=="}});
        let texts = problems(&CONFIG_MAP, map);
        assert_eq!(
            texts[0],
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
             (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        );
        assert_eq!(
            texts[1],
            "data[k]: Invalid value: \"k\": duplicate of key present in binaryData"
        );
    }

    #[test]
    fn a_secret_has_what_its_type_promises() {
        assert_eq!(
            problems(&SECRET, json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
            ["data[tls.key]: Required value",]
        );
        assert_eq!(
            problems(&SECRET, json!({"type": "kubernetes.io/basic-auth"})),
            ["data[username]: Required value", "data[password]: Required value",]
        );
    }

    #[test]
    fn what_is_frozen_stays() {
        let old = json!({"data": {"a": "1"}, "immutable": true});
        let mut errors = Vec::new();
        frozen(&json!({"data": {"a": "2"}}), &old, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }

    #[test]
    fn the_size_counts_decoded_bytes() {
        assert_eq!(decoded_length("eA=="), 1);
        assert_eq!(decoded_length("eHl6"), 3);
        assert_eq!(decoded_length(""), 0);
    }
}
