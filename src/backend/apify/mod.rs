//! The Apify API v2 over HTTP, spoken by the platform and by `storefs serve`. What a server can do beyond the API is found out
//! from its answers. It never shows its token to anybody else.

mod base;
mod client;
mod download;
mod failure;
mod feed;
mod keys;
mod records;
mod seen;
mod stores;
mod upload;
mod wire;

pub use base::{Base, PUBLIC, Token};

use super::pace::Rates;
use super::{
    Backend, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties, StoreChange,
    StoreInfo, StorePage, StoreRef,
};
use crate::error::{Kind, Result};
use crate::record::key::{MAX_KEY, StoreId};
use crate::record::{Body, ContentType, Key, Meta, Precondition, RecordId};
use async_trait::async_trait;
use client::Client;
use seen::Seen;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stores::Gathered;
use tokio::sync::OnceCell;

/// How a server is talked to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub base: Base,
    /// Who we are there. Without one only public stores can be read.
    pub token: Option<Token>,
    /// Records of types that get shorter are sent compressed.
    pub compress: bool,
    /// Nothing will be written.
    pub read_only: bool,
    /// The most requests a second and store; without them only what the server asks for is kept to.
    pub rates: Option<Rates>,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long nothing may move before a request fails.
    pub patience: Duration,
    /// The most bytes that an encoded body may decode to.
    pub largest_decoded: u64,
}

impl Options {
    /// The usual ones.
    pub fn new(base: Base, token: Option<Token>) -> Self {
        Self {
            base,
            token,
            compress: false,
            read_only: false,
            rates: None,
            connect: Duration::from_secs(3),
            patience: Duration::from_secs(30),
            largest_decoded: 64 << 30,
        }
    }
}

/// The stores of one server. Bytes of records are read on threads that may wait, within a runtime of several threads.
#[derive(Debug)]
pub struct Apify {
    client: Arc<Client>,
    seen: Seen,
    me: OnceCell<Option<String>>,
    stores: Mutex<Option<Gathered>>,
    compress: bool,
    read_only: bool,
    largest_decoded: u64,
}

impl Apify {
    /// Prepares to talk to a server. Nothing is sent yet.
    pub fn new(options: Options) -> Result<Self> {
        let times = (options.connect, options.patience);
        let client = Client::new(options.base, options.token, options.rates, times)?;
        Ok(Self {
            client: Arc::new(client),
            seen: Seen::default(),
            me: OnceCell::new(),
            stores: Mutex::default(),
            compress: options.compress,
            read_only: options.read_only,
            largest_decoded: options.largest_decoded,
        })
    }

    /// Where the server is.
    pub fn base(&self) -> &Base {
        self.client.base()
    }

    /// Finds out what the server can do, with the help of a store that is there. Without it that shows in time. A token
    /// that may only read leaves open whether conditions of writes are checked.
    pub async fn detect(&self, store: &StoreId) -> Result<Properties> {
        self.ask_all(store).await?;
        Ok(self.properties())
    }

    async fn ask_all(&self, store: &StoreId) -> Result<Option<Feed>> {
        let conditions = async {
            // Who only reads asks for no deletion.
            match self.read_only {
                true => Ok(false),
                false => self.checks_conditions(store).await,
            }
        };
        // At once, since whoever makes the first access waits for all of them.
        let (conditions, feed, sample) =
            tokio::join!(conditions, self.follow(store, None), self.sample(store));
        match conditions {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Denied => tracing::debug!("{error}"),
            Err(error) => return Err(error),
        }
        sample?;
        match feed {
            Ok(feed) => Ok(Some(feed)),
            Err(error) if error.kind() == Kind::Unsupported => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks at one record of the store, if it has any: its head tells what the server tells of records.
    async fn sample(&self, store: &StoreId) -> Result<()> {
        let one = ListQuery {
            limit: 1,
            ..ListQuery::default()
        };
        let Some((key, _)) = self.list_keys(store, one).await?.records.pop() else {
            return Ok(());
        };
        let id = RecordId {
            store: store.clone(),
            key,
        };
        match self.look(&id).await {
            Err(error) if error.kind() != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Apify {
    /// What the server has shown so far.
    fn properties(&self) -> Properties {
        Properties {
            local_dir: None,
            conditional_put: self.seen.conditions.is_yes(),
            ranged_get: self.seen.ranges.is_shown() && !self.seen.encoded_parts.is_shown(),
            exact_sizes: self.seen.exact.is_shown(),
            change_feed: self.seen.feed.is_yes(),
            connections: 16,
            max_key: MAX_KEY,
        }
    }

    async fn learn(&self, store: &StoreId) -> Result<Option<Feed>> {
        self.ask_all(store).await
    }

    fn url(&self, store: &StoreId, key: Option<&Key>, secret: Option<&str>) -> Option<String> {
        Some(self.public_url(store, key, secret))
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        self.list_stores(after).await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        self.find_store(reference).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        self.make_store(new).await
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        self.change_store(id, change).await
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        self.remove_store(id).await
    }

    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed> {
        self.follow(store, after).await
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        self.list_keys(store, query).await
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        self.look(id).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        self.fetch(id, range).await
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        self.write(id, body, content_type, only_if).await
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        self.remove(id, only_if).await
    }
}
