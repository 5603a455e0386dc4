//! The reference's changes of names, attributes and stores.

use super::{Name, Outcome, Reference, Store, types};
use storefs::error::Kind;

impl Reference {
    pub fn unlink(&mut self, name: Name) -> Outcome {
        let store = self.store(name.store)?;
        if self.shown(name).is_none() {
            return Err(Kind::NotFound);
        }
        if let Some(version) = self.stores[store].disk.remove(name.key) {
            self.touch(version);
        }
        self.unlink_node(store, name.key);
        self.forsake(store, name.key);
        Ok(())
    }

    pub fn rename(&mut self, from: Name, to: Name, no_replace: bool) -> Outcome {
        let (source, target) = (self.store(from.store)?, self.store(to.store)?);
        if self.shown(from).is_none() {
            return Err(Kind::NotFound);
        }
        if self.too_long(to) {
            return Err(Kind::NameTooLong);
        }
        if no_replace && self.shown(to).is_some() {
            return Err(Kind::Exists);
        }
        if from == to {
            return Ok(());
        }
        let moved = self.node(from);
        let draft = moved.is_some_and(|node| self.nodes[node].drafting);
        let on_disk = self.stores[source].disk.remove(from.key);
        match on_disk {
            // Until the draft is finished, others see what was there before.
            _ if draft => {}
            Some(version) => {
                let guessed = self.versions[version].guessed;
                let replaced = self.disk(to).filter(|_| guessed);
                let kept = replaced.map(|old| self.type_of(to.key, old));
                let said = types::named(to.key).filter(|_| {
                    let new = guessed && !types::is_scratch(to.key) && self.shown(to).is_none();
                    new && types::named(from.key).is_none()
                });
                let bytes = &self.versions[version].bytes;
                let said = said.filter(|said| !types::contradicts(said, bytes));
                self.carry_type(version, from, to);
                if let Some(kept) = kept {
                    self.keep_type(version, to, &kept);
                }
                match said {
                    // It is decided anew anyway.
                    Some(_) if types::is_scratch(from.key) => {
                        self.versions[version].guessed = false
                    }
                    Some(said) => self.keep_type(version, to, &said),
                    None => {}
                }
                if let Some(old) = self.stores[target].disk.insert(to.key, version) {
                    self.touch(old);
                }
            }
            None => unreachable!("{from:?} is neither a draft nor on disk"),
        }
        self.unlink_node(target, to.key);
        self.forsake(target, to.key);
        self.forsake(source, from.key);
        if let Some(node) = moved {
            self.stores[source].tree.remove(from.key);
            self.stores[target].tree.insert(to.key, node);
            (self.nodes[node].store, self.nodes[node].key) = (target, to.key);
            self.nodes[node].fresh |= draft;
        }
        Ok(())
    }

    /// The type goes with the file. A scratch file has one only when it was set or came with a record.
    fn carry_type(&mut self, version: usize, from: Name, to: Name) {
        let scratch = (types::is_scratch(from.key), types::is_scratch(to.key));
        let had = self.versions[version].stored.clone();
        let carried = match scratch {
            (false, false) if !self.told && types::named(from.key) == types::named(to.key) => had,
            (false, _) => Some(self.type_of(from.key, version)),
            (true, true) => had,
            (true, false) if had.is_some() => had,
            (true, false) => {
                let existing = self
                    .disk(to)
                    .and_then(|old| self.versions[old].stored.clone());
                let bytes = &self.versions[version].bytes;
                let decided = types::decide(existing.as_deref(), to.key, bytes);
                Some(decided).filter(|decided| self.needs(to.key, decided))
            }
        };
        self.versions[version].stored = carried;
        self.touch(version);
    }

    /// The record that is replaced keeps its type, unless the bytes speak against it.
    fn keep_type(&mut self, version: usize, to: Name, kept: &str) {
        let bytes = &self.versions[version].bytes;
        let decided = types::decide(Some(kept), to.key, bytes);
        if self.type_of(to.key, version) != decided {
            let stored = Some(decided).filter(|decided| self.needs(to.key, decided));
            self.versions[version].stored = stored;
            self.touch(version);
        }
        self.versions[version].guessed = false;
    }

    /// The names of all records that others see.
    pub fn all_on_disk(&self) -> impl Iterator<Item = Name> + use<> {
        let stores = self.names.iter();
        let names = stores.flat_map(|(store, at)| {
            let keys = self.stores[*at].disk.keys();
            keys.map(|key| Name { store, key })
        });
        names.collect::<Vec<_>>().into_iter()
    }

    /// The mount forgets what it knew of a name that nobody has open.
    pub fn forget(&mut self, name: Name) {
        if self.node(name).is_none()
            && let Some(version) = self.disk(name)
        {
            self.versions[version].guessed = false;
        }
    }

