//! `/openapi/v2`: one document of everything, made from the v3 documents when somebody asks for it.
//!
//! As JSON, and in the protobuf form which is the only one that Go clients take. Nothing is kept: clients have an ETag,
//! and the v3 documents go through one path and one schema at a time.

mod convert;
mod documents;
mod gnostic;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use apimachinery::status::Status;
use http::header::{CACHE_CONTROL, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::call::{Answer, Call};
use crate::resources::{Resource, archive};
use crate::respond;
use crate::store::Object;

const JSON: &str = "application/json";
/// What is answered. Clients also write it with `@` for the first `.v2.`'s dot, which media types do not allow.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document, in the form that the client takes.
pub(crate) async fn document(call: &Call) -> Answer {
    // Who names protobuf wants it; everybody else, `*/*` included, gets JSON.
    let protobuf = [PROTOBUF, PROTOBUF_OLD]
        .iter()
        .any(|media_type| call.accept.names(media_type));
    if !protobuf && !call.accept.takes(JSON) {
        return Err(Status::not_acceptable(&[JSON, PROTOBUF]));
    }
    let version = call.api.config.version.git_version.clone();
    let members = members(call);
    let custom = custom(call);
    let etag = {
        let mut digest = Sha256::new();
        digest.update(format!(
            "{}/{version}/{protobuf}/{}",
            archive::digest(),
            members.join(",")
        ));
        for (group, version, _) in &custom {
            digest.update(super::hash(call, group, version));
        }
        format!("\"{}\"", archive::hex(&digest.finalize()))
    };
    let known = call.headers.get(IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok(super::with_etag(super::empty(StatusCode::NOT_MODIFIED), &etag));
    }
    let make = move || {
        if protobuf {
            write(&members, &custom, Protobuf::new(&version)).map(Protobuf::finish)
        } else {
            write(&members, &custom, Json::default()).map(|json| json.finish(&version))
        }
    };
    let bytes = tokio::task::spawn_blocking(make).await.map_err(Status::internal)?;
    let bytes = bytes.map_err(Status::internal)?;
    let media_type = if protobuf { PROTOBUF } else { JSON };
    let mut response = super::with_etag(respond::with_type(StatusCode::OK, media_type, bytes.into()), &etag);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// A version of a group of custom resources.
type Custom = (String, String, Vec<(Arc<Resource>, Object)>);

fn custom(call: &Call) -> Vec<Custom> {
    let table = call.api.table();
    let versions = table.groups().iter().flat_map(|group| {
        group
            .versions
            .iter()
            .map(|version| (group.name.clone(), version.clone()))
    });
    versions
        .map(|(group, version)| {
            let resources = super::custom_resources(call, &group, &version);
            (group, version, resources)
        })
        .filter(|(.., resources)| !resources.is_empty())
        .collect()
}

/// The archive's members that describe what is served, sorted.
fn members(call: &Call) -> Vec<String> {
    let table = call.api.table();
    let mut names: Vec<String> = ["api", "apis", "version", "openid__v1__jwks"].map(str::to_owned).into();
    for group in table.groups() {
        let root = match group.name.as_str() {
            "" => "api".to_owned(),
            name => format!("apis__{name}"),
        };
        names.extend(group.versions.iter().map(|version| format!("{root}__{version}")));
        names.push(root);
    }
    names.sort();
    names.dedup();
    names
        .iter()
        .map(|name| format!("openapi-v3/{name}_openapi.json"))
        .collect()
}

/// One of the two forms, while it is written.
trait Form {
    fn path(&mut self, path: &str, item: Value);
    fn definition(&mut self, name: &str, schema: Value);
}

/// Converts the members into `form`, in the archive's order, then the custom resources.
fn write<F: Form>(members: &[String], custom: &[Custom], form: F) -> io::Result<F> {
    struct Converting<F> {
        form: F,
        /// Several documents hold the same definition: metadata, `Status`, `Scale`.
        seen: HashSet<String>,
    }
    impl<F: Form> documents::Visit for Converting<F> {
        fn path(&mut self, path: String, item: Value) {
            self.form.path(&path, convert::path_item(item));
        }

        fn schema(&mut self, name: String, schema: Value) {
            if !self.seen.contains(&name) {
                self.form.definition(&name, convert::schema(schema));
                self.seen.insert(name);
            }
        }
    }
    let mut converting = Converting {
        form,
        seen: HashSet::new(),
    };
    archive::each(|name, reader| {
        if members.iter().any(|member| member == name) {
            documents::read(reader, &mut converting)?;
        }
        Ok(true)
    })?;
    for (group, version, resources) in custom {
        let document = super::custom_document(group, version, resources)?.unwrap_or_default();
        documents::read(&mut document.as_slice(), &mut converting)?;
    }
    Ok(converting.form)
}

/// Paths come before definitions, so there are two texts until the end.
#[derive(Default)]
struct Json {
    paths: Vec<u8>,
    definitions: Vec<u8>,
}

impl Json {
    fn entry(to: &mut Vec<u8>, name: &str, value: &Value) {
        to.push(if to.is_empty() { b'{' } else { b',' });
        // Strings and values always have a JSON form, and a vector takes every byte.
        let _ = serde_json::to_writer(&mut *to, name);
        to.push(b':');
        let _ = serde_json::to_writer(to, value);
    }

    fn finish(self, version: &str) -> Vec<u8> {
        let Self { mut paths, definitions } = self;
        let head = json!({"title": "Kubernetes", "version": version});
        let start = format!("{{\"swagger\":\"2.0\",\"info\":{head},\"paths\":");
        paths.splice(0..0, start.into_bytes());
        paths.extend_from_slice(b"},\"definitions\":");
        paths.extend_from_slice(&definitions);
        let security = json!([{"BearerToken": []}]);
        let bearer = json!({"BearerToken": {
            "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
        }});
        paths.extend_from_slice(format!("}},\"securityDefinitions\":{bearer},\"security\":{security}}}").as_bytes());
        paths
    }
}

impl Form for Json {
    fn path(&mut self, path: &str, item: Value) {
        Self::entry(&mut self.paths, path, &item);
    }

    fn definition(&mut self, name: &str, schema: Value) {
        Self::entry(&mut self.definitions, name, &schema);
    }
}

/// A message may hold a field in several pieces, which a reader merges: everything is written as it comes.
struct Protobuf(gnostic::Message);

impl Protobuf {
    fn new(version: &str) -> Self {
        Self(gnostic::document(version))
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

impl Form for Protobuf {
    fn path(&mut self, path: &str, item: Value) {
        gnostic::add_path(&mut self.0, path, &item);
    }

    fn definition(&mut self, name: &str, schema: Value) {
        gnostic::add_definition(&mut self.0, name, &schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPS: &str = "openapi-v3/apis__apps__v1_openapi.json";

    fn json_document() -> Value {
        let bytes = write(&[APPS.to_owned()], &[], Json::default())
            .unwrap()
            .finish("v1.36.2");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'v>(value: &'v Value, into: &mut Vec<&'v str>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        into.push(target);
                    }
                    map.values().for_each(|value| references(value, into));
                }
                Value::Array(list) => list.iter().for_each(|value| references(value, into)),
                _ => {}
            }
        }
        let document = json_document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100);
        for target in found {
            let name = target
                .strip_prefix("#/definitions/")
                .unwrap_or_else(|| panic!("{target}"));
            assert!(document["definitions"].get(name).is_some(), "{target}");
        }
    }

    #[test]
    fn an_operation_reads_as_a_real_server_writes_it() {
        let document = json_document();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["schemes"], json!(["https"]));
        assert!(
            patch["consumes"]
                .as_array()
                .unwrap()
                .contains(&"application/strategic-merge-patch+json".into())
        );
        let body = &patch["parameters"][0];
        assert_eq!(
            (&body["in"], &body["name"], &body["schema"]),
            (
                &json!("body"),
                &json!("body"),
                &json!({"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"})
            )
        );
        let schema = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(
            schema["properties"]["template"]["$ref"],
            "#/definitions/io.k8s.api.core.v1.PodTemplateSpec"
        );
        assert_eq!(
            document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"],
            "int-or-string"
        );
    }

    /// Field numbers and their contents, or `None` where the bytes are no message.
    fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
        fn varint(bytes: &mut &[u8]) -> Option<u64> {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let (first, rest) = bytes.split_first()?;
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    return Some(value);
                }
            }
            None
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = varint(&mut bytes)?;
            match key & 7 {
                0 => found.push((key >> 3, number.to_le_bytes().to_vec())),
                2 => {
                    let (content, rest) = bytes.split_at_checked(usize::try_from(number).ok()?)?;
                    bytes = rest;
                    found.push((key >> 3, content.to_vec()));
                }
                _ => return None,
            }
        }
        Some(found)
    }

    #[test]
    fn the_protobuf_form_holds_every_path_and_definition() {
        let members = [APPS.to_owned()];
        let bytes = write(&members, &[], Protobuf::new("v1.36.2"))
            .map(Protobuf::finish)
            .unwrap();
        let document = json_document();
        let fields = fields(&bytes).unwrap();
        let count = |number| fields.iter().filter(|(known, _)| *known == number).count();
        assert_eq!(count(8), document["paths"].as_object().unwrap().len());
        assert_eq!(count(9), document["definitions"].as_object().unwrap().len());
        assert_eq!(fields[0], (1, b"2.0".to_vec()));
    }
}
