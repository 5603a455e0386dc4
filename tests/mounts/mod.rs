//! Two mounts of one folder, what is done to them, and what they should show.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod operation;
#[path = "../model/quiet.rs"]
pub mod quiet;

use crate::support::{Mount, World};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

pub use operation::{Op, Which, operations};

use operation::KEYS;

struct Reader {
    file: File,
    version: usize,
}

/// Two mounts, the folder, and what should be in it.
pub struct Pair {
    mounts: [Mount; 2],
    settles: bool,
    versions: Vec<Vec<u8>>,
    names: BTreeMap<&'static str, usize>,
    types: BTreeMap<&'static str, &'static str>,
    readers: Vec<Reader>,
    inodes: [HashMap<u64, &'static str>; 2],
    dead: [HashSet<u64>; 2],
    world: World,
}

impl Pair {
    /// `settles`: what one mount did is seen by the other after `storefs sync`, else at once.
    pub fn new(options: &str, settles: bool) -> Self {
        let world = World::new();
        Self {
            mounts: ["one", "two"].map(|name| world.mount_at(name, &["-o", options])),
            settles,
            versions: Vec::new(),
            names: BTreeMap::new(),
            types: BTreeMap::new(),
            readers: Vec::new(),
            inodes: Default::default(),
            dead: Default::default(),
            world,
        }
    }

    /// A path below a mountpoint.
    pub fn path(&self, which: Which, inside: &str) -> PathBuf {
        self.mounts[which].path(inside)
    }

    /// The files in the folder's default store.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.world.source("default")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    fn at(&self, which: Which, key: &str) -> PathBuf {
        self.path(which, "default").join(key)
    }

    fn beside(&self, key: &str) -> PathBuf {
        self.world.source("default").join(key)
    }

    /// Waits until each mount knows what happened.
    pub fn settle(&self) {
        for mount in &self.mounts {
            mount.sync();
        }
    }

    /// Runs the operations; panics where something is not as it should be.
    pub fn run(mut self, operations: &[Op]) {
        for op in operations {
            self.apply(op);
            if self.settles {
                self.settle();
            }
            self.compare(op);
        }
    }

    fn new_version(&mut self, key: &'static str, bytes: &[u8]) {
        self.versions.push(bytes.to_vec());
        self.names.insert(key, self.versions.len() - 1);
    }

    fn in_place(&mut self, key: &'static str, change: impl FnOnce(&mut Vec<u8>)) {
        match self.names.get(key) {
            Some(version) => change(&mut self.versions[*version]),
            None => {
                let mut bytes = Vec::new();
                change(&mut bytes);
                self.new_version(key, &bytes);
            }
        }
    }

    /// The inode that a mount shows for a name dies with it.
    fn dies(&mut self, which: Which, key: &str) {
        if let Ok(found) = fs::metadata(self.at(which, key)) {
            self.dead[which].insert(found.ino());
            self.inodes[which].remove(&found.ino());
        }
    }

