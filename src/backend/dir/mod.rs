//! A local folder of stores, as the SDKs leave it on disk. Nothing here knows of inodes or of the kernel's door.
//!
//! The blocking calls of [`Folder`] and [`Store`] are the straight way in, used by the local volume. The asynchronous
//! `Backend` of the same folder stands on them.

use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, StoreName};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a store's records are laid out on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// File name = key, type in the extended attribute `user.mime_type`.
    Plain,
    /// What the JavaScript SDK writes.
    Js,
    /// What the Python SDK 1.x writes.
    Python,
    /// What both SDKs read.
    Dual,
}

/// How a folder is opened.
#[derive(Clone, Debug, Default)]
pub struct FolderOptions {
    /// Write this layout whatever is detected; `None` detects it per store.
    pub layout: Option<Layout>,
    /// Nothing is created, repaired or cleaned.
    pub read_only: bool,
    /// The keys that are stored as inputs are: `INPUT` and what the environment names.
    pub input_keys: Vec<String>,
}

/// A storage folder: `key_value_stores/` with its stores, `.storefs/` with our temporaries, scratch files and markers.
#[derive(Debug)]
pub struct Folder {}

/// Where a name's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file's name in its directory.
    pub file: Box<str>,
    /// Which directory.
    pub area: Area,
    /// What kind of name led here.
    pub origin: Origin,
}

/// The directory a file is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Area {
    /// The store's own directory.
    Store,
    /// The mount's scratch files of that store, outside of it.
    Scratch,
}

/// What kind of name led to a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A key.
    Record,
    /// A scratch name.
    Scratch,
    /// A js store's full file name, not listed; for reading only.
    Alias,
    /// A name that is no key, percent-encoded, or a value file that another one has superseded: read-only.
    Foreign,
}

/// What fstatat says of a value file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileStat {
    /// Inode number on the underlying disk.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Disk use in units of 512 bytes.
    pub blocks: u64,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// Times in nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Last change of the bytes.
    pub modified_ns: i64,
    /// Last change of the inode.
    pub changed_ns: i64,
}

/// One name of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The name as the mount shows it.
    pub name: &'a str,
    /// The file's name in its directory.
    pub file: &'a str,
    /// Which directory.
    pub area: Area,
    /// What kind of name it is.
    pub origin: Origin,
    /// Give this to `Store::list` to go on after this entry. Never 0, below 2^62, stable while the directory changes.
    pub next: u64,
}

/// What a commit does when the name is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitIf {
    /// Replace it.
    Any,
    /// `Kind::Exists`.
    Absent,
}

/// A file that is being written outside of every store, in `.storefs/tmp/<process>/`. Dropped uncommitted, it is removed.
#[derive(Debug)]
pub struct Draft {
    /// Open for reading and writing. After a commit it is the record's own file.
    pub file: Arc<File>,
    // private: the name in the temporary folder, None once committed
}

/// One store's directory.
#[derive(Debug)]
pub struct Store {}

impl Folder {
    /// Opens a storage folder and makes what is missing of it, unless `read_only`. Removes temporaries that dead
    /// processes of ours left (a folder per process below `.storefs/tmp/`, held by flock).
    pub fn open(_root: &Path, _options: FolderOptions) -> Result<Arc<Self>> {
        Err(Error::new("open", "", Kind::Unsupported))
    }
    /// The folder that holds the stores.
    pub fn stores_path(&self) -> PathBuf {
        PathBuf::new()
    }
    /// The names of all stores, in no order. The SDKs' own temporary directories are left out, and links.
    pub fn stores(&self) -> Result<Vec<StoreName>> {
        Ok(Vec::new())
    }
    /// One store. The same `Arc` as long as its directory is the same inode; `Kind::StoreNotFound` when there is none.
    /// Costs one stat of the directory.
    pub fn store(&self, name: &StoreName) -> Result<Arc<Store>> {
        Err(Error::new("open store", name.as_str(), Kind::StoreNotFound))
    }
    /// Makes a store: mkdir and nothing else. `Kind::Exists` when there is one.
    pub fn create_store(&self, name: &StoreName, _mode: u32) -> Result<Arc<Store>> {
        self.store(name)
    }
    /// Removes a store that holds no record; `Kind::NotEmpty` when it does. Leftovers that are no records (an SDK's
    /// `__metadata__.json`, dangling links of ours) and its scratch files go with it.
    pub fn remove_store(&self, _name: &StoreName) -> Result<()> {
        Ok(())
    }
    /// Renames a store's directory, its scratch folder and its marker; an SDK's `__metadata__.json` in it gets the new
    /// name. An existing target is replaced when it is empty; `Kind::NotEmpty`, or with `no_replace` `Kind::Exists`.
    pub fn rename_store(
        &self,
        _from: &StoreName,
        _to: &StoreName,
        _no_replace: bool,
    ) -> Result<()> {
        Ok(())
    }
    /// A new draft. `mode` is its permission bits.
    pub fn draft(&self, _mode: u32) -> Result<Draft> {
        Err(Error::new("draft", "", Kind::Unsupported))
    }
}

