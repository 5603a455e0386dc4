//! Making, removing and renaming names. A name that goes keeps its open file alive until the last handle is gone.

use super::handle::{OpenFile, lock};
use super::inode::{Node, Spot};
use super::{Attr, CONTROL, CONTROL_NAME, Caller, Fs, Notice, ROOT};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::record::file_name::is_scratch;
use crate::volume::Now;
use std::sync::Arc;
use std::time::Duration;

fn not_permitted(op: &'static str, name: &str, why: &str) -> Error {
    Error::because(op, name, Kind::NotPermitted, why)
}

/// Files in the order in which several of them are locked, so that nobody waits for who waits for him.
fn in_order<'a>(files: impl Iterator<Item = &'a Arc<OpenFile>>) -> Vec<&'a Arc<OpenFile>> {
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|file| Arc::as_ptr(file).addr());
    files.dedup_by_key(|file| Arc::as_ptr(file).addr());
    files
}

impl Fs {
    /// Makes a store.
    pub fn mkdir(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        mode: u32,
        caller: Caller,
    ) -> Now<Attr> {
        if parent != ROOT {
            let why = "a store holds records, no directories";
            return Now::err(not_permitted("mkdir", name, why));
        }
        let store = match self.new_store_name(name) {
            Ok(store) => store,
            Err(e) => return Now::err(e),
        };
        let this = self.clone();
        self.volume
            .create_store(&store, mode & 0o7777, caller.owner())
            .then(move |file| {
                let ino = this.enter_store(&store, file.inode, true);
                Ok(this.store_attr(ino, &file))
            })
    }

    fn new_store_name(&self, name: &str) -> Result<StoreName> {
        if name == CONTROL_NAME {
            return Err(Error::new("mkdir", name, Kind::Exists));
        }
        let store = StoreName::new(name).inspect_err(|e| self.refuse(name, e))?;
        if !self.store_shown(&store) {
            let why = "this mount shows only the stores named by -o store=";
            return Err(not_permitted("mkdir", name, why));
        }
        Ok(store)
    }

    /// Removes an empty store.
    pub fn rmdir(self: &Arc<Self>, parent: u64, name: &str) -> Now<()> {
        if parent != ROOT {
            return Now::err(Error::new("rmdir", name, Kind::NotADirectory));
        }
        if name == CONTROL_NAME {
            return Now::err(not_permitted("rmdir", name, "it belongs to the mount"));
        }
        let store = match StoreName::new(name) {
            Ok(store) => store,
            Err(e) => return Now::err(e.with_kind(Kind::NotFound)),
        };
        if self.holds_young(&store) {
            return Now::err(Error::new("rmdir", name, Kind::NotEmpty));
        }
        let this = self.clone();
        self.volume.remove_store(&store).then(move |()| {
            let mut table = lock(&this.table);
            if let Some(ino) = table.find(ROOT, store.as_str()).map(|inode| inode.ino) {
                table.forsake_all(ino);
                table.unlink(ino);
            }
            Ok(())
        })
    }

    /// Whether something is being written for the first time in this store.
    fn holds_young(&self, store: &StoreName) -> bool {
        let table = lock(&self.table);
        let ino = table.find(ROOT, store.as_str()).map(|inode| inode.ino);
        let fresh = ino.map(|ino| table.fresh_in(ino)).unwrap_or_default();
        let named = |ino: u64| table.get(ino).map(|inode| inode.name.clone());
        let names: Vec<_> = fresh.into_iter().filter_map(named).collect();
        drop(table);
        // Another version may have got the name since.
        let young = |name: &str| self.volume.known(store, name).is_err();
        names.iter().any(|name| young(name))
    }

