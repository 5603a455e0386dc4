//! A backend whose changes are seen in a mount of the same folder by the time they are answered: what an SDK has stored,
//! the next command finds as a file. It never changes what passes through.

use crate::backend::{
    Backend, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties, StoreChange,
    StoreInfo, StorePage, StoreRef,
};
use crate::error::Result;
use crate::mount::Mounted;
use crate::record::key::StoreId;
use crate::record::{Body, ContentType, Meta, Precondition, RecordId};
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// A folder's backend with the mount over that folder.
pub(super) struct Seen {
    pub below: Arc<dyn Backend>,
    pub mounted: Arc<Mounted>,
}

impl Seen {
    async fn catch_up(&self) {
        let mounted = self.mounted.clone();
        // It waits for the kernel. If it cannot be waited for, the change is seen a moment later.
        let _ = tokio::task::spawn_blocking(move || mounted.catch_up()).await;
    }
}

#[async_trait]
impl Backend for Seen {
    fn properties(&self) -> Properties {
        self.below.properties()
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        self.below.stores(after).await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        self.below.store(reference).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        let made = self.below.create_store(new).await?;
        self.catch_up().await;
        Ok(made)
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let changed = self.below.update_store(id, change).await?;
        self.catch_up().await;
        Ok(changed)
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        self.below.delete_store(id).await?;
        self.catch_up().await;
        Ok(())
    }

    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed> {
        self.below.changes(store, after).await
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        self.below.list(store, query).await
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        self.below.head(id).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        self.below.get(id, range).await
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let meta = self.below.put(id, body, content_type, only_if).await?;
        self.catch_up().await;
        Ok(meta)
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        self.below.delete(id, only_if).await?;
        self.catch_up().await;
        Ok(())
    }
}
