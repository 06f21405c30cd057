//! A container's root filesystem: image layers and a writable layer put together by overlayfs, and paths below it that
//! cannot lead out of it.
//!
//! Runs in the shim's mount namespace (in a fork of it), so nothing of this shows on the host.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

/// Can this folder hold overlayfs' writable layer? Not if it lies on overlayfs itself, as in a Docker container.
pub(super) fn is_on_overlay(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

/// Mounts `layers` (lowest first) with a fresh writable layer `upper`/`work` on `rootfs`. All folders are made.
pub(super) fn mount_overlay(layers: &[PathBuf], upper: &Path, work: &Path, rootfs: &Path) -> io::Result<()> {
    for dir in [upper, work, rootfs] {
        fs::create_dir_all(dir)?;
    }
    let no_layers = [rootfs.to_path_buf()];
    let layers = if layers.is_empty() { &no_layers } else { layers };
    // overlayfs wants the top layer first. A colon or comma in a path would end it early.
    let lower: Vec<String> = layers.iter().rev().map(|path| escape(path)).collect();
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(upper),
        escape(work)
    );
    if crate::privileges::in_user_namespace() {
        options += ",userxattr"; // trusted.* attributes are out of reach
    }
    // The kernel takes one page of options; relative names would be shorter, layers of that number are unheard of.
    mount(
        Some("overlay"),
        rootfs,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|error| io::Error::other(format!("mounting the root filesystem: {error}")))
}

fn escape(path: &Path) -> String {
    path.to_string_lossy()
        .replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,")
}

/// Unmounts a root filesystem. Fine if it is not mounted.
pub(super) fn unmount(rootfs: &Path) {
    umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
}

/// How a path below a root treats symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// As the container would: the root is `/`.
    InRoot,
    /// One that leads out is an error.
    Beneath,
}

/// Opens `path` below `root`, if it is there (as `O_PATH`).
pub(crate) fn open_existing(root: &File, path: &Path, links: Links) -> io::Result<OwnedFd> {
    openat2(root, path, links)
}

/// Opens `path` below `root`, with folders made where they are missing.
pub(crate) fn open_below(root: &File, path: &Path, links: Links) -> io::Result<OwnedFd> {
    open_or_make(root, path, links, 40) // as many links as the kernel follows
}

fn open_or_make(root: &File, path: &Path, links: Links, patience: u8) -> io::Result<OwnedFd> {
    match openat2(root, path, links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && patience > 0 => {}
        result => return result,
    }
    let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let parent_path = if parent_path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent_path
    };
    let parent = File::from(open_or_make(root, parent_path, links, patience - 1)?);
    match nix::sys::stat::mkdirat(
        Some(parent.as_raw_fd()),
        name,
        nix::sys::stat::Mode::from_bits_truncate(0o755),
    ) {
        Ok(()) => openat2(&parent, Path::new(name), Links::Beneath),
        // A link to something that is not there: make that.
        Err(nix::errno::Errno::EEXIST) if links == Links::InRoot => {
            let target = nix::fcntl::readlinkat(Some(parent.as_raw_fd()), name)?;
            open_or_make(root, &parent_path.join(target), links, patience - 1)
        }
        Err(error) => Err(error.into()),
    }
}

#[expect(unsafe_code, reason = "openat2 has no wrapper")]
fn openat2(root: &File, path: &Path, links: Links) -> io::Result<OwnedFd> {
    // Beneath refuses absolute paths; below a root they mean the same as relative ones.
    let relative: PathBuf = path.components().filter(|c| !matches!(c, Component::RootDir)).collect();
    let relative = if relative.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        relative
    };
    let path = CString::new(relative.as_os_str().as_bytes())?;
    // SAFETY: zeroes are a valid `open_how`; the struct is not exhaustive, so it cannot be written as a literal.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC).cast_unsigned());
    how.resolve = match links {
        Links::InRoot => libc::RESOLVE_IN_ROOT,
        Links::Beneath => libc::RESOLVE_BENEATH,
    } | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: path and how outlive the call, and the size told is that of `how`.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(crate::fd::own(i32::try_from(fd).unwrap_or(-1)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn target(fd: OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    }

    #[test]
    fn a_working_directory_is_made_where_the_container_would_see_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::create_dir(dir.path().join("var")).unwrap();
        symlink("/run", dir.path().join("var/run")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let made = open_below(&root, Path::new("/var/run/app/data"), Links::InRoot).unwrap();
        assert_eq!(target(made), dir.path().join("run/app/data"));
        symlink("../made/there", dir.path().join("var/dangling")).unwrap();
        let made = open_below(&root, Path::new("/var/dangling/x"), Links::InRoot).unwrap();
        assert_eq!(target(made), dir.path().join("made/there/x"));
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(open_below(&root, Path::new("loop/x"), Links::InRoot).is_err());
    }

    #[test]
    fn a_sub_path_does_not_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volume")).unwrap();
        symlink("/etc", dir.path().join("volume/link")).unwrap();
        let root = File::open(dir.path().join("volume")).unwrap();
        for bad in ["link", "link/passwd", "../outside"] {
            let error = open_below(&root, Path::new(bad), Links::Beneath).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "{bad}");
        }
        let made = open_below(&root, Path::new("a/b"), Links::Beneath).unwrap();
        assert_eq!(target(made), dir.path().join("volume/a/b"));
    }
}
