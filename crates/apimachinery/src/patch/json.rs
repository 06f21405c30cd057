//! JSON patch (RFC 6902) with the limits and the silence of Kubernetes' errors.

use json_patch::PatchOperation;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Error, ErrorKind};

/// More operations than this are refused.
const MAX_OPERATIONS: usize = 10_000;

/// Applies the operations of `patch`, an array, in order. On an error `target` may be changed in part: patch a copy.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), Error> {
    let Value::Array(operations) = patch else {
        return Err(Error::new(
            ErrorKind::Malformed,
            "a JSON patch is an array of operations",
        ));
    };
    if operations.len() > MAX_OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    for (index, operation) in operations.iter().enumerate() {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Unprocessable,
                format!("operation {index} of the JSON patch: {error}"),
            )
        };
        if !operation.is_object() {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!("operation {index} of the JSON patch is no object"),
            ));
        }
        let operation = PatchOperation::deserialize(operation).map_err(|error| failed(&error))?;
        if let PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && test.path.resolve(target).is_err()
        {
            // A test for null holds for what is not there, as in the library that Kubernetes uses.
            continue;
        }
        json_patch::patch(target, std::slice::from_ref(&operation)).map_err(|error| failed(&error.kind))?;
    }
    Ok(())
}

/// Fields of operations that JSON patch does not have, as strict field validation prints them: `[0].valeu`.
pub fn unknown_fields(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    operations
        .flat_map(|(index, operation)| {
            let names = operation.as_object().into_iter().flatten().map(|(name, _)| name);
            names
                .filter(|name| !matches!(name.as_str(), "op" | "path" | "value" | "from"))
                .map(move |name| format!("[{index}].{name}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: Value) -> Result<Value, ErrorKind> {
        apply(&mut target, &patch).map_err(|error| error.kind)?;
        Ok(target)
    }

    #[test]
    fn every_operation_works() {
        let target = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
            {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "add", "path": "/list/0", "value": 0},
            {"op": "remove", "path": "/list/1"},
            {"op": "copy", "from": "/list", "path": "/copy"},
            {"op": "move", "from": "/copy", "path": "/moved"},
            {"op": "test", "path": "/absent", "value": null},
        ]);
        let expected = json!({"metadata": {"labels": {"a/b": "2"}}, "list": [0, 2, 3], "moved": [0, 2, 3]});
        assert_eq!(patched(target, patch), Ok(expected));
    }

    #[test]
    fn what_does_not_fit_the_object_is_unprocessable() {
        for operation in [
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "remove", "path": "/b"}),
            json!({"op": "replace", "path": "/b", "value": 1}),
            json!({"op": "add", "path": "/b/c", "value": 1}),
            json!({"op": "add", "path": "/list/9", "value": 1}),
            json!({"op": "copy", "from": "/b", "path": "/c"}),
            json!({"op": "jump", "path": "/a"}),
            json!({"op": "add"}),
            json!({"op": "add", "path": "a", "value": 1}),
        ] {
            let result = patched(json!({"a": 1, "list": []}), json!([operation]));
            assert_eq!(result, Err(ErrorKind::Unprocessable), "{operation}");
        }
    }

    #[test]
    fn what_is_no_patch_is_malformed() {
        assert_eq!(patched(json!({}), json!({})), Err(ErrorKind::Malformed));
        assert_eq!(patched(json!({}), json!([1])), Err(ErrorKind::Malformed));
        let operation = json!({"op": "test", "path": "", "value": {}});
        assert_eq!(
            patched(json!({}), Value::Array(vec![operation; 10_001])),
            Err(ErrorKind::TooLarge)
        );
    }

    #[test]
    fn unknown_fields_are_named() {
        let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/a", "x": 1}]);
        assert_eq!(unknown_fields(&patch), ["[1].x"]);
    }

    proptest! {
        #[test]
        fn any_patch_is_applied_or_refused(
            operations in prop::collection::vec(("(add|remove|replace|move|copy|test)", "(/[a-c0-2~-]{0,2}){0,3}", "(/[a-c0-2]{0,2}){0,3}"), 0..6),
        ) {
            let operations = operations.into_iter();
            let patch = operations.map(|(op, path, from)| json!({"op": op, "path": path, "from": from, "value": [1]})).collect();
            let _ = patched(json!({"a": {"b": [1, 2]}, "c": [[]]}), patch);
        }
    }
}
