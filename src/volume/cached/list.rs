//! What the backend says of records: single answers and whole listings, taken into the index. A listing never undoes what
//! happened here since it was asked for.

use super::Inner;
use super::index::Index;
use crate::backend::ListQuery;
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{Key, Meta, RecordId, StoreName};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How many keys a page has.
const PAGE: usize = 1000;
/// How long a listing waits at a time for what it told to be written down.
const BEHIND: Duration = Duration::from_millis(5);

/// Something else is shown under a key now. Of very many it is enough to know that there are.
fn note(changed: &mut Vec<RecordId>, record: RecordId) {
    if changed.len() <= PAGE {
        changed.push(record);
    }
}

/// What the index has in a part of a store, after one key and up to another, and a page of just that part has not.
fn missing_in(
    index: &Index,
    id: &StoreId,
    (after, upto): (Option<&Key>, Option<&Key>),
    page: &[(Key, Meta)],
) -> Vec<RecordId> {
    let Some(store) = index.stores.get(id) else {
        return Vec::new();
    };
    if after.zip(upto).is_some_and(|(after, upto)| after >= upto) {
        return Vec::new();
    }
    let part = (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        upto.map_or(Bound::Unbounded, Bound::Included),
    );
    let mut listed = page.iter().map(|(key, _)| key).peekable();
    let known = store.records.range::<Key, _>(part);
    known
        .filter(|(key, record)| {
            // Both are in byte order.
            while listed.next_if(|listed| listed < key).is_some() {}
            listed.peek() != Some(key) && record.is_clean()
        })
        .map(|(key, _)| RecordId {
            store: id.clone(),
            key: key.clone(),
        })
        .collect()
}

impl Inner {
    /// Takes a complete listing of a store, unless there is one no older than `ttl`. With `first_page` a store that has more
    /// than one page is left at that.
    pub(super) async fn list_store(
        self: &Arc<Self>,
        id: &StoreId,
        ttl: Duration,
        first_page: bool,
    ) -> Result<()> {
        let one = {
            let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
            listings.entry(id.clone()).or_default().clone()
        };
        // Who comes while a listing is taken waits for that one.
        let _one = one.lock().await;
        self.follow(id).await;
        let since = {
            let index = self.index();
            let Some(store) = index.stores.get(id) else {
                return Err(Error::new("list", id.to_string(), Kind::StoreNotFound));
            };
            if store.is_fresh(ttl) {
                return Ok(());
            }
            index.tick()
        };
        let mut changed = Vec::new();
        let taken = self.take_pages(id, since, first_page, &mut changed).await;
        self.told(id, changed);
        taken
    }

    /// Takes the pages of a listing into the index, one after another: no more than a page is held beside it.
    async fn take_pages(
        &self,
        id: &StoreId,
        since: u64,
        first_page: bool,
        changed: &mut Vec<RecordId>,
    ) -> Result<()> {
        let asked = Instant::now();
        let mut count = 0;
        let mut after: Option<Key> = None;
        loop {
            let query = ListQuery {
                after: after.clone(),
                prefix: String::new(),
                limit: PAGE,
            };
            let page = self.backend.list(id, query);
            let page = if after.is_none() {
                self.look("list", id.as_str(), page).await
            } else {
                self.within(self.options.patience, "list", id.as_str(), page)
                    .await
            };
            let page = page.inspect_err(|e| self.note_store_failure(id, e.kind()))?;
            {
                let mut index = self.index();
                for (key, meta) in &page.records {
                    let record = RecordId {
                        store: id.clone(),
                        key: key.clone(),
                    };
                    if index.seen(&record, meta, since) {
                        self.keeper.record(&index, &record);
                        note(changed, record);
                    }
                }
                if let Some(store) = index.stores.get_mut(id) {
                    store.large = store.large || page.next.is_some();
                }
                let part = (after.as_ref(), page.next.as_ref());
                for record in missing_in(&index, id, part, &page.records) {
                    if index.seen_absent(&record, since) {
                        self.keeper.record(&index, &record);
                        note(changed, record);
                    }
                }
            }
            while self.keeper.is_behind() {
                tokio::time::sleep(BEHIND).await;
            }
            count += page.records.len();
            match page.next {
                None => break,
                Some(_) if first_page => return Ok(()),
                Some(next) => after = Some(next),
            }
        }
        self.listed(id, count, since, asked);
        Ok(())
    }

