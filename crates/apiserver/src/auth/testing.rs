//! A `View` over a few objects, and an instant.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apimachinery::gvk::GroupResource;
use jiff::Timestamp;
use serde_json::Value;

use crate::store::View;

pub(super) fn noon() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

/// Objects of the core and RBAC groups, found by kind. Counts its lists.
#[derive(Default)]
pub(super) struct FakeView {
    objects: Vec<Arc<Value>>,
    generations: Option<HashMap<String, u64>>,
    pub(super) lists: AtomicUsize,
}

impl FakeView {
    pub(super) fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        Self {
            objects: objects.into_iter().map(Arc::new).collect(),
            ..Self::default()
        }
    }

    /// A view that counts changes.
    pub(super) fn counting(mut self) -> Self {
        self.generations = Some(HashMap::new());
        self
    }

    /// The same with `object` added, or in place of the one of its name.
    pub(super) fn with(mut self, object: Value) -> Self {
        self.put(object);
        self
    }

    pub(super) fn put(&mut self, object: Value) {
        let same = |own: &Value| {
            own["kind"] == object["kind"]
                && own["metadata"]["name"] == object["metadata"]["name"]
                && own["metadata"]["namespace"] == object["metadata"]["namespace"]
        };
        self.objects.retain(|own| !same(own));
        if let Some(generations) = &mut self.generations {
            *generations.entry(plural(&object)).or_default() += 1;
        }
        self.objects.push(Arc::new(object));
    }

    /// The same without that object.
    pub(super) fn without(mut self, kind: &str, name: &str) -> Self {
        self.objects
            .retain(|own| own["kind"] != kind || own["metadata"]["name"] != name);
        self
    }
}

fn plural(object: &Value) -> String {
    object["kind"].as_str().unwrap().to_lowercase() + "s"
}

impl View for FakeView {
    fn get(&self, resource: &GroupResource, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let wanted = |object: &&Arc<Value>| {
            plural(object) == resource.resource
                && object["metadata"]["name"] == name
                && object["metadata"]["namespace"].as_str() == namespace
        };
        self.objects.iter().find(wanted).cloned()
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let wanted = |object: &&Arc<Value>| {
            plural(object) == resource.resource
                && namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
        };
        self.objects.iter().filter(wanted).cloned().collect()
    }

    fn generation(&self, resource: &GroupResource) -> Option<u64> {
        Some(
            self.generations
                .as_ref()?
                .get(&resource.resource)
                .copied()
                .unwrap_or_default(),
        )
    }
}
