//! Manifests as JSON documents: what identifies an object, which images it names, and fields by pointer.
//!
//! Pure. Knows the outside of Kubernetes objects (`apiVersion`, `kind`, `metadata.name`), nothing about any kind.

use serde_json::Value;

/// The tag that manifests give to images which the lab builds.
pub const LAB_TAG: &str = "lab";

/// `kind/name`, as messages and parameters name a document.
pub fn label(document: &Value) -> String {
    format!("{}/{}", text(document, "/kind"), text(document, "/metadata/name"))
}

/// The text at a pointer, or nothing.
pub fn text<'v>(document: &'v Value, pointer: &str) -> &'v str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Why this is not an object that can be applied, if it is not.
pub fn defect(document: &Value) -> Option<String> {
    let missing = ["apiVersion", "kind"]
        .into_iter()
        .find(|field| text(document, &format!("/{field}")).is_empty());
    match missing {
        Some(field) => Some(format!("the field `{field}` is missing")),
        None if text(document, "/kind").ends_with("List") && document.get("items").is_some() => {
            Some("lists are not applied: write the items as documents of their own".to_owned())
        }
        None if text(document, "/metadata/name").is_empty() => Some("the field `metadata.name` is missing".to_owned()),
        None => None,
    }
}

/// Calls `change` with every container image in the document.
pub fn for_each_image(document: &mut Value, change: &mut impl FnMut(&mut String)) {
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Array(items) if matches!(name.as_str(), "containers" | "initContainers") => {
                        for item in items {
                            if let Some(Value::String(image)) = item.get_mut("image") {
                                change(image);
                            }
                        }
                    }
                    _ => for_each_image(value, change),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_image(item, change)),
        _ => {}
    }
}

/// The images `NAME:lab` that the document names, by `NAME`.
pub fn lab_images(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for_each_image(&mut document.clone(), &mut |image| {
        if let Some(name) = image.strip_suffix(&format!(":{LAB_TAG}")) {
            found.push(name.to_owned());
        }
    });
    found
}

/// A place in a manifest that a parameter sets: `file#/pointer` or `file#Kind/name#/pointer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The manifest's path.
    pub file: String,
    /// `Kind/name`, where the file has several documents.
    pub object: Option<String>,
    /// A JSON pointer (RFC 6901).
    pub pointer: String,
}

impl Target {
    /// Reads the written form.
    pub fn parse(text: &str) -> Option<Self> {
        let (file, rest) = text.split_once('#')?;
        let (object, pointer) = match rest.split_once('#') {
            Some((object, pointer)) if object.split('/').count() == 2 => (Some(object.to_owned()), pointer),
            Some(_) => return None,
            None => (None, rest),
        };
        let whole = !file.is_empty() && pointer.starts_with('/');
        whole.then(|| Self {
            file: file.to_owned(),
            object,
            pointer: pointer.to_owned(),
        })
    }

    /// The field in these documents of its file, or why there is none.
    pub fn find<'v>(&self, documents: &'v [Value]) -> Result<&'v Value, String> {
        let index = self.document(documents)?;
        self.reached(&documents[index])?;
        documents[index]
            .pointer(&self.pointer)
            .ok_or_else(|| format!("nothing is at `{}`", self.pointer))
    }

    /// Puts `value` there.
    pub fn set(&self, documents: &mut [Value], value: Value) -> Result<(), String> {
        let index = self.document(documents)?;
        self.reached(&documents[index])?;
        let place = documents[index].pointer_mut(&self.pointer);
        *place.ok_or_else(|| format!("nothing is at `{}`", self.pointer))? = value;
        Ok(())
    }

    fn document(&self, documents: &[Value]) -> Result<usize, String> {
        let names = || documents.iter().map(label).collect::<Vec<_>>().join("`, `");
        match (&self.object, documents) {
            (None, [_]) => Ok(0),
            (None, _) => Err(format!(
                "`{}` has several documents: say which, one of `{}`",
                self.file,
                names()
            )),
            (Some(object), _) => documents
                .iter()
                .position(|document| label(document) == *object)
                .ok_or_else(|| format!("`{}` has no `{object}`, only `{}`", self.file, names())),
        }
    }

    /// Walks down and says at which point the way ends.
    fn reached(&self, document: &Value) -> Result<(), String> {
        let mut at = document;
        let mut way = String::new();
        for token in self.pointer.split('/').skip(1) {
            let next = at.pointer(&format!("/{token}"));
            let Some(next) = next else {
                let known = match at {
                    Value::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(", "),
                    Value::Array(items) => format!("{} items", items.len()),
                    other => other.to_string(),
                };
                let place = if way.is_empty() {
                    "the top".to_owned()
                } else {
                    format!("`{way}`")
                };
                return Err(format!("nothing is at `{}`: {place} has {known}", self.pointer));
            };
            way = format!("{way}/{token}");
            at = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_target_names_a_file_perhaps_an_object_and_a_pointer() {
        let plain = Target::parse("a/b.yaml#/spec/x").unwrap();
        assert_eq!(
            (plain.file.as_str(), plain.object.as_deref(), plain.pointer.as_str()),
            ("a/b.yaml", None, "/spec/x")
        );
        let one = Target::parse("b.yaml#Deployment/a#/spec").unwrap();
        assert_eq!(one.object.as_deref(), Some("Deployment/a"));
        for text in [
            "b.yaml",
            "b.yaml#spec",
            "#/spec",
            "b.yaml#Deployment#/spec",
            "b.yaml#a/b#spec",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_way_that_ends_early_says_where() {
        let target = Target::parse("f#/spec/replica").unwrap();
        let said = target
            .find(&[json!({"spec": {"replicas": 1, "template": {}}})])
            .unwrap_err();
        assert_eq!(said, "nothing is at `/spec/replica`: `/spec` has replicas, template");
    }

    #[test]
    fn images_of_the_lab_are_found_in_pod_templates() {
        let document = json!({"spec": {"template": {"spec": {
            "initContainers": [{"image": "setup:lab"}],
            "containers": [{"image": "cpu-burner:lab"}, {"image": "nginx:alpine"}, {"name": "x"}],
        }}}, "image": "other:lab"});
        assert_eq!(lab_images(&document), ["setup", "cpu-burner"]);
    }
}
