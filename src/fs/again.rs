//! Opens that come again. An open that needs another file than its inode has is answered with "stale": the kernel looks the
//! name up once more and opens what it finds, but it does that once only. So what the same thread looks up and opens next
//! is not answered so again, however many others use the name: a writer gets an inode that nobody else may open before him,
//! and a reader the version that his lookup found.

use super::handle::{OpenFile, lock};
use super::inode::{Node, Spot};
use super::open::{Opened, TRIES, writes};
use super::{Attr, Caller, Fs};
use crate::error::{Error, Kind};
use crate::volume::Now;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often it is tried for a second open, whose failure a program would see.
pub(super) const TRIES_AGAIN: u32 = 64;
/// So long it is known who was told to look again. The kernel does it at once, or never when a signal came.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A thread that was told to look again.
#[derive(Debug)]
pub(super) struct Told {
    parent: u64,
    name: Box<str>,
    /// It wants to write.
    writes: bool,
    /// It wants to begin with no bytes.
    truncates: bool,
    /// The inode for which it was told so.
    refused: u64,
    /// The inode that it found since.
    found: Option<u64>,
    at: Instant,
}

/// Who was told to look again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Read without the lock: most of the time there is nobody.
    count: AtomicUsize,
    threads: Mutex<HashMap<u32, Told>>,
}

impl Again {
    fn nobody(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn tell(&self, thread: u32, told: Told) {
        let mut threads = lock(&self.threads);
        threads.insert(thread, told);
        if threads.len() > 64 {
            threads.retain(|_, told| told.at.elapsed() < REMEMBERED);
        }
        self.count.store(threads.len(), Ordering::Release);
    }

    /// Whether the thread was told to look for this name; if it wants to write, and to truncate.
    fn looks_for(&self, thread: u32, parent: u64, name: &str) -> Option<(bool, bool)> {
        if self.nobody() {
            return None;
        }
        lock(&self.threads)
            .get(&thread)
            .filter(|told| told.parent == parent && *told.name == *name)
            .filter(|told| told.at.elapsed() < REMEMBERED)
            .map(|told| (told.writes, told.truncates))
    }

    fn found(&self, thread: u32, ino: u64) {
        if let Some(told) = lock(&self.threads).get_mut(&thread) {
            told.found = Some(ino);
        }
    }

    /// Whether the thread opens what it found. A path such as `/proc/self/fd/3` leads to the inode itself, without a lookup.
    fn takes_second(&self, thread: u32, ino: u64) -> bool {
        self.forget(thread)
            .is_some_and(|told| told.found.unwrap_or(told.refused) == ino)
    }

    /// The thread is done with it.
    pub(super) fn forget(&self, thread: u32) -> Option<Told> {
        if self.nobody() {
            return None;
        }
        let mut threads = lock(&self.threads);
        let told = threads.remove(&thread);
        self.count.store(threads.len(), Ordering::Release);
        told
    }
}

impl Fs {
    /// Opens an inode. `Kind::Stale` tells the kernel to look the name up again, after the name was given a new inode.
    pub fn open(self: &Arc<Self>, ino: u64, flags: i32, caller: Caller) -> Now<Opened> {
        let second = self.again.takes_second(caller.pid, ino);
        let tries = if second { TRIES_AGAIN } else { TRIES };
        let caller = Caller { second, ..caller };
        let this = self.clone();
        self.open_within(ino, flags, caller, tries)
            .finally(move |opened| {
                if let Err(e) = &opened {
                    if second {
                        this.free(ino, caller.pid);
                    } else if e.kind() == Kind::Stale {
                        this.tell_to_look(ino, flags, caller.pid);
                    }
                }
                Now::Ready(opened)
            })
    }

    /// The attributes of a name in a directory, for a thread that may open it next.
    pub fn look_up(self: &Arc<Self>, parent: u64, name: &str, thread: u32) -> Now<Attr> {
        match self.again.looks_for(thread, parent, name) {
            Some(wants) => self.look_again(parent, name, (thread, wants), TRIES_AGAIN),
            None => self.lookup(parent, name),
        }
    }

    fn look_again(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        who: (u32, (bool, bool)),
        tries: u32,
    ) -> Now<Attr> {
        let (thread, wants) = who;
        let taken = {
            let table = lock(&self.table);
            let inode = table.find(parent, name);
            inode
                .filter(|inode| match inode.reserved {
                    Some(other) => other != thread,
                    None => {
                        let known = inode.lookups > 0 || inode.handles > 0;
                        known && wants_its_own(wants, inode.drafting)
                    }
                })
                .filter(|inode| matches!(inode.node, Node::Record))
                .and_then(|inode| Some((inode.ino, table.spot(inode.ino)?)))
        };
        if let Some((ino, spot)) = taken
            && let Err(e) = self.give_new_inode(ino, parent, &spot)
        {
            return Now::err(e);
        }
        let (this, name): (_, Box<str>) = (self.clone(), name.into());
        self.lookup(parent, &name).and_then(move |attr| {
            if !this.reserve(attr.ino, thread, wants) && tries > 0 {
                // Somebody else came to it first.
                this.forget(attr.ino, 1);
                return this.look_again(parent, &name, who, tries - 1);
            }
            this.again.found(thread, attr.ino);
            Now::ok(attr)
        })
    }

