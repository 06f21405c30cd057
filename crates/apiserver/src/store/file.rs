//! `File`: the store on disk, one redb file.
//!
//! Layout, format 1: table `objects` maps `RESOURCE '\0' KEY` to the revision (8 bytes, big endian) and the object's
//! JSON; table `meta` holds `format` and `revision`, table `program` the version that wrote it last. A new store is made
//! beside its place and renamed, so an empty or cut file in that place is a corrupted store, never a new one. Nothing
//! here deletes a file that was there.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Backend, BackendError, Contents, Key, Record};

/// Changed whenever an older release could not read the file.
const FORMAT: u64 = 1;
/// redb's page cache: objects are read once, at start.
const CACHE: usize = 1 << 20;

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const PROGRAM: TableDefinition<'_, &str, &str> = TableDefinition::new("program");

/// A file is compacted at start if it is larger than this, and …
const COMPACT_FROM: u64 = 8 << 20;
/// … than this many times what is in it.
const COMPACT_TIMES: u64 = 4;

/// What redb's pages lie on. A file; in tests something that fails as disks do.
pub(super) trait Medium: Send + 'static {
    /// Opens what is there.
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError>;

    /// Bytes taken.
    fn size(&self) -> io::Result<u64>;
}

impl Medium for PathBuf {
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.open(self)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(self)?.len())
    }
}

/// A redb file that takes commits.
pub struct File {
    path: PathBuf,
    medium: Box<dyn Medium>,
    database: Option<Database>,
}

impl File {
    /// Opens the store at `path`, or makes a new one if there is no such file.
    pub fn open(path: &Path) -> Result<(Self, Contents), BackendError> {
        if !path.try_exists().map_err(|error| io_error("opening", path, &error))? {
            create(path, &Contents::default())?;
        }
        Self::over(path, Box::new(path.to_owned()))
    }

    /// The store that lies on `medium`; errors call it `path`.
    pub(super) fn over(path: &Path, medium: Box<dyn Medium>) -> Result<(Self, Contents), BackendError> {
        let (database, contents) = load(path, &*medium)?;
        let file = Self {
            path: path.to_owned(),
            medium,
            database: Some(database),
        };
        Ok((file, contents))
    }

    /// Puts a store with `contents` in the place `path`. One that is there, in whatever state, is kept beside it under
    /// the name that comes back.
    pub fn replace(path: &Path, contents: &Contents) -> Result<Option<PathBuf>, BackendError> {
        let there = path.try_exists().map_err(|error| io_error("replacing", path, &error))?;
        let kept = there.then(|| keep(path)).transpose()?;
        create(path, contents)?;
        Ok(kept)
    }
}

/// Gives the file a second name, so that it stays when another one takes its place.
fn keep(path: &Path) -> Result<PathBuf, BackendError> {
    let mut number = 1;
    loop {
        let kept = path.with_extension(format!("replaced-{number}"));
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(io_error("keeping", path, &error)),
        }
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
        let database = open(&self.path, &*self.medium)?;
        let revision = guarded(&self.path, || Ok(meta(&database, &self.path)?.unwrap_or_default()))?;
        self.database = Some(database);
        Ok(revision)
    }
}

/// Makes a store at a temporary name and moves it to its place.
fn create(path: &Path, contents: &Contents) -> Result<(), BackendError> {
    let doing = "creating";
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(doing, &temporary, &error)),
        _ => {}
    }
    let database = builder()
        .create(&temporary)
        .map_err(|error| describe(doing, path, error.into()))?;
    write(&database, &contents.records, contents.revision.max(1)).map_err(|error| describe(doing, path, error))?;
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

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

fn open(path: &Path, medium: &dyn Medium) -> Result<Database, BackendError> {
    let size = medium.size().map_err(|error| io_error("opening", path, &error))?;
    if size == 0 {
        return Err(corrupted(path, "the file is empty"));
    }
    guarded(path, || {
        medium
            .open(&builder())
            .map_err(|error| describe("opening", path, error.into()))
    })
}

fn load(path: &Path, medium: &dyn Medium) -> Result<(Database, Contents), BackendError> {
    let mut database = open(path, medium)?;
    let contents = guarded(path, || {
        let Some(revision) = meta(&database, path)? else {
            return Err(corrupted(path, "it has no revision"));
        };
        Ok(Contents {
            revision,
            records: records(&database, path)?,
        })
    })?;
    let size = medium.size().map_err(|error| io_error("opening", path, &error))?;
    let used: usize = contents
        .records
        .iter()
        .filter_map(|record| Some(record.bytes.as_ref()?.len()))
        .sum();
    if size > COMPACT_FROM && size / COMPACT_TIMES > used as u64 {
        let compacted = guarded(path, || {
            database
                .compact()
                .map_err(|error| describe("compacting", path, error.into()))
        })?;
        tracing::info!(
            before = size,
            after = medium.size().unwrap_or_default(),
            compacted,
            "store: compacted"
        );
    }
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
            written_by: program(database),
        }),
        (None, _) => Err(corrupted(path, "it has no format number")),
    }
}

/// The version that wrote the store last; `None` where it did not say.
fn program(database: &Database) -> Option<String> {
    let table = database.begin_read().ok()?.open_table(PROGRAM).ok()?;
    Some(table.get("version").ok()??.value().to_owned())
}

fn records(database: &Database, path: &Path) -> Result<Vec<Record>, BackendError> {
    type Raw = Vec<(Vec<u8>, Vec<u8>)>;
    let read = || -> Result<Raw, redb::Error> {
        let table = match database.begin_read()?.open_table(OBJECTS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Raw::new()),
            table => table?,
        };
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
        let mut program = transaction.open_table(PROGRAM)?;
        let version = env!("CARGO_PKG_VERSION");
        if program.get("version")?.is_none_or(|found| found.value() != version) {
            program.insert("version", version)?;
        }
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
