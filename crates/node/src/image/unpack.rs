//! Unpacks a layer into a folder, as overlayfs wants it, and never writes outside that folder.
//!
//! Every path is opened through the kernel with the folder as root (`openat2`), so a link in one entry cannot send the
//! next one elsewhere. Whiteouts become what overlayfs knows: a 0:0 character device for a file, an attribute for a
//! folder whose lower content is hidden.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use tar::{Archive, Entry, EntryType};

use crate::runtime::rootfs::{Links, open_below, open_existing};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Unpacks the tar stream `layer` into the empty folder `into`. Returns the bytes written.
pub(crate) fn unpack(layer: impl Read, into: &Path) -> io::Result<u64> {
    let unpacker = Unpacker {
        root: File::open(into)?,
        as_root: owns_everything(),
    };
    let mut archive = Archive::new(layer);
    let mut size = 0;
    // Set at the end: unpacking into a folder changes its time, and a read-only one takes no files.
    let mut folders: Vec<(PathBuf, u32, i64)> = vec![];
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = relative(&entry.path()?)?;
        let done = unpacker.entry(&mut entry, &path, &mut folders);
        size += done.map_err(|error| io::Error::other(format!("unpacking `{}`: {error}", path.display())))?;
    }
    for (path, mode, time) in folders.into_iter().rev() {
        let folder = open_existing(&unpacker.root, &path, Links::Beneath)?;
        set_mode(&folder, mode)?;
        set_time(&folder, time);
    }
    Ok(size)
}

/// May files be given away? Not as an ordinary user, nor in a user namespace that maps one id.
fn owns_everything() -> bool {
    nix::unistd::geteuid().is_root() && !crate::privileges::in_user_namespace()
}

/// A path of the archive as one below the root; what leads up is refused.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("`{}` leads out of the image", path.display())));
            }
        }
    }
    Ok(below)
}

struct Unpacker {
    root: File,
    as_root: bool,
}

