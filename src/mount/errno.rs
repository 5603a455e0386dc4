//! What the kernel is told of a failure. The only place where a kind becomes an errno.

use crate::error::{Error, Kind};
use fuser::Errno;

/// The errno of an error.
pub(super) fn errno(error: &Error) -> Errno {
    let number = match error.kind() {
        Kind::NotFound | Kind::StoreNotFound => libc::ENOENT,
        Kind::NoAttribute => libc::ENODATA,
        Kind::Invalid => libc::EINVAL,
        Kind::NameTooLong => libc::ENAMETOOLONG,
        Kind::Exists => libc::EEXIST,
        Kind::NotEmpty => libc::ENOTEMPTY,
        Kind::Denied => libc::EACCES,
        Kind::NotPermitted => libc::EPERM,
        Kind::ReadOnly => libc::EROFS,
        Kind::NoSpace => libc::ENOSPC,
        Kind::TooLarge => libc::EFBIG,
        Kind::Changed | Kind::Stale => libc::ESTALE,
        Kind::CrossDevice => libc::EXDEV,
        Kind::Unsupported => libc::EOPNOTSUPP,
        Kind::Range => libc::ERANGE,
        Kind::Busy => libc::EBUSY,
        Kind::NotADirectory => libc::ENOTDIR,
        Kind::IsADirectory => libc::EISDIR,
        Kind::Loop => libc::ELOOP,
        // The resource is short for everybody: EMFILE would say that the caller's own table is full.
        Kind::Exhausted => libc::ENFILE,
        Kind::Offline => libc::ENETUNREACH,
        Kind::TimedOut => libc::ETIMEDOUT,
        Kind::Corrupt | Kind::Io => error.raw_os_error().filter(is_plain).unwrap_or(libc::EIO),
    };
    Errno::from_i32(number)
}

/// Errors of a system call that a caller can be given as they are.
fn is_plain(number: &i32) -> bool {
    matches!(
        *number,
        libc::ENXIO | libc::ESPIPE | libc::EOVERFLOW | libc::EBADF
    )
}