    /// Makes an empty record; other kinds of nodes are refused.
    pub fn mknod(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        mode: u32,
        caller: Caller,
    ) -> Now<Attr> {
        let kind = mode & libc::S_IFMT;
        if kind != libc::S_IFREG && kind != 0 {
            let why = "a store holds records: no devices, pipes or sockets";
            return Now::err(not_permitted("mknod", name, why));
        }
        let this = self.clone();
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
        self.create(parent, name, mode, flags, caller)
            .then(move |(mut attr, opened)| {
                let committed = this.commit(&opened.open.file, true);
                this.release(opened.handle);
                committed?;
                attr.ttl = Duration::ZERO;
                Ok(attr)
            })
    }

    /// Makes a link under a scratch name: editors lock files so.
    pub fn symlink(self: &Arc<Self>, parent: u64, name: &str, target: &[u8]) -> Now<Attr> {
        let spot = match self.spot_of(parent, name) {
            Ok(spot) => spot,
            Err(e) => return Now::err(e.with_kind(Kind::NotPermitted)),
        };
        if !is_scratch(name) {
            let why = "only scratch names such as .#name can be links";
            return Now::err(not_permitted("symlink", name, why));
        }
        let this = self.clone();
        self.volume
            .create_link(&spot.store, name, target)
            .then(move |stat| {
                let attr = this.enter_record(parent, &spot.name, &stat, true, None);
                attr.ok_or_else(|| Error::new("symlink", &*spot.name, Kind::Exists))
            })
    }

    /// A record has one name.
    pub fn link(&self, name: &str) -> Now<Attr> {
        Now::err(not_permitted("link", name, "a record has one name"))
    }

    /// Removes a record.
    pub fn unlink(self: &Arc<Self>, parent: u64, name: &str) -> Now<()> {
        self.unlink_now(parent, name).into()
    }

    fn unlink_now(&self, parent: u64, name: &str) -> Result<()> {
        if parent == CONTROL || self.is_input_link(parent, name) {
            return Err(not_permitted("unlink", name, "it belongs to the mount"));
        }
        let spot = self
            .spot_of(parent, name)
            .map_err(|e| e.with_kind(Kind::NotPermitted))?;
        let open = self.open_at(parent, name);
        // A commit under the name waits until that is gone, or was done before.
        let superseded = lock(&self.table).superseded_at(parent, name);
        let files = in_order(open.iter().chain(&superseded));
        let writing: Vec<_> = files
            .iter()
            .map(|file| (file.ino, file.writing()))
            .collect();
        let drafting = open.as_ref().is_some_and(|open| {
            let own = |(ino, _): &&(u64, _)| *ino == open.ino;
            let found = writing.iter().find(own);
            found.is_some_and(|(_, writing)| writing.draft.is_some())
        });
        self.removing(parent, name);
        match self.volume.remove(&spot.store, name) {
            Err(e) if e.kind() == Kind::NotFound && drafting => {}
            other => other?,
        }
        let mut table = lock(&self.table);
        if let Some(ino) = table.find(parent, name).map(|inode| inode.ino) {
            table.unlink(ino);
        }
        table.forsake(parent, name);
        drop(table);
        drop(writing);
        if let Some(open) = open.filter(|_| drafting) {
            self.abandon(&open);
        }
        Ok(())
    }

    fn open_at(&self, parent: u64, name: &str) -> Option<Arc<OpenFile>> {
        lock(&self.table).find(parent, name)?.open.clone()
    }

