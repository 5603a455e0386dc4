//! The inode table: names to inodes and back, lookup counts. It touches memory only and never calls a volume.

mod rare;
mod unnamed;

use super::handle::OpenFile;
use crate::record::{ContentType, StoreName};
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rare::Rare;

/// The inode of the mountpoint.
pub const ROOT: u64 = 1;
/// The inode of the hidden `.storefs` directory.
pub const CONTROL: u64 = 2;
/// Inodes of the files in it follow.
pub(super) const CONTROL_FILES: u64 = 3;
/// The first slot for the rest.
const FIRST_FREE: usize = 16;

/// What an inode stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A store.
    Store(StoreName),
    /// A record or scratch file of the store that is its parent.
    Record,
    /// A link of the tree's own, to this target.
    Link(Box<str>),
}

/// One inode. There may be a million, so what few of them have is apart.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) ino: u64,
    pub(super) parent: u64,
    pub(super) name: Box<str>,
    /// How often the kernel was told of it and has not forgotten.
    pub(super) lookups: u32,
    /// The name leads here.
    pub(super) linked: bool,
    /// Its file is not yet the record of its name.
    pub(super) drafting: bool,
    /// The disk's number of its file.
    pub(super) version: u64,
    /// The last change, in nanoseconds since 1970, of the attributes that the kernel was told and may keep; 0 when it
    /// keeps none.
    pub(super) told: i64,
    rare: Option<Box<Rare>>,
}

/// The type of a file that was made here and that nobody gave one.
#[derive(Clone, Debug)]
pub(super) enum Guessed {
    /// This one is kept.
    Kept(ContentType),
    /// None is kept, or which is not known.
    Unknown,
}

impl Inode {
    /// The disk has this file under the name now. What was known of another one does not hold for it.
    pub(super) fn now_is(&mut self, version: u64) {
        if self.version != version {
            self.version = version;
            if self.guessed.is_some() {
                self.guessed = None;
            }
        }
    }

    /// Gives up its file.
    pub(super) fn close(&mut self) -> Option<Arc<OpenFile>> {
        self.open.is_some().then(|| self.open.take()).flatten()
    }
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) store: StoreName,
    pub(super) name: Box<str>,
}

impl Spot {
    /// How the path of a descriptor of it ends, wherever a process sees the mount.
    pub(super) fn end(&self) -> String {
        format!("/{}/{}", self.store, self.name)
    }
}

/// All inodes that the kernel may know.
pub(super) struct Table {
    slots: Vec<Option<Inode>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    names: HashTable<u32>,
    hasher: RandomState,
    parked: VecDeque<u64>,
    /// How many files stay open after their last handle is gone, so that opening them again costs nothing.
    most_parked: usize,
    /// Inodes that are superseded, few at any time.
    superseded: Vec<u64>,
    /// Inodes with a draft that is not on disk under any name, in the order they were made.
    fresh: Vec<u64>,
    /// Inodes that lost their name while they were open, few at any time.
    strays: Vec<u64>,
}

impl Table {
    pub(super) fn new(most_parked: usize) -> Self {
        Self {
            slots: (0..FIRST_FREE).map(|_| None).collect(),
            generations: vec![0; FIRST_FREE],
            free: Vec::new(),
            names: HashTable::new(),
            hasher: RandomState::new(),
            parked: VecDeque::new(),
            most_parked,
            superseded: Vec::new(),
            fresh: Vec::new(),
            strays: Vec::new(),
        }
    }

