//! EndpointSlice.

use serde_json::Value;

use super::cell::{UNSET, age, first, name};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{int, list, text};

pub(super) static ENDPOINT_SLICE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("AddressType", "What the addresses are."),
        Column::text("Ports", "Ports of all endpoints."),
        Column::text("Endpoints", "Addresses of the endpoints."),
        AGE,
    ],
    cells: |slice, now| {
        let ports = list(slice, &["ports"]).iter().map(|port| match int(port, &["port"]) {
            Some(number) => number.to_string(),
            None if port.get("name").is_some() => text(port, &["name"]).to_owned(),
            None => "*".to_owned(),
        });
        let addresses = list(slice, &["endpoints"])
            .iter()
            .flat_map(|endpoint| list(endpoint, &["addresses"]))
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let shown = |items: Vec<String>| match first(&items, 3, ",") {
            text if text.is_empty() => Value::from(UNSET),
            text => text.into(),
        };
        vec![
            name(slice),
            text(slice, &["addressType"]).into(),
            shown(ports.collect()),
            shown(addresses.collect()),
            age(slice, now),
        ]
    },
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn a_slice_shows_three_addresses() {
        let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}, {"addresses": ["c"]}, {"addresses": ["d"]}]});
        assert_eq!(
            row(&ENDPOINT_SLICE, &slice)[..4],
            ["s", "IPv4", "80", "a,b,c + 1 more..."]
        );
        assert_eq!(row(&ENDPOINT_SLICE, &json!({}))[2..4], ["<unset>", "<unset>"]);
    }
}
