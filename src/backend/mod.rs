//! Where records live: the waist that every place of records implements, and the shapes that pass through it.

pub mod apify;
pub mod dir;
#[doc(hidden)]
pub mod faulty;
pub mod feed;
pub mod memory;
pub mod open;
pub mod pace;
pub mod random;
pub mod retry;
mod stores;
pub mod streamed;
pub mod trouble;
pub mod watch;

pub use feed::{ChangeEvent, ChangeKind, Feed, FeedPosition};
pub use stores::{Counts, NewStore, StoreChange, StoreInfo, StorePage, StoreRef};

use crate::error::Result;
use crate::record::key::StoreId;
use crate::record::{Body, ContentType, Key, Meta, Precondition, RecordId};
use async_trait::async_trait;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;

/// What a backend can and cannot do. The contract suite asks only for what is claimed here.
#[derive(Clone, Debug)]
pub struct Properties {
    /// The folder that holds the stores, when records are local files.
    pub local_dir: Option<PathBuf>,
    /// `Precondition` is checked and the write done in one step.
    pub conditional_put: bool,
    /// `get` with a range moves only that range.
    pub ranged_get: bool,
    /// Listings and `head` tell the length of the decoded body.
    pub exact_sizes: bool,
    /// Changes by others are pushed.
    pub change_feed: bool,
    /// How many requests may run at one time.
    pub connections: usize,
    /// The longest key that can be kept, in characters.
    pub max_key: usize,
}

/// Which keys to list: byte order, after a key, with a prefix, at most `limit`.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only keys after this one.
    pub after: Option<Key>,
    /// Only keys that begin with this.
    pub prefix: String,
    /// At most this many.
    pub limit: usize,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            after: None,
            prefix: String::new(),
            limit: 1000,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct KeyPage {
    /// Keys with what is known of them.
    pub records: Vec<(Key, Meta)>,
    /// The last key of this page when there are more.
    pub next: Option<Key>,
}

/// A record's bytes, pinned to one version.
pub struct Fetched {
    /// What is known of that version. Its size is that of the whole record.
    pub meta: Meta,
    /// The bytes asked for, read as they are needed.
    pub bytes: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// A place of records. Chosen at run time, so it is used as `Arc<dyn Backend>`.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What it can do.
    fn properties(&self) -> Properties;
    /// Finds out, with the help of a store that is there, what only answers can show; `properties` tells it afterwards. A
    /// feed of that store's changes that was opened for this is handed over.
    async fn learn(&self, _store: &StoreId) -> Result<Option<Feed>> {
        Ok(None)
    }
    /// Where everybody who knows the URL finds a record, or the keys of the store; `secret` signs it. `None` where there is
    /// no such place.
    fn url(&self, _store: &StoreId, _key: Option<&Key>, _secret: Option<&str>) -> Option<String> {
        None
    }
    /// The stores after this id.
    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage>;
    /// One store; `Kind::StoreNotFound` when there is none.
    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo>;
    /// Gets its owner's store of this name, or makes it; true when it was made now. Without a name a new unnamed store is
    /// made.
    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)>;
    /// Changes a store; `Kind::Exists` when another store of its owner has the new name.
    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo>;
    /// Deletes a store with its records.
    async fn delete_store(&self, id: &StoreId) -> Result<()>;
    /// The changes of a store after a position, or from now on. Whose position is of another epoch or too old gets a
    /// `ChangeKind::Reset` first. `Kind::Unsupported` where nothing tells of changes.
    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed>;
    /// Lists keys in byte order.
    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage>;
    /// A record's metadata; `Kind::NotFound` when there is no such record.
    async fn head(&self, id: &RecordId) -> Result<Meta>;
    /// A record's bytes, or those of a range of it that is cut at its end.
    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched>;
    /// Replaces the whole record or nothing; `Kind::Changed` when `only_if` does not hold.
    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta>;
    /// Deletes a record; `Kind::NotFound` when there is none, `Kind::Changed` when `only_if` does not hold.
    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()>;
}
