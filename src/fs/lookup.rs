//! From names to inodes: what the disk says of a name is taken into the table. A name's inode may change, an inode's file
//! never does while it is open.

use super::handle::{OpenFile, lock};
use super::inode::{Node, Spot};
use super::{Attr, CONTROL, CONTROL_NAME, Fs, ROOT};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::volume::{FileStat, Now, Stat};
use std::sync::Arc;
use std::time::Duration;

/// How often a name is looked up again whose inode changes meanwhile.
const LOOKS: u32 = 64;

impl Fs {
    /// The attributes of a name in a directory, which the kernel then knows once more.
    pub fn lookup(self: &Arc<Self>, parent: u64, name: &str) -> Now<Attr> {
        if parent == ROOT {
            return self.lookup_store(name);
        }
        if parent == CONTROL {
            return self.lookup_control(name);
        }
        self.lookup_record(parent, name, LOOKS)
    }

    pub(super) fn store_shown(&self, name: &StoreName) -> bool {
        let only = &self.options.stores;
        only.is_empty() || only.contains(name) || *name == self.options.default_store
    }

    fn lookup_store(self: &Arc<Self>, name: &str) -> Now<Attr> {
        if name == CONTROL_NAME {
            return self.getattr(CONTROL, None);
        }
        if name == "default" && self.options.default_store.as_str() != "default" {
            let target = self.options.default_store.as_str().to_owned();
            return Now::ok(self.enter_link(ROOT, name, &target));
        }
        let Ok(store) = StoreName::new(name) else {
            return Now::err(Error::new("look up", name, Kind::NotFound));
        };
        if !self.store_shown(&store) {
            return Now::err(Error::new("look up", name, Kind::NotFound));
        }
        if let Some(dir) = self
            .volume
            .store_called(&store)
            .filter(|dir| self.store_shown(dir))
        {
            return Now::ok(self.enter_link(ROOT, name, dir.as_str()));
        }
        let this = self.clone();
        self.volume.store(&store).finally(move |found| match found {
            Ok(file) => {
                let ino = this.enter_store(&store, file.inode, true);
                Now::ok(this.store_attr(ino, &file))
            }
            Err(e) if e.kind() == Kind::StoreNotFound => this.lookup_other_spelling(store, e),
            Err(e) => {
                this.forget_store(&store);
                Now::err(e)
            }
        })
    }

    fn forget_store(&self, store: &StoreName) {
        let mut table = lock(&self.table);
        if let Some(ino) = table.find(ROOT, store.as_str()).map(|inode| inode.ino) {
            table.unlink(ino);
        }
    }

    /// A store that is said in another way, by its id or in other letter case, is a link to its directory.
    fn lookup_other_spelling(self: &Arc<Self>, said: StoreName, missing: Error) -> Now<Attr> {
        let this = self.clone();
        self.spelt_otherwise(&said).finally(move |found| {
            Now::Ready(match found {
                Ok(Some(store)) => {
                    // Nothing tells the kernel when the store goes.
                    let attr = this.enter_link(ROOT, said.as_str(), store.as_str());
                    Ok(attr.kept(std::time::Duration::ZERO))
                }
                Ok(None) => {
                    this.forget_store(&said);
                    Err(missing)
                }
                Err(e) => {
                    this.forget_store(&said);
                    Err(e)
                }
            })
        })
    }

    /// The store of this tree that is meant by another way to say it.
    pub(super) fn spelt_otherwise(self: &Arc<Self>, said: &StoreName) -> Now<Option<StoreName>> {
        let this = self.clone();
        self.volume
            .store_said_otherwise(said.as_str())
            .then(move |found| {
                let hidden = |store: &StoreName| {
                    store.as_str() == "default" && this.options.default_store != *store
                };
                Ok(found.filter(|store| this.store_shown(store) && !hidden(store)))
            })
    }

