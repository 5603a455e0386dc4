//! A backend that can little: no ranges, no conditions, no feed, and listings that tell nothing but keys.

use super::Behind;
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Mutex;
use storefs::backend::{
    Backend, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties, StoreChange,
    StoreInfo, StorePage, StoreRef,
};
use storefs::error::{Error, Kind, Result};
use storefs::record::key::StoreId;
use storefs::record::{Body, ContentType, Meta, Precondition, RecordId, Size};

/// What is left of the backend behind it.
pub struct Bare {
    pub behind: Behind,
    /// Answers ranges, and tells sizes and tags in listings.
    pub able: bool,
    /// The ranges that were asked for.
    pub ranges: Mutex<Vec<Option<Range<u64>>>>,
}

impl Bare {
    pub fn new(behind: &Behind, able: bool) -> Self {
        Self {
            behind: behind.clone(),
            able,
            ranges: Mutex::default(),
        }
    }

    /// How many bytes were asked for.
    pub fn asked(&self) -> u64 {
        let ranges = self.ranges.lock().unwrap();
        ranges
            .iter()
            .flatten()
            .map(|range| range.end - range.start)
            .sum()
    }
}

#[async_trait]
impl Backend for Bare {
    fn properties(&self) -> Properties {
        Properties {
            conditional_put: false,
            ranged_get: self.able,
            exact_sizes: self.able,
            change_feed: false,
            ..self.behind.properties()
        }
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        self.behind.stores(after).await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        self.behind.store(reference).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        self.behind.create_store(new).await
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        self.behind.update_store(id, change).await
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        self.behind.delete_store(id).await
    }

    async fn changes(&self, store: &StoreId, _: Option<FeedPosition>) -> Result<Feed> {
        Err(Error::new("follow", store.as_str(), Kind::Unsupported))
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let mut page = self.behind.list(store, query).await?;
        if !self.able {
            for (_, meta) in &mut page.records {
                *meta = Meta {
                    size: Size::Unknown,
                    content_type: None,
                    etag: None,
                    modified: None,
                };
            }
        }
        Ok(page)
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        self.behind.head(id).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        self.ranges.lock().unwrap().push(range.clone());
        self.behind.get(id, range).await
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        assert_eq!(
            only_if,
            Precondition::None,
            "this backend knows no conditions"
        );
        self.behind.put(id, body, content_type, only_if).await
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        assert_eq!(
            only_if,
            Precondition::None,
            "this backend knows no conditions"
        );
        self.behind.delete(id, only_if).await
    }
}
