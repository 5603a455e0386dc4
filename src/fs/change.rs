//! Changes of attributes. What changes the bytes follows the same rules as a write.

use super::handle::lock;
use super::inode::Node;
use super::{Attr, Caller, Fs, ROOT, control};
use crate::error::{Error, Kind, Result};
use crate::volume::{FileStat, Now};
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::process::{Gid, Uid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// What to change; `None` stays.
#[derive(Clone, Copy, Default, Debug)]
pub struct Change {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access: `Some(None)` is now, else nanoseconds since 1970.
    pub accessed: Option<Option<i64>>,
    /// Last change of the bytes, likewise.
    pub modified: Option<Option<i64>>,
}

impl Fs {
    /// Changes attributes of an inode.
    pub fn setattr(
        self: &Arc<Self>,
        ino: u64,
        change: Change,
        handle: Option<u64>,
        caller: Caller,
    ) -> Now<Attr> {
        let link = lock(&self.table)
            .get(ino)
            .is_some_and(|inode| matches!(inode.node, Node::Link(_)));
        if ino == ROOT || link || control::is_control(ino) {
            let why = "it belongs to the mount";
            return Now::err(Error::because("change", "", Kind::NotPermitted, why));
        }
        let (this, this_again) = (self.clone(), self.clone());
        let done = if self.volume.has_descriptors() {
            self.change_now(ino, change, handle, caller).into()
        } else {
            self.change_aside(ino, change, handle, caller)
        };
        done.and_then(move |()| {
            // What is done is told without asking a server, which might not answer any more.
            let attr = match this.known_attr(ino) {
                Some(attr) => Now::ok(attr),
                None => this.getattr(ino, handle),
            };
            attr.then(move |mut attr| {
                attr.ttl = Duration::ZERO;
                this_again.untell(ino);
                Ok(attr)
            })
        })
    }

    /// The attributes of a record of a server as they are known here; none of one that is open, whose file tells them.
    fn known_attr(&self, ino: u64) -> Option<Attr> {
        let table = lock(&self.table);
        let inode = table.get(ino)?;
        let named = matches!(inode.node, Node::Record) && inode.linked && !inode.drafting;
        if self.volume.has_descriptors() || inode.handles > 0 || !named {
            return None;
        }
        let spot = table.spot(ino)?;
        drop(table);
        let stat = self.volume.known(&spot.store, &spot.name).ok()?;
        Some(self.options.show.attr(ino, &stat))
    }

    fn untell(&self, ino: u64) {
        if let Some(inode) = lock(&self.table).get_mut(ino) {
            inode.told = 0;
        }
    }

    fn change_now(
        self: &Arc<Self>,
        ino: u64,
        change: Change,
        handle: Option<u64>,
        caller: Caller,
    ) -> Result<()> {
        if self.volume.read_only() {
            return Err(Error::new("change", "", Kind::ReadOnly));
        }
        let by_handle = handle
            .and_then(|number| self.handles.get(number))
            .filter(|handle| handle.file.ino == ino && handle.writer)
            .map(|handle| handle.file.clone());
        let (open, spot, store) = {
            let table = lock(&self.table);
            let inode = table
                .get(ino)
                .ok_or_else(|| Error::new("change", "", Kind::Stale))?;
            let held = inode.handles > 0 || inode.drafting || !inode.linked;
            let open = inode.open.clone().filter(|_| held);
            (
                by_handle.or(open),
                table.spot(ino),
                table.store(ino).cloned(),
            )
        };
        if let Some(store) = store {
            let fd = self.volume.store_handle(&store)?;
            return apply(
                fd.as_fd(),
                &Change {
                    size: None,
                    ..change
                },
                store.as_str(),
            );
        }
        if let Some(open) = open {
            drop_privileges(open.file.as_fd(), change.size.is_some(), caller)?;
            apply(open.file.as_fd(), &change, "")?;
            if change.size == Some(0) {
                // What was missing in it is gone with the rest.
                open.writing().failed = None;
            }
            // Through a handle the type follows at its close; by name there may be none that writes.
            if handle.is_none() && change.size.is_some() && open.writing().draft.is_none() {
                self.commit(&open, false)?;
            }
            return Ok(());
        }
        let spot = spot.ok_or_else(|| Error::new("change", "", Kind::Stale))?;
        let (fd, stat) = self.volume.handle(&spot.store, &spot.name)?;
        if matches!(
            stat.origin,
            crate::volume::Origin::Foreign | crate::volume::Origin::Alias
        ) {
            let why = "this name is for reading only: it is no key of the store";
            return Err(Error::because("change", &*spot.name, Kind::Denied, why));
        }
        drop_privileges(fd.as_fd(), change.size.is_some(), caller)?;
        apply(fd.as_fd(), &change, &spot.name)?;
        if change.size.is_some() {
            self.written_in_place(ino, &spot)?;
        }
        Ok(())
    }
}

/// Takes the set-user and set-group bits away before somebody other than root changes the bytes. The kernel leaves this to
/// the file system, since it does not ask for the file's capabilities at every write.
pub(super) fn drop_privileges(fd: BorrowedFd<'_>, writes: bool, caller: Caller) -> Result<()> {
    if !writes || caller.uid == 0 {
        return Ok(());
    }
    let mode = FileStat::of_file(fd)?.mode;
    let group = if mode & 0o010 != 0 { libc::S_ISGID } else { 0 };
    let taken = mode & (libc::S_ISUID | group);
    if taken == 0 {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::chmod(&*path, Mode::from_raw_mode(mode & 0o7777 & !taken))
        .map_err(|e| Error::io("chmod", "", e))
}

/// Applies a change through a descriptor, which may be one for attributes only.
pub(super) fn apply(fd: BorrowedFd<'_>, change: &Change, subject: &str) -> Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if change.uid.is_some() || change.gid.is_some() {
        let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
        rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
            .map_err(|e| Error::io("chown", subject, e))?;
    }
    if let Some(mode) = change.mode {
        rustix::fs::chmod(&*path, Mode::from_raw_mode(mode & 0o7777))
            .map_err(|e| Error::io("chmod", subject, e))?;
    }
    if let Some(size) = change.size {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(size))
            .map_err(|e| Error::io("truncate", subject, e))?;
    }
    if change.accessed.is_some() || change.modified.is_some() {
        let times = Timestamps {
            last_access: timespec(change.accessed),
            last_modification: timespec(change.modified),
        };
        rustix::fs::utimensat(rustix::fs::CWD, &*path, &times, AtFlags::empty())
            .map_err(|e| Error::io("set the times of", subject, e))?;
    }
    Ok(())
}

fn timespec(time: Option<Option<i64>>) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(None) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(Some(ns)) => Timespec {
            tv_sec: ns.div_euclid(SECOND),
            tv_nsec: ns.rem_euclid(SECOND),
        },
    }
}
