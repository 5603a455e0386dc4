//! What the tree stands on: records as files to stat, list, open, write and rename. It knows no inode of the tree.

mod claims;
pub mod local;
mod looks;
mod mending;
mod now;

pub use crate::backend::dir::{Draft, FileStat, Origin};
pub use local::Local;
pub use now::Now;

use crate::error::Result;
use crate::record::{ContentType, StoreName};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// What the disk says of its file.
    pub file: FileStat,
    /// What kind of name it is.
    pub origin: Origin,
}

/// One name of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The name as the mount shows it.
    pub name: &'a str,
    /// Where to go on after it; below 2^62.
    pub next: u64,
    /// What is known of it, when it was asked for.
    pub stat: Option<Stat>,
}

/// The volume as a whole, for statfs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// Unit of the block counts, in bytes.
    pub block: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for ordinary users.
    pub available: u64,
    /// Files in all.
    pub files: u64,
    /// Files that may still be made.
    pub files_free: u64,
    /// The longest name, in bytes.
    pub max_name: u32,
}

/// What the filesystem needs. What may need a network answers [`Now`]; drafts and commits are on local disk in every
/// volume, so they answer in place.
pub trait Volume: Send + Sync + 'static {
    /// Whether nothing can be written.
    fn read_only(&self) -> bool;
    /// The directory that holds the stores, and its use.
    fn root(&self) -> Now<FileStat>;
    /// Sizes for statfs, of a store's layout when one is given.
    fn space(&self, store: Option<&StoreName>) -> Now<Space>;
    /// All stores.
    fn stores(&self) -> Now<Vec<StoreName>>;
    /// A store's directory; `Kind::StoreNotFound`.
    fn store(&self, store: &StoreName) -> Now<FileStat>;
    /// Makes a store; `Kind::Exists`.
    fn create_store(
        &self,
        store: &StoreName,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Now<FileStat>;
    /// Removes an empty store; `Kind::NotEmpty`.
    fn remove_store(&self, store: &StoreName) -> Now<()>;
    /// Renames a store.
    fn rename_store(&self, from: &StoreName, to: &StoreName, no_replace: bool) -> Now<()>;
    /// What is known of a name; `Kind::NotFound`.
    fn stat(&self, store: &StoreName, name: &str) -> Now<Stat>;
    /// Makes sure that `list` can answer from here.
    fn prepare_list(&self, store: &StoreName) -> Now<()>;
    /// Calls `each` for every name after `after` (0: from the start) until it returns false. `with_stat` asks for the
    /// stat of each.
    fn list(
        &self,
        store: &StoreName,
        after: u64,
        with_stat: bool,
        each: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Result<()>;
    /// Opens the current version of a record. With `write` it is open for both; where that is not possible and `fall_back`
    /// is set, for reading only, and the answer's flag is false.
    fn open(
        &self,
        store: &StoreName,
        name: &str,
        write: bool,
        fall_back: bool,
    ) -> Now<(File, Stat, bool)>;
    /// A descriptor of the store's directory.
    fn store_handle(&self, store: &StoreName) -> Result<OwnedFd>;
    /// A descriptor of the record that can be used for its attributes only.
    fn handle(&self, store: &StoreName, name: &str) -> Result<(OwnedFd, Stat)>;
    /// The target of a scratch link.
    fn read_link(&self, store: &StoreName, name: &str) -> Now<Vec<u8>>;
    /// Makes a scratch link.
    fn create_link(&self, store: &StoreName, name: &str, target: &[u8]) -> Now<Stat>;
    /// The record's content type, stored or guessed.
    fn content_type(&self, store: &StoreName, name: &str) -> Now<ContentType>;
    /// Sets the content type, or with `None` returns to the guess.
    fn set_content_type(&self, store: &StoreName, name: &str, to: Option<&ContentType>) -> Now<()>;
    /// Whether a new record of this name may be made; the rule it breaks otherwise.
    fn may_create(&self, store: &StoreName, name: &str) -> Result<()>;
    /// Claims a name for an exclusive creation against every other mount of this source, until `release_claim`.
    /// `Kind::Exists` when another one has it.
    fn claim(&self, store: &StoreName, name: &str) -> Result<()>;
    /// Gives a claim back.
    fn release_claim(&self, store: &StoreName, name: &str);
    /// A new draft with these permission bits and owner; with `replacing` it takes mode, owner, ACL and `user.*` of that
    /// record instead.
    fn draft(
        &self,
        store: &StoreName,
        mode: u32,
        owner: Option<(u32, u32)>,
        replacing: Option<&str>,
    ) -> Result<Draft>;
    /// Makes the draft the record of this name. On failure the old record is whole and the draft still one.
    fn commit(
        &self,
        draft: &mut Draft,
        store: &StoreName,
        name: &str,
        content_type: Option<&ContentType>,
    ) -> Result<Stat>;
    /// A record was written in place: its type and its sidecar follow.
    fn written_in_place(&self, store: &StoreName, name: &str) -> Result<()>;
    /// Removes a record.
    fn remove(&self, store: &StoreName, name: &str) -> Result<()>;
    /// Renames a record, its type carried.
    fn rename(
        &self,
        from: (&StoreName, &str),
        to: (&StoreName, &str),
        no_replace: bool,
    ) -> Result<()>;
    /// Waits until everything that was written in this store, or everywhere, is on disk.
    fn sync(&self, store: Option<&StoreName>) -> Now<()>;
    /// Waits until the names of a store are on disk, after a record of it was forced there.
    fn sync_names(&self, store: &StoreName) -> Now<()>;
    /// The directory of the stores, when all changes in it can be watched.
    fn watchable(&self) -> Option<PathBuf>;
    /// Takes in what changed in a store's directory: in these files, or anywhere. The names that may have changed.
    fn refresh(&self, store: &StoreName, files: Option<&[&str]>) -> Result<Vec<String>>;
    /// Waits a few seconds for the records of this store, or of all, to be as every SDK reads them.
    fn mend(&self, store: Option<&StoreName>);
    /// What `status` says of it, as JSON.
    fn status(&self) -> serde_json::Value;
}
