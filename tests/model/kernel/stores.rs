//! The kernel's calls on stores: making, renaming, listing.

use super::{Done, Kernel, caller, kind};
use crate::model::operation::Name;
use storefs::error::Kind;
use storefs::fs::ROOT;

impl Kernel {
    pub fn make_store(&mut self, store: &'static str) -> Done {
        let attr = self
            .fs
            .mkdir(ROOT, store, 0o755, caller(1))
            .wait()
            .map_err(|e| kind(&e))?;
        self.count(attr.ino);
        self.stores.insert(store, attr.ino);
        Ok(())
    }

    pub fn remove_store(&mut self, store: &'static str) -> Done {
        self.fs.rmdir(ROOT, store).wait().map_err(|e| kind(&e))?;
        self.stores.remove(store);
        self.names.retain(|name, _| name.store != store);
        Ok(())
    }

    pub fn rename_store(&mut self, from: &'static str, to: &'static str, no_replace: bool) -> Done {
        let ino = self.store(from)?;
        if from == to {
            return if no_replace {
                Err(Kind::Exists)
            } else {
                Ok(())
            };
        }
        let flags = if no_replace {
            libc::RENAME_NOREPLACE
        } else {
            0
        };
        self.fs
            .rename((ROOT, from), (ROOT, to), flags)
            .wait()
            .map_err(|e| kind(&e))?;
        self.stores.remove(from);
        self.stores.insert(to, ino);
        self.names.retain(|name, _| name.store != to);
        let moved = std::mem::take(&mut self.names).into_iter();
        let there = |name: Name| {
            if name.store == from {
                Name { store: to, ..name }
            } else {
                name
            }
        };
        self.names = moved.map(|(name, ino)| (there(name), ino)).collect();
        Ok(())
    }

    /// One page of a listing: names and where to go on. `keys` are the names that there can be.
    pub fn page(
        &mut self,
        store: &'static str,
        offset: u64,
        page: usize,
        plus: bool,
        keys: &[&'static str],
    ) -> Done<Vec<(String, u64)>> {
        let ino = self.store(store)?;
        let mut taken = Vec::new();
        let listed = self.fs.readdir(ino, offset, plus, &mut |entry| {
            if taken.len() == page {
                return false;
            }
            taken.push((
                entry.name.to_owned(),
                entry.next,
                entry.attr.map(|attr| attr.ino),
            ));
            true
        });
        listed.map_err(|e| kind(&e))?;
        for (found, _, ino) in &taken {
            if let Some(ino) = *ino {
                self.count(ino);
                let key = keys.iter().find(|key| **key == found.as_str());
                let key = key.unwrap_or_else(|| panic!("{found} is listed in {store}"));
                self.names.insert(Name { store, key }, ino);
            }
        }
        Ok(taken
            .into_iter()
            .map(|(name, next, _)| (name, next))
            .collect())
    }

    /// The stores that the root lists.
    pub fn stores(&self) -> Vec<String> {
        let mut names = Vec::new();
        let listed = self.fs.readdir(ROOT, 2, false, &mut |entry| {
            names.push(entry.name.to_owned());
            true
        });
        listed.unwrap();
        names
    }
}
