//! Two JSON texts, apart by a zero byte: an object and a patch of any of three kinds.
#![no_main]

use std::sync::LazyLock;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::patch::{json, merge, strategic};
use apimachinery::schema::{Schemas, conform, prune};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let document = include_bytes!("../../crates/apimachinery/src/testdata/openapi-v3.json");
    Schemas::from_openapi([&document[..]]).expect("the schemas are the tests' own")
});

fuzz_target!(|data: &[u8]| {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let mut next = || serde_json::from_slice::<Value>(halves.next()?).ok();
    let (Some(object), Some(patch)) = (next(), next()) else {
        return;
    };
    let deployment = SCHEMAS
        .kind(&GroupVersionKind::new("apps", "v1", "Deployment"))
        .expect("it is there");
    let _ = json::apply(&mut object.clone(), &patch);
    let _ = merge::apply(&mut object.clone(), &patch);
    let mut patched = object;
    if strategic::apply(&mut patched, &patch, deployment).is_ok() {
        prune(&mut patched, deployment);
        if conform(&mut patched, deployment).is_ok() {
            let once = patched.clone();
            assert!(conform(&mut patched, deployment).is_ok());
            assert_eq!(patched, once, "conforming twice is conforming once");
        }
    }
});
