//! Opening, creating and releasing files. It decides which file an inode has; it never gives an open inode another one.

use super::handle::{Handle, OpenFile, Stamp, lock};
use super::inode::{Node, Spot};
use super::{Fs, Notice, control, processes};
use crate::error::{Error, Kind, Result};
use crate::volume::{Draft, FileStat, Now};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Thread.
    pub pid: u32,
    /// It gets the file of another inode than the kernel knows.
    pub beside: bool,
    /// It opens what the name leads to, so that the name may be given another inode for that.
    pub named: bool,
}

/// An open that worked.
#[derive(Debug)]
pub struct Opened {
    /// The handle's number.
    pub handle: u64,
    /// The handle.
    pub open: Arc<Handle>,
}

impl Caller {
    /// The owner that a new file gets, when the daemon has to set it.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        static OWN: OnceLock<(u32, u32)> = OnceLock::new();
        let own = *OWN.get_or_init(|| {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            (uid.as_raw(), gid.as_raw())
        });
        // Only root can give files away; for others the kernel admits the daemon's own user alone.
        (own.0 == 0 && own != (self.uid, self.gid)).then_some((self.uid, self.gid))
    }
}

/// How often something is tried again for which another version came in between.
pub(super) const TRIES: u32 = 8;

pub(super) fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

impl Fs {
    /// Makes the handle on an open file that the table already counts as opened.
    pub(super) fn hand_out(
        &self,
        file: Arc<OpenFile>,
        flags: i32,
        caller: Caller,
    ) -> Result<Opened> {
        let writer = writes(flags);
        let appends = writer && flags & libc::O_APPEND != 0 && !self.options.shared_files;
        let at_end = appends && file.layer.is_some();
        let append = (appends && !at_end).then(|| file.appending()).transpose()?;
        if writer {
            super::change::drop_privileges(file.bytes().as_fd(), true, caller)?;
            let mut writing = file.writing();
            if writing.writers == 0 && writing.draft.is_none() {
                // What happened to the file while nobody could write through it is not this writer's.
                writing.stamp = Stamp::from(&file.stat()?);
                writing.explicit = None;
            }
            writing.writers += 1;
        }
        let resized = !self.options.shared_files && self.is_resized(&file)?;
        let tag = file.only_tag().filter(|_| !writer).cloned();
        // Pages that others have of the file would not see such writes, and after them nothing is forced to disk.
        let durable = flags & libc::O_DSYNC != 0;
        let only = appends || (file.writing().is_new() && self.is_only_handle(&file));
        let direct = flags & libc::O_ACCMODE == libc::O_WRONLY && !durable && only;
        let kept = tag.is_some()
            && lock(&self.table)
                .get(file.ino)
                .is_some_and(|inode| inode.paged == tag);
        let beside = writer && caller.beside;
        if beside {
            file.written_beside.store(true, Ordering::Relaxed);
            self.write_beside(file.ino);
        }
        // What the kernel knows has no pages of it, or may cut them too short.
        let apart = caller.beside || file.written_beside.load(Ordering::Relaxed);
        let handle = Handle {
            file,
            writer,
            append,
            direct: (direct || apart) && !self.options.shared_files,
            beside,
            durable,
            at_end,
            told_failure: AtomicBool::new(false),
            opener: caller.pid,
            text: None,
            resized,
            tag,
            kept,
        };
        let number = self.handles.add(handle);
        match self.handles.get(number) {
            Some(open) => Ok(Opened {
                handle: number,
                open,
            }),
            None => Err(Error::new("open", "", Kind::Io)),
        }
    }

    fn is_only_handle(&self, file: &OpenFile) -> bool {
        lock(&self.table)
            .get(file.ino)
            .is_some_and(|inode| inode.handles <= 1)
    }

    /// Whether the file was written in place since the kernel was told its length, which it would cut reads at.
    fn is_resized(&self, file: &OpenFile) -> Result<bool> {
        let told = lock(&self.table)
            .get(file.ino)
            .map_or(0, |inode| inode.told);
        Ok(told != 0 && told != file.stat()?.changed_ns)
    }

