//! Records in memory: the backend that tests stand on, and the shortest complete example of the trait.
//! It never touches a disk or a network, and nothing in it outlives the process.

use super::feed::Ring;
use super::{
    Backend, ChangeKind, Counts, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore,
    Properties, StoreChange, StoreInfo, StorePage, StoreRef, random, stores,
};
use crate::error::{Error, Kind, Result};
use crate::record::key::{MAX_KEY, StoreId};
use crate::record::store::folded_name;
use crate::record::{
    Access, Body, ContentType, ETag, Key, Meta, Precondition, RecordId, Size, StoreName,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many stores a page holds.
const PAGE: usize = 1000;

/// Stores and records in memory.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stores: BTreeMap<StoreId, Store>,
    /// Counts versions. No number is given out twice.
    last: u64,
}

struct Store {
    info: StoreInfo,
    records: BTreeMap<Key, Record>,
    ring: Ring,
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

    /// The owner's store of this name.
    fn named(&self, owner: Option<&str>, name: &StoreName) -> Option<&Store> {
        let wanted = folded_name(name.as_str());
        self.stores.values().find(|store| {
            let named = store.info.name.as_ref();
            store.info.owner.as_deref() == owner
                && named.is_some_and(|name| folded_name(name.as_str()) == wanted)
        })
    }

    fn record(&mut self, op: &'static str, id: &RecordId) -> Result<Record> {
        let store = self.store(op, &id.store)?;
        let found = store.records.get(&id.key).cloned();
        let found = found.ok_or_else(|| Error::new(op, id.to_string(), Kind::NotFound))?;
        store.used(|counts| &mut counts.reads);
        Ok(found)
    }
}

impl Store {
    fn new(id: StoreId, new: NewStore) -> Result<Self> {
        let now = Some(SystemTime::now());
        Ok(Self {
            info: StoreInfo {
                id,
                name: new.name,
                owner: new.owner,
                created: now,
                modified: now,
                accessed: now,
                title: None,
                access: Access::default(),
                secret: Some(random::secret()?),
                schema: new.schema,
                run: new.run,
                actor: new.actor,
                counts: Counts::default(),
                bytes: Some(0),
            },
            records: BTreeMap::new(),
            ring: Ring::new()?,
        })
    }

    fn used(&mut self, count: impl Fn(&mut Counts) -> &mut u64) {
        *count(&mut self.info.counts) += 1;
        self.info.accessed = Some(SystemTime::now());
    }

    /// Puts a record in the place of what is there, or takes it away, and tells.
    fn change(&mut self, key: &Key, to: Option<Record>) {
        let now = SystemTime::now();
        let length = |record: &Option<Record>| record.as_ref().map_or(0, |r| r.bytes.len() as u64);
        let etag = to.as_ref().and_then(|record| record.meta.etag.clone());
        let (added, kind) = (length(&to), to.as_ref().map(|_| ChangeKind::Put));
        let old = match to {
            Some(record) => self.records.insert(key.clone(), record),
            None => self.records.remove(key),
        };
        self.info.bytes = self.info.bytes.map(|all| all + added - length(&old));
        self.info.modified = Some(now);
        let kind = kind.unwrap_or(ChangeKind::Delete);
        self.used(|counts| match kind {
            ChangeKind::Put => &mut counts.writes,
            ChangeKind::Delete | ChangeKind::Reset => &mut counts.deletes,
        });
        self.ring.tell(Some(key.clone()), kind, etag);
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
            change_feed: true,
            connections: 16,
            max_key: MAX_KEY,
        }
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        let state = self.state();
        let all = state.stores.values().map(|store| store.info.clone());
        Ok(stores::page(all.collect(), after, PAGE))
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        let state = self.state();
        let found = match reference {
            StoreRef::Id(id) => state.stores.get(id),
            StoreRef::Name { owner, name } => state.named(owner.as_deref(), name),
        };
        let found = found.ok_or_else(|| reference.missing("open the store"))?;
        Ok(found.info.clone())
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        let mut state = self.state();
        if let Some(name) = &new.name
            && let Some(there) = state.named(new.owner.as_deref(), name)
        {
            return Ok((there.info.clone(), false));
        }
        let id = StoreId::from(random::api_id()?);
        let store = Store::new(id.clone(), new)?;
        let info = store.info.clone();
        state.stores.insert(id, store);
        Ok((info, true))
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let mut state = self.state();
        let owner = state.store("change the store", id)?.info.owner.clone();
        if let Some(Some(name)) = &change.name
            && let Some(there) = state.named(owner.as_deref(), name)
            && there.info.id != *id
        {
            return Err(stores::taken(name));
        }
        let info = &mut state.store("change the store", id)?.info;
        change.apply(info);
        info.modified = Some(SystemTime::now());
        Ok(info.clone())
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        let mut state = self.state();
        state.store("delete the store", id)?;
        state.stores.remove(id);
        Ok(())
    }

    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed> {
        let mut state = self.state();
        Ok(state.store("follow", store)?.ring.listen(after))
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let mut state = self.state();
        let store = state.store("list", store)?;
        store.used(|counts| &mut counts.lists);
        let records = &store.records;
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
            Body::File(_) | Body::Counted(..) => body
                .to_vec()
                .map_err(|error| Error::io("put", id.to_string(), error))?
                .into(),
        };
        let mut state = self.state();
        let tag = state.number();
        let store = state.store("put", &id.store)?;
        store.check("put", id, &only_if)?;
        let meta = Meta {
            size: Size::Exact(bytes.len() as u64),
            content_type: Some(content_type.clone()),
            etag: Some(ETag::new(&tag.to_string())),
            modified: Some(SystemTime::now()),
        };
        let record = Record {
            bytes,
            meta: meta.clone(),
        };
        store.change(&id.key, Some(record));
        Ok(meta)
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        let mut state = self.state();
        let store = state.store("delete", &id.store)?;
        if !store.records.contains_key(&id.key) {
            return Err(Error::new("delete", id.to_string(), Kind::NotFound));
        }
        store.check("delete", id, &only_if)?;
        store.change(&id.key, None);
        Ok(())
    }
}
