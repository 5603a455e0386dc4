//! What the standard library and rustix lack. The only unsafe code of the program; nothing here decides anything.
#![allow(unsafe_code)]

use std::ffi::CStr;
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

/// Marks every descriptor from 3 up as close-on-exec, so that a program started next inherits only its standard three.
///
/// Fails with ENOSYS on kernels before 5.11.
pub fn keep_descriptors_from_children() -> io::Result<()> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// getxattrat and listxattrat of Linux 6.13: the same numbers on every architecture but alpha.
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;

/// The kernel's `struct xattr_args`.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Reads an attribute of a file in an open directory into `value`, without following a link. Its length in bytes.
///
/// Fails with ENOSYS on kernels before 6.13.
pub fn getxattr_at(
    dir: BorrowedFd<'_>,
    file: &CStr,
    name: &CStr,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut args = XattrArgs {
        value: value.as_mut_ptr() as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: both names end in NUL, `args` has the size that is told, and the kernel writes at most `size` bytes at
    // `value`, which is borrowed for the length of the call.
    length(unsafe {
        libc::syscall(
            GETXATTRAT,
            dir.as_raw_fd(),
            file.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            name.as_ptr(),
            &raw mut args,
            size_of::<XattrArgs>(),
        )
    })
}

/// Reads the names of all attributes of a file in an open directory, each ended by NUL. Their length in bytes.
///
/// Fails with ENOSYS on kernels before 6.13.
pub fn listxattr_at(dir: BorrowedFd<'_>, file: &CStr, list: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the name ends in NUL, and the kernel writes at most `list.len()` bytes at `list`, which is borrowed for the
    // length of the call.
    length(unsafe {
        libc::syscall(
            LISTXATTRAT,
            dir.as_raw_fd(),
            file.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            list.as_mut_ptr(),
            list.len(),
        )
    })
}

fn length(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