    pub fn set_size(&mut self, name: Name, size: u64) -> Outcome {
        let version = self.shown(name).ok_or(Kind::NotFound)?;
        self.resize(version, size);
        match self.node(name) {
            Some(node) if self.nodes[node].drafting => {}
            Some(node) => self.commit(node, false),
            None => self.follow_version(name.key, version),
        }
        Ok(())
    }

    pub fn set_mode(&mut self, name: Name, mode: u32) -> Outcome {
        let version = self.shown(name).ok_or(Kind::NotFound)?;
        self.versions[version].mode = mode;
        self.touch(version);
        Ok(())
    }

    pub fn set_time(&mut self, name: Name, seconds: i64) -> Outcome {
        let version = self.shown(name).ok_or(Kind::NotFound)?;
        self.versions[version].modified = Some(seconds);
        self.touch(version);
        Ok(())
    }

    pub fn set_note(&mut self, name: Name, note: Option<&'static str>) -> Outcome {
        let version = self.shown(name).ok_or(Kind::NotFound)?;
        if note.is_none() && self.versions[version].note.is_none() {
            return Err(Kind::NoAttribute);
        }
        self.versions[version].note = note;
        self.touch(version);
        Ok(())
    }

    pub fn set_type(&mut self, name: Name, to: Option<&str>) -> Outcome {
        let version = self.shown(name).ok_or(Kind::NotFound)?;
        let to = to.map(str::to_owned);
        let node = self.node(name);
        if let Some(node) = node
            && (self.nodes[node].drafting || self.nodes[node].writers > 0)
        {
            self.nodes[node].explicit = to.clone();
        }
        if node.is_some_and(|node| self.nodes[node].drafting) {
            return Ok(());
        }
        let to = match to {
            None if self.told && !types::is_scratch(name.key) => {
                Some(types::guess(name.key, &self.versions[version].bytes))
            }
            to => to.filter(|to| self.needs(name.key, to)),
        };
        let file = &mut self.versions[version];
        file.guessed = false;
        let before = std::mem::replace(&mut file.stored, to);
        if before.is_some() || file.stored.is_some() {
            self.touch(version);
        }
        Ok(())
    }

    pub fn make_store(&mut self, store: &'static str) -> Outcome {
        if self.names.contains_key(store) {
            return Err(Kind::Exists);
        }
        self.stores.push(Store::default());
        self.names.insert(store, self.stores.len() - 1);
        Ok(())
    }

    /// Whether a store holds a record, or one is being written there.
    fn empty(&self, store: usize) -> bool {
        let Store { disk, tree } = &self.stores[store];
        let record = disk.keys().any(|key| !types::is_scratch(key));
        let young = tree
            .iter()
            .any(|(key, node)| self.nodes[*node].drafting && !disk.contains_key(key));
        !record && !young
    }

    fn drop_store(&mut self, name: &str) {
        let Some(store) = self.names.remove(name) else {
            return;
        };
        let Store { tree, disk } = std::mem::take(&mut self.stores[store]);
        for node in tree.into_values() {
            self.nodes[node].linked = false;
        }
        for version in disk.into_values() {
            self.touch(version);
        }
        for node in &mut self.nodes {
            if node.store == store {
                node.superseded = false;
            }
        }
    }

    pub fn remove_store(&mut self, name: &str) -> Outcome {
        let store = self.store(name)?;
        if !self.empty(store) {
            return Err(Kind::NotEmpty);
        }
        self.drop_store(name);
        Ok(())
    }

    pub fn rename_store(&mut self, from: &str, to: &'static str, no_replace: bool) -> Outcome {
        let store = self.store(from)?;
        if from == to {
            return if no_replace {
                Err(Kind::Exists)
            } else {
                Ok(())
            };
        }
        if let Ok(target) = self.store(to) {
            if no_replace {
                return Err(Kind::Exists);
            }
            if !self.empty(target) {
                return Err(Kind::NotEmpty);
            }
            self.drop_store(to);
        }
        self.names.remove(from);
        self.names.insert(to, store);
        Ok(())
    }

    /// The name of a node, as the path of a descriptor on it would end.
    pub fn name_of(&self, node: usize) -> Option<Name> {
        let node = &self.nodes[node];
        let (store, _) = self.names.iter().find(|(_, store)| **store == node.store)?;
        Some(Name {
            store,
            key: node.key,
        })
    }

    /// Everything that was not finished is gone.
    pub fn remount(&mut self) {
        self.handles.clear();
        for store in &mut self.stores {
            store.tree.clear();
        }
        for version in &mut self.versions {
            version.guessed = false;
        }
        for node in &mut self.nodes {
            (node.linked, node.handles, node.drafting) = (false, 0, false);
        }
    }
}
