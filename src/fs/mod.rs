//! A tree of inodes over a volume: the operations of a file system. It knows no kernel protocol.

mod again;
mod aside;
pub mod attr;
mod change;
mod commit;
mod control;
mod create;
mod data;
mod handle;
mod inode;
mod join;
mod layer;
mod lookup;
mod names;
mod open;
mod processes;
mod readdir;
mod types;
mod versions;
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
use crate::volume::{Now, Space, Volume};
use handle::{Handles, lock};
use inode::{Node, Table};
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
    /// The key of the run's input at first.
    pub input_key: String,
    /// How long the kernel may keep names and attributes; `None` is as long as nothing changes, where changes are told.
    pub ttl: Option<Duration>,
    /// Open every file for reading and writing, since all handles of an inode must share one file in the kernel.
    pub shared_files: bool,
    /// How many files may stay open after their last handle is gone.
    pub parked: usize,
    /// What the source is called in status.
    pub source: String,
}

/// Something the kernel should drop from its caches.
#[derive(Clone, Debug)]
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
    /// Nothing: answered when all notices before it were given.
    Barrier(Sender<()>),
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
    again: again::Again,
    /// The key of the run's input; it changes while the tree lives when the run gets another input.
    input_key: Mutex<Arc<str>>,
}

impl Fs {
    /// A tree over a volume.
    pub fn new(volume: Arc<dyn Volume>, options: Options) -> Arc<Self> {
        let tree = Arc::new(Self {
            volume,
            table: Mutex::new(Table::new(options.parked)),
            input_key: Mutex::new(options.input_key.as_str().into()),
            options,
            handles: Handles::default(),
            refusals: Mutex::default(),
            notices: Mutex::default(),
            counters: Counters::default(),
            watching: watching::Watching::default(),
            again: again::Again::default(),
        });
        tree.hear();
        tree
    }

    /// Where notices for the kernel go.
    pub fn send_notices_to(&self, sender: Sender<Notice>) {
        *lock(&self.notices) = Some(sender);
    }

    /// How the tree is shown.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn notify(&self, notice: Notice) {
        if let Some(sender) = &*lock(&self.notices) {
            // Without a receiver the mount is ending.
            let _ = sender.send(notice);
        }
    }

    /// Waits until the kernel has all notices there were before this call.
    fn deliver_notices(&self) {
        let (done, wait) = std::sync::mpsc::channel();
        self.notify(Notice::Barrier(done));
        // Nobody answers when the mount is ending.
        let _ = wait.recv();
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
                .then(move |file| Ok(this.options.show.file(ROOT, &file).kept(this.ttl(ROOT))));
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
        let (node, spot, file, parent) = {
            let table = lock(&self.table);
            let Some(inode) = table.get(ino) else {
                return Now::err(Error::new("stat", "", Kind::Stale));
            };
            let held = inode.handles > 0 || inode.drafting || !inode.linked;
            (
                inode.node.clone(),
                table.spot(ino),
                inode.open.clone().filter(|_| held),
                inode.parent,
            )
        };
        match (node, file) {
            (Node::Link(target), _) => {
                let ttl = self.ttl(self.parent_of(ino));
                Now::ok(self.link_attr(ino, &target).kept(ttl))
            }
            (Node::Store(store), _) => {
                let this = self.clone();
                self.volume
                    .store(&store)
                    .then(move |file| Ok(this.store_attr(ino, &file)))
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
                        // Another version has the name since the kernel looked it up. It asks again.
                        return Ok(this.options.show.attr(ino, &stat));
                    }
                    if let Some(inode) = table.get_mut(ino)
                        && !lookup::is_link(&stat)
                    {
                        inode.told = stat.file.changed_ns;
                    }
                    let closed = match table.get_mut(ino) {
                        Some(inode) if inode.version != stat.file.inode && !inode.drafting => {
                            inode.now_is(stat.file.inode);
                            table.close(ino)
                        }
                        _ => None,
                    };
                    drop(table);
                    drop(closed);
                    let attr = this.options.show.attr(ino, &stat);
                    Ok(this.kept_of(attr, parent, &spot.name))
                })
            }
        }
    }

    /// The attributes of an open file.
    fn open_attr(&self, file: &OpenFile) -> Result<Attr> {
        let stat = file.stat()?;
        let mut attr = self.options.show.file(file.ino, &stat);
        if file.writing().fixed {
            attr.mode &= !attr::WRITE_BITS;
        }
        let mut table = lock(&self.table);
        if let Some(inode) = table.get_mut(file.ino) {
            inode.told = if inode.drafting { 0 } else { stat.changed_ns };
            let ttl = if inode.drafting || inode.beside > 0 {
                Duration::ZERO
            } else {
                self.name_ttl(inode.parent, &inode.name)
            };
            attr = attr.kept(ttl);
            if !inode.linked && !inode.superseded {
                attr.links = 0;
            }
        }
        Ok(attr)
    }

    /// The key of the run's input.
    pub fn input_key(&self) -> Arc<str> {
        lock(&self.input_key).clone()
    }

    /// Makes another record the run's input: `INPUT` of the default store leads to it from now on. Returns when the kernel
    /// knows.
    pub fn set_input_key(&self, key: &str) {
        *lock(&self.input_key) = key.into();
        let store = lock(&self.table)
            .find(ROOT, self.options.default_store.as_str())
            .map(|inode| inode.ino);
        for parent in [Some(CONTROL), store].into_iter().flatten() {
            self.notify(Notice::Entry {
                parent,
                name: "INPUT".into(),
            });
            self.notify(Notice::Contents(parent));
        }
        self.deliver_notices();
    }

    /// Waits until what others changed in the folder so far is known to the kernel, where changes are told.
    pub fn catch_up(&self) {
        if self.pushes(ROOT) {
            self.settle_events();
            self.deliver_notices();
        }
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
        ino != CONTROL && self.pushes(ino)
    }

    /// Waits until what others changed in the folder is in the tree, and until it is mended where that is due.
    pub fn settle(self: &Arc<Self>, store: Option<&StoreName>) -> Result<()> {
        if let Some(store) = store {
            self.volume.store(store).wait()?;
        }
        self.settle_events();
        self.volume.mend(store);
        if self.pushes(ROOT) {
            // What the mending did itself.
            self.settle_events();
        }
        self.deliver_notices();
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
            (Some(Node::Record), Some(spot)) => {
                // The kernel keeps the target as long as the inode lives, so it must be that of the link it looked up.
                let this = self.clone();
                let target = self.volume.read_link(&spot.store, &spot.name);
                target.and_then(move |target| {
                    let stat = this.volume.stat(&spot.store, &spot.name);
                    stat.then(move |stat| {
                        let told = lock(&this.table).get(ino).map(|inode| inode.told);
                        match told == Some(stat.file.changed_ns) {
                            true => Ok(target),
                            false => Err(Error::new("readlink", &*spot.name, Kind::Stale)),
                        }
                    })
                })
            }
            _ => Now::err(Error::new("readlink", "", Kind::Invalid)),
        }
    }
}
