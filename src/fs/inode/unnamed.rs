//! The inodes whose file has no name on the disk, or not theirs any more: drafts, and what lost its name while it was open.

use super::rare::Private;
use super::{Inode, OpenFile, Table, slot_of};
use std::sync::Arc;

impl Table {
    /// Makes an inode to which the name does not lead.
    pub(in crate::fs) fn insert_nameless(&mut self, parent: u64, name: &str, version: u64) -> u64 {
        let slot = self.free_slot();
        let ino = u64::from(self.generations[slot]) << 32 | slot as u64;
        self.slots[slot] = Some(Inode {
            ino,
            parent,
            name: name.into(),
            lookups: 0,
            linked: false,
            drafting: false,
            version,
            told: 0,
            rare: None,
        });
        ino
    }

    /// Makes one that a thread found for itself, of which the kernel is told.
    pub(in crate::fs) fn insert_private(&mut self, parent: u64, name: &str, thread: u32) -> u64 {
        let ino = self.insert_nameless(parent, name, 0);
        if let Some(inode) = self.get_mut(ino) {
            inode.lookups = 1;
            inode.private = Some(Private::of(thread));
        }
        ino
    }

    /// Unlinks an inode whose draft is still to be committed under the name.
    pub(in crate::fs) fn supersede(&mut self, ino: u64) {
        self.unlink(ino);
        if let Some(inode) = self.get_mut(ino)
            && inode.drafting
        {
            inode.superseded = true;
            self.superseded.push(ino);
        }
    }

    /// A name that only drafts have leads nowhere any more: it leads to the last of them again.
    pub(super) fn give_back(&mut self, parent: u64, name: &str) {
        let last = self.superseded.iter().rev().copied().find(|ino| {
            self.get(*ino).is_some_and(|inode| {
                let held = inode.drafting && inode.handles > 0;
                held && inode.parent == parent && *inode.name == *name
            })
        });
        let Some(ino) = last else { return };
        self.superseded.retain(|other| *other != ino);
        if let Some(inode) = self.get_mut(ino) {
            inode.superseded = false;
        }
        self.relink(ino, parent, name);
        self.add_fresh(ino);
    }

    /// The name was removed or given away: what was superseded under it must not come back.
    pub(in crate::fs) fn forsake(&mut self, parent: u64, name: &str) {
        let Self {
            superseded, slots, ..
        } = self;
        superseded.retain(|ino| {
            let inode = slots.get_mut(slot_of(*ino)).and_then(Option::as_mut);
            match inode {
                Some(inode) if inode.parent == parent && *inode.name == *name => {
                    inode.superseded = false;
                    false
                }
                other => other.is_some(),
            }
        });
    }

    /// A store is gone: what is still open of it has no name any more.
    pub(in crate::fs) fn forsake_all(&mut self, parent: u64) {
        for (child, name) in self.children(parent, true) {
            self.unlink(child);
            self.forsake(parent, &name);
        }
        let superseded = self.superseded.iter().filter_map(|ino| self.get(*ino));
        let of_store = superseded.filter(|inode| inode.parent == parent);
        let names: Vec<_> = of_store.map(|inode| inode.name.clone()).collect();
        for name in names {
            self.forsake(parent, &name);
        }
    }

    /// The files whose drafts are still to be committed under the name, or may be again.
    pub(in crate::fs) fn superseded_at(&self, parent: u64, name: &str) -> Vec<Arc<OpenFile>> {
        let inodes = self.superseded.iter().filter_map(|ino| self.get(*ino));
        inodes
            .filter(|inode| inode.parent == parent && *inode.name == *name)
            .filter_map(|inode| inode.open.clone())
            .collect()
    }

    /// The open inodes without a name whose file has this number on the disk: another process may have renamed it.
    pub(in crate::fs) fn strays(&self, version: u64) -> Vec<u64> {
        let strays = self.strays.iter().filter_map(|ino| self.get(*ino));
        strays
            .filter(|inode| inode.version == version && !inode.linked && !inode.drafting)
            .map(|inode| inode.ino)
            .collect()
    }

    /// Notes a draft that is on disk under no name.
    pub(in crate::fs) fn add_fresh(&mut self, ino: u64) {
        self.fresh.push(ino);
    }

    /// The draft was committed. Whether nothing was on disk under its name before.
    pub(in crate::fs) fn settle_fresh(&mut self, ino: u64) -> bool {
        let before = self.fresh.len();
        self.fresh.retain(|other| *other != ino);
        self.fresh.len() < before
    }

    /// A superseded inode needs no further commit.
    pub(in crate::fs) fn is_in_place(&mut self, ino: u64) {
        self.superseded.retain(|other| *other != ino);
        if let Some(inode) = self.get_mut(ino).filter(|inode| inode.superseded) {
            inode.superseded = false;
        }
    }

    /// Whether the inode's draft is on disk under no name.
    pub(in crate::fs) fn is_fresh(&self, ino: u64) -> bool {
        self.fresh.contains(&ino)
    }

    /// The drafts of a store that are on disk under no name.
    pub(in crate::fs) fn fresh_in(&self, parent: u64) -> Vec<u64> {
        let here = |ino: &&u64| {
            self.get(**ino)
                .is_some_and(|inode| inode.linked && inode.parent == parent)
        };
        self.fresh.iter().filter(here).copied().collect()
    }
}
