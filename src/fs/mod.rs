//! A tree of inodes over a volume: the operations of a file system. It knows no kernel protocol.

pub mod attr;
mod change;
mod commit;
mod control;
mod data;
mod handle;
mod inode;
mod names;
mod open;
mod readdir;
mod watching;
mod xattr;

pub use attr::{Attr, FileKind, Show, placeless};
pub use change::Change;
pub use control::Counters;
pub use handle::{Handle, OpenFile};
pub use inode::{CONTROL, ROOT};
pub use open::{Caller, Opened};
pub use readdir::DirEntry;

use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::volume::{Now, Space, Stat, Volume};
use handle::{Handles, lock};
use inode::{Node, Spot, Table};
use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The directory that shows what the mount does, hidden from listings.
pub const CONTROL_NAME: &str = ".storefs";

/// How the tree is shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// Owner, group and umask to show.
    pub show: Show,
    /// The store that `default` means.
    pub default_store: StoreName,
    /// Only these stores; empty for all.
    pub stores: Vec<StoreName>,
    /// The key of the run's input.
    pub input_key: String,
    /// How long the kernel may keep names and attributes.
    pub ttl: Duration,
    /// Open every file for reading and writing, since all handles of an inode must share one file in the kernel.
    pub shared_files: bool,
    /// What the source is called in status.
    pub source: String,
}

/// Something the kernel should drop from its caches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A name in a directory.
    Entry {
        /// The directory.
        parent: u64,
        /// The name.
        name: Box<str>,
    },
    /// The attributes of an inode.
    Attributes(u64),
    /// The cached pages of a file, or the listing of a directory, and its attributes.
    Contents(u64),
}

/// A name that was refused, for status.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    name: String,
    why: String,
    at: std::time::SystemTime,
}

/// The tree.
pub struct Fs {
    volume: Arc<dyn Volume>,
    options: Options,
    table: Mutex<Table>,
    handles: Handles,
    refusals: Mutex<VecDeque<Refusal>>,
    notices: Mutex<Option<Sender<Notice>>>,
    /// What the operations counted.
    pub counters: Counters,
    watching: watching::Watching,
}

