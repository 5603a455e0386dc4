//! What a commit does to the reference.

use super::*;

impl Reference {
    pub(super) fn commit(&mut self, at: usize, finished: bool) {
        let node = self.nodes[at].clone();
        let dirty = self.dirty(at);
        // A draft that lost its name before anything was written into it replaces nothing.
        if !dirty && !(finished && node.drafting && !node.superseded) {
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
    pub(super) fn install(&mut self, at: usize) {
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
    pub(super) fn follow(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.explicit.is_none() {
            self.follow_version(node.key, node.version);
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

    /// Whether a type has to be kept with a record: not where its name says it and no sidecar has to.
    pub(super) fn needs(&self, key: &str, content_type: &str) -> bool {
        self.told || types::is_scratch(key) || types::named(key).as_deref() != Some(content_type)
    }

    /// Only the plain layout holds a key of any length.
    pub(super) fn too_long(&self, name: Name) -> bool {
        self.told && name.key.len() > 219
    }
}