    /// A complete listing was taken.
    pub(super) fn listed(&self, id: &StoreId, count: usize, since: u64, asked: Instant) {
        let mut index = self.index();
        let Some(store) = index.stores.get_mut(id) else {
            return;
        };
        store.listed = (store.doubted <= since).then_some(asked);
        store.complete = true;
        store.checked = Some(asked);
        store.large = count > PAGE;
        self.keeper.store(store);
    }

    /// Something else is shown now under these keys, as the index says.
    fn told(&self, id: &StoreId, changed: Vec<RecordId>) {
        let dir = self.index().stores.get(id).map(|store| store.dir.clone());
        self.sweep();
        let Some(dir) = dir else { return };
        // The kernel was told of few of very many.
        if changed.len() > PAGE {
            return self.tell(&dir, None);
        }
        for record in changed {
            self.tell(&dir, Some(record.key.as_str()));
        }
    }

    pub(super) fn note_store_failure(&self, id: &StoreId, kind: Kind) {
        let mut index = self.index();
        if kind == Kind::Denied
            && let Some(store) = index.stores.get_mut(id)
        {
            store.denied = true;
        }
        if kind == Kind::StoreNotFound {
            index.remove_store(id);
            self.keeper.no_store(id);
        }
    }

    /// Asks for one record, and takes the answer in.
    pub(super) async fn head_record(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        let since = self.index().tick();
        let subject = id.to_string();
        let head = self.look("look up", &subject, self.backend.head(id)).await;
        let changed = {
            let mut index = self.index();
            let changed = match &head {
                Ok(meta) => index.seen(id, meta, since),
                Err(e) if e.kind() == Kind::NotFound => index.seen_absent(id, since),
                Err(_) => false,
            };
            if changed {
                self.keeper.record(&index, id);
            }
            changed
        };
        if changed {
            self.told(&id.store, vec![id.clone()]);
        }
        match head {
            Err(e) if e.kind() != Kind::NotFound => {
                if e.kind() == Kind::StoreNotFound {
                    self.note_store_failure(&id.store, e.kind());
                }
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// Makes what is known of a record current: by a listing of the whole store where that is one request, else by asking
    /// for it alone.
    pub(super) async fn refresh_record(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        self.note_use(&id.store);
        self.follow(&id.store).await;
        let large = self
            .index()
            .stores
            .get(&id.store)
            .is_some_and(|store| store.large);
        let asked = if large {
            self.head_record(id).await
        } else {
            let ttl = self.options.ttl;
            match self.list_store(&id.store, ttl, true).await {
                Ok(()) if self.is_settled(id) => Ok(()),
                Ok(()) => self.head_record(id).await,
                Err(e) => Err(e),
            }
        };
        match asked {
            // What is here is shown until the backend can be asked again.
            Err(e) if e.kind() == Kind::Offline && self.is_known(id) => Ok(()),
            other => other,
        }
    }

    /// Whether a listing of a moment ago told of this record, or that there is none.
    fn is_settled(&self, id: &RecordId) -> bool {
        let index = self.index();
        let Some(store) = index.stores.get(&id.store) else {
            return false;
        };
        let recent = self.options.ttl.max(Duration::from_millis(100));
        match store.records.get(&id.key) {
            Some(record) => store.is_current(record, recent),
            None => store.is_fresh(recent),
        }
    }

    /// Whether anything is known of it, however old.
    pub(super) fn is_known(&self, id: &RecordId) -> bool {
        let index = self.index();
        let store = index.stores.get(&id.store);
        store.is_some_and(|store| store.complete || store.records.contains_key(&id.key))
    }

    /// Makes a listing of a store ready. While the backend cannot be reached, the last one has to do.
    pub(super) async fn prepare(self: &Arc<Self>, dir: &StoreName) -> Result<()> {
        let id = self.resolve(dir).await?;
        self.note_use(&id);
        match self.list_store(&id, self.options.ttl, false).await {
            Ok(()) => {
                self.learn_sizes(&id).await;
                Ok(())
            }
            Err(e) if e.kind() == Kind::Offline => {
                let index = self.index();
                let complete = index.stores.get(&id).is_some_and(|store| store.complete);
                if complete { Ok(()) } else { Err(e) }
            }
            Err(e) => Err(e),
        }
    }
}