impl Fs {
    /// A tree over a volume.
    pub fn new(volume: Arc<dyn Volume>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            volume,
            options,
            table: Mutex::new(Table::new()),
            handles: Handles::default(),
            refusals: Mutex::default(),
            notices: Mutex::default(),
            counters: Counters::default(),
            watching: watching::Watching::default(),
        })
    }

    /// Where notices for the kernel go.
    pub fn send_notices_to(&self, sender: Sender<Notice>) {
        *lock(&self.notices) = Some(sender);
    }

    /// How the tree is shown.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How long the kernel may keep a name or attributes of this parent's entries.
    pub fn ttl(&self) -> Duration {
        self.watching.ttl(self.options.ttl)
    }

    fn notify(&self, notice: Notice) {
        if let Some(sender) = &*lock(&self.notices) {
            // Without a receiver the mount is ending.
            let _ = sender.send(notice);
        }
    }

    fn refuse(&self, name: &str, error: &Error) {
        tracing::warn!("refused {name:?}: {error}");
        let mut refusals = lock(&self.refusals);
        if refusals.len() >= 20 {
            refusals.pop_front();
        }
        refusals.push_back(Refusal {
            name: name.to_owned(),
            why: error.to_string(),
            at: std::time::SystemTime::now(),
        });
    }

    /// The attributes of a name in a directory, which the kernel then knows once more.
    pub fn lookup(self: &Arc<Self>, parent: u64, name: &str) -> Now<Attr> {
        if parent == ROOT {
            return self.lookup_store(name);
        }
        if parent == CONTROL {
            return self.lookup_control(name);
        }
        self.lookup_record(parent, name, 3)
    }

    fn store_shown(&self, name: &StoreName) -> bool {
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
        let this = self.clone();
        self.volume.store(&store).finally(move |found| {
            Now::Ready(match found {
                Ok(file) => {
                    let ino = this.enter_store(&store, file.inode, true);
                    Ok(this.options.show.file(ino, &file))
                }
                Err(e) => {
                    let mut table = lock(&this.table);
                    if let Some(ino) = table.find(ROOT, store.as_str()).map(|inode| inode.ino) {
                        table.unlink(ino);
                    }
                    Err(e)
                }
            })
        })
    }

    fn enter_store(&self, store: &StoreName, version: u64, count: bool) -> u64 {
        let mut table = lock(&self.table);
        let ino = match table.find(ROOT, store.as_str()) {
            Some(inode) => inode.ino,
            None => {
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
        self.watching.watch_store(store, ino);
        ino
    }

    fn enter_link(&self, parent: u64, name: &str, target: &str) -> Attr {
        let mut table = lock(&self.table);
        let known = table
            .find(parent, name)
            .map(|inode| (inode.ino, matches!(inode.node, Node::Link(_))));
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
        self.link_attr(ino, target)
    }

    fn link_attr(&self, ino: u64, target: &str) -> Attr {
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
    fn is_input_link(&self, parent: u64, name: &str) -> bool {
        name == "INPUT"
            && self.options.input_key != "INPUT"
            && lock(&self.table).store(parent) == Some(&self.options.default_store)
    }

    fn spot_of(&self, parent: u64, name: &str) -> Result<Spot> {
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
            let target = self.options.input_key.clone();
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

    fn draft_attr(&self, ino: u64, file: &OpenFile) -> Result<Attr> {
        let mut attr = self.options.show.file(ino, &file.stat()?);
        attr.keep = false;
        Ok(attr)
    }

    /// Takes what the disk says of a name into the table. `before` is what was known of the name when the disk was asked
    /// (inode, version, drafting); `None` is answered when that has changed since in a way that matters.
    fn enter_record(
        &self,
        parent: u64,
        name: &str,
        stat: &Stat,
        count: bool,
        before: Option<(u64, u64, bool)>,
    ) -> Option<Attr> {
        let mut closed = None;
        let mut table = lock(&self.table);
        let known = table
            .find(parent, name)
            .map(|inode| (inode.ino, inode.version, inode.drafting, inode.handles));
        let ino = match known {
            Some((ino, version, false, _)) if version == stat.file.inode => ino,
            Some((ino, version, drafting, handles)) => {
                if drafting || before != Some((ino, version, drafting)) {
                    return None;
                }
                if handles > 0 {
                    // Open handles keep the version that they opened; the name gets an inode of its own.
                    table.unlink(ino);
                    table
                        .insert(parent, name, Node::Record, stat.file.inode)
                        .ino
                } else {
                    closed = table.close(ino);
                    if let Some(inode) = table.get_mut(ino) {
                        inode.version = stat.file.inode;
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
        if count && let Some(inode) = table.get_mut(ino) {
            inode.lookups += 1;
        }
        drop(table);
        drop(closed);
        Some(self.options.show.attr(ino, stat))
    }

    /// The kernel forgets lookups of an inode.
    pub fn forget(&self, ino: u64, count: u64) {
        let closed = lock(&self.table).forget(ino, count);
        drop(closed);
    }

    /// The attributes of an inode.
    pub fn getattr(self: &Arc<Self>, ino: u64, handle: Option<u64>) -> Now<Attr> {
        if ino == ROOT {
            let this = self.clone();
            return self
                .volume
                .root()
                .then(move |file| Ok(this.options.show.file(ROOT, &file)));
        }
        if control::is_control(ino) {
            return self.control_attr(ino).into();
        }
        if let Some(number) = handle
            && let Some(handle) = self.handles.get(number)
            && handle.file.ino == ino
        {
            return self.open_attr(&handle.file).into();
        }
        let (node, spot, file) = {
            let table = lock(&self.table);
            let Some(inode) = table.get(ino) else {
                return Now::err(Error::new("stat", "", Kind::Stale));
            };
            let held = inode.handles > 0 || inode.drafting || !inode.linked;
            (
                inode.node.clone(),
                table.spot(ino),
                inode.open.clone().filter(|_| held),
            )
        };
        match (node, file) {
            (Node::Link(target), _) => Now::ok(self.link_attr(ino, &target)),
            (Node::Store(store), _) => {
                let show = self.options.show;
                self.volume
                    .store(&store)
                    .then(move |file| Ok(show.file(ino, &file)))
            }
            (Node::Record, Some(file)) => self.open_attr(&file).into(),
            (Node::Record, None) => {
                let Some(spot) = spot else {
                    return Now::err(Error::new("stat", "", Kind::Stale));
                };
                let this = self.clone();
                self.volume.stat(&spot.store, &spot.name).then(move |stat| {
                    let mut table = lock(&this.table);
                    let known = table.get(ino).is_some_and(|inode| inode.linked);
                    if !known {
                        return Err(Error::new("stat", &*spot.name, Kind::Stale));
                    }
                    let closed = match table.get_mut(ino) {
                        Some(inode) if inode.version != stat.file.inode && !inode.drafting => {
                            inode.version = stat.file.inode;
                            table.close(ino)
                        }
                        _ => None,
                    };
                    drop(table);
                    drop(closed);
                    Ok(this.options.show.attr(ino, &stat))
                })
            }
        }
    }

    /// The attributes of an open file.
    fn open_attr(&self, file: &OpenFile) -> Result<Attr> {
        let mut attr = self.options.show.file(file.ino, &file.stat()?);
        let table = lock(&self.table);
        if let Some(inode) = table.get(file.ino) {
            attr.keep = !inode.drafting;
            if !inode.linked && !inode.superseded {
                attr.links = 0;
            }
        }
        Ok(attr)
    }

    /// Sizes of the disk below, and of names in the layout of the inode's store.
    pub fn statfs(&self, ino: u64) -> Now<Space> {
        let store = {
            let table = lock(&self.table);
            table
                .store(ino)
                .cloned()
                .or_else(|| table.spot(ino).map(|spot| spot.store))
        };
        self.volume.space(store.as_ref())
    }

    /// Whether the kernel may keep a listing until it is told of a change.
    pub fn may_cache_listing(&self, ino: u64) -> bool {
        ino != CONTROL && self.watching.pushes(ino)
    }

    /// Waits until what others changed in the folder is in the tree.
    pub fn settle(self: &Arc<Self>, store: Option<&StoreName>) -> Result<()> {
        if let Some(store) = store {
            self.volume.store(store).wait()?;
        }
        self.watching.settle();
        Ok(())
    }

    /// The target of a link.
    pub fn readlink(self: &Arc<Self>, ino: u64) -> Now<Vec<u8>> {
        let (node, spot) = {
            let table = lock(&self.table);
            (
                table.get(ino).map(|inode| inode.node.clone()),
                table.spot(ino),
            )
        };
        match (node, spot) {
            (Some(Node::Link(target)), _) => Now::ok(target.as_bytes().to_vec()),
            (Some(Node::Record), Some(spot)) => self.volume.read_link(&spot.store, &spot.name),
            _ => Now::err(Error::new("readlink", "", Kind::Invalid)),
        }
    }
}
