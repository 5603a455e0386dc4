//! Extended attributes of records' files, and what a new version takes over from the old one. An attribute is never
//! read or set through a link.

use super::FileStat;
use crate::error::{Error, Result};
use crate::sys;
use rustix::fs::{self, Gid, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Where the content type is, as freedesktop.org names it.
pub(super) const TYPE: &str = "user.mime_type";
/// The key of a file whose name is a shortened one.
pub(super) const KEY: &str = "user.storefs.key";
/// Marks a value file that a dual store's link and sidecar belong to.
pub(super) const DUAL: &str = "user.storefs.dual";
/// All of our own.
const OURS: &str = "user.storefs.";
const ACL: &str = "system.posix_acl_access";
/// The most bytes an attribute may have on Linux.
const MOST: usize = 64 * 1024;

/// The file's path through the open directory. The last component is not followed by the l*xattr calls.
fn path(dir: BorrowedFd<'_>, file: &str) -> String {
    format!("/proc/self/fd/{}/{file}", dir.as_raw_fd())
}

/// Reads an attribute through the open directory: by one call where the kernel has it, which spares it a walk through
/// /proc.
fn get(dir: BorrowedFd<'_>, file: &str, name: &str, value: &mut [u8]) -> rustix::io::Result<usize> {
    let (Ok(at), Ok(called)) = (CString::new(file), CString::new(name)) else {
        return Err(Errno::INVAL);
    };
    match sys::getxattr_at(dir, &at, &called, value) {
        Ok(length) => Ok(length),
        Err(error) if without_at(&error) => fs::lgetxattr(path(dir, file), name, value),
        Err(error) => Err(errno(&error)),
    }
}

/// The names of a file's attributes, likewise.
fn list(dir: BorrowedFd<'_>, file: &str, names: &mut [u8]) -> rustix::io::Result<usize> {
    let Ok(at) = CString::new(file) else {
        return Err(Errno::INVAL);
    };
    match sys::listxattr_at(dir, &at, names) {
        Ok(length) => Ok(length),
        Err(error) if without_at(&error) => fs::llistxattr(path(dir, file), names),
        Err(error) => Err(errno(&error)),
    }
}

/// Whether the kernel, or a sandbox that does not know the call, has none of the calls that take a directory.
fn without_at(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Whether this says only that the file system keeps no such attributes.
pub(super) fn unsupported(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS)
}

/// An attribute's text. None when it is not set, not UTF-8, or the file system keeps none.
pub(super) fn text(
    dir: BorrowedFd<'_>,
    file: &str,
    name: &str,
) -> rustix::io::Result<Option<String>> {
    text_by(&|bytes| get(dir, file, name, bytes))
}

/// The same of an open file.
pub(super) fn text_of(file: impl AsFd + Copy, name: &str) -> rustix::io::Result<Option<String>> {
    text_by(&|bytes| fs::fgetxattr(file, name, bytes))
}

fn text_by(
    get: &dyn Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Option<String>> {
    // A type has at most 255 bytes and a key 256; what is longer was not set here, but is read all the same.
    let mut bytes = [0_u8; 512];
    let got = match get(&mut bytes) {
        Ok(length) => bytes[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut bytes = vec![0_u8; MOST];
            let length = get(bytes.as_mut_slice())?;
            bytes.truncate(length);
            bytes
        }
        Err(Errno::NODATA) => return Ok(None),
        Err(error) if unsupported(error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8(got).ok())
}

/// Sets an attribute of a file in a directory.
pub(super) fn set(
    dir: BorrowedFd<'_>,
    file: &str,
    name: &str,
    value: &str,
) -> rustix::io::Result<()> {
    fs::lsetxattr(path(dir, file), name, value.as_bytes(), XattrFlags::empty())
}

/// Removes an attribute; its absence is as good.
pub(super) fn unset(dir: BorrowedFd<'_>, file: &str, name: &str) -> rustix::io::Result<()> {
    match fs::lremovexattr(path(dir, file), name) {
        Err(Errno::NODATA) => Ok(()),
        Err(error) if unsupported(error) => Ok(()),
        other => other,
    }
}

/// The names of all attributes of a file.
pub(super) fn names(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<Names> {
    let mut bytes = [0_u8; 1024];
    match list(dir, file, &mut bytes) {
        Ok(length) => Ok(Names(bytes[..length].to_vec())),
        Err(Errno::RANGE) => {
            let mut bytes = vec![0_u8; MOST];
            let length = list(dir, file, &mut bytes)?;
            bytes.truncate(length);
            Ok(Names(bytes))
        }
        Err(error) if unsupported(error) => Ok(Names(Vec::new())),
        Err(error) => Err(error),
    }
}

/// Names of attributes, each ended by a NUL as the kernel gives them.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<u8>);

impl Names {
    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0
            .split(|&byte| byte == 0)
            .filter_map(|name| std::str::from_utf8(name).ok())
            .filter(|name| !name.is_empty())
    }

    /// Whether this one is set.
    pub(super) fn has(&self, name: &str) -> bool {
        self.iter().any(|each| each == name)
    }
}

/// Gives a new version's open file the mode, owner, ACL and `user.*` attributes of the version it replaces, as far as
/// they differ. The type and our own attributes are left out: they follow rules of their own. Attributes that were set
/// on the new version already stay.
pub(super) fn inherit(
    dir: BorrowedFd<'_>,
    file: &str,
    old: &FileStat,
    names: &Names,
    new: impl AsFd + Copy,
) -> Result<()> {
    let failed = |error: Errno| Error::io("keep the attributes of", file, error);
    let stat = super::disk::stat_open(new).map_err(failed)?;
    let mut mode = stat.mode;
    if (stat.uid, stat.gid) != (old.uid, old.gid) {
        let owner = (stat.uid != old.uid).then(|| Uid::from_raw(old.uid));
        let group = (stat.gid != old.gid).then(|| Gid::from_raw(old.gid));
        match fs::fchown(new, owner, group) {
            // Only root may give files away; without that right the file is the writer's, as with any editor.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(failed(error)),
        }
        // chown may clear the set-user and set-group bits.
        mode = u32::MAX;
    }
    if mode & 0o7777 != old.mode & 0o7777 {
        super::disk::set_mode(new, old.mode & 0o7777).map_err(failed)?;
    }
    for name in names.iter() {
        let wanted =
            (name.starts_with("user.") && name != TYPE && !name.starts_with(OURS)) || name == ACL;
        if !wanted {
            continue;
        }
        let mut value = vec![0_u8; MOST];
        match get(dir, file, name, &mut value) {
            Ok(length) => value.truncate(length),
            Err(_) => continue,
        }
        match fs::fsetxattr(new, name, &value, XattrFlags::CREATE) {
            Ok(()) | Err(Errno::EXIST | Errno::PERM) => {}
            Err(error) if unsupported(error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
