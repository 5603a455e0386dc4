//! What the tree stands on: records as files to stat, list, open, write and rename. It knows no inode of the tree.

pub mod cached;
mod claims;
mod draft;
pub mod local;
mod looks;
mod mending;
mod now;

pub use crate::backend::dir::{FileStat, Origin};
pub use cached::{Cached, Reader, Room};
pub use draft::Draft;
pub use local::Local;
pub use now::Now;

use crate::error::{Error, Kind, Result};
use crate::record::store::folded_name;
use crate::record::{ContentType, ETag, StoreName};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

/// A record that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its bytes. With a reader they come in as they are read.
    pub file: Arc<File>,
    /// What is known of the version.
    pub stat: Stat,
    /// It can be written through this file.
    pub writable: bool,
    /// The file is a copy for this writer, which becomes the record when it was changed.
    pub draft: Option<Draft>,
    /// The file is one version for ever: `stat` describes it, and nobody writes into it.
    pub sealed: bool,
    /// The tag by which the server knows these very bytes.
    pub tag: Option<ETag>,
    /// Fetches the bytes that are not in the file yet.
    pub reader: Option<Arc<Reader>>,
}

/// Attributes to change that are not the record's bytes. `None` stays.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Touch {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access, in nanoseconds since 1970.
    pub accessed_ns: Option<i64>,
    /// Last change of the bytes, likewise.
    pub modified_ns: Option<i64>,
}

impl Touch {
    /// Changes what is to be changed.
    pub fn apply(&self, stat: &mut FileStat) {
        if let Some(mode) = self.mode {
            stat.mode = stat.mode & libc::S_IFMT | mode & 0o7777;
        }
        stat.uid = self.uid.unwrap_or(stat.uid);
        stat.gid = self.gid.unwrap_or(stat.gid);
        stat.accessed_ns = self.accessed_ns.unwrap_or(stat.accessed_ns);
        stat.modified_ns = self.modified_ns.unwrap_or(stat.modified_ns);
    }
}

/// Somebody else changed something: in a store, and which name of it; without one anything may have changed.
pub type Heard = Box<dyn Fn(&StoreName, Option<&str>) + Send + Sync>;

