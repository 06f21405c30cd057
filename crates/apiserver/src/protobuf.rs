//! Request bodies of Go's typed clients: Kubernetes' protobuf envelope into the JSON that Go would show.
//!
//! Owns the wire format and a table of every built-in kind's messages, which was written by Kubernetes' own Go types
//! (`data/kubernetes-1.36-protobuf.txt`, see `data/README.md`). The table is read when the first such body comes.
//! Knows nothing of requests; canonical forms and defaults are the business of those who take the JSON.

mod message;
mod table;
mod wire;

use serde_json::{Map, Value};

use self::message::Decoder;
use self::table::Table;
use self::wire::{Reader, WireValue};

/// What every protobuf body starts with.
const MAGIC: &[u8; 4] = b"k8s\0";

/// Why a body cannot be read. The caller's status is 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `k8s\0` in front.
    #[error("the body is not in Kubernetes' protobuf form: it does not start with `k8s\\0`")]
    NotKubernetes,
    /// The object inside is compressed or in another format.
    #[error("the protobuf body's object has the encoding `{0}`, expected none")]
    Encoding(String),
    /// Not a built-in kind.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// As the body names it.
        api_version: String,
        /// As the body names it.
        kind: String,
    },
    /// Cut off, or not what the kind's messages look like.
    #[error("reading the protobuf message `{message}`: {reason}")]
    Malformed {
        /// The Go type, as `v1.Pod`.
        message: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Whether a body claims to be in this form.
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Reads a body: the envelope (`runtime.Unknown`) and the object in it. `kind` and `apiVersion` come first.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let envelope = Envelope::read(body.strip_prefix(MAGIC).ok_or(Error::NotKubernetes)?)?;
    if !envelope.encoding.is_empty() {
        return Err(Error::Encoding(envelope.encoding));
    }
    let table = Table::get();
    let message = table
        .kind(&envelope.api_version, &envelope.kind)
        .ok_or_else(|| Error::UnknownKind {
            api_version: envelope.api_version.clone(),
            kind: envelope.kind.clone(),
        })?;
    let mut object = Map::new();
    object.insert("kind".to_owned(), Value::String(envelope.kind));
    object.insert("apiVersion".to_owned(), Value::String(envelope.api_version));
    Decoder::new(table).message(envelope.raw, message, &mut object)?;
    Ok(Value::Object(object))
}

/// `runtime.Unknown`: 1 typeMeta { 1 apiVersion, 2 kind }, 2 raw, 3 contentEncoding, 4 contentType.
#[derive(Default)]
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
    encoding: String,
}