    pub(super) fn enter_store(&self, store: &StoreName, version: u64, count: bool) -> u64 {
        let mut table = lock(&self.table);
        let known = table
            .find(ROOT, store.as_str())
            .map(|inode| (inode.ino, matches!(inode.node, Node::Store(_))));
        let ino = match known {
            Some((ino, true)) => ino,
            other => {
                // It was a link before: another way to say another store.
                if let Some((ino, _)) = other {
                    table.unlink(ino);
                }
                table
                    .insert(ROOT, store.as_str(), Node::Store(store.clone()), version)
                    .ino
            }
        };
        if let Some(inode) = table.get_mut(ino) {
            inode.version = version;
            if count {
                inode.lookups += 1;
            }
        }
        drop(table);
        self.watch_store(store, ino);
        ino
    }

    fn enter_link(&self, parent: u64, name: &str, target: &str) -> Attr {
        let mut table = lock(&self.table);
        let known = table.find(parent, name).map(|inode| {
            (
                inode.ino,
                matches!(&inode.node, Node::Link(to) if **to == *target),
            )
        });
        let ino = match known {
            Some((ino, true)) => ino,
            other => {
                if let Some((ino, _)) = other {
                    table.unlink(ino);
                }
                table.insert(parent, name, Node::Link(target.into()), 0).ino
            }
        };
        if let Some(inode) = table.get_mut(ino) {
            inode.lookups += 1;
        }
        self.link_attr(ino, target).kept(self.ttl(parent))
    }

    /// Whether this name in the mountpoint is another way to say a store.
    pub(super) fn is_link(&self, name: &str) -> bool {
        let table = lock(&self.table);
        table
            .find(ROOT, name)
            .is_some_and(|inode| matches!(inode.node, Node::Link(_)))
    }

    pub(super) fn link_attr(&self, ino: u64, target: &str) -> Attr {
        let file = crate::volume::FileStat {
            mode: libc::S_IFLNK | 0o777,
            size: target.len() as u64,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            ..Default::default()
        };
        let mut attr = self.options.show.file(ino, &file);
        attr.mode = 0o777;
        attr
    }

    /// Whether this name of this directory is the link to the run's input.
    pub(super) fn is_input_link(&self, parent: u64, name: &str) -> bool {
        name == "INPUT"
            && &*self.input_key() != "INPUT"
            && lock(&self.table).store(parent) == Some(&self.options.default_store)
    }

    pub(super) fn spot_of(&self, parent: u64, name: &str) -> Result<Spot> {
        match lock(&self.table).store(parent) {
            Some(store) => Ok(Spot {
                store: store.clone(),
                name: name.into(),
            }),
            None => Err(Error::new("look up", name, Kind::NotADirectory)),
        }
    }

    fn lookup_record(self: &Arc<Self>, parent: u64, name: &str, tries: u32) -> Now<Attr> {
        if self.is_input_link(parent, name) {
            let target = self.input_key();
            return Now::ok(self.enter_link(parent, name, &target));
        }
        let spot = match self.spot_of(parent, name) {
            Ok(spot) => spot,
            Err(e) => return Now::err(e),
        };
        let mut before = None;
        {
            let mut table = lock(&self.table);
            if let Some(inode) = table.find(parent, name) {
                before = Some((inode.ino, inode.version, inode.drafting));
            }
            if let Some((ino, _, true)) = before
                && let Some(inode) = table.get_mut(ino)
                && let Some(file) = inode.open.clone()
            {
                inode.lookups += 1;
                drop(table);
                return self.draft_attr(ino, &file).into();
            }
        }
        let this = self.clone();
        self.volume
            .stat(&spot.store, &spot.name)
            .finally(move |found| match found {
                Ok(stat) => match this.enter_record(parent, &spot.name, &stat, true, before) {
                    Some(attr) => Now::ok(attr),
                    // The inode changed while the disk was asked; its answer is older than that.
                    None if tries > 0 => this.lookup_record(parent, &spot.name, tries - 1),
                    None => Now::err(Error::new("look up", &*spot.name, Kind::Stale)),
                },
                Err(e) => {
                    let mut table = lock(&this.table);
                    let gone = table
                        .find(parent, &spot.name)
                        .filter(|i| !i.drafting)
                        .map(|i| i.ino);
                    if e.kind() == Kind::NotFound
                        && let Some(ino) = gone
                    {
                        table.unlink(ino);
                    }
                    Now::err(e)
                }
            })
    }

