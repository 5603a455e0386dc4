//! What is known of an SDK store's records, in memory: a compact table in the order in which keys were first seen. It
//! never does any input or output.

use super::scan::Found;
use super::sidecar::{Form, Sidecar};
use crate::record::ContentType;
use crate::record::file_name::{python_encode, sidecar_stem};
use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

/// So long before a look a file must have been left alone to be known by its times, which are coarse.
const SETTLED_NS: i64 = 1_000_000_000;

/// A file's name, told by the key it belongs to wherever that is possible: most records then cost no second name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FileName {
    /// The key itself.
    Key,
    /// The key as the Python SDK encodes it.
    Encoded,
    /// The key, a dot and this.
    Extended(Arc<str>),
    /// Anything else.
    Other(Box<str>),
}

impl FileName {
    pub(super) fn of<'a>(&'a self, key: &'a str) -> Cow<'a, str> {
        match self {
            Self::Key => Cow::Borrowed(key),
            Self::Encoded => Cow::Owned(python_encode(key)),
            Self::Extended(extension) => Cow::Owned(format!("{key}.{extension}")),
            Self::Other(name) => Cow::Borrowed(name),
        }
    }
}

/// A sidecar as far as it has to be remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Beside {
    /// Its name without `.__metadata__.json`.
    pub(super) stem: FileName,
    pub(super) inode: u64,
    pub(super) size: Option<u64>,
    pub(super) extension: Option<Arc<str>>,
    pub(super) form: Form,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The key, legal or not.
    pub(super) key: Box<str>,
    /// Rises with every new key; the position in a listing.
    pub(super) seq: u64,
    pub(super) value: FileName,
    pub(super) content_type: Option<ContentType>,
    pub(super) beside: Option<Box<Beside>>,
    pub(super) link: bool,
    pub(super) outdated: bool,
    pub(super) absent: bool,
    /// Older values of the key and sidecars that are overruled.
    pub(super) extras: Box<[Box<str>]>,
}

impl Entry {
    /// The file with the bytes.
    pub(super) fn file(&self) -> Cow<'_, str> {
        self.value.of(&self.key)
    }

    /// The sidecar's name without `.__metadata__.json`.
    pub(super) fn stem(&self) -> Option<Cow<'_, str>> {
        Some(self.beside.as_ref()?.stem.of(&self.key))
    }

    /// Whether a file is an older value of this key.
    pub(super) fn is_superseded(&self, file: &str) -> bool {
        self.extras.iter().any(|extra| **extra == *file)
    }

    /// The file with the bytes, and older values of the key.
    pub(super) fn values(&self) -> Vec<Cow<'_, str>> {
        let extras = self.extras.iter().map(|extra| &**extra);
        let older = extras.filter(|extra| sidecar_stem(extra).is_none());
        std::iter::once(self.file())
            .chain(older.map(Cow::Borrowed))
            .collect()
    }

    pub(super) fn extras(&self) -> &[Box<str>] {
        &self.extras
    }
}

/// All keys of a store.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// By rising `seq`; removed ones leave a hole until there are too many.
    entries: Vec<Option<Entry>>,
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
    next: u64,
    types: HashSet<ContentType>,
    words: HashSet<Arc<str>>,
    /// When the directory was last read.
    read_at: i64,
}

impl Catalog {
    fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    fn index(&self, key: &str) -> Option<usize> {
        let at = self.by_key.find(self.hash(key), |&at| {
            self.entries[at as usize]
                .as_ref()
                .is_some_and(|entry| &*entry.key == key)
        })?;
        Some(*at as usize)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries[self.index(key)?].as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The entries from a position on.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        self.entries[self.position(seq)..].iter().flatten()
    }

    fn position(&self, seq: u64) -> usize {
        // Holes keep no number, so the search runs over what is left of them: each takes its right neighbour's.
        let number = |at: usize| {
            self.entries[at..]
                .iter()
                .flatten()
                .next()
                .map_or(u64::MAX, |e| e.seq)
        };
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if number(middle) < seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Which of the keys uses a file of this name as its value or its link, other than `except`.
    pub(super) fn owner(&self, file: &str, except: &str) -> Option<&Entry> {
        let stem = super::names::split(file).0;
        let last = crate::record::file_name::js_decode(file).map(|(key, _)| key);
        let decoded = crate::record::file_name::python_decode(file);
        [Some(file), Some(stem), last, decoded.as_deref()]
            .into_iter()
            .flatten()
            .filter(|key| *key != except)
            .filter_map(|key| self.get(key))
            .find(|entry| {
                entry.file() == file
                    || (entry.link && python_encode(&entry.key) == file)
                    || entry.is_superseded(file)
            })
    }

    /// Adds a key or gives it new files. True when anything of it changed.
    pub(super) fn put(&mut self, found: Found) -> bool {
        let mut entry = self.entry(found);
        if let Some(at) = self.index(&entry.key) {
            let Some(there) = &mut self.entries[at] else {
                return false;
            };
            entry.seq = there.seq;
            let shown = |entry: &Entry| {
                (
                    entry.value.clone(),
                    entry.content_type.clone(),
                    entry.absent,
                )
            };
            let changed = shown(there) != shown(&entry) || there.extras != entry.extras;
            *there = entry;
            return changed;
        }
        self.next += 1;
        entry.seq = self.next;
        let hash = self.hash(&entry.key);
        let at = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Some(entry));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_key.insert_unique(hash, at, |&at| {
            entries[at as usize]
                .as_ref()
                .map_or(0, |entry| hasher.hash_one(&*entry.key))
        });
        true
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Some(at) = self.index(key) else {
            return false;
        };
        let hash = self.hash(key);
        if let Ok(slot) = self.by_key.find_entry(hash, |&each| each as usize == at) {
            slot.remove();
        }
        self.entries[at] = None;
        if self.entries.len() > 64 && self.by_key.len() * 2 < self.entries.len() {
            self.close_holes();
        }
        true
    }

