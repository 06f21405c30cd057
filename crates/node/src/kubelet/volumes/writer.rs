//! Writes a volume's files so that a reader sees all of the old ones or all of the new ones.
//!
//! `<volume>/..data` is a link to a folder with the files; each name in the volume is a link through it. An update makes
//! a new folder and renames a new `..data` over the old. Shape and names as `pkg/volume/util/atomic_writer.go`
//! (kubernetes 1.36): programs watch for the `..data` rename.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::own;
use super::payload::Files;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Brings `volume` to `files`. False if it was there already.
pub(crate) fn write(volume: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(volume)?;
    own(volume, if group.is_some() { 0o2755 } else { 0o755 }, group)?;
    let old = fs::read_link(volume.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| same(&volume.join(old), files)) {
        return Ok(false);
    }
    let fresh = format!("..{}", uuid::Uuid::new_v4().simple());
    let folder = volume.join(&fresh);
    fs::create_dir(&folder)?;
    own(&folder, if group.is_some() { 0o2755 } else { 0o755 }, group)?;
    for (path, file) in files {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.bytes)?;
        // The group may read what the owner may, as `fsGroup` promises.
        let mode = if group.is_some() {
            file.mode | (file.mode & 0o400) >> 3
        } else {
            file.mode
        };
        own(&target, mode, group)?;
    }
    let tmp = volume.join(NEW_DATA);
    let _ = fs::remove_file(&tmp);
    symlink(&fresh, &tmp)?;
    fs::rename(&tmp, volume.join(DATA))?;

    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        } else if name.starts_with("..") && name != DATA && name != fresh.as_str() {
            // The one before, or what a crash left.
            fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()))?;
        }
    }
    Ok(true)
}

/// Whether a folder holds exactly these files. Modes are fixed by the pod spec and need no look.
fn same(folder: &Path, files: &Files) -> bool {
    count(folder).is_some_and(|count| count == files.len())
        && files
            .iter()
            .all(|(path, file)| fs::read(folder.join(path)).is_ok_and(|bytes| bytes == file.bytes))
}

fn count(folder: &Path) -> Option<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        files += if entry.file_type().ok()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Some(files)
}
