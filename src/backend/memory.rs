//! Records in memory: the backend that tests stand on, and the shortest complete example of the trait.
//! It never touches a disk or a network, and nothing in it outlives the process.

use super::{
    Backend, Fetched, KeyPage, ListQuery, Properties, StoreChange, StoreInfo, StorePage, StoreRef,
};
use crate::error::{Error, Kind, Result};
use crate::record::key::{MAX_KEY, StoreId};
use crate::record::{Body, ContentType, ETag, Key, Meta, Precondition, RecordId, Size, StoreName};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many stores a page holds.
const PAGE: usize = 1000;

/// Stores and records in memory. A named store's id is its name; an unnamed one has an id of 17 characters.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stores: BTreeMap<StoreId, Store>,
    /// Counts versions and unnamed stores. No number is given out twice.
    last: u64,
}

struct Store {
    named: bool,
    created: SystemTime,
    modified: SystemTime,
    records: BTreeMap<Key, Record>,
}

#[derive(Clone)]
struct Record {
    bytes: Arc<[u8]>,
    meta: Meta,
}

impl Memory {
    /// An empty place without stores.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every operation holds the lock once and does all of its work under it, so it happens whole or not at all.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn store(&mut self, op: &'static str, id: &StoreId) -> Result<&mut Store> {
        self.stores
            .get_mut(id)
            .ok_or_else(|| Error::new(op, id.to_string(), Kind::StoreNotFound))
    }

    fn record(&mut self, op: &'static str, id: &RecordId) -> Result<Record> {
        let records = &self.store(op, &id.store)?.records;
        let found = records.get(&id.key).cloned();
        found.ok_or_else(|| Error::new(op, id.to_string(), Kind::NotFound))
    }
}

impl Store {
    fn new(named: bool) -> Self {
        let now = SystemTime::now();
        Self {
            named,
            created: now,
            modified: now,
            records: BTreeMap::new(),
        }
    }

    fn info(&self, id: &StoreId) -> StoreInfo {
        StoreInfo {
            id: id.clone(),
            name: self.named.then(|| id.clone()),
            created: Some(self.created),
            modified: Some(self.modified),
        }
    }

    /// Whether a write may happen.
    fn check(&self, op: &'static str, id: &RecordId, only_if: &Precondition) -> Result<()> {
        let present = self.records.get(&id.key);
        let holds = match only_if {
            Precondition::None => true,
            Precondition::Absent => present.is_none(),
            Precondition::Match(tag) => {
                present.is_some_and(|record| record.meta.etag.as_ref() == Some(tag))
            }
        };
        holds
            .then_some(())
            .ok_or_else(|| Error::new(op, id.to_string(), Kind::Changed))
    }
}

#[async_trait]
impl Backend for Memory {
    fn properties(&self) -> Properties {
        Properties {
            local_dir: None,
            conditional_put: true,
            ranged_get: true,
            exact_sizes: true,
            change_feed: false,
            connections: 16,
            max_key: MAX_KEY,
        }
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        let state = self.state();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = state.stores.range((start, Bound::Unbounded));
        let stores: Vec<_> = found
            .by_ref()
            .take(PAGE)
            .map(|(id, store)| store.info(id))
            .collect();
        let next = match found.next() {
            Some(_) => stores.last().map(|store| store.id.clone()),
            None => None,
        };
        Ok(StorePage { stores, next })
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        let (StoreRef::Id(id) | StoreRef::Name(id)) = reference;
        let mut state = self.state();
        let store = state.store("open store", id)?;
        if matches!(reference, StoreRef::Name(_)) && !store.named {
            return Err(Error::new(
                "open store",
                id.to_string(),
                Kind::StoreNotFound,
            ));
        }
        Ok(store.info(id))
    }

    async fn create_store(&self, name: Option<&StoreName>) -> Result<StoreInfo> {
        let mut state = self.state();
        let id = match name {
            Some(name) => name.clone(),
            None => StoreName::new(&format!("unnamed{:010}", state.number()))?,
        };
        let store = state.stores.entry(id.clone());
        Ok(store
            .or_insert_with(|| Store::new(name.is_some()))
            .info(&id))
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let mut state = self.state();
        let info = state.store("change store", id)?.info(id);
        let Some(name) = change.name.filter(|name| info.name.as_ref() != Some(name)) else {
            return Ok(info);
        };
        if state.stores.contains_key(&name) {
            return Err(Error::new(
                "rename store",
                format!("{id} to {name}"),
                Kind::Exists,
            ));
        }
        let moved = state.stores.remove(id).map(|mut store| {
            store.named = true;
            store.modified = SystemTime::now();
            store
        });
        let moved =
            moved.ok_or_else(|| Error::new("rename store", id.to_string(), Kind::StoreNotFound))?;
        let info = moved.info(&name);
        state.stores.insert(name, moved);
        Ok(info)
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        let mut state = self.state();
        state.store("delete store", id)?;
        state.stores.remove(id);
        Ok(())
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let mut state = self.state();
        let records = &state.store("list", store)?.records;
        let start = match &query.after {
            Some(after) if after.as_str() >= query.prefix.as_str() => {
                Bound::Excluded(after.as_str())
            }
            _ => Bound::Included(query.prefix.as_str()),
        };
        let mut found = records
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(&query.prefix));
        let records: Vec<_> = found
            .by_ref()
            .take(query.limit)
            .map(|(key, record)| (key.clone(), record.meta.clone()))
            .collect();
        let next = match found.next() {
            Some(_) => records.last().map(|(key, _)| key.clone()),
            None => None,
        };
        Ok(KeyPage { records, next })
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        Ok(self.state().record("head", id)?.meta)
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        let record = self.state().record("get", id)?;
        let range = range.unwrap_or(0..u64::MAX);
        let mut bytes = Cursor::new(record.bytes);
        bytes.set_position(range.start);
        Ok(Fetched {
            meta: record.meta,
            bytes: Box::new(bytes.take(range.end.saturating_sub(range.start))),
        })
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::File(_) => body
                .to_vec()
                .map_err(|error| Error::io("put", id.to_string(), error))?
                .into(),
        };
        let mut state = self.state();
        let tag = state.number();
        let store = state.store("put", &id.store)?;
        store.check("put", id, &only_if)?;
        let now = SystemTime::now();
        let meta = Meta {
            size: Size::Exact(bytes.len() as u64),
            content_type: Some(content_type.clone()),
            etag: Some(ETag::new(&tag.to_string())),
            modified: Some(now),
        };
        let record = Record {
            bytes,
            meta: meta.clone(),
        };
        store.records.insert(id.key.clone(), record);
        store.modified = now;
        Ok(meta)
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        let mut state = self.state();
        state.record("delete", id)?;
        let store = state.store("delete", &id.store)?;
        store.check("delete", id, &only_if)?;
        store.records.remove(&id.key);
        store.modified = SystemTime::now();
        Ok(())
    }
}
