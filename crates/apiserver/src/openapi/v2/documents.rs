//! Reads an OpenAPI v3 document piece by piece: its paths and its schemas, one at a time.
//!
//! A document of 1.6 MB is some 15 MB as a tree, which nobody needs at once.

use std::fmt;
use std::io::{self, Read};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Takes the pieces.
pub(super) trait Visit {
    fn path(&mut self, path: String, item: Value);
    fn schema(&mut self, name: String, schema: Value);
}

/// Reads a document to its end.
pub(super) fn read(reader: &mut dyn Read, visit: &mut dyn Visit) -> io::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_reader(io::BufReader::new(reader));
    Map { at: At::Top, visit }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(())
}

/// Which map is read.
#[derive(Clone, Copy)]
enum At {
    Top,
    Components,
    Paths,
    Schemas,
}

struct Map<'v> {
    at: At,
    visit: &'v mut dyn Visit,
}

impl<'de> DeserializeSeed<'de> for Map<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Map<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an OpenAPI v3 document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { at, visit } = self;
        while let Some(key) = map.next_key::<String>()? {
            let inner = match (at, key.as_str()) {
                (At::Top, "paths") => At::Paths,
                (At::Top, "components") => At::Components,
                (At::Components, "schemas") => At::Schemas,
                (At::Top | At::Components, _) => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                (At::Paths, _) => {
                    visit.path(key, map.next_value()?);
                    continue;
                }
                (At::Schemas, _) => {
                    visit.schema(key, map.next_value()?);
                    continue;
                }
            };
            let seed = Map {
                at: inner,
                visit: &mut *visit,
            };
            map.next_value_seed(seed)
                .map_err(|error| A::Error::custom(format_args!("`{key}`: {error}")))?;
        }
        Ok(())
    }
}
