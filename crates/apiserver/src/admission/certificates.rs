//! Who asks for a certificate is written by the server, never by the client. After k/k 1.36
//! `pkg/registry/certificates/certificates/strategy.go`.

use serde_json::{Value, json};

use super::{Operation, Request};
use crate::strategy::walk::{drop_key, ensure_at};

pub(super) fn admit(request: &Request<'_>, csr: &mut Value) {
    if !request.is_for("certificates.k8s.io", "certificatesigningrequests") || request.operation != Operation::Create {
        return;
    }
    let Some(spec) = ensure_at(csr, &["spec"]) else { return };
    for key in ["username", "uid", "groups", "extra"] {
        drop_key(spec, key);
    }
    let identity = request.identity;
    spec.insert("username".to_owned(), identity.user.as_str().into());
    if let Some(uid) = &identity.uid {
        spec.insert("uid".to_owned(), uid.as_str().into());
    }
    spec.insert("groups".to_owned(), json!(identity.groups));
    if !identity.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(identity.extra));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::creating;

    #[test]
    fn nobody_asks_in_another_name() {
        let mut csr = json!({"spec": {"username": "root", "groups": ["system:masters"], "request": "x"}});
        creating("certificates.k8s.io", "certificatesigningrequests", "a", |request| {
            admit(request, &mut csr)
        });
        assert_eq!(csr["spec"]["username"], "jane");
        assert_eq!(csr["spec"]["groups"], json!(["dev", "system:authenticated"]));
    }
}
