//! The same folder as an asynchronous backend: what may wait for a disk or for somebody else runs on the blocking pool. It
//! decides nothing; it hands over.

use super::live::Live;
use super::records::Part;
use super::{Folder, Layout};
use crate::backend::{
    Backend, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties, StoreChange,
    StoreInfo, StorePage, StoreRef, stores,
};
use crate::error::{Error, Kind, Result};
use crate::record::key::{MAX_KEY, StoreId};
use crate::record::{Body, ContentType, Meta, Precondition, RecordId, StoreName};
use async_trait::async_trait;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// How many stores a page holds.
const PAGE: usize = 1000;
/// The longest key of which both SDKs can keep a record whatever its type.
const MAX_SDK_KEY: usize = 219;

/// A folder of stores as a backend.
#[derive(Clone, Debug)]
pub struct DirBackend {
    pub(super) folder: Arc<Folder>,
    pub(super) live: Arc<Live>,
}

impl DirBackend {
    /// The backend of an opened folder.
    pub fn new(folder: Arc<Folder>) -> Self {
        let watch = crate::backend::watch::can_watch(&folder.stores_path());
        Self::watching(folder, watch)
    }

    /// The same for a folder whose changes are not told by the system: it is looked through each second while somebody
    /// follows a store, and each time somebody lists one.
    pub fn polling(folder: Arc<Folder>) -> Self {
        Self::watching(folder, false)
    }

    fn watching(folder: Arc<Folder>, watch: bool) -> Self {
        Self {
            live: Live::new(folder.clone(), watch),
            folder,
        }
    }

    /// The name of a store's directory.
    pub async fn directory(&self, store: &StoreId) -> Result<StoreName> {
        let store = store.clone();
        self.run(move |this| Ok(this.store_of(&store)?.current()))
            .await
    }

    /// The file that holds a record's bytes.
    pub async fn file(&self, id: &RecordId) -> Result<PathBuf> {
        let id = id.clone();
        self.run(move |this| {
            let store = this.store_of(&id.store)?;
            let (place, _) = store.find(id.key.as_str())?;
            let folder = this.folder.stores_path().join(store.current().as_str());
            Ok(folder.join(&*place.file))
        })
        .await
    }

    /// Writes down what is known of the stores' use. It happens now and then by itself.
    pub async fn flush(&self) -> Result<()> {
        self.run(|this| this.write_uses(None)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|error| Error::because("use the folder", "", Kind::Io, error.to_string()))?
    }
}

#[async_trait]
impl Backend for DirBackend {
    fn properties(&self) -> Properties {
        Properties {
            local_dir: Some(self.folder.stores_path()),
            conditional_put: true,
            ranged_get: true,
            exact_sizes: true,
            change_feed: true,
            connections: 16,
            max_key: match self.folder.options().layout {
                Some(Layout::Plain) => MAX_KEY,
                Some(Layout::Js | Layout::Python | Layout::Dual) | None => MAX_SDK_KEY,
            },
        }
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        let after = after.cloned();
        self.run(move |this| Ok(stores::page(this.all_now()?, after.as_ref(), PAGE)))
            .await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        let reference = reference.clone();
        self.run(move |this| this.store_now(&reference)).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        self.run(move |this| this.create_now(new)).await
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let id = id.clone();
        self.run(move |this| this.update_now(&id, change)).await
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        let id = id.clone();
        self.run(move |this| this.delete_store_now(&id)).await
    }

    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed> {
        let store = store.clone();
        let followed = self.run(move |this| this.follow_now(&store)).await?;
        Ok(followed.listen(after))
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let store = store.clone();
        self.run(move |this| this.list_now(&store, &query)).await
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        if let Some(got) = self.get_at_once(id) {
            return Ok(got?.1);
        }
        let id = id.clone();
        self.run(move |this| Ok(this.get_now(&id)?.1)).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        let (file, meta) = match self.get_at_once(id) {
            Some(got) => got?,
            None => {
                let id = id.clone();
                self.run(move |this| this.get_now(&id)).await?
            }
        };
        let range = range.unwrap_or(0..u64::MAX);
        let bytes = Box::new(Part {
            file,
            at: range.start,
            end: range.end,
        });
        Ok(Fetched { meta, bytes })
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let ready = match self.put_at_once(id, &body, content_type, &only_if) {
            Some(Ok(done)) => return done,
            Some(Err(ready)) => Some(ready),
            None => None,
        };
        let (id, content_type) = (id.clone(), content_type.clone());
        self.run(move |this| match ready {
            Some(ready) => this.put_ready(&id, ready),
            None => this.put_now(&id, &body, content_type, only_if),
        })
        .await
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        let id = id.clone();
        self.run(move |this| this.delete_now(&id, &only_if)).await
    }
}
