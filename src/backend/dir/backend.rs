//! The same folder as an asynchronous backend: every call runs on the blocking pool. It holds no record in memory but the
//! piece that is being copied.

use super::listings::Listings;
use super::sdk::Writing;
use super::{Area, CommitIf, FileStat, Folder, Layout, Origin, Place, Store};
use crate::backend::{
    Backend, Counts, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties,
    StoreChange, StoreInfo, StorePage, StoreRef,
};
use crate::error::{Error, Kind, Result};
use crate::record::key::{MAX_KEY, StoreId};
use crate::record::{
    Access, Body, ContentType, ETag, Meta, Precondition, RecordId, Size, StoreName,
};
use async_trait::async_trait;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many stores a page holds.
const PAGE: usize = 1000;
/// Mode of a new record's file and of a new store's directory.
const MODES: (u32, u32) = (0o644, 0o755);
/// The longest key of which both SDKs can keep a record whatever its type.
const MAX_SDK_KEY: usize = 219;

/// A folder of stores as a backend.
#[derive(Clone, Debug)]
pub struct DirBackend {
    folder: Arc<Folder>,
    listings: Arc<Listings>,
}

impl DirBackend {
    /// The backend of an opened folder.
    pub fn new(folder: Arc<Folder>) -> Self {
        Self {
            folder,
            listings: Arc::default(),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|error| Error::because("use the folder", "", Kind::Io, error.to_string()))?
    }

    fn info(&self, name: &StoreName) -> Result<StoreInfo> {
        let store = self.folder.store(name)?;
        let stat = FileStat::of_file(store.dir(Area::Store)?)?;
        Ok(StoreInfo {
            id: name.clone(),
            name: Some(name.clone()),
            owner: None,
            created: None,
            modified: Some(time(stat.modified_ns)),
            accessed: None,
            title: None,
            access: Access::default(),
            secret: None,
            schema: None,
            run: None,
            actor: None,
            counts: Counts::default(),
            bytes: None,
        })
    }

    /// A record of this key, never a file that is only shown.
    fn find(store: &Store, id: &RecordId) -> Result<(Place, FileStat)> {
        let (place, stat) = store.find(id.key.as_str())?;
        if place.origin != Origin::Record {
            return Err(Error::new("find", id.to_string(), Kind::NotFound));
        }
        Ok((place, stat))
    }

