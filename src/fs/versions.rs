//! Opening a record that nobody has open here. Which version that is shows only when the volume has opened it, and by then
//! another one may have come; a copy of an old version must not be written over a newer one.

use super::handle::{OpenFile, Stamp, Writing, lock};
use super::inode::Spot;
use super::open::{Opened, writes};
use super::{Caller, Fs, processes};
use crate::error::{Error, Kind, Result};
use crate::volume::{self, Now, Origin};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after the close of a file its release may come.
const PARTING: Duration = Duration::from_millis(10);

/// What came of it.
enum Placed {
    Open(Opened),
    /// Another version has the name by now, or somebody writes one.
    Overtaken,
}

impl Fs {
    /// Whether somebody wrote the record since it was `before`, or does so now; and whether it is `version`, which nobody
    /// changes.
    pub(super) fn standing(&self, ino: u64, before: u64, version: u64) -> (bool, bool) {
        let table = lock(&self.table);
        let Some(inode) = table.get(ino).filter(|inode| inode.linked) else {
            return (false, false);
        };
        let overtaken = inode.drafting || inode.version != before;
        (overtaken, !inode.drafting && inode.version == version)
    }

    /// Whether nobody who opened an inode has it open any more, and it is only still to be released.
    pub(super) fn is_closing(&self, ino: u64, spot: &Spot) -> bool {
        let end = spot.end();
        let source = &self.options.source;
        let trace = processes::Trace { end: &end, source };
        let openers = self.handles.openers(ino);
        openers
            .into_iter()
            .all(|opener| !processes::has_open(opener, &trace))
    }

    /// Opens an inode whose readers have closed it: the kernel says so a little later than it lets them go on. Without waiting
    /// for that a program that reads a file and then writes it would meet two inodes.
    pub(super) fn open_when_closed(
        self: &Arc<Self>,
        ino: u64,
        flags: i32,
        caller: Caller,
    ) -> Now<Opened> {
        let (this, again) = (self.clone(), self.clone());
        let released = Now::blocking(move || {
            let until = Instant::now() + PARTING;
            let held = || {
                lock(&this.table)
                    .get(ino)
                    .is_some_and(|inode| inode.handles > 0)
            };
            while held() && Instant::now() < until {
                std::thread::sleep(PARTING / 50);
            }
            Ok(())
        });
        released.and_then(move |()| again.open_within(ino, flags, caller, 0))
    }

    pub(super) fn open_record(
        self: &Arc<Self>,
        ino: u64,
        spot: Spot,
        flags: i32,
        caller: Caller,
        tries: u32,
    ) -> Now<Opened> {
        let this = self.clone();
        let write = writes(flags);
        let both = write || self.options.shared_files;
        let before = lock(&self.table).get(ino).map(|inode| inode.version);
        let opened = self.volume.open(&spot.store, &spot.name, both, !write);
        opened.and_then(move |opened| {
            match this.place(ino, &spot, (flags, caller), before, opened) {
                Ok(Placed::Open(opened)) => Now::ok(opened),
                Ok(Placed::Overtaken) if tries > 0 => {
                    this.open_within(ino, flags, caller, tries - 1)
                }
                Ok(Placed::Overtaken) => Now::err(Error::new("open", &*spot.name, Kind::Stale)),
                Err(e) => Now::err(e),
            }
        })
    }

    /// Makes what the volume opened the file of the inode. `before` is the version that the inode had when it was asked.
    fn place(
        self: &Arc<Self>,
        ino: u64,
        spot: &Spot,
        (flags, caller): (i32, Caller),
        before: Option<u64>,
        opened: volume::Opened,
    ) -> Result<Placed> {
        let write = writes(flags);
        let stat = opened.stat;
        let writing = Writing {
            stamp: Stamp::from(&stat.file),
            fixed: matches!(stat.origin, Origin::Foreign | Origin::Alias),
            ..Writing::default()
        };
        let copied = opened.draft.is_some();
        let open = OpenFile::of_record(ino, opened, writing)?;
        let mut table = lock(&self.table);
        let stale = || Error::new("open", &*spot.name, Kind::Stale);
        let inode = table.get_mut(ino).ok_or_else(stale)?;
        let parent = inode.parent;
        if !inode.linked {
            return Err(stale());
        }
        if inode.drafting {
            return Ok(Placed::Overtaken);
        }
        let version = inode.version;
        if inode.handles > 0 {
            // Somebody else opened it since; all handles of an inode share one file.
            if version != stat.file.inode {
                return Err(stale());
            }
            if let Some(first) = inode.open.clone().filter(|first| first.writable || !write) {
                table.opened(ino, &first);
                drop(table);
                return self
                    .hand_out_counted(first, flags, caller)
                    .map(Placed::Open);
            }
            if copied {
                drop(table);
                self.leave_old_version(ino, parent, spot, caller);
                return Err(stale());
            }
            if self.options.shared_files {
                let why = "it is open for reading only";
                return Err(Error::because(
                    "open for writing",
                    &*spot.name,
                    Kind::Denied,
                    why,
                ));
            }
        } else if version != stat.file.inode && Some(version) != before {
            // Somebody opened it meanwhile, wrote it and is done.
            return Ok(Placed::Overtaken);
        }
        inode.now_is(stat.file.inode);
        if copied {
            inode.drafting = true;
            inode.told = 0;
        }
        table.opened(ino, &open);
        drop(table);
        self.hand_out_counted(open, flags, caller).map(Placed::Open)
    }
}
