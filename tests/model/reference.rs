//! The reference: what a mount promises, in maps. A version is a file; a node is what the mount has under a name while
//! it is open; the disk is what everybody else sees.

mod finish;
mod names;

use super::operation::{How, Name, Opener};
use super::types;
use std::collections::BTreeMap;
use storefs::error::Kind;

/// One file's contents and attributes.
#[derive(Clone, Debug, Default)]
pub struct Version {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Its time when it was set and not written since, in seconds.
    pub modified: Option<i64>,
    /// The type that is kept with it, where name and bytes do not say it.
    pub stored: Option<String>,
    pub note: Option<&'static str>,
    /// It was made here and nobody has said a type: what it replaces by a rename keeps its own.
    guessed: bool,
    /// Counts everything that changes the file or its attributes.
    changes: u64,
}

/// A file that the mount has open, or is making.
#[derive(Clone, Debug)]
pub struct Node {
    pub version: usize,
    store: usize,
    pub key: &'static str,
    pub linked: bool,
    pub drafting: bool,
    superseded: bool,
    /// When it was begun, or renamed, nothing of it was on disk.
    fresh: bool,
    /// Who made the file, when it is a new one.
    maker: Option<Opener>,
    pub handles: usize,
    pub writers: usize,
    explicit: Option<String>,
    /// The version's changes when it was last finished.
    seen: u64,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct Handle {
    pub node: usize,
    pub writer: bool,
    pub append: bool,
    pub opener: Opener,
    /// The name under which the opener can be seen to have it open.
    pub held: Option<Name>,
}

#[derive(Clone, Debug, Default)]
struct Store {
    disk: BTreeMap<&'static str, usize>,
    tree: BTreeMap<&'static str, usize>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// Every record tells its type; else only those whose name does not say it.
    told: bool,
    names: BTreeMap<&'static str, usize>,
    stores: Vec<Store>,
    pub versions: Vec<Version>,
    pub nodes: Vec<Node>,
    pub handles: BTreeMap<u64, Handle>,
}

pub type Outcome = Result<(), Kind>;

impl Reference {
    pub fn new(store: &'static str, told: bool) -> Self {
        let mut new = Self {
            told,
            ..Self::default()
        };
        new.make_store(store).unwrap();
        new
    }

    fn store(&self, name: &str) -> Result<usize, Kind> {
        self.names.get(name).copied().ok_or(Kind::NotFound)
    }

    pub fn stores(&self) -> Vec<&'static str> {
        self.names.keys().copied().collect()
    }

    /// The keys that others see in a store, and their versions.
    pub fn on_disk(&self, store: &str) -> Vec<(&'static str, &Version)> {
        let Ok(store) = self.store(store) else {
            return Vec::new();
        };
        let disk = &self.stores[store].disk;
        disk.iter()
            .map(|(key, version)| (*key, &self.versions[*version]))
            .collect()
    }

    /// The keys that the mount lists.
    pub fn listed(&self, store: &str) -> Vec<&'static str> {
        let Ok(store) = self.store(store) else {
            return Vec::new();
        };
        let store = &self.stores[store];
        let mut keys: Vec<_> = store
            .disk
            .keys()
            .chain(store.tree.keys())
            .copied()
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// How many drafts there are that nobody else sees yet.
    pub fn drafts(&self) -> usize {
        let alive = |node: &&Node| node.drafting && (node.linked || node.handles > 0);
        self.nodes.iter().filter(alive).count()
    }

    pub fn node(&self, name: Name) -> Option<usize> {
        let store = self.store(name.store).ok()?;
        self.stores[store].tree.get(name.key).copied()
    }

    fn disk(&self, name: Name) -> Option<usize> {
        let store = self.store(name.store).ok()?;
        self.stores[store].disk.get(name.key).copied()
    }

    /// The version that the mount shows under a name.
    pub fn shown(&self, name: Name) -> Option<usize> {
        match self.node(name) {
            Some(node) => Some(self.nodes[node].version),
            None => self.disk(name),
        }
    }

    /// The type that the mount shows.
    pub fn shown_type(&self, name: Name) -> Option<String> {
        let version = &self.versions[self.shown(name)?];
        let drafting = self
            .node(name)
            .map(|node| &self.nodes[node])
            .filter(|node| node.drafting);
        Some(match drafting {
            Some(node) if node.explicit.is_some() => node.explicit.clone()?,
            Some(_) => {
                let replaced = self.disk(name).map(|old| self.type_of(name.key, old));
                types::decide(replaced.as_deref(), name.key, &version.bytes)
            }
            None => self.type_of(name.key, self.shown(name)?),
        })
    }

    fn type_of(&self, key: &str, version: usize) -> String {
        let version = &self.versions[version];
        match &version.stored {
            Some(stored) => stored.clone(),
            None => types::guess(key, &version.bytes),
        }
    }

    fn touch(&mut self, version: usize) {
        self.versions[version].changes += 1;
    }

    fn dirty(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        self.versions[node.version].changes != node.seen
    }

    /// Whether something was written through this handle's file, or its attributes changed, since it was last finished.
    pub fn is_dirty(&self, handle: u64) -> bool {
        self.dirty(self.handles[&handle].node)
    }

    fn clean(&mut self, node: usize) {
        self.nodes[node].seen = self.versions[self.nodes[node].version].changes;
    }

