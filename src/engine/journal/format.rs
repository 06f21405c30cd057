//! The bytes of a journal: a header with the format's number, then records of length, checksum and JSON.
//!
//! ```text
//! header   "k8slab journal " (15 bytes) and one byte: the format's number
//! record   length u32 LE · first 8 bytes of the payload's SHA-256 · payload: one event as JSON
//! ```
//! Pure. A file may end anywhere, since a machine may lose power anywhere: what is whole before the cut counts.

use sha2::{Digest as _, Sha256};

use crate::engine::event::Event;

/// The number of this format. 1: the first.
pub const FORMAT: u8 = 1;

const MAGIC: &[u8; 15] = b"k8slab journal ";
/// The length of the header.
pub const HEADER: usize = MAGIC.len() + 1;
const FRAME: usize = 4 + 8;
/// Larger than any event; a length beyond it is damage.
const LENGTH_LIMIT: usize = 16 * 1024 * 1024;

/// The header of a new file.
pub fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()] = FORMAT;
    header
}

/// An event as a record.
pub fn record(event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    let payload = serde_json::to_vec(event)?;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut record = Vec::with_capacity(FRAME + payload.len());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&checksum(&payload));
    record.extend_from_slice(&payload);
    Ok(record)
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let sum = Sha256::digest(payload);
    let mut first = [0; 8];
    first.copy_from_slice(&sum[..8]);
    first
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The events, in order.
    pub events: Vec<Event>,
    /// How many bytes of the file are whole.
    pub whole: usize,
    /// How the file goes on after them.
    pub tail: Tail,
}

/// What follows the last whole record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    #[default]
    Clean,
    /// The beginning of a record: the writer was interrupted.
    Cut,
    /// Bytes that no writer of ours leaves behind.
    Damaged,
}

/// Why a journal is not read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another sort of file.
    #[error("this is not a journal of k8slab")]
    NotAJournal,
    /// A newer k8slab wrote it.
    #[error("the journal has format {found}, this k8slab reads up to {FORMAT}")]
    Newer {
        /// Its number.
        found: u8,
    },
}

/// Reads a whole file.
pub fn read(bytes: &[u8]) -> Result<Contents, FormatError> {
    let magic = &bytes[..bytes.len().min(MAGIC.len())];
    if !MAGIC.starts_with(magic) {
        return Err(FormatError::NotAJournal);
    }
    match bytes.get(MAGIC.len()) {
        None if bytes.is_empty() => return Ok(Contents::default()),
        None => {
            return Ok(Contents {
                tail: Tail::Cut,
                ..Contents::default()
            });
        }
        Some(&found) if found > FORMAT => return Err(FormatError::Newer { found }),
        Some(0) => return Err(FormatError::NotAJournal),
        Some(_) => {}
    }
    let mut contents = Contents {
        whole: HEADER,
        ..Contents::default()
    };
    loop {
        let rest = &bytes[contents.whole..];
        if rest.is_empty() {
            return Ok(contents);
        }
        match next(rest) {
            Ok((event, length)) => {
                contents.events.push(event);
                contents.whole += length;
            }
            Err(tail) => {
                contents.tail = tail;
                return Ok(contents);
            }
        }
    }
}

fn next(rest: &[u8]) -> Result<(Event, usize), Tail> {
    let length = rest.first_chunk::<4>().ok_or(Tail::Cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > LENGTH_LIMIT {
        return Err(Tail::Damaged);
    }
    let payload = rest.get(FRAME..FRAME + length).ok_or(Tail::Cut)?;
    if rest[4..FRAME] != checksum(payload) {
        // A lost write may leave zeros or half a record as the very last thing; in the middle it is damage.
        let last = rest.len() == FRAME + length || rest.iter().all(|byte| *byte == 0);
        return Err(if last { Tail::Cut } else { Tail::Damaged });
    }
    let event = serde_json::from_slice(payload).map_err(|_| Tail::Damaged)?;
    Ok((event, FRAME + length))
}
