//! CertificateSigningRequest.

use apimachinery::duration;
use jiff::SignedDuration;
use serde_json::Value;

use super::cell::{NONE, age, condition, name, text_or};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{has, int, text};

pub(super) static CERTIFICATE_SIGNING_REQUEST: Printer = Printer {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is to sign."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "For how long the certificate should be valid."),
        Column::text("Condition", "What was decided, and whether it is signed."),
    ],
    cells: |csr, now| {
        let wanted = int(csr, &["spec", "expirationSeconds"]).map_or_else(
            || NONE.to_owned(),
            |seconds| duration::human(SignedDuration::from_secs(seconds)),
        );
        vec![
            name(csr),
            age(csr, now),
            text_or(csr, &["spec", "signerName"], NONE),
            text(csr, &["spec", "username"]).into(),
            wanted.into(),
            state(csr).into(),
        ]
    },
};

fn state(csr: &Value) -> String {
    let has_condition = |kind: &str| condition(csr, kind).is_some();
    let mut state = if has_condition("Denied") {
        "Denied"
    } else if has_condition("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has_condition("Failed") {
        state.push_str(",Failed");
    }
    if has(csr, &["status", "certificate"]) {
        state.push_str(",Issued");
    }
    state
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_request_shows_what_became_of_it() {
        let csr = json!({"metadata": {"name": "a"}, "spec": {"signerName": "s", "username": "u", "expirationSeconds": 86400},
            "status": {"conditions": [{"type": "Approved"}], "certificate": "x"}});
        assert_eq!(
            row(&CERTIFICATE_SIGNING_REQUEST, &csr),
            ["a", "<unknown>", "s", "u", "24h", "Approved,Issued"]
        );
    }
}
