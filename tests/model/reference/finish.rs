//! When the reference takes a file for finished, and what happens to it then.

use super::{Node, Reference, types};

impl Reference {
    /// A descriptor is closed. `holds`: the opener still has one; `child_holds`: a child of its has.
    pub fn flush(&mut self, handle: u64, by_opener: bool, holds: bool, child_holds: bool) {
        let handle = &self.handles[&handle];
        let (node, dirty) = (handle.node, self.dirty(handle.node));
        if !handle.writer || child_holds {
            return;
        }
        let finished = match (by_opener, dirty) {
            (true, true) => true,
            // What nobody has written is finished only when its opener says so.
            (false, false) => false,
            (true, false) | (false, true) => !holds,
        };
        if finished {
            self.commit(node, true);
        }
    }

    /// The last descriptor of a handle is gone.
    pub fn release(&mut self, handle: u64) {
        let handle = self.handles.remove(&handle).unwrap();
        let node = handle.node;
        if handle.writer || (self.nodes[node].drafting && self.nodes[node].handles == 1) {
            self.commit(node, true);
        }
        let left = &mut self.nodes[node];
        left.handles -= 1;
        left.writers -= usize::from(handle.writer);
        if handle.writer && left.writers == 0 && !left.drafting {
            // The record has the type that was set by now.
            left.explicit = None;
        }
        if left.handles == 0 && left.linked && !left.drafting {
            let (store, key) = (left.store, left.key);
            self.unlink_node(store, key);
        }
    }

    pub fn fsync(&mut self, handle: u64) {
        if self.handles[&handle].writer {
            self.commit(self.handles[&handle].node, true);
        }
    }

    pub(super) fn commit(&mut self, at: usize, finished: bool) {
        let node = self.nodes[at].clone();
        let dirty = self.dirty(at);
        // A draft that lost its name before anything was written into it replaces nothing.
        let due = finished && node.drafting && !node.superseded;
        if !dirty && !due {
            return;
        }
        if node.drafting && (node.linked || node.superseded) {
            self.install(at);
        } else if node.linked && !node.drafting {
            self.follow(at);
        }
        self.clean(at);
    }

    /// The draft becomes the record of its name.
    fn install(&mut self, at: usize) {
        let node = self.nodes[at].clone();
        let old = self.stores[node.store].disk.insert(node.key, node.version);
        let new = &self.versions[node.version];
        let scratch = types::is_scratch(node.key);
        let guessed = node.explicit.is_none();
        let stored = match node.explicit {
            Some(explicit) => Some(explicit),
            None if scratch => None,
            None => {
                let existing = old.and_then(|old| self.versions[old].stored.clone());
                Some(types::decide(existing.as_deref(), node.key, &new.bytes))
            }
        };
        self.versions[node.version].guessed = guessed && node.fresh && node.linked;
        self.versions[node.version].stored = stored.filter(|stored| self.needs(node.key, stored));
        self.touch(node.version);
        let shown = self.stores[node.store].tree.get(node.key).copied();
        if let Some(shown) = shown.filter(|shown| *shown != at && !self.nodes[*shown].drafting) {
            self.nodes[shown].linked = false;
            self.stores[node.store].tree.remove(node.key);
        }
        let node = &mut self.nodes[at];
        (node.drafting, node.superseded, node.explicit) = (false, false, None);
    }

    /// The type of a record that was written in place.
    fn follow(&mut self, at: usize) {
        let Node {
            key,
            version,
            explicit,
            ..
        } = self.nodes[at].clone();
        match explicit {
            None => self.follow_version(key, version),
            // It may have another name since the type was set, which says it.
            Some(explicit) => {
                let stored = Some(explicit).filter(|explicit| self.needs(key, explicit));
                self.versions[version].stored = stored;
            }
        }
    }

    pub(super) fn follow_version(&mut self, key: &str, version: usize) {
        if types::is_scratch(key) {
            return;
        }
        let file = &self.versions[version];
        if let Some(stored) = &file.stored
            && types::contradicts(stored, &file.bytes)
        {
            let guess = types::guess(key, &file.bytes);
            let stored = Some(guess).filter(|guess| self.needs(key, guess));
            self.versions[version].stored = stored;
            self.touch(version);
        }
    }
}
