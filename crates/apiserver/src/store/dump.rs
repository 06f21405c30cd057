//! `Dump`: a store as text, one JSON line an object, for `cluster export` and `import`.
//!
//! Owns the format: a line that says what follows (format, revision, number of objects), then the objects. A dump that
//! was cut short or altered is refused as a whole.

use std::io::{self, BufRead, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Contents, Key, Record};

/// Changed whenever an older release could not read it.
const FORMAT: u32 = 1;
const KIND: &str = "k8slab-store";

/// Why a dump was not read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The disk.
    #[error("reading the export")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is not an export of k8slab: {0}")]
    Foreign(String),
    /// Written by a newer release.
    #[error(
        "the export has format {found}, written by k8slab {by}; this is k8slab {}, which reads format {FORMAT}",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Its format.
        found: u32,
        /// Who wrote it.
        by: String,
    },
    /// A line is no object.
    #[error("line {line} of the export: {detail}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// Its end is missing, or there is more than its begin says.
    #[error("the export says it has {expected} objects, but {found} are in it")]
    Incomplete {
        /// What its first line says.
        expected: usize,
        /// What was found.
        found: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    kind: String,
    format: u32,
    /// Of the program.
    version: String,
    revision: u64,
    objects: usize,
}

#[derive(Deserialize)]
struct Line {
    resource: String,
    key: String,
    revision: u64,
    object: Value,
}

/// A store's text, piece by piece: nobody has to hold all of it.
pub struct Dump {
    head: Option<Head>,
    records: std::vec::IntoIter<Record>,
}

impl Dump {
    /// The text of `contents`.
    pub fn of(contents: Contents) -> Self {
        let head = Head {
            kind: KIND.to_owned(),
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: contents.revision,
            objects: contents.records.len(),
        };
        Self {
            head: Some(head),
            records: contents.records.into_iter(),
        }
    }

    /// Writes the next line; false after the last one.
    pub fn line(&mut self, mut out: impl Write) -> io::Result<bool> {
        if let Some(head) = self.head.take() {
            serde_json::to_writer(&mut out, &head)?;
        } else if let Some(record) = self.records.next() {
            write!(out, r#"{{"resource":"#)?;
            serde_json::to_writer(&mut out, &record.resource)?;
            write!(out, r#","key":"#)?;
            serde_json::to_writer(&mut out, record.key.as_str())?;
            write!(out, r#","revision":{},"object":"#, record.revision)?;
            out.write_all(record.bytes.as_deref().unwrap_or(b"null"))?;
            out.write_all(b"}")?;
        } else {
            return Ok(false);
        }
        out.write_all(b"\n")?;
        Ok(true)
    }

    /// Writes all of it.
    pub fn write(mut self, mut out: impl Write) -> io::Result<()> {
        while self.line(&mut out)? {}
        out.flush()
    }

    /// The contents of which `text` is the dump.
    pub fn read(text: impl BufRead) -> Result<Contents, DumpError> {
        let mut lines = text.lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let head: Head = serde_json::from_str(&first).map_err(|error| DumpError::Foreign(error.to_string()))?;
        if head.kind != KIND {
            return Err(DumpError::Foreign(format!("its kind is `{}`", head.kind)));
        }
        if head.format > FORMAT {
            return Err(DumpError::Newer {
                found: head.format,
                by: head.version,
            });
        }
        let mut records = Vec::new();
        for (number, line) in lines.enumerate() {
            let wrong = |detail: String| DumpError::Line {
                line: number + 2,
                detail,
            };
            let line: Line = serde_json::from_str(&line?).map_err(|error| wrong(error.to_string()))?;
            if !line.object.is_object() {
                return Err(wrong("`object` is none".to_owned()));
            }
            if line.revision > head.revision {
                return Err(wrong(format!("revision {} is later than the export", line.revision)));
            }
            records.push(Record {
                resource: line.resource,
                key: Key::from_text(&line.key),
                bytes: Some(Bytes::from(line.object.to_string())),
                revision: line.revision,
            });
        }
        if records.len() != head.objects {
            return Err(DumpError::Incomplete {
                expected: head.objects,
                found: records.len(),
            });
        }
        Ok(Contents {
            revision: head.revision,
            records,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let object = |name: &str, revision| Record {
            resource: "deployments.apps".to_owned(),
            key: Key::new(Some("default"), name),
            bytes: Some(Bytes::from(format!(
                r#"{{"kind":"Deployment","metadata":{{"name":"{name}","note":"a\nb"}}}}"#
            ))),
            revision,
        };
        Contents {
            revision: 9,
            records: vec![object("a", 3), object("b", 9)],
        }
    }

    fn text() -> String {
        let mut text = Vec::new();
        Dump::of(contents()).write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_exported_is_imported_byte_for_byte() {
        assert_eq!(Dump::read(text().as_bytes()).unwrap(), contents());
    }

    #[test]
    fn what_is_not_a_whole_export_is_refused() {
        let text = text();
        let refused = |text: &str| Dump::read(text.as_bytes()).unwrap_err().to_string();
        let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(refused(&cut), "the export says it has 2 objects, but 1 are in it");
        assert!(refused(&text[..text.len() - 5]).starts_with("line 3 of the export: "));
        assert!(refused("").starts_with("this is not an export of k8slab"));
        assert!(refused("kind: Pod").starts_with("this is not an export of k8slab"));
        let newer = refused(&text.replace(r#""format":1"#, r#""format":2"#));
        assert!(
            newer.starts_with("the export has format 2, written by k8slab "),
            "{newer}"
        );
        let later = text.replace(r#""revision":9,"objects""#, r#""revision":8,"objects""#);
        assert_eq!(
            refused(&later),
            "line 3 of the export: revision 9 is later than the export"
        );
    }
}
