//! Any bytes are a body of a built-in kind or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut body = b"k8s\0".to_vec();
    body.extend_from_slice(data);
    if let Ok(object) = apiserver::protobuf::decode(&body) {
        // Not deeper than what the store's parser reads back.
        let text = object.to_string();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    }
});