impl Unpacker {
    fn entry(
        &self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        folders: &mut Vec<(PathBuf, u32, i64)>,
    ) -> io::Result<u64> {
        let (mode, time) = (
            entry.header().mode()? & 0o7777,
            i64::try_from(entry.header().mtime()?).unwrap_or(0),
        );
        let Some(name) = path.file_name() else {
            // The root folder itself.
            set_mode(&self.root, mode)?;
            return Ok(0);
        };
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let parent = File::from(open_below(&self.root, parent, Links::InRoot)?);
        if name.as_bytes() == OPAQUE.as_bytes() {
            return self.make_opaque(&parent).map(|()| 0);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT.as_bytes()) {
            let hidden = OsStr::from_bytes(hidden);
            if hidden.is_empty() || hidden == "." || hidden == ".." {
                return Err(io::Error::other("a whiteout of nothing"));
            }
            remove(&parent, hidden)?;
            mknodat(
                Some(parent.as_raw_fd()),
                hidden,
                SFlag::S_IFCHR,
                Mode::empty(),
                makedev(0, 0),
            )?;
            return Ok(0);
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            self.folder(entry, &parent, name)?;
            folders.push((path.into(), mode, time));
            return Ok(0);
        }
        remove(&parent, name)?; // a later entry of the same name replaces
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let fd = openat(Some(parent.as_raw_fd()), name, flags, Mode::from_bits_truncate(0o600))?;
                let mut file = File::from(crate::fd::own(fd));
                let size = io::copy(entry, &mut file)?;
                self.give_away(entry, &file)?;
                set_mode(&file, mode)?; // after the owner: a change of owner takes setuid away
                self.attributes(entry, &file)?;
                set_time(&file, time);
                return Ok(size);
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name()?
                    .ok_or_else(|| io::Error::other("a link without a target"))?;
                nix::unistd::symlinkat(&*target, Some(parent.as_raw_fd()), name)?;
                if self.as_root {
                    let (uid, gid) = owner(entry)?;
                    nix::unistd::fchownat(Some(parent.as_raw_fd()), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                }
            }
            EntryType::Link => {
                let target = entry
                    .link_name()?
                    .ok_or_else(|| io::Error::other("a link without a target"))?;
                let target = open_existing(&self.root, &relative(&target)?, Links::InRoot)?;
                let found = format!("/proc/self/fd/{}", target.as_raw_fd());
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(None, OsStr::new(&found), Some(parent.as_raw_fd()), name, follow)?;
            }
            EntryType::Fifo => nix::unistd::mkfifoat(Some(parent.as_raw_fd()), name, Mode::from_bits_truncate(mode))?,
            // Device nodes of an image are of no use: containers get theirs from the runtime.
            EntryType::Char | EntryType::Block => {}
            other => return Err(io::Error::other(format!("an entry of type {other:?}"))),
        }
        Ok(0)
    }

    fn folder(&self, entry: &mut Entry<'_, impl Read>, parent: &File, name: &OsStr) -> io::Result<()> {
        let there = open_existing(parent, Path::new(name), Links::Beneath);
        let is_folder =
            |fd: &OwnedFd| fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).is_ok_and(|m| m.is_dir());
        if !there.as_ref().is_ok_and(is_folder) {
            remove(parent, name)?;
        }
        let folder = open_below(parent, Path::new(name), Links::Beneath)?;
        let folder = File::open(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
        self.give_away(entry, &folder)?;
        self.attributes(entry, &folder)
    }

    fn give_away(&self, entry: &Entry<'_, impl Read>, file: &File) -> io::Result<()> {
        if self.as_root {
            let (uid, gid) = owner(entry)?;
            nix::unistd::fchown(file.as_raw_fd(), uid, gid)?;
        }
        Ok(())
    }

    /// Extended attributes: file capabilities above all. An ordinary user may not set those.
    fn attributes(&self, entry: &mut Entry<'_, impl Read>, file: &File) -> io::Result<()> {
        const PREFIX: &str = "SCHILY.xattr.";
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(());
        };
        for extension in extensions {
            let extension = extension?;
            let name = extension.key().ok().and_then(|key| key.strip_prefix(PREFIX));
            // overlayfs' own attributes are not an image's to set.
            let Some(name) = name.filter(|name| !name.contains(".overlay.")) else {
                continue;
            };
            if self.as_root || name.starts_with("user.") {
                set_attribute(file, name, extension.value_bytes())?;
            }
        }
        Ok(())
    }

    fn make_opaque(&self, folder: &File) -> io::Result<()> {
        let name = if self.as_root {
            "trusted.overlay.opaque"
        } else {
            "user.overlay.opaque"
        };
        let folder = File::open(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
        set_attribute(&folder, name, b"y")
    }
}

fn owner(entry: &Entry<'_, impl Read>) -> io::Result<(Option<nix::unistd::Uid>, Option<nix::unistd::Gid>)> {
    let number = |n: u64| u32::try_from(n).map_err(io::Error::other);
    let (uid, gid) = (number(entry.header().uid()?)?, number(entry.header().gid()?)?);
    Ok((Some(uid.into()), Some(gid.into())))
}

/// Removes what has this name, a folder with everything in it. Fine if nothing has.
fn remove(parent: &File, name: &OsStr) -> io::Result<()> {
    match unlinkat(Some(parent.as_raw_fd()), name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(nix::errno::Errno::EISDIR) => {
            // Below /proc/self/fd the folder is reached without a second look at the path.
            fs::remove_dir_all(Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name))
        }
        Err(error) => Err(error.into()),
    }
}

