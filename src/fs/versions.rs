//! Opening a record that nobody has open here. Which version that is shows only when the volume has opened it, and by then
//! another one may have come; a copy of an old version must not be written over a newer one.

use super::handle::{OpenFile, Stamp, Writing, lock};
use super::inode::Spot;
use super::open::{Opened, writes};
use super::{Caller, Fs};
use crate::error::{Error, Kind, Result};
use crate::volume::{self, Now, Origin};
use std::sync::Arc;

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
