//! The clauses of the contract, and the world each of them runs in.
// Each test program that takes this module in uses its own part of it.
#![allow(dead_code, unreachable_pub)]

pub mod changes;
pub mod listing;
pub mod races;
pub mod records;
pub mod stores;

use std::any::Any;
use std::future::Future;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use storefs::backend::{Backend, ListQuery, NewStore, Properties, StoreInfo};
use storefs::error::{Kind, Result};
use storefs::record::key::StoreId;
use storefs::record::{
    Body, ContentType, ETag, Key, Meta, Precondition, RecordId, Size, StoreName,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// An empty backend, and what keeps it alive.
pub struct World {
    pub backend: Arc<dyn Backend>,
    pub runtime: Runtime,
    /// Whether it is asked over the API: then all stores are those of one user, and names keep to the API's rules.
    pub remote: bool,
    /// The longest key that can be kept, where that does not show from outside.
    max_key: Option<usize>,
    _keep: Box<dyn Any + Send + Sync>,
}

impl World {
    pub fn new(backend: Arc<dyn Backend>, folder: Option<TempDir>) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        Self {
            backend,
            runtime,
            remote: false,
            max_key: None,
            _keep: Box::new(folder),
        }
    }

    /// The same over the API, with the server that answers and the longest key of its place.
    pub fn remote(
        backend: Arc<dyn Backend>,
        server: impl Any + Send + Sync,
        max_key: usize,
    ) -> Self {
        Self {
            remote: true,
            max_key: Some(max_key),
            _keep: Box::new(server),
            ..Self::new(backend, None)
        }
    }

    /// The longest key that can be kept.
    pub fn max_key(&self) -> usize {
        self.max_key.unwrap_or_else(|| self.properties().max_key)
    }

    pub fn wait<T>(&self, operation: impl Future<Output = T>) -> T {
        self.runtime.block_on(operation)
    }

    pub fn properties(&self) -> Properties {
        self.backend.properties()
    }

    /// The store of this name, made if need be.
    pub fn create(&self, name: &str) -> StoreInfo {
        let name = StoreName::new(name).unwrap();
        self.wait(self.backend.create_store(NewStore::named(name)))
            .unwrap()
            .0
    }

    /// A fresh store to put records into.
    pub fn store(&self) -> StoreId {
        self.create("contract").id
    }

    pub fn put(&self, id: &RecordId, bytes: &[u8], content_type: &str) -> Meta {
        self.try_put(id, bytes, content_type, Precondition::None)
            .unwrap()
    }

    pub fn try_put(
        &self,
        id: &RecordId,
        bytes: &[u8],
        content_type: &str,
        only_if: Precondition,
    ) -> Result<Meta> {
        let content_type = ContentType::stored(content_type);
        self.wait(
            self.backend
                .put(id, Body::from(bytes), &content_type, only_if),
        )
    }

    pub fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        self.wait(self.backend.delete(id, only_if))
    }

    pub fn head(&self, id: &RecordId) -> Result<Meta> {
        self.wait(self.backend.head(id))
    }

    /// The whole record.
    pub fn get(&self, id: &RecordId) -> Result<(Vec<u8>, Meta)> {
        self.part(id, None)
    }

    pub fn part(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<(Vec<u8>, Meta)> {
        let mut fetched = self.wait(self.backend.get(id, range))?;
        let mut bytes = Vec::new();
        fetched.bytes.read_to_end(&mut bytes).unwrap();
        Ok((bytes, fetched.meta))
    }

    /// All keys, page by page.
    pub fn keys(&self, store: &StoreId, mut query: ListQuery) -> Vec<String> {
        let mut keys = Vec::new();
        loop {
            let page = self.wait(self.backend.list(store, query.clone())).unwrap();
            assert!(page.records.len() <= query.limit, "a page over its limit");
            keys.extend(page.records.iter().map(|(key, _)| key.to_string()));
            assert!(
                page.next.is_none() || !page.records.is_empty(),
                "an empty page in the middle"
            );
            if page.next.is_none() {
                return keys;
            }
            query.after = page.next;
        }
    }
}

pub fn record(store: &StoreId, key: &str) -> RecordId {
    RecordId {
        store: store.clone(),
        key: Key::new(key).unwrap(),
    }
}

pub fn kind<T>(result: Result<T>) -> Kind {
    match result {
        Ok(_) => panic!("it was expected to fail"),
        Err(error) => error.kind(),
    }
}

/// The tag of a version; every backend of this contract gives one.
pub fn tag(meta: &Meta) -> ETag {
    meta.etag.clone().expect("a version has a tag")
}

/// Asserts the length where the backend claims to know it.
pub fn assert_size(world: &World, meta: &Meta, length: usize) {
    if world.properties().exact_sizes || meta.size.exact().is_some() {
        assert_eq!(meta.size, Size::Exact(length as u64));
    }
}

/// Bytes that differ at every place and are no text.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}
