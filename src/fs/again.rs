//! Opens that come again. An open that needs another file than its inode has is answered with "stale": the kernel looks the
//! name up once more and opens what it finds, but it does that once only. What the same thread looks up after that is an
//! inode of its own, which nobody else has open: so it can have whatever file the name has when it is opened.

use super::handle::{OpenFile, lock};
use super::open::{Opened, TRIES, writes};
use super::{Attr, Caller, Change, FileKind, Fs, Notice, processes};
use crate::error::{Error, Kind, Result};
use crate::volume::{FileStat, Now};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often it is tried for an open whose failure a program would see.
const TRIES_AGAIN: u32 = 64;
/// So long it is known who was told to look again. The kernel does it at once, or never when a signal came.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A thread that was told to look again.
#[derive(Debug)]
struct Told {
    parent: u64,
    name: Box<str>,
    /// The inode for which it was told so.
    refused: u64,
    at: Instant,
}

/// Who was told to look again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Whether there ever was somebody: most mounts never need any of this.
    used: AtomicBool,
    threads: Mutex<HashMap<u32, Told>>,
}

impl Again {
    fn used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    fn tell(&self, thread: u32, told: Told) {
        let mut threads = lock(&self.threads);
        threads.insert(thread, told);
        if threads.len() > 64 {
            threads.retain(|_, told| told.at.elapsed() < REMEMBERED);
        }
        self.used.store(true, Ordering::Release);
    }

    /// Whether the thread was told to look for this name.
    fn looks_for(&self, thread: u32, parent: u64, name: &str) -> bool {
        self.used()
            && lock(&self.threads).get(&thread).is_some_and(|told| {
                let recent = told.at.elapsed() < REMEMBERED;
                told.parent == parent && *told.name == *name && recent
            })
    }

    /// The thread opens something: then it has looked. What it was refused, if that was just now.
    fn takes(&self, thread: u32) -> Option<u64> {
        let told = lock(&self.threads).remove(&thread)?;
        (told.at.elapsed() < REMEMBERED).then_some(told.refused)
    }
}

impl Fs {
    /// Opens an inode. `Kind::Stale` tells the kernel to look the name up again; what it finds then is opened by its name.
    pub fn open(self: &Arc<Self>, ino: u64, flags: i32, caller: Caller) -> Now<Opened> {
        if self.again.used() {
            let refused = self.again.takes(caller.pid);
            let (private, of) = {
                let table = lock(&self.table);
                let inode = table.get(ino);
                (
                    inode.and_then(|inode| inode.private),
                    inode.map(|inode| (inode.parent, inode.name.clone())),
                )
            };
            match (private, of) {
                (Some(private), Some(of)) if private.is_for(caller.pid) => {
                    return self.open_private(ino, of, flags, caller);
                }
                // No lookup was between: a path such as /proc/self/fd/3 leads to the inode itself.
                (_, Some(of)) if refused == Some(ino) => {
                    return self.open_itself(ino, of, flags, caller);
                }
                (Some(_), _) => {
                    self.tell_to_look(ino, caller.pid);
                    return Now::err(Error::new("open", "", Kind::Stale));
                }
                _ => {}
            }
        }
        let this = self.clone();
        self.open_within(ino, flags, caller, TRIES)
            .finally(move |opened| {
                if opened.as_ref().is_err_and(|e| e.kind() == Kind::Stale) {
                    this.tell_to_look(ino, caller.pid);
                }
                Now::Ready(opened)
            })
    }

    fn tell_to_look(&self, ino: u64, thread: u32) {
        let table = lock(&self.table);
        let Some(inode) = table.get(ino) else { return };
        let told = Told {
            parent: inode.parent,
            name: inode.name.clone(),
            refused: ino,
            at: Instant::now(),
        };
        drop(table);
        self.again.tell(thread, told);
    }

    /// What the thread found for itself.
    fn open_private(
        self: &Arc<Self>,
        ino: u64,
        (parent, name): (u64, Box<str>),
        flags: i32,
        caller: Caller,
    ) -> Now<Opened> {
        let caller = Caller {
            beside: true,
            ..caller
        };
        let this = self.clone();
        let opened = self.open_named(parent, &name, flags, caller);
        opened.and_then(move |opened| {
            if let Some(inode) = lock(&this.table).get_mut(ino)
                && let Some(private) = &mut inode.private
            {
                private.serves = Some(opened.open.file.ino);
            }
            if !opened.open.beside {
                return Now::ok(opened);
            }
            // What the kernel kept of the file's inode it must not keep while that is written.
            Now::blocking(move || {
                this.deliver_notices();
                Ok(opened)
            })
        })
    }