impl Store {
    /// Its name when it was opened.
    pub fn name(&self) -> &StoreName {
        unimplemented!()
    }
    /// Its layout.
    pub fn layout(&self) -> Layout {
        Layout::Plain
    }
    /// The store's directory, or that of its scratch files (made when missing).
    pub fn dir(&self, _area: Area) -> Result<BorrowedFd<'_>> {
        unimplemented!()
    }
    /// The longest name this layout keeps, in bytes, for statfs.
    pub fn max_name(&self) -> u32 {
        256
    }
    /// Where a name's bytes are and what fstatat says of them. `Kind::NotFound` when there is no such record;
    /// `Kind::Invalid` or `Kind::NameTooLong` for a name that can never be here.
    pub fn find(&self, _name: &str) -> Result<(Place, FileStat)> {
        unimplemented!()
    }
    /// Whether a record of this name may be created here: the rule it breaks otherwise.
    pub fn may_create(&self, _name: &str) -> Result<()> {
        Ok(())
    }
    /// fstatat of a place found before; `Kind::NotFound` when the file is gone or no regular file (or scratch link).
    pub fn stat(&self, _place: &Place) -> Result<FileStat> {
        unimplemented!()
    }
    /// Opens the file of a place beneath its directory, following no link. `write` opens it for reading and writing.
    /// In the js layout this may wait up to 200 ms while an SDK holds the file's lock.
    pub fn open(&self, _place: &Place, _write: bool) -> Result<File> {
        unimplemented!()
    }
    /// The record's content type: stored, else guessed.
    pub fn content_type(&self, _name: &str, _place: &Place) -> Result<ContentType> {
        unimplemented!()
    }
    /// Sets the record's content type, or with `None` returns it to the guess. The bytes stay; the file may get
    /// another name, so the new place is returned.
    pub fn set_content_type(
        &self,
        _name: &str,
        _to: Option<&ContentType>,
    ) -> Result<(Place, FileStat)> {
        unimplemented!()
    }
    /// Calls `each` for every listed name after the entry whose `next` was `after` (0 from the start), until it
    /// returns false.
    pub fn list(&self, _after: u64, _each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        Ok(())
    }
    /// Makes the draft the record of this name. The type is `content_type` when it is given, else it is decided from
    /// the record that is replaced, the name and the bytes. The draft takes mode, owner, ACL and `user.*` of the record
    /// it replaces when `inherit` is set. On failure the old record is whole and the draft is still a draft.
    pub fn commit(
        &self,
        _draft: &mut Draft,
        _name: &str,
        _content_type: Option<&ContentType>,
        _only_if: &CommitIf,
        _inherit: bool,
    ) -> Result<(Place, FileStat)> {
        unimplemented!()
    }
    /// To be called when a record was written in place and its last writer is gone: the type is decided again, and a
    /// sidecar that tells a size is mended.
    pub fn written_in_place(&self, _name: &str) -> Result<(Place, FileStat)> {
        unimplemented!()
    }
    /// Removes the record.
    pub fn remove(&self, _name: &str) -> Result<()> {
        Ok(())
    }
    /// Renames a record, also into another store, its type carried. `no_replace`: `Kind::Exists` when the target is there.
    pub fn rename(
        &self,
        _from: &str,
        _to_store: &Store,
        _to: &str,
        _no_replace: bool,
    ) -> Result<(Place, FileStat)> {
        unimplemented!()
    }
    /// Takes in what changed in the directory. `files`: only these file names may have changed (from inotify);
    /// `None`: anything may have. Returns the names, as the mount shows them, whose place or type changed or that came
    /// or went; in the plain layout simply the names of those files.
    pub fn refresh(&self, _files: Option<&[&str]>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// Waits until everything written so far in this directory is on disk.
    pub fn sync(&self) -> Result<()> {
        Ok(())
    }
}
