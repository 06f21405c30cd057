//! Our own binary, for its roles `shim` and `exec`, in a form that containers cannot write to.
//!
//! A container that makes us execute `/proc/self/exe` runs our binary inside and could open it for writing afterwards
//! (CVE-2019-5736 in runc). So it is executed from a read-only bind that is mounted nowhere: whoever opens it through
//! `/proc/<pid>/exe` meets a read-only filesystem.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// See the module.
pub(super) struct Program {
    path: PathBuf,
    read_only: Option<OwnedFd>,
}

impl Program {
    /// The binary at `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        let read_only = read_only_mount(&path);
        if let Err(error) = &read_only {
            tracing::debug!(
                "no read-only mount of `{}` (Linux before 5.12?): {error}",
                path.display()
            );
        }
        Self {
            path,
            read_only: read_only.ok(),
        }
    }

    /// A command that runs it with nothing of our environment.
    pub(super) fn command(&self) -> Command {
        let path = self
            .read_only
            .as_ref()
            .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()).into());
        let mut command = Command::new(path.unwrap_or_else(|| self.path.clone()));
        command.arg0("k8slab").env_clear();
        command
    }
}

#[expect(unsafe_code, reason = "open_tree and mount_setattr have no wrappers")]
fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const RDONLY: u64 = 1;
    const NO_PATH: &CStr = c"";
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = crate::fd::own(i32::try_from(fd).map_err(io::Error::other)?);
    let attributes = MountAttr {
        set: RDONLY,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: path and attributes outlive the call, and the size told is theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            NO_PATH.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fd)
    }
}
