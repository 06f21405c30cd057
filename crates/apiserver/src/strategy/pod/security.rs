//! Security contexts of a Pod and its containers.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use serde_json::Value;

use super::volumes::descending;
use crate::strategy::check::{self, is_set, messages};
use crate::strategy::names::range;
use crate::strategy::walk::{at, flag, int, list, text};

/// The Pod's own, and how it goes with sharing the host.
pub(super) fn pod(spec: &Value, path: &Path, errors: &mut Vec<Error>) {
    if at(spec, &["hostUsers"]).and_then(Value::as_bool) == Some(false) {
        for key in ["hostNetwork", "hostPID", "hostIPC"]
            .into_iter()
            .filter(|key| flag(spec, &[key]))
        {
            // Upstream names two of them by their Go fields.
            let name = match key {
                "hostPID" => "HostPID",
                "hostIPC" => "HostIPC",
                key => key,
            };
            errors.push(Error::forbidden(&path.child(name), "when `hostUsers` is false"));
        }
    }
    let Some(context) = at(spec, &["securityContext"]) else {
        return;
    };
    let place = path.child("securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], &place, errors);
    for (index, group) in list(context, &["supplementalGroups"]).iter().enumerate() {
        let found = range(group.as_i64().unwrap_or(-1), 0, i64::from(i32::MAX));
        messages(found, &place.child("supplementalGroups").index(index), group, errors);
    }
    if flag(spec, &["shareProcessNamespace"]) && flag(spec, &["hostPID"]) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&place.child("shareProcessNamespace"), true, detail));
    }
    sysctls(context, &place.child("sysctls"), errors);
    check::one_of(
        context,
        &place,
        "fsGroupChangePolicy",
        &["Always", "OnRootMismatch"],
        errors,
    );
    profiles(context, &place, errors);
    check::one_of(
        context,
        &place,
        "supplementalGroupsPolicy",
        &["Merge", "Strict"],
        errors,
    );
}

/// A container's own.
pub(super) fn container(container: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(context) = at(container, &["securityContext"]) else {
        return;
    };
    let path = path.child("securityContext");
    ids(context, &["runAsUser", "runAsGroup"], &path, errors);
    check::one_of(context, &path, "procMount", &["Default", "Unmasked"], errors);
    profiles(context, &path, errors);
    if at(context, &["allowPrivilegeEscalation"]).and_then(Value::as_bool) == Some(false) {
        if flag(context, &["privileged"]) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(&path, context.clone(), detail));
        }
        if list(context, &["capabilities", "add"])
            .iter()
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(&path, context.clone(), detail));
        }
    }
}

fn ids(context: &Value, keys: &[&str], path: &Path, errors: &mut Vec<Error>) {
    for key in keys {
        if let Some(id) = int(context, &[key]) {
            messages(range(id, 0, i64::from(i32::MAX)), &path.child(key), &id.into(), errors);
        }
    }
}

/// Seccomp and AppArmor.
fn profiles(context: &Value, path: &Path, errors: &mut Vec<Error>) {
    const TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
    for (key, words, detail) in [
        ("seccompProfile", "seccomp", ""),
        (
            "appArmorProfile",
            "AppArmor",
            "type is required when appArmorProfile is set",
        ),
    ] {
        let Some(profile) = at(context, &[key]) else { continue };
        let path = path.child(key);
        let kind = text(profile, &["type"]);
        if kind.is_empty() {
            errors.push(Error::required(&path.child("type"), detail));
        } else {
            check::one_of(profile, &path, "type", &TYPES, errors);
        }
        let local = path.child("localhostProfile");
        match (kind, text(profile, &["localhostProfile"])) {
            ("Localhost", "") => {
                errors.push(Error::required(
                    &local,
                    format!("must be set when {words} type is Localhost"),
                ));
            }
            ("Localhost", file) if key == "seccompProfile" => descending(file, &local, errors),
            ("Localhost", _) => {}
            (_, file) if is_set(profile, "localhostProfile") => {
                errors.push(Error::invalid(
                    &local,
                    file,
                    format!("can only be set when {words} type is Localhost"),
                ));
            }
            _ => {}
        }
    }
}

fn sysctls(context: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in list(context, &["sysctls"]).iter().enumerate() {
        let path = path.index(index).child("name");
        let name = text(sysctl, &["name"]);
        let fine = name.len() <= 253
            && name.split(['.', '/']).all(|part| {
                let edge =
                    |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                edge(part.bytes().next())
                    && edge(part.bytes().last())
                    && part.bytes().all(|byte| edge(Some(byte)) || matches!(byte, b'-' | b'_'))
            });
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !fine {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(Error::invalid(&path, name, detail));
        } else if !seen.insert(name) {
            errors.push(Error::duplicate(&path, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{problems, with};

    #[test]
    fn users_are_numbers_and_profiles_have_a_type() {
        let context = json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}});
        assert_eq!(
            problems(with(json!({"securityContext": context}))),
            [
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp \
             type is Localhost",
            ]
        );
    }

    #[test]
    fn privileged_means_escalated() {
        let context = json!({"privileged": true, "allowPrivilegeEscalation": false});
        assert!(
            problems(with(json!({"securityContext": context})))[0]
                .ends_with("cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        );
    }
}
