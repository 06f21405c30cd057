//! Window size of a terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Tells the terminal behind `master` its size; the program in it gets SIGWINCH.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn set_size(master: &impl AsFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one `winsize`.
    if unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
