//! Files that the kernel reads and writes by itself. An inode has one backing file as long as it is open.

use crate::fs::{OpenFile, Opened};
use fuser::BackingId;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The backing files that the kernel was given.
pub(super) struct Passthrough {
    on: AtomicBool,
    given: Mutex<Backings>,
}

#[derive(Default)]
struct Backings {
    of_inode: HashMap<u64, Given>,
    /// So many there were after the last sweep: the next is due at twice as many, so that each costs little.
    kept: usize,
}

struct Given {
    file: Weak<OpenFile>,
    backing: Arc<BackingId>,
}

impl Passthrough {
    pub(super) fn new(on: bool) -> Self {
        Self {
            on: AtomicBool::new(on),
            given: Mutex::default(),
        }
    }

    /// Whether files are handed to the kernel.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether this open is handed over: every one of a record's file is, for all opens of an inode must be alike.
    pub(super) fn takes(&self, opened: &Opened) -> bool {
        self.is_on() && opened.open.text.is_none()
    }

    /// The kernel did not take what was negotiated.
    pub(super) fn turn_off(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Backings> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backing of an open file; `give` hands the file to the kernel when it does not have it. All opens of one file
    /// must use the same.
    pub(super) fn backing(
        &self,
        file: &Arc<OpenFile>,
        give: impl FnOnce() -> io::Result<BackingId>,
    ) -> io::Result<Arc<BackingId>> {
        let mut given = self.lock();
        if let Some(known) = given.of_inode.get(&file.ino)
            && std::ptr::eq(known.file.as_ptr(), Arc::as_ptr(file))
        {
            return Ok(known.backing.clone());
        }
        let backing = Arc::new(give()?);
        if given.of_inode.len() >= 1024.max(given.kept * 2) {
            // Nobody has these files open or parked any more.
            given
                .of_inode
                .retain(|_, given| given.file.strong_count() > 0);
            given.kept = given.of_inode.len();
        }
        given.of_inode.insert(
            file.ino,
            Given {
                file: Arc::downgrade(file),
                backing: backing.clone(),
            },
        );
        Ok(backing)
    }

    /// Lets go of backings whose file is closed.
    pub(super) fn sweep(&self, ino: u64) {
        let mut given = self.lock();
        if given
            .of_inode
            .get(&ino)
            .is_some_and(|known| known.file.strong_count() == 0)
        {
            given.of_inode.remove(&ino);
        }
    }
}
