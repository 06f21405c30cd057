//! File descriptors: from C numbers to owners, non-blocking ones, and ones that tokio watches.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;

/// Takes over a descriptor that a system call has just returned.
#[expect(unsafe_code, reason = "a number becomes an owner")]
pub(crate) fn own(fd: i32) -> OwnedFd {
    // SAFETY: every caller has just received this number from the kernel (or was started with it) and owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Closes whatever descriptors came along when a role was started, but the standard three.
#[expect(unsafe_code, reason = "close_range has no wrapper")]
pub(crate) fn close_strangers() {
    // SAFETY: called before the role has opened anything of its own. An old kernel (before 5.9) refuses: then what
    // came along stays, which is untidy and no more.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Makes it non-blocking.
pub(crate) fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// Has tokio watch it. It must be non-blocking if it is to be read or written.
#[expect(unsafe_code, reason = "tokio wants the promise that the descriptor stays the same")]
pub(crate) fn watched<T: AsRawFd + From<OwnedFd>>(fd: OwnedFd) -> io::Result<AsyncFd<T>> {
    // SAFETY: `T` owns the descriptor it was made of and never changes it: `OwnedFd` and `File` are used.
    Ok(unsafe { AsyncFd::register(T::from(fd)) }?)
}
