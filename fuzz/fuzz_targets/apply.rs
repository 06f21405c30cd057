//! Two JSON texts, apart by a zero byte: an object and what is applied to it.
#![no_main]

use std::sync::LazyLock;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::patch::apply::{FieldSet, Writer, apply, track_update};
use apimachinery::schema::Schemas;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let document = include_bytes!("../../crates/apimachinery/src/testdata/openapi-v3.json");
    Schemas::from_openapi([&document[..]]).expect("the schemas are the tests' own")
});

fuzz_target!(|data: &[u8]| {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let mut next = || serde_json::from_slice::<Value>(halves.next()?).ok();
    let (Some(live), Some(mut config)) = (next(), next()) else {
        return;
    };
    if !live.is_object() || !config.is_object() {
        return;
    }
    config["apiVersion"] = "apps/v1".into();
    let deployment = SCHEMAS
        .kind(&GroupVersionKind::new("apps", "v1", "Deployment"))
        .expect("it is there");
    let writer = Writer {
        manager: "fuzz",
        api_version: "apps/v1",
        subresource: "",
        reset_fields: &FieldSet::default(),
        now: Timestamp::UNIX_EPOCH,
    };
    let _ = apply(Some(&live), &config, deployment, &writer, true);
    track_update(Some(&live), &mut config, deployment, &writer);
});