    /// Renames a record or a store. `flags` as renameat2(2) has them.
    pub fn rename(self: &Arc<Self>, from: (u64, &str), to: (u64, &str), flags: u32) -> Now<()> {
        if flags & !libc::RENAME_NOREPLACE != 0 {
            let why = "records cannot be exchanged";
            return Now::err(Error::because("rename", from.1, Kind::Invalid, why));
        }
        let no_replace = flags & libc::RENAME_NOREPLACE != 0;
        if from.0 == ROOT && to.0 == ROOT && !self.is_link(from.1) {
            return self.rename_store(from.1, to.1, no_replace);
        }
        let link = self.is_input_link(from.0, from.1) || from.0 == ROOT && self.is_link(from.1);
        if [from.0, to.0].contains(&CONTROL) || link {
            return Now::err(not_permitted("rename", from.1, "it belongs to the mount"));
        }
        if [from.0, to.0].contains(&ROOT) {
            let why = "the mountpoint holds stores, a store holds records";
            return Now::err(not_permitted("rename", from.1, why));
        }
        // The link to the input is never replaced: what is renamed onto it becomes the input.
        let input_key = self.input_key();
        let onto = if self.is_input_link(to.0, to.1) {
            &input_key
        } else {
            to.1
        };
        if self.volume.has_descriptors() {
            return self.rename_onto(from, to, onto, no_replace).into();
        }
        let prepared = match (self.spot_of(from.0, from.1), self.spot_of(to.0, onto)) {
            (Ok(source), Ok(target)) => self
                .volume
                .prepare_rename((&source.store, &source.name), (&target.store, &target.name)),
            _ => Now::ok(()),
        };
        match prepared {
            Now::Ready(ready) => ready
                .and_then(|()| self.rename_onto(from, to, onto, no_replace))
                .into(),
            Now::Wait(_) => {
                let this = self.clone();
                let (source, target): ((u64, Box<str>), (u64, Box<str>)) =
                    ((from.0, from.1.into()), (to.0, to.1.into()));
                let onto: Box<str> = onto.into();
                // Bytes may be copied, or looked through for their type.
                prepared.and_then(move |()| {
                    Now::blocking(move || {
                        let (from, to) = ((source.0, &*source.1), (target.0, &*target.1));
                        this.rename_onto(from, to, &onto, no_replace)
                    })
                })
            }
        }
    }

    fn rename_onto(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        onto: &str,
        no_replace: bool,
    ) -> Result<()> {
        self.rename_record(from, (to.0, onto), no_replace)?;
        if onto != to.1 {
            // The kernel now takes the link's name for the record.
            self.notify(Notice::Entry {
                parent: to.0,
                name: to.1.into(),
            });
        }
        Ok(())
    }

    fn rename_store(self: &Arc<Self>, from: &str, to: &str, no_replace: bool) -> Now<()> {
        let names = StoreName::new(from)
            .map_err(|e| e.with_kind(Kind::NotPermitted))
            .and_then(|from| Ok((from, self.new_store_name(to)?)));
        let (from, to) = match names {
            Ok(names) => names,
            Err(e) => return Now::err(e),
        };
        if from == to {
            return Now::ok(());
        }
        if !no_replace && self.holds_young(&to) {
            return Now::err(Error::new("rename to", to.as_str(), Kind::NotEmpty));
        }
        let this = self.clone();
        self.volume
            .rename_store(&from, &to, no_replace)
            .then(move |()| {
                let mut table = lock(&this.table);
                if let Some(ino) = table.find(ROOT, to.as_str()).map(|inode| inode.ino) {
                    table.forsake_all(ino);
                    table.unlink(ino);
                }
                if let Some(ino) = table.find(ROOT, from.as_str()).map(|inode| inode.ino) {
                    table.relink(ino, ROOT, to.as_str());
                    if let Some(inode) = table.get_mut(ino) {
                        inode.node = Node::Store(to.clone());
                    }
                }
                drop(table);
                this.store_renamed(&to);
                Ok(())
            })
    }

