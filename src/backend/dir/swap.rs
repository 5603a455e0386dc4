//! Exchanging two names while somebody else may put a newer file under one of them: what was not meant goes back, the
//! newest last. The Python SDK takes no lock, so looking before an exchange proves nothing; what came out of it does.

use super::{FileStat, disk};
use rustix::fs::{self, Mode, OFlags, RenameFlags};
use std::os::fd::{BorrowedFd, OwnedFd};

/// A file that is kept from being freed, so that its inode number stays its own: file systems give the number of a
/// removed file to the next new one.
#[derive(Debug)]
pub(super) struct Held {
    stat: FileStat,
    _open: OwnedFd,
}

impl Held {
    /// Holds what has this name now, a link itself and not what it leads to.
    pub(super) fn open(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = fs::openat(dir, file, flags, Mode::empty())?;
        let stat = disk::stat_open(&open)?;
        Ok(Self { stat, _open: open })
    }

    pub(super) fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Whether this is the same file.
    pub(super) fn is(&self, stat: &FileStat) -> bool {
        self.stat.inode == stat.inode
    }
}

/// Exchanges `from` and `to` if what has the name `to` is `meant`. Otherwise everything is as it was, or as somebody else
/// has made it since, and `from` holds what nobody needs any more.
pub(super) fn exchange_if(
    (from_dir, from): (BorrowedFd<'_>, &str),
    (into, to): (BorrowedFd<'_>, &str),
    meant: &dyn Fn(&FileStat) -> bool,
) -> rustix::io::Result<bool> {
    let exchange = || fs::renameat_with(from_dir, from, into, to, RenameFlags::EXCHANGE);
    let mut given = Held::open(from_dir, from)?;
    exchange()?;
    let mut taken = Held::open(from_dir, from)?;
    if meant(taken.stat()) {
        return Ok(true);
    }
    // What was taken goes back. If something else than what was given comes out, it was put there in between, and is newer.
    loop {
        match exchange() {
            Ok(()) => {}
            // Removed since, which is newer too.
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error),
        }
        let next = Held::open(from_dir, from)?;
        if given.is(next.stat()) {
            return Ok(false);
        }
        given = std::mem::replace(&mut taken, next);
    }
}