    /// Opens an inode; it is tried again so often when another version comes meanwhile. `Kind::Stale` when the name leads to
    /// another inode, or now does.
    pub(super) fn open_within(
        self: &Arc<Self>,
        ino: u64,
        flags: i32,
        caller: Caller,
        tries: u32,
    ) -> Now<Opened> {
        if control::is_control(ino) {
            return self.open_control(ino, caller);
        }
        let write = writes(flags);
        let truncate = write && flags & libc::O_TRUNC != 0;
        let (spot, parent, open, held, linked, drafting, before) = {
            let table = lock(&self.table);
            let Some(inode) = table.get(ino) else {
                return Now::err(Error::new("open", "", Kind::Stale));
            };
            let spot = table.spot(ino);
            (
                spot,
                inode.parent,
                inode.open.clone(),
                inode.handles > 0,
                inode.linked,
                inode.drafting,
                inode.version,
            )
        };
        let Some(spot) = spot else {
            return Now::err(Error::new("open", "", Kind::Stale));
        };
        if !linked {
            // The kernel need not know that yet; and /proc/PID/fd leads here.
            return Now::err(Error::new("open", &*spot.name, Kind::Stale));
        }
        if truncate {
            let alone = |open: &Arc<OpenFile>| drafting && (!held || self.began(open, caller));
            if let Some(open) = open.clone().filter(alone) {
                return self.share(open, true, (flags, caller), tries);
            }
            if (held || drafting) && !caller.named {
                return Now::err(Error::new("open", &*spot.name, Kind::Stale));
            }
            // An inode that the kernel has of its own name would have to be told of all that is written beside it.
            if held || drafting || caller.beside {
                return self.open_over(ino, parent, &spot, flags, caller).into();
            }
            return self
                .open_truncated(ino, parent, &spot, flags, caller)
                .into();
        }
        if drafting {
            return match open {
                Some(open) => self.share(open, false, (flags, caller), tries),
                None => Now::err(Error::new("open", &*spot.name, Kind::Stale)),
            };
        }
        if write && held && open.as_ref().is_some_and(|open| open.is_pinned()) {
            if tries > 0 && self.is_closing(ino, &spot) {
                return self.open_when_closed(ino, flags, caller);
            }
            // Who reads keeps the version; the writer gets a copy, and so another inode.
            self.leave_old_version(ino, parent, &spot, caller);
            return Now::err(Error::new("open", &*spot.name, Kind::Stale));
        }
        let this = self.clone();
        match open {
            Some(open) if open.writable || !write => self
                .volume
                .stat_to_open(&spot.store, &spot.name)
                .finally(move |found| {
                    // Both are asked in one moment: somebody may begin to write in the next.
                    let version = found.as_ref().map_or(0, |stat| stat.file.inode);
                    let (overtaken, still) = this.standing(ino, before, version);
                    if tries > 0 && overtaken {
                        return this.open_within(ino, flags, caller, tries - 1);
                    }
                    let stale = Error::new("open", &*spot.name, Kind::Stale);
                    match found {
                        Ok(_) if still => this.share(open, false, (flags, caller), tries),
                        Ok(_) | Err(_) if held => {
                            this.leave_old_version(ino, parent, &spot, caller);
                            Now::err(stale)
                        }
                        _ => {
                            drop(lock(&this.table).close(ino));
                            Now::err(stale)
                        }
                    }
                }),
            _ => self.open_record(ino, spot, flags, caller, tries),
        }
    }

    /// Whether this caller made the file itself and nothing was written to it: to truncate it then changes nothing.
    fn began(&self, open: &OpenFile, caller: Caller) -> bool {
        let maker = open.writing().maker;
        lock(&self.table).is_fresh(open.ino)
            && processes::same(maker, caller.pid)
            && open.stat().is_ok_and(|stat| stat.size == 0)
    }

    pub(super) fn hand_out_counted(
        &self,
        open: Arc<OpenFile>,
        flags: i32,
        caller: Caller,
    ) -> Result<Opened> {
        self.hand_out(open.clone(), flags, caller)
            .inspect_err(|_| self.count_down(&open, None))
    }

    /// Another handle on a file that is open. It may be given up at that moment: then the inode is opened again.
    pub(super) fn share(
        self: &Arc<Self>,
        open: Arc<OpenFile>,
        truncate: bool,
        (flags, caller): (i32, Caller),
        tries: u32,
    ) -> Now<Opened> {
        let ino = open.ino;
        {
            let mut table = lock(&self.table);
            let now = table.get(ino).and_then(|inode| inode.open.as_ref());
            if !now.is_some_and(|now| Arc::ptr_eq(now, &open)) {
                drop(table);
                return match tries {
                    0 => Now::err(Error::new("open", "", Kind::Stale)),
                    tries => self.open_within(ino, flags, caller, tries - 1),
                };
            }
            table.opened(ino, &open);
        }
        let emptied = || {
            // A draft that is empty counts as never written.
            if truncate && open.stat()?.size > 0 {
                let file = self.bytes_to_write(&open)?;
                rustix::fs::ftruncate(&*file, 0).map_err(|e| Error::io("truncate", "", e))?;
            }
            Ok(())
        };
        match emptied() {
            Ok(()) => self.hand_out_counted(open, flags, caller).into(),
            Err(e) => {
                self.count_down(&open, None);
                Now::err(e)
            }
        }
    }