    fn close_holes(&mut self) {
        self.entries.retain(Option::is_some);
        self.entries.shrink_to(self.entries.len() * 2);
        self.by_key.clear();
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = |at: u32| {
            entries[at as usize]
                .as_ref()
                .map_or(0, |entry| hasher.hash_one(&*entry.key))
        };
        for at in 0..u32::try_from(entries.len()).unwrap_or(u32::MAX) {
            self.by_key.insert_unique(hash(at), at, |&at| hash(at));
        }
    }

    /// Takes in a whole scan. Returns the keys that came, went, or have another file or type.
    pub(super) fn replace(&mut self, found: Vec<Found>) -> Vec<String> {
        let mut changed = Vec::new();
        let mut gone: HashSet<Box<str>> = HashSet::new();
        if self.len() > 0 {
            let there: HashSet<&str> = found.iter().map(|found| &*found.key).collect();
            gone = self
                .from(0)
                .filter(|entry| !there.contains(&*entry.key))
                .map(|entry| entry.key.clone())
                .collect();
        }
        for key in gone {
            self.remove(&key);
            changed.push(key.into());
        }
        self.entries
            .reserve_exact(found.len().saturating_sub(self.by_key.len()));
        for found in found {
            let key = found.key.clone();
            if self.put(found) {
                changed.push(key);
            }
        }
        changed
    }

    /// What the sidecar of this stem said, if it was this inode.
    pub(super) fn sidecar(&self, stem: &str, inode: u64) -> Option<Sidecar> {
        let last = crate::record::file_name::js_decode(stem).map(|(key, _)| key);
        let decoded = crate::record::file_name::python_decode(stem);
        let entry = [decoded.as_deref(), Some(stem), last]
            .into_iter()
            .flatten()
            .filter_map(|key| self.get(key))
            .find(|entry| entry.stem().is_some_and(|own| own == stem))?;
        let beside = entry.beside.as_ref()?;
        if beside.inode != inode || entry.outdated {
            return None;
        }
        Some(Sidecar {
            key: entry.key.to_string(),
            content_type: entry.content_type.as_ref()?.as_str().to_owned(),
            extension: beside.extension.as_deref().map(str::to_owned),
            size: beside.size,
            form: beside.form,
        })
    }

    /// Whether a file of these times cannot have changed since the directory was last read. The inode alone does not
    /// tell: a new file gets the number of one that was just removed.
    pub(super) fn knows_since(&self, changed_ns: i64) -> bool {
        changed_ns.saturating_add(SETTLED_NS) < self.read_at
    }

    /// Remembers when the directory was read, as nanoseconds since 1970.
    pub(super) fn was_read_at(&mut self, at_ns: i64) {
        self.read_at = at_ns;
    }

    /// Makes the next scan read this sidecar again, though its inode is the same.
    pub(super) fn doubt(&mut self, key: &str) {
        if let Some(at) = self.index(key)
            && let Some(entry) = &mut self.entries[at]
            && let Some(beside) = &mut entry.beside
        {
            beside.inode = 0;
        }
    }

    /// Forgets the older values of a key.
    pub(super) fn forget_extras(&mut self, key: &str) {
        if let Some(at) = self.index(key)
            && let Some(entry) = &mut self.entries[at]
        {
            entry.extras = Box::default();
        }
    }

    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(there) = self.words.get(word) {
            return there.clone();
        }
        let word: Arc<str> = word.into();
        self.words.insert(word.clone());
        word
    }

    fn name(&mut self, file: &str, key: &str) -> FileName {
        if file == key {
            return FileName::Key;
        }
        if let Some(extension) = file
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('.'))
        {
            return FileName::Extended(self.word(extension));
        }
        if file == python_encode(key) {
            return FileName::Encoded;
        }
        FileName::Other(file.into())
    }

    fn entry(&mut self, found: Found) -> Entry {
        let content_type = found.content_type.map(|text| {
            let content_type = ContentType::stored(&text);
            if let Some(there) = self.types.get(&content_type) {
                return there.clone();
            }
            self.types.insert(content_type.clone());
            content_type
        });
        let value = self.name(&found.value, &found.key);
        let beside = match (found.sidecar, found.said) {
            (Some((stem, inode)), Some(said)) => Some(Box::new(Beside {
                stem: self.name(&stem, &found.key),
                inode,
                size: said.size,
                extension: said.extension.map(|extension| self.word(&extension)),
                form: said.form,
            })),
            _ => None,
        };
        Entry {
            key: found.key.into(),
            seq: 0,
            value,
            content_type,
            beside,
            link: found.link,
            outdated: found.outdated,
            absent: found.absent,
            extras: found.extras.into_iter().map(Into::into).collect(),
        }
    }
}
