//! The journal of a lab: every event of its runs, append-only, on disk before what it announces is done.
//!
//! Knows `engine::event` and files, nothing else. Opens whatever a crash left: the whole records count, a cut one is
//! dropped, anything stranger is kept aside before it is dropped.

pub mod format;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use self::format::{Contents, FormatError, Tail};
use super::event::{Event, Listener, What};
use super::outcome::{RunEnd, StepEnd};
use crate::paths::Owner;
use crate::steps::{Done, Effect};

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk said no.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It is not readable by this version.
    #[error("reading `{}`", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: FormatError,
    },
}

impl JournalError {
    /// Whether a newer k8slab wrote it.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            Self::Format {
                source: FormatError::Newer { .. },
                ..
            }
        )
    }

    /// What to try.
    pub fn hint(&self) -> String {
        match self {
            Self::Format {
                source: FormatError::Newer { .. },
                ..
            } => "use the newer k8slab, or `down` the lab with it first".into(),
            Self::Format { path, .. } => format!(
                "move `{}` away; the lab's objects are found by their label",
                path.display()
            ),
            Self::Io { .. } => "check that the disk has space and that the folder is yours".into(),
        }
    }
}

/// Reads a journal without touching it; one that is not there is empty.
pub fn read(path: &Path, owner: Owner) -> Result<Contents, JournalError> {
    let mut bytes = Vec::new();
    let opened = owner
        .act(|| File::open(path))
        .and_then(|mut file| file.read_to_end(&mut bytes));
    match opened {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(source) => {
            return Err(JournalError::Io {
                doing: "reading",
                path: path.to_owned(),
                source,
            });
        }
    }
    format::read(&bytes).map_err(|source| JournalError::Format {
        path: path.to_owned(),
        source,
    })
}

/// The end of a journal, where events are added.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    broken: bool,
}

impl Journal {
    /// Opens or creates a journal, mends its tail, and returns what it says so far.
    pub fn open(path: &Path, owner: Owner) -> Result<(Self, Contents), JournalError> {
        let contents = read(path, owner)?;
        let io = |doing| {
            move |source| JournalError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        if contents.tail == Tail::Damaged {
            let aside = path.with_extension("damaged");
            owner
                .act(|| std::fs::copy(path, &aside))
                .map_err(io("keeping a copy of"))?;
        }
        let mut options = File::options();
        options.create(true).truncate(false).write(true).read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = owner.act(|| options.open(path)).map_err(io("opening"))?;
        file.set_len(contents.whole as u64).map_err(io("mending"))?;
        file.seek(SeekFrom::End(0)).map_err(io("opening"))?;
        if contents.whole == 0 {
            file.write_all(&format::header())
                .and_then(|()| file.sync_all())
                .map_err(io("writing"))?;
            // The name must survive too.
            if let Some(folder) = path.parent() {
                owner
                    .act(|| File::open(folder))
                    .and_then(|folder| folder.sync_all())
                    .map_err(io("writing"))?;
            }
        }
        Ok((
            Self {
                path: path.to_owned(),
                file,
                broken: false,
            },
            contents,
        ))
    }

    /// Adds an event; `durable` ones are on the disk before this returns.
    pub fn append(&mut self, event: &Event, durable: bool) -> Result<(), JournalError> {
        let io = |source| JournalError::Io {
            doing: "writing",
            path: self.path.clone(),
            source,
        };
        let record = format::record(event).map_err(|error| io(error.into()))?;
        self.file.write_all(&record).map_err(io)?;
        if durable {
            self.file.sync_data().map_err(io)
        } else {
            Ok(())
        }
    }
}

/// Whether an event must survive a power cut before the run goes on: whatever announces or ends a change. The rest is
/// written too, and reaches the disk with the next of these.
fn durable(what: &What) -> bool {
    let unchanged = |done: &Done| done.effect == Effect::Unchanged;
    match what {
        What::Making { .. } | What::Gone { .. } => true,
        What::StepFinished { end, .. } => !matches!(end, StepEnd::Done(done) if unchanged(done)),
        What::RunFinished { end, .. } => *end != RunEnd::Done(Effect::Unchanged),
        _ => false,
    }
}

impl Listener for Journal {
    fn hear(&mut self, event: &Event) {
        // What a wait sees is for eyes; it would only wear the disk.
        if self.broken || matches!(event.event, What::StepSeen { .. }) {
            return;
        }
        if let Err(error) = self.append(event, durable(&event.event)) {
            // The lab itself does not depend on the journal: its objects carry its label. The run goes on and says so.
            self.broken = true;
            tracing::error!("{}", crate::steps::chain(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::VERSION;
    use crate::scenario::StepId;

    fn event(n: usize) -> Event {
        let what = What::StepNote {
            step: StepId::new("burner"),
            text: format!("note {n} è più lunga"),
        };
        Event {
            version: VERSION,
            at: jiff::Timestamp::UNIX_EPOCH,
            event: what,
        }
    }

    fn written(count: usize) -> Vec<u8> {
        let mut bytes = format::header().to_vec();
        (0..count).for_each(|n| bytes.extend(format::record(&event(n)).unwrap()));
        bytes
    }

    #[test]
    fn a_journal_cut_at_any_byte_opens_and_keeps_every_whole_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let bytes = written(6);
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (mut journal, contents) = Journal::open(&path, Owner::Myself).unwrap();
            let whole = (0..=6).rev().find(|count| written(*count).len() <= cut).unwrap_or(0);
            assert_eq!(
                contents.events,
                (0..whole).map(event).collect::<Vec<_>>(),
                "cut at {cut}"
            );
            // And it goes on from there.
            journal.append(&event(9), true).unwrap();
            let again = read(&path, Owner::Myself).unwrap();
            assert_eq!(
                (again.events.len(), again.tail),
                (whole + 1, Tail::Clean),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_journal_with_any_byte_flipped_opens_and_keeps_what_was_before() {
        let bytes = written(4);
        let first_two = written(2).len();
        for flip in first_two..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[flip] ^= 0x55;
            let contents = format::read(&damaged).unwrap();
            assert!(contents.events.len() >= 2, "flipped {flip}");
            assert_eq!(contents.events[..2], [event(0), event(1)], "flipped {flip}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut bytes = written(4);
        bytes[format::HEADER + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (_, contents) = Journal::open(&path, Owner::Myself).unwrap();
        assert_eq!((contents.events.len(), contents.tail), (0, Tail::Damaged));
        assert_eq!(std::fs::read(path.with_extension("damaged")).unwrap(), bytes);
    }

    #[test]
    fn a_newer_format_and_a_foreign_file_are_refused() {
        let mut newer = written(1);
        newer[format::HEADER - 1] = format::FORMAT + 1;
        assert_eq!(format::read(&newer), Err(FormatError::Newer { found: 2 }));
        assert_eq!(format::read(b"#!/bin/sh\n"), Err(FormatError::NotAJournal));
    }
}
