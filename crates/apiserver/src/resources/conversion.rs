//! Two views of one stored object: `autoscaling/v1` of an HPA that is stored as v2, `events.k8s.io/v1` of an Event that
//! is stored as core/v1.
//!
//! Owns the field by field translation (k/k `pkg/apis/autoscaling/v1/conversion.go`, `pkg/apis/events/v1/conversion.go`
//! at 1.36). Kind and version are the caller's business.

mod event;
mod hpa;

use serde_json::Value;

/// How a version differs from the stored one.
#[derive(Debug)]
pub(crate) struct Conversion {
    /// Group, version and plural under which objects are stored.
    pub(crate) stored: (&'static str, &'static str, &'static str),
    to_stored: fn(&mut Value),
    from_stored: fn(&mut Value),
    api_version: &'static str,
    stored_api_version: &'static str,
}

impl Conversion {
    /// Turns an object of this version into a stored one.
    pub(crate) fn store(&self, object: &mut Value) {
        (self.to_stored)(object);
        object["apiVersion"] = self.stored_api_version.into();
    }

    /// Turns a stored object into one of this version.
    pub(crate) fn serve(&self, object: &mut Value) {
        (self.from_stored)(object);
        object["apiVersion"] = self.api_version.into();
    }
}

static HPA_V1: Conversion = Conversion {
    stored: ("autoscaling", "v2", "horizontalpodautoscalers"),
    to_stored: hpa::v1_to_v2,
    from_stored: hpa::v2_to_v1,
    api_version: "autoscaling/v1",
    stored_api_version: "autoscaling/v2",
};

static EVENTS: Conversion = Conversion {
    stored: ("", "v1", "events"),
    to_stored: event::to_core,
    from_stored: event::from_core,
    api_version: "events.k8s.io/v1",
    stored_api_version: "v1",
};

/// The conversion of a resource, `None` where it is stored as it is.
pub(crate) fn of(group: &str, version: &str, plural: &str) -> Option<&'static Conversion> {
    match (group, version, plural) {
        ("autoscaling", "v1", "horizontalpodautoscalers") => Some(&HPA_V1),
        ("events.k8s.io", "v1", "events") => Some(&EVENTS),
        _ => None,
    }
}

/// Moves a field of an object to another name, if it is there.
fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(map) = object.as_object_mut()
        && let Some(value) = map.shift_remove(from)
    {
        map.insert(to.to_owned(), value);
    }
}
