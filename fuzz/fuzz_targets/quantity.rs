//! Any text is a quantity or is refused; what is read is printed so that it is read back.
#![no_main]

use apimachinery::quantity::Quantity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let printed = quantity.to_string();
    assert_eq!(
        printed.parse::<Quantity>(),
        Ok(quantity),
        "{text} was printed as {printed}"
    );
    assert_eq!(Quantity::normalize(text).map(|normal| normal.parse()), Ok(Ok(quantity)));
});
