//! DefaultTolerationSeconds: a Pod stays five minutes on a node that is gone. After k/k 1.36
//! `plugin/pkg/admission/defaulttolerationseconds`.

use serde_json::{Value, json};

use super::Request;
use crate::strategy::walk::{list, object_mut, text};

/// For how long, in seconds.
const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn admit(request: &Request<'_>, pod: &mut Value) {
    if !request.is_for("", "pods") {
        return;
    }
    let mut tolerations = list(pod, &["spec", "tolerations"]).to_vec();
    let given = tolerations.len();
    for taint in TAINTS {
        let tolerated = tolerations[..given].iter().any(|toleration| {
            let (key, effect) = (text(toleration, &["key"]), text(toleration, &["effect"]));
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations
                .push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    if tolerations.len() > given
        && let Some(spec) = object_mut(pod, &["spec"])
    {
        spec.insert("tolerations".to_owned(), tolerations.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::creating;

    #[test]
    fn two_taints_are_tolerated_for_five_minutes() {
        let mut pod = json!({"spec": {}});
        creating("", "pods", "a", |request| admit(request, &mut pod));
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        creating("", "pods", "a", |request| admit(request, &mut pod));
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