    fn hash(&self, parent: u64, name: &str) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    /// How many inodes there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - FIRST_FREE - self.free.len()
    }

    pub(super) fn get(&self, ino: u64) -> Option<&Inode> {
        self.slots
            .get(slot_of(ino))?
            .as_ref()
            .filter(|inode| inode.ino == ino)
    }

    pub(super) fn get_mut(&mut self, ino: u64) -> Option<&mut Inode> {
        self.slots
            .get_mut(slot_of(ino))?
            .as_mut()
            .filter(|inode| inode.ino == ino)
    }

    /// The inode that a name leads to.
    pub(super) fn find(&self, parent: u64, name: &str) -> Option<&Inode> {
        let slot = self.names.find(self.hash(parent, name), |slot| {
            self.slots[*slot as usize]
                .as_ref()
                .is_some_and(|inode| inode.parent == parent && *inode.name == *name)
        })?;
        self.slots[*slot as usize].as_ref()
    }

    fn free_slot(&mut self) -> usize {
        match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                self.slots.push(None);
                self.generations.push(0);
                self.slots.len() - 1
            }
        }
    }

    /// Makes an inode and leads the name to it. A former inode of that name must have been unlinked before.
    pub(super) fn insert(
        &mut self,
        parent: u64,
        name: &str,
        node: Node,
        version: u64,
    ) -> &mut Inode {
        let slot = self.free_slot();
        let ino = u64::from(self.generations[slot]) << 32 | slot as u64;
        let hash = self.hash(parent, name);
        let Self {
            slots,
            names,
            hasher,
            ..
        } = self;
        names.insert_unique(hash, slot as u32, |slot| {
            slots[*slot as usize]
                .as_ref()
                .map_or(0, |inode| hasher.hash_one((inode.parent, &*inode.name)))
        });
        slots[slot].insert(Inode {
            ino,
            parent,
            name: name.into(),
            lookups: 0,
            linked: true,
            drafting: false,
            version,
            told: 0,
            rare: Rare::of(node),
        })
    }

    /// The name does not lead to this inode any more.
    pub(super) fn unlink(&mut self, ino: u64) {
        let Some(inode) = self.get(ino) else { return };
        if inode.linked {
            let hash = self.hash(inode.parent, &inode.name);
            let slot = slot_of(ino) as u32;
            if let Ok(entry) = self.names.find_entry(hash, |found| *found == slot) {
                entry.remove();
            }
        }
        let mut closed = None;
        if let Some(inode) = self.get_mut(ino) {
            let was_linked = std::mem::replace(&mut inode.linked, false);
            if inode.handles == 0 {
                closed = inode.close();
            } else if was_linked {
                self.strays.push(ino);
            }
        }
        self.fresh.retain(|other| *other != ino);
        self.drop_if_unused(ino);
        drop(closed);
    }

    /// Leads another name to this inode.
    pub(super) fn relink(&mut self, ino: u64, parent: u64, name: &str) {
        let was_fresh = self.fresh.contains(&ino);
        let Some(inode) = self.get(ino) else { return };
        let old = self.hash(inode.parent, &inode.name);
        let slot = slot_of(ino) as u32;
        if let Ok(entry) = self.names.find_entry(old, |found| *found == slot) {
            entry.remove();
        }
        if let Some(inode) = self.get_mut(ino) {
            inode.parent = parent;
            inode.name = name.into();
            inode.linked = true;
        }
        self.strays.retain(|other| *other != ino);
        let hash = self.hash(parent, name);
        let Self {
            slots,
            names,
            hasher,
            ..
        } = self;
        names.insert_unique(hash, slot, |slot| {
            slots[*slot as usize]
                .as_ref()
                .map_or(0, |inode| hasher.hash_one((inode.parent, &*inode.name)))
        });
        if was_fresh && !self.fresh.contains(&ino) {
            self.fresh.push(ino);
        }
    }

    /// The kernel forgets some of its lookups.
    pub(super) fn forget(&mut self, ino: u64, count: u64) -> Option<Arc<OpenFile>> {
        let inode = self.get_mut(ino)?;
        inode.lookups = inode
            .lookups
            .saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        self.drop_if_unused(ino)
    }

    fn drop_if_unused(&mut self, ino: u64) -> Option<Arc<OpenFile>> {
        let inode = self.get(ino)?;
        if inode.lookups > 0 || inode.handles > 0 {
            return None;
        }
        if inode.linked {
            let hash = self.hash(inode.parent, &inode.name);
            let slot = slot_of(ino) as u32;
            if let Ok(entry) = self.names.find_entry(hash, |found| *found == slot) {
                entry.remove();
            }
        }
        let slot = slot_of(ino);
        let mut inode = self.slots[slot].take()?;
        // After 2^32 uses a slot is retired, so that a number never comes back.
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        if self.generations[slot] != 0 {
            self.free.push(slot as u32);
        }
        let kept_the_name = inode.linked && self.fresh.contains(&ino);
        self.fresh.retain(|other| *other != ino);
        self.superseded.retain(|other| *other != ino);
        self.strays.retain(|other| *other != ino);
        if kept_the_name {
            self.give_back(inode.parent, &inode.name);
        }
        inode.close()
    }

    /// A handle was opened.
    pub(super) fn opened(&mut self, ino: u64, file: &Arc<OpenFile>) {
        if let Some(inode) = self.get_mut(ino) {
            inode.handles += 1;
            inode.open = Some(file.clone());
        }
    }

    /// A handle was released. The file stays parked for the next open when it may; what is dropped is returned, to be
    /// closed outside of the table's lock.
    pub(super) fn released(&mut self, ino: u64) -> Vec<Arc<OpenFile>> {
        let mut dropped = Vec::new();
        let Some(inode) = self.get_mut(ino) else {
            return dropped;
        };
        inode.handles = inode.handles.saturating_sub(1);
        if inode.handles > 0 {
            return dropped;
        }
        if inode.linked && !inode.drafting {
            if !inode.queued {
                inode.queued = true;
                self.parked.push_back(ino);
            }
        } else {
            dropped.extend(inode.close());
            if std::mem::take(&mut inode.superseded) {
                self.superseded.retain(|other| *other != ino);
            }
        }
        while self.parked.len() > self.most_parked {
            if let Some(oldest) = self.parked.pop_front()
                && let Some(inode) = self.get_mut(oldest)
            {
                inode.queued = false;
                if inode.handles == 0 {
                    dropped.extend(inode.close());
                }
            }
        }
        dropped.extend(self.drop_if_unused(ino));
        dropped
    }

    /// Gives up the file of an inode that nobody has open.
    pub(super) fn close(&mut self, ino: u64) -> Option<Arc<OpenFile>> {
        let inode = self.get_mut(ino)?;
        (inode.handles == 0).then(|| inode.close()).flatten()
    }

    /// The store of an inode.
    pub(super) fn store(&self, ino: u64) -> Option<&StoreName> {
        match &self.get(ino)?.node {
            Node::Store(name) => Some(name),
            Node::Record | Node::Link(_) => None,
        }
    }

    /// The stores that the kernel knows.
    pub(super) fn stores(&self) -> Vec<(u64, StoreName)> {
        let store = |inode: &Inode| match &inode.node {
            Node::Store(name) if inode.linked => Some((inode.ino, name.clone())),
            Node::Store(_) | Node::Record | Node::Link(_) => None,
        };
        self.slots.iter().flatten().filter_map(store).collect()
    }

    /// The names of a store that the kernel knows and that lead to records, or with `drafts` to what will be some.
    pub(super) fn children(&self, parent: u64, drafts: bool) -> Vec<(u64, Box<str>)> {
        self.slots
            .iter()
            .flatten()
            .filter(|inode| inode.linked && inode.parent == parent && (drafts || !inode.drafting))
            .map(|inode| (inode.ino, inode.name.clone()))
            .collect()
    }

    /// Where a record's name is.
    pub(super) fn spot(&self, ino: u64) -> Option<Spot> {
        let inode = self.get(ino)?;
        let store = self.store(inode.parent)?.clone();
        Some(Spot {
            store,
            name: inode.name.clone(),
        })
    }
}

fn slot_of(ino: u64) -> usize {
    (ino & 0xffff_ffff) as usize
}