    fn rename_record(&self, from: (u64, &str), to: (u64, &str), no_replace: bool) -> Result<()> {
        let spot = |(parent, name): (u64, &str)| {
            let spot = self.spot_of(parent, name);
            spot.map_err(|e| e.with_kind(Kind::CrossDevice))
        };
        let (source, target) = (spot(from)?, spot(to)?);
        let (moved, replaced) = (self.open_at(from.0, from.1), self.open_at(to.0, to.1));
        if let (Some(moved), Some(replaced)) = (&moved, &replaced)
            && moved.ino == replaced.ino
        {
            return Ok(());
        }
        // A server may be asked for it, and whoever answers may wait for one of the files below.
        let kept = self.type_to_keep(from, to, (&source, &target));
        // Commits under both names wait.
        let superseded = {
            let table = lock(&self.table);
            let of = |at: (u64, &str)| table.superseded_at(at.0, at.1);
            [of(from), of(to)].concat()
        };
        let both = in_order(moved.iter().chain(&replaced).chain(&superseded));
        let mut guards: Vec<_> = both.iter().map(|file| (file.ino, file.writing())).collect();
        let drafts = |file: &Option<Arc<OpenFile>>| {
            file.as_ref().is_some_and(|file| {
                guards
                    .iter()
                    .any(|(ino, writing)| *ino == file.ino && writing.is_new())
            })
        };
        let (draft, overwritten) = (drafts(&moved), drafts(&replaced));
        if no_replace && overwritten {
            return Err(Error::new("rename to", to.1, Kind::Exists));
        }
        self.removing(from.0, from.1);
        // An event of the file that leaves the name may be handled first, and then the name leads nowhere any more.
        let found = lock(&self.table)
            .find(from.0, from.1)
            .map(|inode| (inode.ino, inode.guessed.is_some()));
        let moving = found.map(|(ino, _)| ino);
        // A type may have been set since it was asked for.
        let kept = kept.filter(|_| !draft && found.is_some_and(|(_, guessed)| guessed));
        if draft {
            self.rename_draft(&source, &target, no_replace)?;
            let moved = moved.as_ref().map(|file| file.ino);
            for (_, writing) in guards.iter_mut().filter(|(ino, _)| Some(*ino) == moved) {
                // Now it replaces what has the name.
                writing.join = None;
            }
        } else {
            let done = self.volume.rename(
                (&source.store, &source.name),
                (&target.store, &target.name),
                no_replace,
            );
            if let Err(e) = &done
                && matches!(e.kind(), Kind::Invalid | Kind::NameTooLong)
            {
                self.refuse(&target.name, e);
            }
            done?;
        }
        let mut table = lock(&self.table);
        if let Some(ino) = table.find(to.0, to.1).map(|inode| inode.ino) {
            table.unlink(ino);
        }
        table.forsake(to.0, to.1);
        table.forsake(from.0, from.1);
        if let Some(ino) = moving {
            table.relink(ino, to.0, to.1);
            if kept.is_some()
                && let Some(inode) = table.get_mut(ino)
            {
                inode.guessed = None;
            }
            if draft && !table.is_fresh(ino) {
                table.add_fresh(ino);
            }
        }
        drop(table);
        drop(guards);
        if moving.is_none() {
            // The kernel keeps what it knew of the name, under the new one.
            self.notify(Notice::Entry {
                parent: to.0,
                name: to.1.into(),
            });
        }
        if let Some(replaced) = replaced.filter(|_| overwritten) {
            self.abandon(&replaced);
        }
        // The rename is done; a type that could not be kept is guessed.
        if let Some(kept) = kept.flatten()
            && let Err(e) = self.keep_type(&target, &kept)
        {
            tracing::warn!("the type of {} was not kept: {e}", target.name);
        }
        Ok(())
    }

    /// A file that is still being written takes the new name now and its record when it is finished: until then other
    /// readers see what was there before.
    fn rename_draft(&self, from: &Spot, to: &Spot, no_replace: bool) -> Result<()> {
        self.volume
            .may_create(&to.store, &to.name)
            .inspect_err(|e| self.refuse(&to.name, e))?;
        if no_replace && self.volume.known(&to.store, &to.name).is_ok() {
            return Err(Error::new("rename to", &*to.name, Kind::Exists));
        }
        match self.volume.remove(&from.store, &from.name) {
            Err(e) if e.kind() != Kind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
