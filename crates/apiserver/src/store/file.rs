//! `File`: the store on disk, one redb file.
//!
//! Layout, format 1: table `objects` maps `RESOURCE '\0' KEY` to the revision (8 bytes, big endian) and the object's
//! JSON; table `meta` holds `format` and `revision`. A new store is made beside its place and renamed, so an empty or
//! cut file in that place is a corrupted store, never a new one. Nothing here moves or deletes a file that was there.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Backend, BackendError, Contents, Key, Record};

/// Changed whenever an older release could not read the file.
const FORMAT: u64 = 1;
/// redb's page cache: objects are read once, at start.
const CACHE: usize = 1 << 20;

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// A redb file that takes commits.
pub struct File {
    path: PathBuf,
    database: Option<Database>,
}

impl File {
    /// Opens the store at `path`, or makes a new one if there is no such file.
    pub fn open(path: &Path) -> Result<(Self, Contents), BackendError> {
        if !path.try_exists().map_err(|error| io_error("opening", path, &error))? {
            create(path)?;
        }
        let (database, contents) = load(path)?;
        Ok((
            Self {
                path: path.to_owned(),
                database: Some(database),
            },
            contents,
        ))
    }
}

impl Backend for File {
    fn blocks(&self) -> bool {
        true
    }

    fn commit(&mut self, records: &[Record], revision: u64) -> Result<(), BackendError> {
        let database = self.database.as_ref().ok_or_else(|| closed(&self.path))?;
        write(database, records, revision).map_err(|error| describe("writing", &self.path, error))
    }

    fn recover(&mut self) -> Result<u64, BackendError> {
        self.database = None;
        let database = open(&self.path)?;
        let revision = guarded(&self.path, || Ok(meta(&database, &self.path)?.unwrap_or_default()))?;
        self.database = Some(database);
        Ok(revision)
    }
}

/// Makes an empty store at a temporary name and moves it to its place.
fn create(path: &Path) -> Result<(), BackendError> {
    let doing = "creating";
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(doing, &temporary, &error)),
        _ => {}
    }
    let database = builder()
        .create(&temporary)
        .map_err(|error| describe(doing, path, error.into()))?;
    write(&database, &[], 1).map_err(|error| describe(doing, path, error))?;
    drop(database);
    fs::rename(&temporary, path).map_err(|error| io_error(doing, path, &error))?;
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // The rename is durable only with the directory.
        fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| io_error(doing, path, &error))?;
    }
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

fn open(path: &Path) -> Result<Database, BackendError> {
    let size = fs::metadata(path)
        .map_err(|error| io_error("opening", path, &error))?
        .len();
    if size == 0 {
        return Err(BackendError::Corrupted {
            path: path.to_owned(),
            detail: "the file is empty".to_owned(),
        });
    }
    guarded(path, || {
        builder()
            .open(path)
            .map_err(|error| describe("opening", path, error.into()))
    })
}

fn load(path: &Path) -> Result<(Database, Contents), BackendError> {
    let database = open(path)?;
    let contents = guarded(path, || {
        let Some(revision) = meta(&database, path)? else {
            return Err(corrupted(path, "it has no revision"));
        };
        Ok(Contents {
            revision,
            records: records(&database, path)?,
        })
    })?;
    Ok((database, contents))
}

/// The revision, after a look at the format.
fn meta(database: &Database, path: &Path) -> Result<Option<u64>, BackendError> {
    let read = || -> Result<(Option<u64>, Option<u64>), redb::Error> {
        let table = database.begin_read()?.open_table(META)?;
        let number = |name| -> Result<Option<u64>, redb::Error> { Ok(table.get(name)?.map(|value| value.value())) };
        Ok((number("format")?, number("revision")?))
    };
    match read().map_err(|error| describe("reading", path, error))? {
        (Some(FORMAT), revision) => Ok(revision),
        (Some(found), _) => Err(BackendError::Format {
            path: path.to_owned(),
            found,
            expected: FORMAT,
        }),
        (None, _) => Err(corrupted(path, "it has no format number")),
    }
}

fn records(database: &Database, path: &Path) -> Result<Vec<Record>, BackendError> {
    type Raw = Vec<(Vec<u8>, Vec<u8>)>;
    let read = || -> Result<Raw, redb::Error> {
        let table = database.begin_read()?.open_table(OBJECTS)?;
        table
            .iter()?
            .map(|entry| Ok(entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))?))
            .collect()
    };
    let pairs = read().map_err(|error| describe("reading", path, error))?;
    pairs
        .into_iter()
        .map(|(place, value)| {
            let place = std::str::from_utf8(&place)
                .ok()
                .and_then(|place| place.split_once('\0'));
            let (Some((resource, key)), Some((revision, bytes))) = (place, value.split_first_chunk::<8>()) else {
                return Err(corrupted(path, "an object's record cannot be read"));
            };
            Ok(Record {
                resource: resource.to_owned(),
                key: Key::from_text(key),
                bytes: Some(Bytes::copy_from_slice(bytes)),
                revision: u64::from_be_bytes(*revision),
            })
        })
        .collect()
}

fn write(database: &Database, records: &[Record], revision: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for record in records {
            let place = format!("{}\0{}", record.resource, record.key);
            match &record.bytes {
                Some(bytes) => {
                    let mut value = Vec::with_capacity(8 + bytes.len());
                    value.extend_from_slice(&record.revision.to_be_bytes());
                    value.extend_from_slice(bytes);
                    objects.insert(place.as_bytes(), value.as_slice())?;
                }
                None => {
                    objects.remove(place.as_bytes())?;
                }
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("revision", revision)?;
    }
    // redb's default durability: `commit` returns after fsync.
    transaction.commit()?;
    Ok(())
}

/// redb trusts its files and panics where one was altered; for us that is an error like any other.
fn guarded<T>(path: &Path, act: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let detail = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("reading it panicked");
        Err(corrupted(path, detail))
    })
}

fn corrupted(path: &Path, detail: &str) -> BackendError {
    BackendError::Corrupted {
        path: path.to_owned(),
        detail: detail.to_owned(),
    }
}

fn closed(path: &Path) -> BackendError {
    BackendError::Io {
        doing: "writing",
        path: path.to_owned(),
        detail: "it is closed".to_owned(),
    }
}

fn io_error(doing: &'static str, path: &Path, error: &io::Error) -> BackendError {
    BackendError::Io {
        doing,
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

fn describe(doing: &'static str, path: &Path, error: redb::Error) -> BackendError {
    use redb::Error as E;
    match error {
        E::DatabaseAlreadyOpen => BackendError::InUse { path: path.to_owned() },
        E::Io(error) if error.kind() == io::ErrorKind::InvalidData => corrupted(path, "it is not a redb file"),
        E::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => corrupted(path, "it is cut short"),
        E::Io(error) => io_error(doing, path, &error),
        error @ (E::Corrupted(_)
        | E::UpgradeRequired(_)
        | E::TableDoesNotExist(_)
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. }) => corrupted(path, &error.to_string()),
        error => BackendError::Io {
            doing,
            path: path.to_owned(),
            detail: error.to_string(),
        },
    }
}
