//! The embedded data: a real API server's discovery and OpenAPI v3 answers, one `tar.zst`.
//!
//! Owns reading that archive, nothing of its meaning. A member is found by streaming through the archive and stopping
//! there, so start-up, which needs only discovery (it comes first), never decompresses the OpenAPI documents.

use std::io::{self, Read};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// `data/kubernetes-1.36-discovery-openapi-v3.tar.zst`, as it is in the binary.
static ARCHIVE: &[u8] = include_bytes!("../../data/kubernetes-1.36-discovery-openapi-v3.tar.zst");

/// Calls `visit` with the name and the text of each member, in the archive's order, until it returns `false`.
pub(crate) fn each(mut visit: impl FnMut(&str, &mut dyn Read) -> io::Result<bool>) -> io::Result<()> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(ARCHIVE).map_err(io::Error::other)?;
    let mut archive = tar::Archive::new(decoder);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path()?.to_string_lossy().into_owned();
        if !visit(&name, &mut entry)? {
            break;
        }
    }
    Ok(())
}

/// The bytes of one member, `None` if there is no such member.
pub(crate) fn member(wanted: &str) -> io::Result<Option<Vec<u8>>> {
    let mut found = None;
    each(|name, reader| {
        if name != wanted {
            return Ok(true);
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        found = Some(bytes);
        Ok(false)
    })?;
    Ok(found)
}

/// Upper-case hex that changes with the archive: the version of everything in it.
pub(crate) fn digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| hex(&Sha256::digest(ARCHIVE)))
}

/// Upper-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
}
