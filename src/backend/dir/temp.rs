//! Temporary files, outside of every store and on the same disk. No temporary ever has a name inside a store.

use super::disk;
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::sys;
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A process's folder below `.storefs/tmp/`. Its lock is held as long as the process lives.
#[derive(Debug)]
pub(super) struct TempDir {
    parent: OwnedFd,
    name: String,
    dir: OwnedFd,
    next: AtomicU64,
    umask: u32,
}

impl TempDir {
    /// Makes and locks a folder of our own in `.storefs/tmp`, and removes those that dead processes left.
    pub(super) fn make(tmp: OwnedFd) -> Result<Arc<Self>> {
        remove_dead(tmp.as_fd())?;
        let umask = sys::umask();
        loop {
            let name = format!("{:016x}", random());
            if !disk::make_dir(tmp.as_fd(), &name, 0o700)? {
                continue;
            }
            // Another process's clean-up may take the new folder before it is locked: then this one makes the next.
            let Ok(dir) = disk::open_dir(tmp.as_fd(), &name) else {
                continue;
            };
            let locked = match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK | Errno::INTR) => false,
                // Network file systems may have no such locks; then nobody cleans up there.
                Ok(()) | Err(_) => true,
            };
            let there = disk::stat(tmp.as_fd(), &name).map(|stat| stat.inode);
            let own = disk::stat_open(&dir).map(|stat| stat.inode);
            if locked && there.is_ok() && there == own {
                return Ok(Arc::new(Self {
                    parent: tmp,
                    name,
                    dir,
                    next: AtomicU64::new(0),
                    umask,
                }));
            }
        }
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A name that no temporary has had.
    pub(super) fn name(&self) -> String {
        format!("{:x}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A new empty file, open for reading and writing, of exactly this mode.
    pub(super) fn file(&self, mode: u32) -> Result<(String, File)> {
        let name = self.name();
        let failed = |error: Errno| Error::io("make a temporary file", "", error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = mode & 0o7777;
        let file =
            fs::openat(&self.dir, &name, flags, Mode::from_raw_mode(mode)).map_err(failed)?;
        if mode & self.umask != 0 {
            disk::set_mode(&file, mode).map_err(failed)?;
        }
        Ok((name, File::from(file)))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A draft holds this folder, so nothing in it is in use any more.
        let _ = disk::remove_tree(self.parent.as_fd(), &self.name);
    }
}

/// Removes the folders whose lock can be had: their process is gone.
fn remove_dead(tmp: BorrowedFd<'_>) -> Result<()> {
    let mut names = Vec::new();
    disk::walk(tmp, 0, &mut |entry| {
        if entry.kind == FileType::Directory {
            names.push(entry.name.to_owned());
        }
        Ok(true)
    })?;
    for name in names {
        let Ok(dir) = disk::open_dir(tmp, &name) else {
            continue;
        };
        if fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Err(error) = disk::remove_tree(tmp, &name)
        {
            tracing::warn!("cannot clean up temporaries of a dead process: {error}");
        }
    }
    Ok(())
}

/// A number nobody else will have.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds this from the system's random numbers.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// A file that is being written outside of every store, in `.storefs/tmp/<process>/`. Dropped uncommitted, it is removed.
#[derive(Debug)]
pub struct Draft {
    /// Open for reading and writing. After a commit it is the record's own file.
    pub file: Arc<File>,
    temp: Arc<TempDir>,
    /// Its name in the temporary folder until it is committed.
    name: Option<String>,
    /// The type that it was committed with, unless that is not kept.
    pub content_type: Option<ContentType>,
}

impl Draft {
    pub(super) fn new(temp: &Arc<TempDir>, mode: u32) -> Result<Self> {
        let (name, file) = temp.file(mode)?;
        Ok(Self {
            file: Arc::new(file),
            temp: temp.clone(),
            name: Some(name),
            content_type: None,
        })
    }

    /// Where the file is as long as it is no record.
    pub(super) fn at(&self) -> Result<(BorrowedFd<'_>, &str)> {
        match &self.name {
            Some(name) => Ok((self.temp.dir(), name)),
            None => Err(Error::because(
                "commit the draft",
                "",
                Kind::Stale,
                "it is a record already",
            )),
        }
    }

    /// Its file is a record now.
    pub(super) fn committed(&mut self, content_type: Option<ContentType>) {
        self.name = None;
        self.content_type = content_type;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = fs::unlinkat(self.temp.dir(), name, AtFlags::empty());
        }
    }
}
