//! Folders in the directory for temporary files that end with the process that made them, or with the next one when it was
//! killed. It never removes one whose process lives.

use crate::error::{Error, Kind, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tempfile::TempDir;

const OP: &str = "make a temporary folder";
/// In each: held by flock as long as its process lives.
const LOCK: &str = "lock";
/// Somebody may sweep one away before it is locked. Not that often.
const TRIES: usize = 100;

/// Such a folder, removed with this.
#[derive(Debug)]
pub(super) struct OwnTemp {
    folder: TempDir,
    // After the folder, which is to be held until it is gone.
    _lock: File,
}

impl OwnTemp {
    /// Makes one whose name begins so, and removes those of this kind that killed processes of this user left.
    pub(super) fn make(prefix: &str) -> Result<Self> {
        Self::make_in(&std::env::temp_dir(), prefix)
    }

    fn make_in(below: &Path, prefix: &str) -> Result<Self> {
        sweep_in(below, prefix);
        let fault = |why: io::Error| Error::io(OP, below.display().to_string(), why);
        for _ in 0..TRIES {
            let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(below);
            let folder = folder.map_err(fault)?;
            match locked(folder.path()) {
                Ok(Some(lock)) => {
                    return Ok(Self {
                        folder,
                        _lock: lock,
                    });
                }
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(fault(why)),
                // Somebody took it for one that is left.
                Ok(None) | Err(_) => {}
            }
        }
        let why = "others remove it as soon as it is made (try again)";
        Err(Error::because(
            OP,
            below.display().to_string(),
            Kind::Busy,
            why,
        ))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The lock of a new folder; `None` when somebody else has it, or has removed it.
fn locked(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    let lock = File::create_new(&path)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let (held, there) = (lock.metadata()?, fs::symlink_metadata(&path)?);
    let is_there = (held.dev(), held.ino()) == (there.dev(), there.ino());
    Ok(is_there.then_some(lock))
}

/// Removes folders whose names begin so and that killed processes of this user left.
pub(super) fn sweep(prefix: &str) {
    sweep_in(&std::env::temp_dir(), prefix);
}

fn sweep_in(below: &Path, prefix: &str) {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix)
            && entry
                .metadata()
                .is_ok_and(|about| about.is_dir() && about.uid() == user);
        if !is_ours {
            continue;
        }
        let folder = entry.path();
        // One without a lock is just being made.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(lock) = rustix::fs::open(folder.join(LOCK), flags, Mode::empty()) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match fs::remove_dir_all(&folder) {
                Ok(()) => tracing::info!("removed {}, left by a killed process", folder.display()),
                Err(why) => tracing::debug!("{} stays: {why}", folder.display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::thread;

    #[test]
    fn what_is_held_stays_and_what_is_left_goes() {
        let temp = tempfile::tempdir().unwrap();
        let made = || OwnTemp::make_in(temp.path(), "kind-").unwrap();
        let names = || fs::read_dir(temp.path()).unwrap().count();
        for other in ["kind-being-made", "another"] {
            fs::create_dir(temp.path().join(other)).unwrap();
        }
        let held = made();
        fs::write(held.path().join("record"), "1").unwrap();
        let left = made();
        let path = left.path().to_owned();
        fs::write(path.join("record"), "2").unwrap();
        // As a kill does: the folder stays, and nobody holds it.
        std::mem::forget(left.folder);
        drop(left._lock);
        let next = made();
        assert!(held.path().join("record").exists() && !path.exists());
        assert_eq!(names(), 4);
        drop((held, next));
        assert_eq!(names(), 2);
    }

    #[test]
    fn many_at_once_do_not_take_each_others() {
        let temp = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let own = OwnTemp::make_in(temp.path(), "kind-").unwrap();
                        fs::write(own.path().join("record"), "1").unwrap();
                        thread::yield_now();
                        assert!(own.path().join("record").exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