/// What the filesystem needs. What may need a network answers [`Now`]; drafts and commits are on local disk in every
/// volume, so they answer in place.
pub trait Volume: Send + Sync + 'static {
    /// Whether nothing can be written.
    fn read_only(&self) -> bool;
    /// The directory that holds the stores, and its use.
    fn root(&self) -> Now<FileStat>;
    /// Sizes for statfs, of a store's layout when one is given.
    fn space(&self, store: Option<&StoreName>) -> Now<Space>;
    /// All stores, as far as `prepare_list` made them known.
    fn stores(&self) -> Result<Vec<StoreName>>;
    /// A store's directory; `Kind::StoreNotFound`.
    fn store(&self, store: &StoreName) -> Now<FileStat>;
    /// The store that another way to say it means: its name in other letter case, or its id.
    fn store_said_otherwise(&self, said: &str) -> Now<Option<StoreName>> {
        let wanted = folded_name(said);
        let known = StoreName::new(said)
            .ok()
            .and_then(|said| self.store_called(&said));
        if known.is_some() {
            return Now::ok(known);
        }
        self.stores()
            .map(|all| {
                all.into_iter().find(|store| {
                    folded_name(store.as_str()) == wanted
                        || self.store_id(store).is_some_and(|id| id == said)
                })
            })
            .into()
    }
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
    /// The same from what is known here, without asking anybody.
    fn known(&self, store: &StoreName, name: &str) -> Result<Stat>;
    /// The same as `stat`, of a record that is about to be read: waits a moment when another program writes into its file.
    fn stat_to_open(&self, store: &StoreName, name: &str) -> Now<Stat> {
        self.stat(store, name)
    }
    /// Whether the length that is told of a record is its own. Where the source tells none it shows when it is opened.
    fn knows_length(&self, _store: &StoreName, _name: &str) -> bool {
        true
    }
    /// Makes sure that `list`, or without a store `stores`, can answer from here.
    fn prepare_list(&self, store: Option<&StoreName>) -> Now<()>;
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
    fn open(&self, store: &StoreName, name: &str, write: bool, fall_back: bool) -> Now<Opened>;
    /// A descriptor of the store's directory.
    fn store_handle(&self, store: &StoreName) -> Result<OwnedFd>;
    /// A descriptor of the record that can be used for its attributes only.
    fn handle(&self, store: &StoreName, name: &str) -> Result<(OwnedFd, Stat)>;
    /// Whether descriptors of `store_handle` and `handle` are the way to change attributes; `touch` is it otherwise, and
    /// records have no other attributes of users than their type.
    fn has_descriptors(&self) -> bool {
        true
    }
    /// Changes what is kept of a record beside its bytes.
    fn touch(&self, store: &StoreName, name: &str, _touch: Touch) -> Now<()> {
        let subject = format!("{store}/{name}");
        Now::err(Error::new("change", subject, Kind::Unsupported))
    }
    /// An attribute that shows what the volume knows of a record; `None` when the tree knows it best.
    fn shown(&self, _store: &StoreName, _name: &str, _which: &str) -> Option<Result<Vec<u8>>> {
        None
    }
    /// Why the last upload of a record failed, when that will not pass by itself.
    fn failure(&self, _store: &StoreName, _name: &str) -> Option<Error> {
        None
    }
    /// How the backend addresses a store, where that is not the name of its directory.
    fn store_id(&self, _store: &StoreName) -> Option<String> {
        None
    }
    /// The same as far as that was learnt before, without asking anybody.
    fn store_called(&self, _name: &StoreName) -> Option<StoreName> {
        None
    }
    /// Where everybody who knows the URL finds a record, or the keys of the store; `Kind::NoAttribute` where nowhere.
    fn url(&self, store: &StoreName, _name: Option<&str>) -> Now<String> {
        let why = "this source has no addresses";
        Now::err(Error::because(
            "tell the URL of",
            store.as_str(),
            Kind::NoAttribute,
            why,
        ))
    }
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
    /// `Kind::Exists` when another one has it. A `temporary` one is probably renamed in a moment.
    fn claim(&self, store: &StoreName, name: &str, temporary: bool) -> Result<()>;
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
    /// The same for a record that was not there when the draft was made: `Kind::Exists` when it is now, where others may make one
    /// at the same moment.
    fn commit_new(
        &self,
        draft: &mut Draft,
        store: &StoreName,
        name: &str,
        content_type: Option<&ContentType>,
    ) -> Result<Stat> {
        self.commit(draft, store, name, content_type)
    }
    /// A draft with the same bytes as a file that was committed and is still being written.
    fn reopen(&self, store: &StoreName, _sealed: &File, _stat: &FileStat) -> Result<Draft> {
        Err(Error::new("write", store.as_str(), Kind::Unsupported))
    }
    /// Waits until a commit is as safe as a close promises.
    fn closed(&self, _store: &StoreName, _name: &str) -> Now<()> {
        Now::ok(())
    }
    /// A record was written in place: its type and its sidecar follow.
    fn written_in_place(&self, store: &StoreName, name: &str) -> Result<()>;
    /// Makes sure that `rename` can be done from here.
    fn prepare_rename(&self, _from: (&StoreName, &str), _to: (&StoreName, &str)) -> Now<()> {
        Now::ok(())
    }
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
    /// Waits until a record whose bytes were forced to disk is safe under its name.
    fn sync_record(&self, store: &StoreName, name: &str) -> Now<()>;
    /// Tells of changes by others from now on, from any thread.
    fn listen(&self, _heard: Heard) {}
    /// The directory of the stores, when all changes in it can be watched.
    fn watchable(&self) -> Option<PathBuf>;
    /// Takes in what changed in a store's directory: in these files, or anywhere. The names that may have changed.
    fn refresh(&self, store: &StoreName, files: Option<&[&str]>) -> Result<Vec<String>>;
    /// Waits a few seconds for the records of this store, or of all, to be as every SDK reads them.
    fn mend(&self, store: Option<&StoreName>);
    /// What `status` says of it, as JSON.
    fn status(&self) -> serde_json::Value;
    /// What waits to be sent, a line of JSON each.
    fn queue(&self) -> String {
        String::new()
    }
    /// Sends what waits. `Kind::TimedOut` when that is not done within `limit`; the rest stays saved.
    fn drain(&self, _limit: Duration) -> Now<()> {
        Now::ok(())
    }
    /// How many edits wait to be sent.
    fn pending(&self) -> usize {
        0
    }
}
