//! A folder whose stores have cards, seen by as many openings as a test wants.
// Each test program that takes this module in uses its own part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storefs::backend::dir::{DirBackend, Folder, FolderOptions};
use storefs::backend::{Backend, NewStore, StoreInfo, StoreRef};
use storefs::error::Result;
use storefs::record::key::StoreId;
use storefs::record::{Body, ContentType, Key, Precondition, RecordId, StoreName};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub const OWNER: &str = "aB3dE5gH7jK9mN1pQ";

pub struct World {
    pub root: TempDir,
    pub runtime: Runtime,
}

pub fn name(name: &str) -> StoreName {
    StoreName::new(name).unwrap()
}

impl World {
    /// A folder with these stores, as an SDK makes them.
    pub fn new(stores: &[&str]) -> Self {
        let world = Self {
            root: TempDir::new().unwrap(),
            runtime: Runtime::new().unwrap(),
        };
        for store in stores {
            fs::create_dir_all(world.store(store)).unwrap();
        }
        world
    }

    pub fn storage(&self) -> PathBuf {
        self.root.path().join("storage")
    }

    pub fn store(&self, name: &str) -> PathBuf {
        self.storage().join("key_value_stores").join(name)
    }

    pub fn cards(&self) -> PathBuf {
        self.storage().join(".storefs/stores")
    }

    pub fn folder(&self, read_only: bool) -> Arc<Folder> {
        let options = FolderOptions {
            read_only,
            ..FolderOptions::default()
        };
        Folder::open(&self.storage(), options).unwrap()
    }

    /// The folder as a process opens it that has not seen it before.
    pub fn open(&self) -> DirBackend {
        DirBackend::new(self.folder(false))
    }

    pub fn all(&self, backend: &DirBackend) -> Vec<StoreInfo> {
        let page = self.runtime.block_on(backend.stores(None));
        page.unwrap().stores
    }

    /// The ids by name.
    pub fn ids(&self, backend: &DirBackend) -> BTreeMap<String, StoreId> {
        let all = self.all(backend).into_iter();
        let named = all.map(|store| {
            (
                store.name.map_or_else(String::new, |n| n.to_string()),
                store.id,
            )
        });
        named.collect()
    }

    pub fn find(&self, backend: &DirBackend, reference: StoreRef) -> Result<StoreInfo> {
        self.runtime.block_on(backend.store(&reference))
    }

    pub fn named(&self, backend: &DirBackend, called: &str) -> Result<StoreInfo> {
        self.find(backend, StoreRef::name(name(called)))
    }

    pub fn by_id(&self, backend: &DirBackend, id: &StoreId) -> Result<StoreInfo> {
        self.find(backend, StoreRef::Id(id.clone()))
    }

    pub fn create(&self, backend: &DirBackend, owner: Option<&str>, called: &str) -> StoreInfo {
        let new = NewStore {
            owner: owner.map(str::to_owned),
            ..NewStore::named(name(called))
        };
        self.runtime.block_on(backend.create_store(new)).unwrap().0
    }

    pub fn put(&self, backend: &DirBackend, store: &StoreId, key: &str) -> Result<()> {
        let id = RecordId {
            store: store.clone(),
            key: Key::new(key).unwrap(),
        };
        let content_type = ContentType::stored("text/plain");
        let put = backend.put(
            &id,
            Body::from(&b"x"[..]),
            &content_type,
            Precondition::None,
        );
        self.runtime.block_on(put).map(drop)
    }

    /// Every file and link of the SDKs' part of the folder, with its bytes.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        walk(&self.storage().join("key_value_stores"), &mut found);
        found
    }
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            walk(&path, found);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
}