    fn add_version(&mut self, version: Version) -> usize {
        self.versions.push(version);
        self.versions.len() - 1
    }

    fn add_node(
        &mut self,
        store: usize,
        key: &'static str,
        version: usize,
        drafting: bool,
    ) -> usize {
        self.nodes.push(Node {
            version,
            store,
            key,
            linked: true,
            drafting,
            superseded: false,
            maker: None,
            fresh: drafting && !self.stores[store].disk.contains_key(key),
            handles: 0,
            writers: 0,
            explicit: None,
            seen: self.versions[version].changes,
        });
        let node = self.nodes.len() - 1;
        self.stores[store].tree.insert(key, node);
        node
    }

    fn unlink_node(&mut self, store: usize, key: &'static str) -> Option<usize> {
        let node = self.stores[store].tree.remove(key)?;
        self.nodes[node].linked = false;
        Some(node)
    }

    /// What was superseded under a name that is gone never comes back.
    fn forsake(&mut self, store: usize, key: &'static str) {
        for node in &mut self.nodes {
            if node.store == store && node.key == key {
                node.superseded = false;
            }
        }
    }

    /// Opens a name. `handle` is the number that the new handle gets.
    pub fn open(&mut self, name: Name, how: How, mode: u32, by: Opener, handle: u64) -> Outcome {
        let store = self.store(name.store)?;
        let creates = !matches!(how, How::Read | How::Edit | How::Append | How::Truncate);
        let truncates = matches!(how, How::Truncate | How::Save);
        let writer = !matches!(how, How::Read | How::CreateRead);
        let shown = self.node(name);
        let node = match (shown, self.disk(name)) {
            (None, None) if !creates => return Err(Kind::NotFound),
            (None, None) if self.too_long(name) => return Err(Kind::NameTooLong),
            (None, None) => {
                let version = self.add_version(Version {
                    mode,
                    ..Version::default()
                });
                let node = self.add_node(store, name.key, version, true);
                self.nodes[node].maker = Some(by);
                node
            }
            _ if how == How::New => return Err(Kind::Exists),
            // Who made a file may truncate it while it is empty: that changes nothing.
            (Some(node), _) if truncates && self.began(node, by) => node,
            (Some(node), disk) if truncates => {
                let old = self.nodes[node].clone();
                self.unlink_node(store, name.key);
                self.nodes[node].superseded = old.drafting;
                // While nothing is on disk, the next draft keeps the name alive.
                self.draft(store, name.key, disk.unwrap_or(old.version))
            }
            (None, Some(disk)) if truncates => self.draft(store, name.key, disk),
            (Some(node), _) => node,
            (None, Some(disk)) => self.add_node(store, name.key, disk, false),
        };
        if how == How::CreateRead && self.nodes[node].fresh && self.nodes[node].handles == 0 {
            // Nobody will write into it, so it is finished at once: locks are made so.
            self.commit(node, true);
        }
        if writer && self.nodes[node].writers == 0 && !self.nodes[node].drafting {
            self.clean(node);
            self.nodes[node].explicit = None;
        }
        self.nodes[node].handles += 1;
        self.nodes[node].writers += usize::from(writer);
        let append = matches!(how, How::Append | How::Log);
        self.handles.insert(
            handle,
            Handle {
                node,
                writer,
                append,
                opener: by,
                held: None,
            },
        );
        Ok(())
    }

    fn began(&self, node: usize, by: Opener) -> bool {
        let node = &self.nodes[node];
        let new = node.drafting && node.fresh && node.maker == Some(by);
        new && self.versions[node.version].bytes.is_empty()
    }

    /// A draft that replaces a version: it takes what users have set on that file.
    fn draft(&mut self, store: usize, key: &'static str, old: usize) -> usize {
        let old = &self.versions[old];
        let on_disk = self.stores[store].disk.contains_key(key);
        let version = Version {
            mode: old.mode,
            note: old.note.filter(|_| on_disk),
            ..Version::default()
        };
        let version = self.add_version(version);
        self.add_node(store, key, version, true)
    }

    pub fn write(&mut self, handle: u64, at: u64, bytes: &[u8]) {
        let handle = &self.handles[&handle];
        let version = self.nodes[handle.node].version;
        let old = &mut self.versions[version];
        let at = if handle.append {
            old.bytes.len()
        } else {
            at as usize
        };
        let end = at + bytes.len();
        old.bytes.resize(old.bytes.len().max(end), 0);
        old.bytes[at..end].copy_from_slice(bytes);
        old.modified = None;
        self.touch(version);
    }

    fn resize(&mut self, version: usize, size: u64) {
        self.versions[version].bytes.resize(size as usize, 0);
        self.versions[version].modified = None;
        self.touch(version);
    }

    pub fn truncate(&mut self, handle: u64, size: u64) {
        self.resize(self.nodes[self.handles[&handle].node].version, size);
    }

    /// Whether a type has to be kept with a record: not where its name says it and no sidecar has to.
    fn needs(&self, key: &str, content_type: &str) -> bool {
        self.told || types::is_scratch(key) || types::named(key).as_deref() != Some(content_type)
    }

    /// Only the plain layout holds a key of any length.
    fn too_long(&self, name: Name) -> bool {
        self.told && name.key.len() > 219
    }
}