    /// The attributes of a store: the name is the root's, its times change with its records.
    pub(super) fn store_attr(&self, ino: u64, file: &FileStat) -> Attr {
        let mut attr = self.options.show.file(ino, file).kept(self.ttl(ROOT));
        attr.ttl = self.ttl(ino);
        self.tell(ino, file);
        attr
    }

    /// Remembers what the kernel is told of an inode and may keep.
    pub(super) fn tell(&self, ino: u64, file: &FileStat) {
        if let Some(inode) = lock(&self.table).get_mut(ino) {
            inode.told = file.changed_ns;
        }
    }

    pub(super) fn parent_of(&self, ino: u64) -> u64 {
        lock(&self.table)
            .get(ino)
            .map_or(ROOT, |inode| inode.parent)
    }

    pub(super) fn draft_attr(&self, ino: u64, file: &OpenFile) -> Result<Attr> {
        let attr = self.options.show.file(ino, &file.stat()?);
        let ttl = lock(&self.table).get(ino).map_or(Duration::ZERO, |inode| {
            self.name_ttl(inode.parent, &inode.name)
        });
        Ok(attr.name_kept(ttl))
    }

    /// Takes what the disk says of a name into the table. `before` is what was known of the name when the disk was asked
    /// (inode, version, drafting); `None` is answered when that has changed since in a way that matters.
    pub(super) fn enter_record(
        &self,
        parent: u64,
        name: &str,
        stat: &Stat,
        count: bool,
        before: Option<(u64, u64, bool)>,
    ) -> Option<Attr> {
        let mut closed = None;
        let mut table = lock(&self.table);
        let mut relinked = false;
        let known = table.find(parent, name).map(|inode| {
            // The kernel keeps where a link leads as long as the inode lives.
            relinked = is_link(stat) && inode.told != stat.file.changed_ns;
            (inode.ino, inode.version, inode.drafting, inode.handles)
        });
        let ino = match known {
            Some((ino, version, false, _)) if version == stat.file.inode && !relinked => ino,
            Some((ino, version, drafting, handles)) => {
                if drafting || before != Some((ino, version, drafting)) {
                    return None;
                }
                if handles > 0 || relinked {
                    // Open handles keep the version that they opened; the name gets an inode of its own.
                    table.unlink(ino);
                    table
                        .insert(parent, name, Node::Record, stat.file.inode)
                        .ino
                } else {
                    closed = table.close(ino);
                    if let Some(inode) = table.get_mut(ino) {
                        inode.now_is(stat.file.inode);
                    }
                    ino
                }
            }
            None => {
                table
                    .insert(parent, name, Node::Record, stat.file.inode)
                    .ino
            }
        };
        if let Some(inode) = table.get_mut(ino) {
            inode.lookups += u32::from(count);
            inode.told = stat.file.changed_ns;
        }
        drop(table);
        drop(closed);
        let attr = self.options.show.attr(ino, stat);
        Some(self.kept_of(attr, parent, name))
    }

    /// How long the kernel may keep what it is told of a record: a length that nobody knows yet not at all.
    pub(super) fn kept_of(&self, attr: Attr, parent: u64, name: &str) -> Attr {
        let ttl = self.name_ttl(parent, name);
        let beside = lock(&self.table)
            .get(attr.ino)
            .is_some_and(|inode| inode.beside > 0);
        if beside {
            return attr.name_kept(ttl);
        }
        if self.volume.has_descriptors() {
            return attr.kept(ttl);
        }
        let store = lock(&self.table).store(parent).cloned();
        match store.is_none_or(|store| self.volume.knows_length(&store, name)) {
            true => attr.kept(ttl),
            false => attr.name_kept(ttl),
        }
    }
}

pub(super) fn is_link(stat: &Stat) -> bool {
    stat.file.mode & libc::S_IFMT == libc::S_IFLNK
}