    /// Leads the name away from an inode whose version others keep, unless somebody writes into it by now: then all meet there.
    pub(super) fn leave_old_version(&self, ino: u64, parent: u64, spot: &Spot, caller: Caller) {
        let mut table = lock(&self.table);
        let now = table.find(parent, &spot.name);
        if caller.named && now.is_some_and(|inode| inode.ino == ino && !inode.drafting) {
            table.supersede(ino);
        }
    }

    /// Gives the name an inode of its own with a new draft, and opens that. Open handles keep the old one. It is one step:
    /// whoever is refused may never come back, and nobody has use for an empty draft then.
    fn open_over(
        self: &Arc<Self>,
        ino: u64,
        parent: u64,
        spot: &Spot,
        flags: i32,
        caller: Caller,
    ) -> Result<Opened> {
        let stale = || Error::new("open", &*spot.name, Kind::Stale);
        let is_there = self.volume.known(&spot.store, &spot.name).is_ok();
        let draft = match is_there {
            true => self.draft_over(spot)?,
            // While nothing is on disk under the name, the old draft alone says whose it is.
            false => {
                let table = lock(&self.table);
                let old = table.get(ino).filter(|inode| inode.drafting);
                let old = old.and_then(|inode| inode.open.clone());
                drop(table);
                let stat = old.ok_or_else(stale)?.stat()?;
                let owner = Caller {
                    uid: stat.uid,
                    gid: stat.gid,
                    ..Caller::default()
                }
                .owner();
                let mode = stat.mode & 0o7777;
                self.volume.draft(&spot.store, mode, owner, None)?
            }
        };
        let stat = FileStat::of_file(&*draft.file)?;
        let mut table = lock(&self.table);
        let now = table.find(parent, &spot.name);
        // A draft that was committed meanwhile is on the disk.
        if !now.is_some_and(|inode| inode.ino == ino && (is_there || inode.drafting)) {
            return Err(stale());
        }
        table.supersede(ino);
        let inode = table.insert(parent, &spot.name, Node::Record, stat.inode);
        inode.drafting = true;
        let new = inode.ino;
        if !is_there {
            table.add_fresh(new);
        }
        let open = OpenFile::of_draft(new, draft, &stat);
        table.opened(new, &open);
        drop(table);
        // Others may have looked the name up since this thread was told to look again.
        self.notify(Notice::Entry {
            parent,
            name: spot.name.clone(),
        });
        self.hand_out_counted(open, flags, caller)
    }

    /// A draft that is to replace a record.
    fn draft_over(&self, spot: &Spot) -> Result<Draft> {
        let draft = self
            .volume
            .draft(&spot.store, 0o600, None, Some(&spot.name));
        draft.map_err(|e| match e.kind() == Kind::NotFound {
            true => Error::new("open", &*spot.name, Kind::Stale),
            false => e,
        })
    }

    fn open_truncated(
        self: &Arc<Self>,
        ino: u64,
        parent: u64,
        spot: &Spot,
        flags: i32,
        caller: Caller,
    ) -> Result<Opened> {
        let stale = || Error::new("open", &*spot.name, Kind::Stale);
        let draft = self.draft_over(spot)?;
        let stat = FileStat::of_file(&*draft.file)?;
        let open = OpenFile::of_draft(ino, draft, &stat);
        let mut table = lock(&self.table);
        let inode = table.get_mut(ino).ok_or_else(stale)?;
        if !inode.linked || inode.drafting || inode.handles > 0 || inode.parent != parent {
            return Err(stale());
        }
        inode.drafting = true;
        inode.version = stat.inode;
        // The kernel drops what it knows of a file that it truncates.
        inode.told = 0;
        let parked = inode.open.take();
        table.opened(ino, &open);
        drop(table);
        drop(parked);
        // Without the handle there is no draft either, and the name leads to the record again.
        self.hand_out_counted(open, flags, caller)
            .inspect_err(|_| lock(&self.table).unlink(ino))
    }

    /// The handle of a number.
    pub fn handle(&self, number: u64) -> Result<Arc<Handle>> {
        self.handles
            .get(number)
            .ok_or_else(|| Error::new("use a handle", "", Kind::Stale))
    }
}
