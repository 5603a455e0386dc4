//! What the standard library and rustix lack. The only unsafe code of the program; nothing here decides anything.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Locks (`F_WRLCK`) or unlocks (`F_UNLCK`) one byte of an open file, without waiting. The lock belongs to the open file
/// description and ends with it. `EAGAIN` when another one holds it.
pub fn lock_byte(file: BorrowedFd<'_>, offset: u64, kind: libc::c_int) -> io::Result<()> {
    let Ok(start) = libc::off_t::try_from(offset) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    // SAFETY: `flock` is plain data for which all zeroes is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = 1;
    // SAFETY: the descriptor is open for the length of the call and `lock` is a valid flock structure.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
