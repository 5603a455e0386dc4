//! The inodes whose file has no name on the disk, or not theirs any more: drafts, and what lost its name while it was open.

use super::{Table, slot_of};

impl Table {
    /// Unlinks an inode whose draft is still to be committed under the name, or that of a thread which is about to make one.
    pub(in crate::fs) fn supersede(&mut self, ino: u64) {
        if let Some(inode) = self.get_mut(ino)
            && inode.drafting
            && inode.handles == 0
        {
            // Its empty draft goes with the name, which has another one.
            inode.drafting = false;
        }
        self.unlink(ino);
        if let Some(inode) = self.get_mut(ino)
            && (inode.drafting || inode.reserved.is_some())
            && !inode.superseded
        {
            inode.superseded = true;
            self.superseded.push(ino);
        }
    }

    /// Gives the name, which nobody has now, back to an inode that was superseded.
    pub(in crate::fs) fn take_back(&mut self, ino: u64, parent: u64, name: &str) {
        self.superseded.retain(|other| *other != ino);
        if let Some(inode) = self.get_mut(ino) {
            inode.superseded = false;
        }
        self.relink(ino, parent, name);
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

    /// The open inodes without a name whose file has this number on the disk: another process may have renamed it.
    pub(in crate::fs) fn strays(&self, version: u64) -> Vec<u64> {
        let strays = self.strays.iter().filter_map(|ino| self.get(*ino));
        strays
            .filter(|inode| inode.version == version && !inode.linked && !inode.drafting)
            .map(|inode| inode.ino)
            .collect()
    }

    /// An inode was opened that may have lost its name before.
    pub(in crate::fs) fn note_stray(&mut self, ino: u64) {
        let lost = self.get(ino).is_some_and(|inode| !inode.linked);
        if lost && !self.strays.contains(&ino) {
            self.strays.push(ino);
        }
    }

    /// Notes a draft that is on disk under no name.
    pub(in crate::fs) fn add_fresh(&mut self, ino: u64) {
        self.fresh.push(ino);
    }

    /// The draft was committed. Whether nothing was on disk under its name before.
    pub(in crate::fs) fn settle_fresh(&mut self, ino: u64) -> bool {
        let before = self.fresh.len();
        self.fresh.retain(|other| *other != ino);
        self.superseded.retain(|other| *other != ino);
        self.fresh.len() < before
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
