//! Making new records. A new record is a draft, written aside until it is finished.

use super::handle::{Join, OpenFile, Stamp, Writing, lock};
use super::inode::{Node, Spot};
use super::open::TRIES;
use super::{Attr, Caller, Fs, Opened};
use crate::error::{Error, Kind, Result};
use crate::volume::{Draft, FileStat, Now};
use std::sync::Arc;

impl Fs {
    /// Makes a record and opens it. The record appears when it is finished.
    pub fn create(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Now<(Attr, Opened)> {
        self.create_within(parent, name, mode, (flags, caller), TRIES)
    }

    /// The same; it is tried again so often when a record that was there is gone before it is opened.
    fn create_within(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        mode: u32,
        (flags, caller): (i32, Caller),
        tries: u32,
    ) -> Now<(Attr, Opened)> {
        let spot = match self.spot_of(parent, name) {
            Ok(spot) => spot,
            Err(e) => return Now::err(e.with_kind(Kind::NotPermitted)),
        };
        let taken = lock(&self.table)
            .find(parent, name)
            .filter(|i| i.drafting)
            .map(|i| i.ino);
        if let Some(ino) = taken {
            if flags & libc::O_EXCL != 0 {
                return Now::err(Error::new("create", name, Kind::Exists));
            }
            return self.open_created(parent, name, ino, flags, caller);
        }
        let exclusive = flags & libc::O_EXCL != 0;
        // mkstemp(3) makes files so; cp and tar open what they make for writing alone.
        let temporary = flags & libc::O_ACCMODE == libc::O_RDWR;
        // Claimed first, so that one look tells: no other mount can make it after that.
        if exclusive && let Err(e) = self.volume.claim(&spot.store, &spot.name, temporary) {
            return Now::err(e);
        }
        let this = self.clone();
        self.volume
            .stat(&spot.store, name)
            .finally(move |found| match found {
                Ok(_) if exclusive => {
                    this.volume.release_claim(&spot.store, &spot.name);
                    Now::err(Error::new("create", &*spot.name, Kind::Exists))
                }
                Ok(_) => {
                    let (again, named) = (this.clone(), spot.name.clone());
                    let opened = this.lookup(parent, &spot.name).and_then(move |attr| {
                        let opened =
                            again.open_created(parent, &spot.name, attr.ino, flags, caller);
                        // The kernel counts one lookup for the whole, which is the last.
                        opened.finally(move |done| {
                            again.forget(attr.ino, 1);
                            Now::Ready(done)
                        })
                    });
                    opened.finally(move |done| match done {
                        Err(e) if e.kind() == Kind::NotFound && tries > 0 => {
                            this.create_within(parent, &named, mode, (flags, caller), tries - 1)
                        }
                        done => Now::Ready(done),
                    })
                }
                Err(e) if e.kind() == Kind::NotFound => {
                    this.create_new(parent, &spot, mode, flags, caller).into()
                }
                Err(e) => {
                    if exclusive {
                        this.volume.release_claim(&spot.store, &spot.name);
                    }
                    if matches!(e.kind(), Kind::Invalid | Kind::NameTooLong) {
                        this.refuse(&spot.name, &e);
                    }
                    Now::err(e)
                }
            })
    }

    fn open_created(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        ino: u64,
        flags: i32,
        caller: Caller,
    ) -> Now<(Attr, Opened)> {
        let flags = flags & !libc::O_CREAT;
        let (this, name): (_, Box<str>) = (self.clone(), name.into());
        let opened = self.open_within(ino, flags, caller, TRIES);
        let opened = opened.finally(move |opened| match opened {
            Err(e) if e.kind() == Kind::Stale => this.open_there(parent, &name, flags, caller),
            opened => Now::Ready(opened),
        });
        let this = self.clone();
        opened.then(move |opened| {
            let attr = this.attr_of_created(&opened.open.file);
            let attr = attr.inspect_err(|_| this.release(opened.handle))?;
            Ok((attr, opened))
        })
    }

    /// What the kernel is told of a file that was there and that it asked to be made. It knows the inode once more by that.
    fn attr_of_created(&self, file: &OpenFile) -> Result<Attr> {
        let drafting = {
            let mut table = lock(&self.table);
            let gone = || Error::new("create", "", Kind::Stale);
            let inode = table.get_mut(file.ino).ok_or_else(gone)?;
            inode.lookups += 1;
            inode.drafting
        };
        match drafting {
            true => self.draft_attr(file.ino, file),
            false => self.open_attr(file),
        }
        .inspect_err(|_| self.forget(file.ino, 1))
    }

    fn create_new(
        self: &Arc<Self>,
        parent: u64,
        spot: &Spot,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Attr, Opened)> {
        let exclusive = flags & libc::O_EXCL != 0;
        let drafted = self.new_draft(spot, mode, caller).inspect_err(|_| {
            if exclusive {
                self.volume.release_claim(&spot.store, &spot.name);
            }
        });
        let (draft, mut stat) = drafted?;
        let file = draft.file.clone();
        let claim = exclusive.then(|| (spot.store.clone(), spot.name.clone()));
        let writing = Writing {
            draft: Some(draft),
            stamp: Stamp::from(&stat),
            claim,
            maker: caller.pid,
            join: (flags & (libc::O_EXCL | libc::O_TRUNC) == 0).then_some(Join {
                appends: flags & libc::O_APPEND != 0,
                begun: false,
                done: 0,
            }),
            ..Writing::default()
        };
        let mut table = lock(&self.table);
        if let Some(stale) = table.find(parent, &spot.name).map(|inode| inode.ino) {
            table.unlink(stale);
        }
        let inode = table.insert(parent, &spot.name, Node::Record, stat.inode);
        let ino = inode.ino;
        inode.drafting = true;
        inode.lookups += 1;
        let open = OpenFile::new(ino, file, true, writing);
        table.add_fresh(ino);
        table.opened(ino, &open);
        drop(table);
        let opened = self
            .hand_out(open.clone(), flags, caller)
            .inspect_err(|_| {
                self.abandon(&open);
                lock(&self.table).unlink(ino);
                drop(lock(&self.table).released(ino));
                self.forget(ino, 1);
            })?;
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            // Nothing can be written through this handle, so there is no end of writing to wait for.
            self.commit(&opened.open.file, true)
                .inspect_err(|_| self.release(opened.handle))?;
            stat = opened.open.file.stat()?;
            self.tell(ino, &stat);
        }
        // The kernel keeps up with what it writes itself; the rest is told at the commit.
        let attr = self
            .options
            .show
            .file(ino, &stat)
            .kept(self.name_ttl(parent, &spot.name));
        Ok((attr, opened))
    }
    fn new_draft(&self, spot: &Spot, mode: u32, caller: Caller) -> Result<(Draft, FileStat)> {
        if let Err(e) = self.volume.may_create(&spot.store, &spot.name) {
            self.refuse(&spot.name, &e);
            return Err(e);
        }
        let draft = self
            .volume
            .draft(&spot.store, mode & 0o7777, caller.owner(), None)?;
        let stat = FileStat::of_file(&*draft.file)?;
        Ok((draft, stat))
    }
}
