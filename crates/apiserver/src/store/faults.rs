//! The store on a disk that fails: power cuts that drop, tear and reorder whatever was not synced, no space, I/O
//! errors, altered bytes.
//!
//! `K8SLAB_TEST_CUTS` sets the number of power cuts; the figure in CI is small.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, Database, DatabaseError, StorageBackend};
use serde_json::json;

use super::file::{Medium, builder};
use super::*;

const SECTOR: usize = 512;

/// SplitMix64 (Steele, Lea, Flood 2014): a failed case is run again by its seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// What was asked of the disk since the last sync.
#[derive(Debug)]
enum Pending {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Debug)]
enum Mood {
    Sound,
    /// The power goes after so many operations.
    PowerFor(usize),
    /// So many of a hundred operations fail.
    Failing(Dice, usize),
    /// Nothing longer than this fits.
    Room(usize),
}

#[derive(Debug)]
struct State {
    /// What a reader sees.
    cached: Vec<u8>,
    /// What is on the platter for sure.
    synced: Vec<u8>,
    pending: Vec<Pending>,
    mood: Mood,
}

/// A disk. Clones are the same disk.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            cached: bytes.clone(),
            synced: bytes,
            pending: Vec::new(),
            mood: Mood::Sound,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Cuts the power: of what was not synced, any sectors are there and any are not.
    fn cut(&self, dice: &mut Dice) -> Self {
        let mut state = self.state();
        let State { synced, pending, .. } = &mut *state;
        let mut platter = std::mem::take(synced);
        let survives = [0, 10, 50, 90, 100][dice.below(5)];
        // A journalling file system keeps the order of lengths, not that of the data.
        let mut lengths = dice.below(pending.len() + 1);
        for pending in pending.drain(..) {
            match pending {
                Pending::Length(length) if lengths > 0 => {
                    platter.resize(length, 0);
                    lengths -= 1;
                }
                Pending::Length(_) => {}
                Pending::Write(at, data) => {
                    let mut from = 0;
                    while from < data.len() {
                        let to = data.len().min(from + SECTOR - (at + from) % SECTOR);
                        if dice.percent(survives) && at + to <= platter.len() {
                            platter[at + from..at + to].copy_from_slice(&data[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
        Self::holding(platter)
    }

    /// One more operation, if the disk is in the mood for it.
    fn allow(&self, length: usize) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match &mut state.mood {
            Mood::Sound => {}
            Mood::PowerFor(0) => return Err(io::Error::other("the power is off")),
            Mood::PowerFor(left) => *left -= 1,
            Mood::Failing(dice, chance) => {
                if dice.percent(*chance) {
                    return Err(io::Error::other("input/output error"));
                }
            }
            Mood::Room(room) => {
                if length > *room {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
        }
        Ok(state)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (state, from) = (self.state(), offset as usize);
        let found = state.cached.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = length as usize;
        let mut state = self.allow(length)?;
        state.cached.resize(length, 0);
        state.pending.push(Pending::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.allow(0)?;
        let State { synced, pending, .. } = &mut *state;
        for pending in pending.drain(..) {
            match pending {
                Pending::Length(length) => synced.resize(length, 0),
                Pending::Write(at, data) => synced[at..at + data.len()].copy_from_slice(&data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        let mut state = self.allow(from + data.len())?;
        state.cached[from..from + data.len()].copy_from_slice(data);
        state.pending.push(Pending::Write(from, data.to_vec()));
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.create_with_backend(self.clone())
    }

    fn size(&self) -> io::Result<u64> {
        StorageBackend::len(self)
    }
}

fn open(disk: &Disk) -> Result<(File, Contents), BackendError> {
    File::over(Path::new("disk"), Box::new(disk.clone()))
}

/// The bytes of a new store.
fn fresh() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(File::open(&path).unwrap());
    std::fs::read(&path).unwrap()
}

type Model = BTreeMap<Key, (u64, Bytes)>;

fn model(contents: &Contents) -> Model {
    let records = contents.records.iter().cloned();
    records
        .map(|record| (record.key, (record.revision, record.bytes.unwrap())))
        .collect()
}

/// A commit of a few changes, and what the store holds after it.
fn some_commit(dice: &mut Dice, model: &Model, revision: &mut u64) -> (Vec<Record>, Model) {
    let mut after = model.clone();
    let records = (0..=dice.below(4)).map(|_| {
        *revision += 1;
        let key = Key::new(Some("d"), &format!("o{}", dice.below(24)));
        let size = [20, 300, 5_000, 40_000][dice.below(4)];
        let bytes = (!dice.percent(25)).then(|| Bytes::from(vec![b'a' + (*revision % 26) as u8; size]));
        match &bytes {
            Some(bytes) => after.insert(key.clone(), (*revision, bytes.clone())),
            None => after.remove(&key),
        };
        Record {
            resource: "configmaps".to_owned(),
            key,
            bytes,
            revision: *revision,
        }
    });
    let records = records.collect();
    (records, after)
}

#[test]
fn whatever_a_power_cut_takes_every_acknowledged_commit_is_there_and_no_half_one() {
    #[expect(clippy::disallowed_methods, reason = "the long mode of a test")]
    let cuts = std::env::var("K8SLAB_TEST_CUTS").map_or(150, |cuts| cuts.parse().unwrap());
    let new = fresh();
    let (mut lives, mut commits) = (0, 0);
    for seed in 0.. {
        if lives >= cuts {
            break;
        }
        let mut dice = Dice(seed);
        let mut disk = Disk::holding(new.clone());
        let (mut before, mut revision) = (Model::new(), 1);
        // What the store holds if the commit on its way at the cut arrived.
        let mut perhaps: Option<(u64, Model)> = None;
        for life in 0..8 {
            lives += 1;
            disk.set(Mood::PowerFor(dice.below(120)));
            if let Ok((mut file, contents)) = open(&disk) {
                let found = (contents.revision, model(&contents));
                let context = || format!("seed {seed}, life {life}");
                match perhaps.take() {
                    Some(arrived) if found == arrived => (revision, before) = arrived,
                    _ => assert!(
                        found == (revision, before.clone()),
                        "{}: at revision {}",
                        context(),
                        found.0
                    ),
                }
                loop {
                    let mut next = revision;
                    let (records, after) = some_commit(&mut dice, &before, &mut next);
                    match file.commit(&records, next) {
                        Ok(()) => (revision, before) = (next, after),
                        Err(_) => {
                            perhaps = Some((next, after));
                            break;
                        }
                    }
                    commits += 1;
                }
            }
            disk = disk.cut(&mut dice);
        }
        disk.set(Mood::Sound);
        let (_, contents) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = (contents.revision, model(&contents));
        assert!(
            found == (revision, before) || Some(found) == perhaps,
            "seed {seed}: after the last cut"
        );
    }
    assert!(commits > lives / 4, "only {commits} commits in {lives} lives");
}

fn put(name: &str, expect: Expect, text: &str) -> Write {
    Write {
        resource: GroupResource::new("", "configmaps"),
        key: Key::new(Some("d"), name),
        expect,
        action: Action::Put(json!({"metadata": {"name": name}, "data": {"text": text}})),
    }
}

/// What readers see is what a new daemon would find.
fn assert_same(store: &Store, disk: &Disk) {
    let visible = store.contents();
    let (_, found) = open(&Disk::holding(disk.state().cached.clone())).unwrap();
    assert_eq!(found.revision, visible.revision);
    assert_eq!(model(&found), model(&visible));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let disk = Disk::holding(fresh());
    let (file, contents) = open(&disk).unwrap();
    let store = Store::new(Box::new(file), contents);
    let first = store.write(put("a", Expect::Absent, "one")).await.unwrap();
    let room = disk.state().cached.len();
    disk.set(Mood::Room(room));
    let long = "x".repeat(4 * room);
    let refused = store.write(put("b", Expect::Absent, &long)).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Backend(_)), "{refused}");
    assert_eq!(store.revision(), first.revision, "what was refused is not seen");
    // What fits is still taken, and what was taken is still there.
    store.write(put("c", Expect::Absent, "fits")).await.unwrap();
    disk.set(Mood::Sound);
    store.write(put("b", Expect::Absent, &long)).await.unwrap();
    store.close().await;
    assert_same(&store, &disk);
    assert_eq!(store.count(&GroupResource::new("", "configmaps")), 3);
}

#[tokio::test]
async fn after_input_and_output_errors_readers_see_what_is_on_the_disk() {
    let new = fresh();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..25 {
        let disk = Disk::holding(new.clone());
        let (file, contents) = open(&disk).unwrap();
        let store = Store::new(Box::new(file), contents);
        let mut acknowledged = BTreeMap::new();
        disk.set(Mood::Failing(Dice(seed), 3));
        for n in 0..30 {
            let name = format!("o{n}");
            match store.write(put(&name, Expect::Absent, "text")).await {
                Ok(object) => drop(acknowledged.insert(Key::new(Some("d"), &name), object)),
                Err(WriteError::Backend(_)) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        disk.set(Mood::Sound);
        store.write(put("last", Expect::Absent, "text")).await.unwrap();
        store.close().await;
        for (key, object) in &acknowledged {
            let found = store.object(&GroupResource::new("", "configmaps"), key);
            assert_eq!(found.as_ref(), Some(object), "seed {seed}");
        }
        taken += acknowledged.len();
        assert_same(&store, &disk);
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}

#[test]
fn altered_bytes_are_said_or_harmless_and_the_file_stays_as_it_is() {
    let disk = Disk::holding(fresh());
    let (mut file, _) = open(&disk).unwrap();
    let (mut dice, mut before, mut revision) = (Dice(7), Model::new(), 1);
    for _ in 0..20 {
        let (records, after) = some_commit(&mut dice, &before, &mut revision);
        file.commit(&records, revision).unwrap();
        before = after;
    }
    drop(file);
    let sound = disk.state().cached.clone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut said = 0;
    for _ in 0..150 {
        let mut bytes = sound.clone();
        if dice.percent(20) {
            bytes.truncate(dice.below(sound.len()));
        } else {
            // Past redb's header of 512 bytes, whose two slots guard each other.
            let at = SECTOR + dice.below(sound.len() - SECTOR);
            bytes[at] ^= 1 << dice.below(8);
        }
        std::fs::write(&path, &bytes).unwrap();
        match File::open(&path) {
            Ok((_, contents)) => assert_eq!((contents.revision, model(&contents)), (revision, before.clone())),
            Err(BackendError::Corrupted { .. }) => said += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(path.exists());
    }
    assert!(said > 50, "{said} of 150 were noticed");
}

#[test]
fn a_store_of_a_newer_release_is_refused_with_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(File::open(&path).unwrap());
    let database = builder().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction
            .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
            .unwrap();
        meta.insert("format", 2).unwrap();
        let mut program = transaction
            .open_table(redb::TableDefinition::<&str, &str>::new("program"))
            .unwrap();
        program.insert("version", "9.8.7").unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = File::open(&path).map(drop).unwrap_err();
    let expected = format!(
        "store `{}` has format 2, written by k8slab 9.8.7; this is k8slab {}, which reads format 1",
        path.display(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(error.to_string(), expected);
}

fn sample(revision: u64, size: usize, number: usize) -> Contents {
    let records = (0..number).map(|n| Record {
        resource: "configmaps".to_owned(),
        key: Key::new(Some("d"), &format!("o{n}")),
        bytes: Some(Bytes::from(vec![b'x'; size])),
        revision,
    });
    Contents {
        revision,
        records: records.collect(),
    }
}

#[test]
fn another_store_in_its_place_leaves_the_old_one_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    assert_eq!(File::replace(&path, &sample(5, 10, 2)).unwrap(), None);
    std::fs::write(dir.path().join("wrong"), "not a store").unwrap();
    std::fs::rename(dir.path().join("wrong"), &path).unwrap();
    let kept: Vec<PathBuf> = (7..9)
        .map(|revision| File::replace(&path, &sample(revision, 10, 2)).unwrap().unwrap())
        .collect();
    assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), "not a store");
    assert_eq!(File::open(&kept[1]).unwrap().1.revision, 7);
    let mut found = File::open(&path).unwrap().1;
    found.records.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, sample(8, 10, 2));
}

#[test]
fn a_file_that_is_mostly_air_is_compacted_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let full = sample(2, 100_000, 150);
    File::replace(&path, &full).unwrap();
    let (mut file, _) = File::open(&path).unwrap();
    // What stays lies all over the file, so that redb cannot just cut off its end.
    let gone: Vec<Record> = full
        .records
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 20 != 19)
        .map(|(_, record)| record)
        .map(|record| Record {
            bytes: None,
            ..record.clone()
        })
        .collect();
    file.commit(&gone, 3).unwrap();
    drop(file);
    let size = || std::fs::metadata(&path).unwrap().len();
    let before = size();
    let (file, contents) = File::open(&path).unwrap();
    assert_eq!((contents.revision, contents.records.len()), (3, 7));
    drop(file);
    assert!(size() < before / 4, "{before} bytes became {}", size());
    assert_eq!(File::open(&path).unwrap().1.records.len(), 7);
}

#[tokio::test]
async fn revisions_go_on_over_restarts_and_what_was_before_is_expired() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let resource = GroupResource::new("", "configmaps");
    let mut last = 1;
    for life in 0..4 {
        let (file, contents) = File::open(&path).unwrap();
        let store = Store::new(Box::new(file), contents);
        assert_eq!(store.revision(), last);
        let object = store
            .write(put(&format!("o{life}"), Expect::Absent, "x"))
            .await
            .unwrap();
        assert_eq!(object.revision, last + 1);
        // A watch from before this life has to list again; one from its begin has not.
        assert_eq!(store.changes(&resource, last, 10).unwrap().events.len(), 1);
        if last > 1 {
            assert!(store.changes(&resource, last - 1, 10).is_err());
        }
        last = object.revision;
        store.close().await;
    }
}
