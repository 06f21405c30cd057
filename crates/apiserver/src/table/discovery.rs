//! EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;

use super::column::{AGE, Column, NAME, shown, text};
use super::show::{self, or};
use crate::strategy::walk;

/// So many addresses and ports are listed.
const LISTED: usize = 3;

pub(super) fn columns(kind: &str) -> Option<&'static [Column]> {
    (kind == "EndpointSlice").then_some(ENDPOINT_SLICE)
}

static ENDPOINT_SLICE: &[Column] = &[
    NAME,
    text("AddressType", "IPv4, IPv6 or FQDN", &["addressType"]),
    shown("Ports", "Ports of every endpoint", ports),
    shown("Endpoints", "Addresses", endpoints),
    AGE,
];

fn ports(slice: &Value, _: Timestamp) -> Value {
    let ports: Vec<String> = walk::list(slice, &["ports"])
        .iter()
        .map(|port| match (walk::int(port, &["port"]), walk::at(port, &["name"])) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => show::plain(name),
            (None, None) => "*".to_owned(),
        })
        .collect();
    or(&show::cut(&ports, ",", LISTED), "<unset>").into()
}

fn endpoints(slice: &Value, _: Timestamp) -> Value {
    let addresses: Vec<&str> = walk::list(slice, &["endpoints"])
        .iter()
        .flat_map(|endpoint| walk::list(endpoint, &["addresses"]))
        .filter_map(Value::as_str)
        .collect();
    or(&show::cut(&addresses, ",", LISTED), "<unset>").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::testing::row;

    #[test]
    fn a_slice_lists_three_and_counts_the_rest() {
        let of = |slice| row("discovery.k8s.io/v1", "EndpointSlice", &slice);
        let slice = json!({"metadata": {"name": "web-x"}, "addressType": "IPv4",
            "ports": [{"port": 80, "name": "http"}, {"name": "any"}, {}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]},
                {"addresses": ["10.0.0.4"]}, {"addresses": ["10.0.0.5"]}]});
        assert_eq!(
            of(slice),
            "web-x  IPv4  80,any,*  10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...  <unknown>"
        );
        let empty = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": null, "endpoints": []});
        assert_eq!(of(empty), "e  IPv4  <unset>  <unset>  <unknown>");
    }
}
