//! The lock that the JavaScript SDK takes on a file while it writes it: a directory `<file>.lock`. It is never left
//! behind.

use super::catalog::Entry;
use super::disk;
use crate::error::Result;
use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// After this long without a sign of life a lock counts as left behind (proper-lockfile's default).
const STALE: Duration = Duration::from_secs(10);

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct JsLock<'a> {
    dir: BorrowedFd<'a>,
    name: String,
}

impl<'a> JsLock<'a> {
    /// Takes the lock of a file. None when an SDK holds it.
    pub(super) fn take(dir: BorrowedFd<'a>, file: &str) -> Result<Option<Self>> {
        let name = format!("{file}.lock");
        for _ in 0..3 {
            match fs::mkdirat(dir, &name, Mode::from_raw_mode(0o777)) {
                Ok(()) => return Ok(Some(Self { dir, name })),
                // One that was just let go of may be taken again by now, so only one that was seen to be old is removed.
                Err(Errno::EXIST) => match disk::stat(dir, &name) {
                    Err(Errno::NOENT) => {}
                    // Left behind by a process that died.
                    Ok(stat) if age(stat.modified_ns) >= STALE => {
                        let _ = fs::unlinkat(dir, &name, AtFlags::REMOVEDIR);
                    }
                    _ => return Ok(None),
                },
                Err(error) => return Err(disk::failed("lock the record's file", file, error)),
            }
        }
        Ok(None)
    }
}

/// Takes the locks of all values of a key. None when an SDK holds one of them.
pub(super) fn take_all<'a>(dir: BorrowedFd<'a>, entry: &Entry) -> Result<Option<Vec<JsLock<'a>>>> {
    let mut locks = Vec::with_capacity(1);
    for value in entry.values() {
        match JsLock::take(dir, &value)? {
            Some(lock) => locks.push(lock),
            None => return Ok(None),
        }
    }
    Ok(Some(locks))
}

/// Whether no older value of a key has become the newest since the directory was read. A value that is gone is none.
pub(super) fn is_newest(dir: BorrowedFd<'_>, entry: &Entry) -> bool {
    let Ok(newest) = disk::stat(dir, &entry.file()) else {
        return true;
    };
    let is_older = |value: &str| {
        disk::stat(dir, value).map_or(true, |stat| stat.modified_ns <= newest.modified_ns)
    };
    entry.values().iter().all(|value| is_older(value))
}

impl Drop for JsLock<'_> {
    fn drop(&mut self) {
        let _ = fs::unlinkat(self.dir, &self.name, AtFlags::REMOVEDIR);
    }
}

/// Whether an SDK is writing this file just now.
pub(super) fn is_held(dir: BorrowedFd<'_>, file: &str) -> bool {
    disk::stat(dir, &format!("{file}.lock")).is_ok_and(|stat| age(stat.modified_ns) < STALE)
}

/// How long ago a time of the file system was.
pub(super) fn age(at_ns: i64) -> Duration {
    let at = Duration::from_nanos(u64::try_from(at_ns).unwrap_or(0));
    SystemTime::now()
        .duration_since(UNIX_EPOCH + at)
        .unwrap_or_default()
}