    /// Whether the record is as the caller believes. Called with the store locked.
    fn check(store: &Store, id: &RecordId, only_if: &Precondition) -> Result<()> {
        let changed = || Err(Error::new("check", id.to_string(), Kind::Changed));
        let found = match Self::find(store, id) {
            Ok((_, stat)) => Some(etag(&stat)),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        match (only_if, found) {
            (Precondition::None, _) | (Precondition::Absent, None) => Ok(()),
            (Precondition::Match(wanted), Some(found)) if *wanted == found => Ok(()),
            _ => changed(),
        }
    }

    fn put_now(
        &self,
        id: &RecordId,
        body: &Body,
        content_type: &ContentType,
        only_if: &Precondition,
    ) -> Result<Meta> {
        let key = id.key.as_str();
        let store = self.folder.store(&id.store)?;
        store.may_create(key)?;
        let mut draft = self.folder.draft(MODES.0)?;
        let copied = match body {
            Body::Bytes(bytes) => draft.file.write_all_at(bytes, 0),
            Body::File(_) => io::copy(&mut body.reader(), &mut &*draft.file).map(drop),
        };
        copied.map_err(|error| Error::io("put", id.to_string(), error))?;
        let _turn = store.turn();
        let _writing = Writing::wait(&store)?;
        Self::check(&store, id, only_if)?;
        let commit_if = match only_if {
            Precondition::Absent => CommitIf::Absent,
            Precondition::None | Precondition::Match(_) => CommitIf::Any,
        };
        let (_, stat) = store
            .commit(&mut draft, key, Some(content_type), &commit_if, true)
            .map_err(|error| {
                if error.kind() == Kind::Exists && commit_if == CommitIf::Absent {
                    return error.with_kind(Kind::Changed);
                }
                error
            })?;
        Ok(meta(&stat, Some(content_type.clone())))
    }

    fn get_now(&self, id: &RecordId) -> Result<(File, Meta)> {
        let key = id.key.as_str();
        let store = self.folder.store(&id.store)?;
        let mut tries = 0;
        loop {
            let (place, _) = Self::find(&store, id)?;
            let opened = store.open(&place, false);
            tries += 1;
            let file = match opened {
                Err(error) if error.kind() == Kind::NotFound && tries < 4 => continue,
                other => other?,
            };
            let stat = FileStat::of_file(&file)?;
            let content_type = store.content_type(key, &place)?;
            // The type belongs to these bytes only if the record is still this file.
            let same = Self::find(&store, id).is_ok_and(|(_, now)| now.inode == stat.inode);
            if same || tries == 4 {
                return Ok((file, meta(&stat, Some(content_type))));
            }
        }
    }

    fn list_now(&self, name: &StoreId, query: &ListQuery) -> Result<KeyPage> {
        let (store, keys) = self.listings.keys(&self.folder, name)?;
        let after = query.after.as_ref();
        let start = keys.partition_point(|key| {
            after.is_some_and(|after| key <= after) || key.as_str() < query.prefix.as_str()
        });
        let mut page = KeyPage::default();
        for key in &keys[start..] {
            if !key.as_str().starts_with(&query.prefix) {
                break;
            }
            if page.records.len() >= query.limit {
                page.next = page.records.last().map(|(key, _)| key.clone());
                break;
            }
            match store.find(key.as_str()) {
                Ok((_, stat)) => page.records.push((key.clone(), meta(&stat, None))),
                // Gone since the keys were read.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    fn delete_store_now(&self, id: &StoreId) -> Result<()> {
        let store = self.folder.store(id)?;
        loop {
            let mut names = Vec::new();
            store.list(0, &mut |listed| {
                if listed.area == Area::Store {
                    names.push(listed.name.to_owned());
                }
                listed.area == Area::Store && names.len() < PAGE
            })?;
            if names.is_empty() {
                break;
            }
            for name in names {
                match store.remove(&name) {
                    Err(error) if error.kind() != Kind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        self.folder.remove_store(id)
    }

    fn unnamed(&self) -> Result<StoreInfo> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        loop {
            let mut random =
                u128::from(super::temp::random()) << 64 | u128::from(super::temp::random());
            let mut id = String::with_capacity(17);
            for _ in 0..17 {
                id.push(char::from(
                    LETTERS[usize::try_from(random % 62).unwrap_or(0)],
                ));
                random /= 62;
            }
            let name = StoreName::new(&id)?;
            match self.folder.create_store(&name, MODES.1) {
                Ok(_) => return self.info(&name),
                Err(error) if error.kind() == Kind::Exists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn time(ns: i64) -> SystemTime {
    match u64::try_from(ns) {
        Ok(after) => UNIX_EPOCH + Duration::from_nanos(after),
        Err(_) => UNIX_EPOCH - Duration::from_nanos(ns.unsigned_abs()),
    }
}

fn etag(stat: &FileStat) -> ETag {
    ETag::of_file(stat.inode, stat.size, i128::from(stat.modified_ns))
}

fn meta(stat: &FileStat, content_type: Option<ContentType>) -> Meta {
    Meta {
        size: Size::Exact(stat.size),
        content_type,
        etag: Some(etag(stat)),
        modified: Some(time(stat.modified_ns)),
    }
}

/// Reads a part of a file by position.
struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
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
            change_feed: false,
            connections: 16,
            max_key: match self.folder.options().layout {
                Some(Layout::Plain) => MAX_KEY,
                Some(Layout::Js | Layout::Python | Layout::Dual) | None => MAX_SDK_KEY,
            },
        }
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        let after = after.cloned();
        self.run(move |this| {
            let mut names = this.folder.stores()?;
            names.retain(|name| after.as_ref().is_none_or(|after| name > after));
            names.sort_unstable();
            let more = names.len() > PAGE;
            names.truncate(PAGE);
            let next = names.last().filter(|_| more).cloned();
            // One that is gone since is left out.
            let stores = names
                .iter()
                .filter_map(|name| this.info(name).ok())
                .collect();
            Ok(StorePage { stores, next })
        })
        .await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        let (StoreRef::Id(name) | StoreRef::Name { name, .. }) = reference.clone();
        self.run(move |this| this.info(&name)).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        self.run(move |this| {
            let Some(name) = new.name else {
                return Ok((this.unnamed()?, true));
            };
            match this.folder.create_store(&name, MODES.1) {
                Ok(_) => Ok((this.info(&name)?, true)),
                Err(error) if error.kind() == Kind::Exists => Ok((this.info(&name)?, false)),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let id = id.clone();
        self.run(move |this| {
            let Some(Some(name)) = change.name else {
                return this.info(&id);
            };
            this.folder.rename_store(&id, &name, true)?;
            this.info(&name)
        })
        .await
    }

    async fn changes(&self, store: &StoreId, _after: Option<FeedPosition>) -> Result<Feed> {
        Err(Error::new("follow", store.to_string(), Kind::Unsupported))
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        let id = id.clone();
        self.run(move |this| this.delete_store_now(&id)).await
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let store = store.clone();
        self.run(move |this| this.list_now(&store, &query)).await
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        let id = id.clone();
        self.run(move |this| Ok(this.get_now(&id)?.1)).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        let id = id.clone();
        self.run(move |this| {
            let (file, meta) = this.get_now(&id)?;
            let range = range.unwrap_or(0..u64::MAX);
            let bytes = Box::new(Part {
                file,
                at: range.start,
                end: range.end,
            });
            Ok(Fetched { meta, bytes })
        })
        .await
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let (id, content_type) = (id.clone(), content_type.clone());
        self.run(move |this| this.put_now(&id, &body, &content_type, &only_if))
            .await
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        let id = id.clone();
        self.run(move |this| {
            let store = this.folder.store(&id.store)?;
            let _turn = store.turn();
            let _writing = Writing::wait(&store)?;
            Self::find(&store, &id)?;
            Self::check(&store, &id, &only_if)?;
            store.remove(id.key.as_str())
        })
        .await
    }
}