fn set_mode(file: &impl AsFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn set_time(file: &impl AsFd, seconds: i64) {
    let time = nix::sys::time::TimeSpec::new(seconds, 0);
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    nix::sys::stat::utimensat(
        None,
        path.as_str(),
        &time,
        &time,
        nix::sys::stat::UtimensatFlags::FollowSymlink,
    )
    .ok();
}

#[expect(unsafe_code, reason = "fsetxattr has no wrapper")]
fn set_attribute(file: &File, name: &str, value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: name and value outlive the call, with the length that is told.
    let done = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    fn header(kind: EntryType, size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o4755);
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_mtime(1_000_000);
        header
    }

    /// The path as it is, even where the crate would refuse it.
    fn raw(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, data: &[u8]) {
        let mut header = header(kind, data.len());
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }

    fn archive(entries: &[(EntryType, &str, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(vec![]);
        for (kind, path, link, data) in entries {
            raw(&mut builder, *kind, path, link, data.as_bytes());
        }
        builder.into_inner().unwrap()
    }

    use EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn files_folders_links_and_modes_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let layer = archive(&[
            (Directory, "usr/bin/", "", ""),
            (Regular, "usr/bin/tool", "", "tool"),
            (Link, "usr/bin/same", "usr/bin/tool", ""),
            (Symlink, "bin", "usr/bin", ""),
            (Regular, "bin/through", "", "link"),
        ]);
        assert_eq!(unpack(&layer[..], dir.path()).unwrap(), 8);
        let tool = fs::metadata(dir.path().join("usr/bin/tool")).unwrap();
        assert_eq!(
            (tool.mode() & 0o7777, tool.nlink(), tool.mtime()),
            (0o4755, 2, 1_000_000)
        );
        assert_eq!(fs::read_to_string(dir.path().join("usr/bin/through")).unwrap(), "link");
    }

    #[test]
    fn nothing_is_written_outside() {
        for attack in [
            vec![(Regular, "../evil", "", "x")],
            vec![(Regular, "a/../../evil", "", "x")],
            vec![(Symlink, "up", "..", ""), (Regular, "up/../evil", "", "x")],
            vec![(Link, "stolen", "../secret", "")],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let layer = dir.path().join("layer");
            fs::create_dir(&layer).unwrap();
            fs::write(dir.path().join("secret"), "s").unwrap();
            assert!(unpack(&archive(&attack)[..], &layer).is_err(), "{attack:?}");
            assert!(!dir.path().join("evil").exists());
        }
        // Links that lead out lead to the layer's own root instead.
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        let up = format!("../../../..{}", dir.path().display());
        let attack = archive(&[
            (Symlink, "up", &up, ""),
            (Regular, "up/evil", "", "x"),
            (Symlink, "absolute", dir.path().to_str().unwrap(), ""),
            (Regular, "absolute/evil2", "", "x"),
            (Regular, "/evil3", "", "x"),
        ]);
        unpack(&attack[..], &layer).unwrap();
        for name in ["evil", "evil2", "evil3"] {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        assert!(layer.join("evil3").exists());
    }

    #[test]
    fn a_later_entry_replaces_what_a_link_would_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(dir.path().join("outside"), "before").unwrap();
        let outside = dir.path().join("outside");
        let attack = archive(&[
            (Symlink, "file", outside.to_str().unwrap(), ""),
            (Regular, "file", "", "after"),
        ]);
        unpack(&attack[..], &layer).unwrap();
        assert_eq!(fs::read_to_string(outside).unwrap(), "before");
        assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), "after");
    }

    #[test]
    fn whiteouts_become_what_overlayfs_knows() {
        let dir = tempfile::tempdir().unwrap();
        let layer = archive(&[(Regular, "etc/.wh.gone", "", ""), (Regular, "var/.wh..wh..opq", "", "")]);
        unpack(&layer[..], dir.path()).unwrap();
        let gone = fs::symlink_metadata(dir.path().join("etc/gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert!(!dir.path().join("var/.wh..wh..opq").exists());
        assert!(unpack(&archive(&[(Regular, ".wh...", "", "")])[..], dir.path()).is_err());
    }
}