    /// Keeps what a thread found for its open. False when it is not free for that.
    fn reserve(&self, ino: u64, thread: u32, wants: (bool, bool)) -> bool {
        let mut table = lock(&self.table);
        let Some(inode) = table.get_mut(ino).filter(|inode| inode.linked) else {
            return false;
        };
        if !matches!(inode.node, Node::Record) || inode.reserved == Some(thread) {
            return true;
        }
        if inode.reserved.is_some() {
            return false;
        }
        if wants_its_own(wants, inode.drafting) {
            if inode.handles > 0 || inode.lookups > 1 {
                return false;
            }
            inode.reserved = Some(thread);
        }
        true
    }

    /// Its name went or was given to another inode, which the kernel need not know yet, or `/proc/PID/fd` leads here. Only who
    /// looked again, or cannot, gets it.
    pub(super) fn open_nameless(
        self: &Arc<Self>,
        (ino, parent, spot): (u64, u64, Spot),
        open: Option<Arc<OpenFile>>,
        flags: i32,
        caller: Caller,
        tries: u32,
    ) -> Now<Opened> {
        let write = writes(flags);
        let truncate = write && flags & libc::O_TRUNC != 0;
        match open {
            Some(open) if caller.second && (open.writable || !write) => {
                self.share(open, truncate, (flags, caller), tries)
            }
            None if caller.second && truncate => self
                .open_truncated(ino, parent, &spot, flags, caller)
                .into(),
            None if caller.second && write && !self.volume.has_descriptors() => {
                self.open_beside((ino, parent, spot), flags, caller, tries)
            }
            None if caller.second => self.open_record(ino, spot, flags, caller, tries),
            _ => Now::err(Error::new("open", &*spot.name, Kind::Stale)),
        }
    }

    /// Opens a record to go on in it, by an inode that lost the name to another one since it was looked up. There must be one
    /// copy for all who do so: where somebody writes into it already, his, and else this inode gets the name back.
    fn open_beside(
        self: &Arc<Self>,
        (ino, parent, spot): (u64, u64, Spot),
        flags: i32,
        caller: Caller,
        tries: u32,
    ) -> Now<Opened> {
        let now = {
            let mut table = lock(&self.table);
            let now = table.find(parent, &spot.name).map(|inode| {
                let writing = inode.drafting && inode.handles > 0;
                let awaited = inode.reserved.is_some() && tries > 0;
                (inode.ino, inode.open.clone().filter(|_| writing), awaited)
            });
            match now {
                Some((_, Some(open), _)) => Some(open),
                // It is about to be opened.
                Some((_, None, true)) => None,
                other => {
                    if let Some((other, ..)) = other {
                        table.supersede(other);
                    }
                    table.take_back(ino, parent, &spot.name);
                    drop(table);
                    return self.open_record(ino, spot, flags, caller, tries);
                }
            }
        };
        if let Some(open) = now {
            return self.share(open, false, (flags, caller), tries);
        }
        let this = self.clone();
        let pause = Duration::from_millis(u64::from(TRIES_AGAIN - tries.min(TRIES_AGAIN)) + 1);
        Now::blocking(move || {
            std::thread::sleep(pause);
            Ok(())
        })
        .and_then(move |()| this.open_within(ino, flags, caller, tries - 1))
    }

    fn free(&self, ino: u64, thread: u32) {
        let mut table = lock(&self.table);
        let inode = table.get_mut(ino);
        if let Some(inode) = inode.filter(|inode| inode.reserved == Some(thread)) {
            inode.reserved = None;
        }
    }

    fn tell_to_look(&self, ino: u64, flags: i32, thread: u32) {
        let table = lock(&self.table);
        let Some(inode) = table.get(ino) else { return };
        let told = Told {
            parent: inode.parent,
            name: inode.name.clone(),
            writes: writes(flags),
            truncates: writes(flags) && flags & libc::O_TRUNC != 0,
            refused: ino,
            found: None,
            at: Instant::now(),
        };
        drop(table);
        self.again.tell(thread, told);
    }

    /// A thread is about to open an inode that another one may open first: its name gets a new one.
    pub(super) fn refuse_reserved(&self, ino: u64, parent: u64, spot: &Spot) -> Error {
        let given = self.give_new_inode(ino, parent, spot);
        let stale = Error::new("open", &*spot.name, Kind::Stale);
        given.err().unwrap_or(stale)
    }
}

/// Whether an open needs an inode of its own. Who does not truncate goes on in what others are writing.
fn wants_its_own((writes, truncates): (bool, bool), drafting: bool) -> bool {
    writes && (truncates || !drafting)
}