    /// The file of an inode is going to be written without the kernel knowing that it is this one's.
    pub(super) fn write_beside(&self, ino: u64) {
        let mut table = lock(&self.table);
        let Some(inode) = table.get_mut(ino) else {
            return;
        };
        inode.beside += 1;
        let told = std::mem::take(&mut inode.told);
        drop(table);
        if told != 0 {
            self.notify(Notice::Attributes(ino));
        }
    }

    /// Opens what a name leads to, whichever inode that is, and however often it changes meanwhile.
    pub(super) fn open_named(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        flags: i32,
        caller: Caller,
    ) -> Now<Opened> {
        let (this, name): (_, Box<str>) = (self.clone(), name.into());
        self.open_there(parent, &name, flags, caller)
            .finally(move |opened| match opened {
                Err(e) if e.kind() == Kind::NotFound && needs_no_bytes(flags) => {
                    this.open_nameless(parent, &name, flags, caller).into()
                }
                opened => Now::Ready(opened),
            })
    }

    /// The same of a record that is there.
    pub(super) fn open_there(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        flags: i32,
        caller: Caller,
    ) -> Now<Opened> {
        self.open_named_within(parent, name, (flags, caller), TRIES_AGAIN)
    }

    fn open_named_within(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        how: (i32, Caller),
        tries: u32,
    ) -> Now<Opened> {
        let (this, name): (_, Box<str>) = (self.clone(), name.into());
        let caller = Caller {
            named: true,
            ..how.1
        };
        let how = (how.0, caller);
        self.look_untold(parent, &name).and_then(move |attr| {
            let again = this.clone();
            this.open_within(attr.ino, how.0, how.1, TRIES)
                .finally(move |opened| {
                    again.forget(attr.ino, 1);
                    match opened {
                        Err(e) if e.kind() == Kind::Stale && tries > 0 => {
                            again.open_named_within(parent, &name, how, tries - 1)
                        }
                        opened => Now::Ready(opened),
                    }
                })
        })
    }

    /// Opens a record that was removed since it was looked up: what is written goes with the last handle, as on any disk.
    fn open_nameless(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        flags: i32,
        caller: Caller,
    ) -> Result<Opened> {
        let spot = self.spot_of(parent, name)?;
        let owner = caller.owner();
        let draft = self.volume.draft(&spot.store, 0o600, owner, None)?;
        let stat = FileStat::of_file(&*draft.file)?;
        let mut table = lock(&self.table);
        let ino = table.insert_nameless(parent, name, stat.inode);
        if let Some(inode) = table.get_mut(ino) {
            inode.drafting = true;
        }
        let open = OpenFile::of_draft(ino, draft, &stat);
        table.opened(ino, &open);
        drop(table);
        self.hand_out_counted(open, flags, caller)
    }

    /// Opens the file that an inode has open already, whatever became of its name.
    fn open_itself(
        self: &Arc<Self>,
        ino: u64,
        (parent, name): (u64, Box<str>),
        flags: i32,
        caller: Caller,
    ) -> Now<Opened> {
        let write = writes(flags);
        let truncate = write && flags & libc::O_TRUNC != 0;
        let meant = self.meant(ino);
        // Threads that look for a name at the same time get one answer, so it may also be what another one found.
        if truncate && !self.has_its_own(meant, caller.pid) {
            return self.open_private(ino, (parent, name), flags, caller);
        }
        let (open, linked) = {
            let table = lock(&self.table);
            let inode = table.get(meant);
            let held = inode.filter(|inode| inode.handles > 0);
            (
                held.and_then(|inode| inode.open.clone()),
                inode.is_some_and(|inode| inode.linked),
            )
        };
        match open {
            Some(open) if open.writable || !write => {
                self.share(open, truncate, (flags, caller), TRIES)
            }
            // The kernel has pages or a file of its own for the inode.
            Some(_) if self.options.shared_files => {
                Now::err(Error::new("open", &*name, Kind::Stale))
            }
            // The name is another file's by now.
            _ if !linked => Now::err(Error::new("open", &*name, Kind::Stale)),
            _ => self.open_private(ino, (parent, name), flags, caller),
        }
    }

