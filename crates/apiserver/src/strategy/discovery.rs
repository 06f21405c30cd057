//! Endpoints and EndpointSlice. After k/k `pkg/apis/{core,discovery}` at 1.36.

use serde_json::Value;

use super::walk::{each, fill, fill_zero};
use super::{Generation, Strategy};

/// Rules of Endpoints.
pub(super) static ENDPOINTS: Strategy = Strategy {
    default: default_endpoints,
    create_on_update: true,
    ..Strategy::PLAIN
};

/// Rules of EndpointSlices.
pub(super) static ENDPOINT_SLICE: Strategy = Strategy {
    default: default_slice,
    generation: Generation::SpecAndLabels,
    ..Strategy::PLAIN
};

fn default_endpoints(endpoints: &mut Value) {
    let Some(endpoints) = endpoints.as_object_mut() else {
        return;
    };
    for subset in each(endpoints, "subsets") {
        for port in each(subset, "ports") {
            fill_zero(port, "protocol", "TCP");
        }
    }
}

fn default_slice(slice: &mut Value) {
    let Some(slice) = slice.as_object_mut() else { return };
    for port in each(slice, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}