impl<'b> Envelope<'b> {
    fn read(body: &'b [u8]) -> Result<Self, Error> {
        let malformed = |reason| Error::Malformed {
            message: "runtime.Unknown",
            reason,
        };
        let mut envelope = Self::default();
        let mut fields = Reader::new(body);
        while let Some((number, value)) = fields.next().map_err(malformed)? {
            match (number, value) {
                (1, WireValue::Bytes(meta)) => {
                    let mut fields = Reader::new(meta);
                    while let Some((number, value)) = fields.next().map_err(malformed)? {
                        match (number, value) {
                            (1, WireValue::Bytes(text)) => envelope.api_version = wire::text(text),
                            (2, WireValue::Bytes(text)) => envelope.kind = wire::text(text),
                            _ => {}
                        }
                    }
                }
                (2, WireValue::Bytes(raw)) => envelope.raw = raw,
                (3, WireValue::Bytes(text)) => envelope.encoding = wire::text(text),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn samples() -> impl Iterator<Item = (Vec<u8>, Value)> {
        include_str!("testdata/protobuf.jsonl").lines().map(|line| {
            let mut sample: Value = serde_json::from_str(line).unwrap();
            (
                STANDARD.decode(sample["body"].as_str().unwrap()).unwrap(),
                sample["json"].take(),
            )
        })
    }

    /// Go shows null for what is not there but must be shown; we leave it out.
    fn drop_nulls(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(drop_nulls);
            }
            Value::Array(list) => list.iter_mut().for_each(drop_nulls),
            _ => {}
        }
    }

    #[test]
    fn every_kind_is_read_as_go_reads_it() {
        let mut kinds = 0;
        for (body, mut expected) in samples() {
            let mut got = decode(&body).unwrap_or_else(|error| panic!("{}: {error}", expected["kind"]));
            drop_nulls(&mut expected);
            drop_nulls(&mut got);
            assert_eq!(got, expected, "{} {}", expected["apiVersion"], expected["kind"]);
            kinds += 1;
        }
        assert!(kinds > 80, "only {kinds} samples");
    }

    #[test]
    fn kind_and_version_come_first() {
        for (body, _) in samples() {
            let object = decode(&body).unwrap();
            let names: Vec<_> = object.as_object().unwrap().keys().take(2).map(String::as_str).collect();
            assert_eq!(names, ["kind", "apiVersion"]);
        }
    }

    /// A length-delimited field.
    fn bytes(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = inner.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(inner);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn delete_options_come_in_every_groups_version() {
        // gracePeriodSeconds: 0, orphanDependents: false, propagationPolicy: Background
        let raw = [vec![1 << 3, 0, 3 << 3, 0], bytes(4, b"Background")].concat();
        for version in ["v1", "apps/v1", "metrics.k8s.io/v1beta1"] {
            let expected = json!({
                "kind": "DeleteOptions", "apiVersion": version,
                "gracePeriodSeconds": 0, "orphanDependents": false, "propagationPolicy": "Background",
            });
            assert_eq!(decode(&envelope(version, "DeleteOptions", &raw)).unwrap(), expected);
        }
    }

    #[test]
    fn fields_that_newer_clients_send_are_skipped() {
        // metadata.name, and fields 200 (varint), 201 (64 bits), 202 (bytes), 203 (32 bits)
        let mut raw = bytes(1, &bytes(1, b"x"));
        raw.extend([
            0xc0, 0x0c, 0x07, 0xc9, 0x0c, 1, 2, 3, 4, 5, 6, 7, 8, 0xd2, 0x0c, 1, b'y', 0xdd, 0x0c, 1, 2, 3, 4,
        ]);
        let expected = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "x"}});
        assert_eq!(decode(&envelope("v1", "Namespace", &raw)).unwrap(), expected);
    }

    #[test]
    fn packed_numbers_are_read() {
        // SELinux etc. aside: spec.securityContext.supplementalGroups = [1, 300], packed
        let context = bytes(4, &[1, 0xac, 0x02]);
        let spec = bytes(14, &context);
        let pod = decode(&envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
        assert_eq!(pod["spec"]["securityContext"]["supplementalGroups"], json!([1, 300]));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(decode(b"{}"), Err(Error::NotKubernetes));
        assert_eq!(decode(b""), Err(Error::NotKubernetes));
        let unknown = decode(&envelope("v9", "Pod", b"")).unwrap_err();
        assert_eq!(unknown.to_string(), "no kind \"Pod\" is registered for version \"v9\"");
        let mut compressed = envelope("v1", "Pod", b"");
        compressed.extend(bytes(3, b"gzip"));
        assert_eq!(decode(&compressed), Err(Error::Encoding("gzip".to_owned())));
        let cut = decode(&envelope("v1", "Pod", &[0x0a, 9, 1])).unwrap_err();
        assert!(
            cut.to_string().starts_with("reading the protobuf message `v1.Pod`: "),
            "{cut}"
        );
    }

    #[test]
    fn depth_is_bounded() {
        // JSONSchemaProps.not is field 28 and a JSONSchemaProps itself.
        let mut schema = Vec::new();
        for _ in 0..1000 {
            // 28 << 3 | 2 takes two bytes.
            let mut outer = vec![0xe2, 0x01];
            outer.extend(&bytes(1, &schema)[1..]);
            schema = outer;
        }
        let version = bytes(4, &bytes(1, &schema));
        let definition = bytes(2, &bytes(7, &version));
        let error = decode(&envelope(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            &definition,
        ))
        .unwrap_err();
        assert!(error.to_string().contains("nested too deeply"), "{error}");
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_or_refused(raw in prop::collection::vec(any::<u8>(), 0..200), kind in 0..90_usize) {
            let _ = decode(&raw);
            let (api_version, kind) = Table::get().kinds().nth(kind).unwrap_or(("v1", "Pod"));
            let api_version = if api_version == "*" { "v1" } else { api_version };
            let _ = decode(&envelope(api_version, kind, &raw));
        }

        #[test]
        fn damaged_samples_are_read_or_refused(at in any::<prop::sample::Index>(), flip in 1..=255_u8, which in 0..90_usize) {
            let Some((mut body, _)) = samples().nth(which) else { return Ok(()) };
            let at = at.index(body.len());
            body[at] ^= flip;
            let _ = decode(&body);
            body.truncate(at);
            let _ = decode(&body);
        }
    }
}