    #[allow(clippy::too_many_lines)] // one arm for each operation
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Save { by, key, text } => {
                fs::write(self.at(by, key), text).unwrap();
                self.new_version(key, text.as_bytes());
            }
            Op::Append { by, key, text } => {
                let file = File::options()
                    .append(true)
                    .create(true)
                    .open(self.at(by, key));
                file.unwrap().write_all(text.as_bytes()).unwrap();
                self.in_place(key, |bytes| bytes.extend_from_slice(text.as_bytes()));
            }
            Op::Edit { by, key, at, text } if self.names.contains_key(key) => {
                let file = File::options().write(true).open(self.at(by, key)).unwrap();
                file.write_all_at(text.as_bytes(), at).unwrap();
                self.in_place(key, |bytes| write_at(bytes, at as usize, text.as_bytes()));
            }
            Op::Truncate { by, key, size } if self.names.contains_key(key) => {
                let file = File::options().write(true).open(self.at(by, key)).unwrap();
                file.set_len(size).unwrap();
                self.in_place(key, |bytes| bytes.resize(size as usize, 0));
            }
            Op::Edit { by, key, .. } | Op::Truncate { by, key, .. } => {
                assert!(
                    File::options().write(true).open(self.at(by, key)).is_err(),
                    "{key}"
                );
            }
            Op::Unlink { by, key } => {
                self.dies(by, key);
                let done = fs::remove_file(self.at(by, key));
                assert_eq!(
                    done.is_ok(),
                    self.names.remove(key).is_some(),
                    "{op:?}: {done:?}"
                );
                self.types.remove(key);
            }
            Op::Rename { by, from, to } => {
                if from != to && self.names.contains_key(from) {
                    self.dies(by, to);
                    if let Ok(found) = fs::metadata(self.at(by, from)) {
                        self.inodes[by].insert(found.ino(), to);
                    }
                }
                let done = fs::rename(self.at(by, from), self.at(by, to));
                assert_eq!(
                    done.is_ok(),
                    self.names.contains_key(from),
                    "{op:?}: {done:?}"
                );
                if done.is_ok() && from != to {
                    let version = self.names.remove(from).unwrap();
                    self.names.insert(to, version);
                    self.types.remove(to);
                    if let Some(set) = self.types.remove(from) {
                        self.types.insert(to, set);
                    }
                }
            }
            Op::SetType { by, key, to } => {
                let done = xattr::set(self.at(by, key), "user.mime_type", to.as_bytes());
                assert_eq!(
                    done.is_ok(),
                    self.names.contains_key(key),
                    "{op:?}: {done:?}"
                );
                if done.is_ok() {
                    self.types.insert(key, to);
                }
            }
            Op::Open { by, key } => {
                let opened = File::open(self.at(by, key));
                assert_eq!(
                    opened.is_ok(),
                    self.names.contains_key(key),
                    "{op:?}: {opened:?}"
                );
                if let Ok(file) = opened {
                    self.readers.push(Reader {
                        file,
                        version: self.names[key],
                    });
                }
            }
            Op::Close { reader } => {
                if reader < self.readers.len() {
                    self.readers.remove(reader);
                }
            }
            Op::Replace { key, text } => {
                let temporary = self.beside(".tmp-of-python");
                fs::write(&temporary, text).unwrap();
                fs::rename(&temporary, self.beside(key)).unwrap();
                self.new_version(key, text.as_bytes());
                self.types.remove(key);
            }
            Op::Overwrite { key, text } => {
                fs::write(self.beside(key), text).unwrap();
                self.in_place(key, |bytes| *bytes = text.as_bytes().to_vec());
            }
            Op::Remove { key } => {
                let done = fs::remove_file(self.beside(key));
                assert_eq!(done.is_ok(), self.names.remove(key).is_some(), "{op:?}");
                self.types.remove(key);
            }
        }
    }

    fn compare(&mut self, op: &Op) {
        for which in [0, 1] {
            let mut listed: Vec<_> = fs::read_dir(self.path(which, "default"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            listed.sort_unstable();
            let names: Vec<_> = self.names.keys().copied().collect();
            assert_eq!(listed, names, "{op:?}: listing of mount {which}");
            for key in KEYS {
                let path = self.at(which, key);
                let Some(version) = self.names.get(key) else {
                    assert!(
                        fs::metadata(&path).is_err(),
                        "{op:?}: {key} is gone on mount {which}"
                    );
                    continue;
                };
                let expected = String::from_utf8_lossy(&self.versions[*version]);
                let found = fs::metadata(&path)
                    .unwrap_or_else(|why| panic!("{op:?}: {key} on mount {which}: {why}"));
                assert_eq!(
                    found.len(),
                    expected.len() as u64,
                    "{op:?}: size of {key} on mount {which}"
                );
                let bytes = fs::read(&path)
                    .unwrap_or_else(|why| panic!("{op:?}: {key} on mount {which}: {why}"));
                assert_eq!(
                    String::from_utf8_lossy(&bytes),
                    expected,
                    "{op:?}: {key} on mount {which}"
                );
                if let Some(set) = self.types.get(key) {
                    let shown = xattr::get(&path, "user.mime_type").unwrap().unwrap();
                    assert_eq!(
                        String::from_utf8_lossy(&shown),
                        *set,
                        "{op:?}: type of {key} on mount {which}"
                    );
                }
                assert!(
                    !self.dead[which].contains(&found.ino()),
                    "{op:?}: inode {} of {key} came back",
                    found.ino()
                );
                let known = *self.inodes[which].entry(found.ino()).or_insert(key);
                assert_eq!(
                    known,
                    key,
                    "{op:?}: inode {} on mount {which} was another record",
                    found.ino()
                );
            }
        }
        for (number, reader) in self.readers.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            reader.file.rewind().unwrap();
            reader.file.read_to_end(&mut bytes).unwrap();
            let (bytes, expected) = (
                String::from_utf8_lossy(&bytes),
                String::from_utf8_lossy(&self.versions[reader.version]),
            );
            assert_eq!(bytes, expected, "{op:?}: reader {number}");
        }
    }
}

fn write_at(bytes: &mut Vec<u8>, at: usize, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    bytes.resize(bytes.len().max(at + text.len()), 0);
    bytes[at..at + text.len()].copy_from_slice(text);
}