    /// Whether a thread, or its process from another one, has the file of an inode open for writing.
    fn has_its_own(&self, ino: u64, thread: u32) -> bool {
        let Some(spot) = lock(&self.table).spot(ino) else {
            return false;
        };
        let end = spot.end();
        let source = &self.options.source;
        let trace = processes::Trace { end: &end, source };
        let others = self.handles.openers(ino);
        let of_another = |opener: &u32| *opener != thread && processes::same(*opener, thread);
        processes::holds(thread, &trace) && !others.iter().any(of_another)
    }

    /// The attributes of a name in a directory, for a thread that may open it next.
    pub fn look_up(self: &Arc<Self>, parent: u64, name: &str, thread: u32) -> Now<Attr> {
        if !self.again.looks_for(thread, parent, name) {
            return self.lookup(parent, name);
        }
        let (this, name): (_, Box<str>) = (self.clone(), name.into());
        self.look_untold(parent, &name).then(move |attr| {
            if attr.kind != FileKind::Regular {
                return Ok(attr.kept(Duration::ZERO));
            }
            let ino = lock(&this.table).insert_private(parent, &name, thread);
            this.forget(attr.ino, 1);
            Ok(Attr { ino, ..attr }.kept(Duration::ZERO))
        })
    }

    /// A lookup of which the kernel is not told.
    fn look_untold(self: &Arc<Self>, parent: u64, name: &str) -> Now<Attr> {
        let before = {
            let table = lock(&self.table);
            table
                .find(parent, name)
                .map(|inode| (inode.ino, inode.told))
        };
        let this = self.clone();
        self.lookup(parent, name).then(move |attr| {
            let told = before.filter(|(ino, _)| *ino == attr.ino);
            this.was_told(attr.ino, told.map_or(0, |(_, told)| told));
            Ok(attr)
        })
    }

    /// What the kernel was told last of an inode.
    fn was_told(&self, ino: u64, told: i64) {
        if let Some(inode) = lock(&self.table).get_mut(ino) {
            inode.told = told;
        }
    }

    /// The inode whose file is meant by one that a thread found for itself.
    pub fn meant(&self, ino: u64) -> u64 {
        if !self.again.used() {
            return ino;
        }
        let table = lock(&self.table);
        let Some(inode) = table.get(ino) else {
            return ino;
        };
        let Some(private) = inode.private else {
            return ino;
        };
        let held = |ino: &u64| table.get(*ino).is_some_and(|inode| inode.handles > 0);
        let named = || table.find(inode.parent, &inode.name).map(|inode| inode.ino);
        private.serves.filter(held).or_else(named).unwrap_or(ino)
    }

    /// The attributes of an inode that the kernel knows.
    pub fn attributes(self: &Arc<Self>, ino: u64, handle: Option<u64>) -> Now<Attr> {
        let meant = self.meant(ino);
        if meant == ino {
            return self.getattr(ino, handle);
        }
        let attr = self.getattr(meant, handle);
        self.as_of(ino, meant, attr)
    }

    /// Changes attributes of an inode that the kernel knows.
    pub fn change(
        self: &Arc<Self>,
        ino: u64,
        change: Change,
        handle: Option<u64>,
        caller: Caller,
    ) -> Now<Attr> {
        let meant = self.meant(ino);
        let attr = self.setattr(meant, change, handle, caller);
        if meant == ino {
            return attr;
        }
        self.as_of(ino, meant, attr)
    }

    /// Says of one inode what is so of another, of which the kernel is told nothing by that.
    fn as_of(self: &Arc<Self>, ino: u64, meant: u64, attr: Now<Attr>) -> Now<Attr> {
        let told = lock(&self.table).get(meant).map(|inode| inode.told);
        let this = self.clone();
        attr.finally(move |attr| {
            if let Some(told) = told {
                this.was_told(meant, told);
            }
            Now::Ready(attr.map(|attr| Attr { ino, ..attr }.kept(Duration::ZERO)))
        })
    }
}

/// Whether an open can do without what was there.
fn needs_no_bytes(flags: i32) -> bool {
    let appends = flags & libc::O_ACCMODE == libc::O_WRONLY && flags & libc::O_APPEND != 0;
    writes(flags) && (appends || flags & libc::O_TRUNC != 0)
}
