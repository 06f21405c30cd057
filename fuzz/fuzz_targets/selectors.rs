//! Any text is a selector or is refused; what is read is printed so that it is read back.
#![no_main]

use apimachinery::{duration, fields, labels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = labels::Selector::parse(text) {
        assert_eq!(labels::Selector::parse(&selector.to_string()), Ok(selector));
    }
    if let Ok(selector) = fields::Selector::parse(text) {
        let printed = selector.to_string();
        assert_eq!(fields::Selector::parse(&printed), Ok(selector));
    }
    let _ = duration::parse_go(text);
});
