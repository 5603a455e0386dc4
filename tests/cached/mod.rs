//! A tree over a cached volume over a faulty backend in memory, without a kernel: what programs do, in a line each.
// Each test program that takes this module in uses its own part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod bare;
pub mod chance;
mod mount;

pub use mount::Mount;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storefs::backend::faulty::{Faulty, Verb};
use storefs::backend::memory::Memory;
use storefs::backend::{Backend, NewStore};
use storefs::error::{Error, Kind};
use storefs::fs::{Caller, Fs, Show};
use storefs::record::key::StoreId;
use storefs::record::{Body, ContentType, Key, Meta, Precondition, RecordId, StoreName};
use storefs::volume::cached::{self, Cached};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The backend that most tests stand on.
pub type Behind = Arc<Faulty<Memory>>;

/// Folders, a backend with the store `default`, and a runtime.
pub struct World {
    pub behind: Behind,
    pub store: StoreId,
    pub runtime: Arc<Runtime>,
    temp: TempDir,
}

/// Quick in everything, so that tests are.
pub fn options() -> cached::Options {
    cached::Options {
        debounce: Duration::from_millis(20),
        ttl: Duration::from_millis(50),
        host: "box".to_owned(),
        young: Duration::from_secs(30),
        parting: Duration::from_millis(300),
        look_patience: Duration::from_millis(500),
        patience: Duration::from_secs(2),
        backoff: Duration::from_millis(5),
        offline_pause: Duration::from_millis(50),
        ..cached::Options::default()
    }
}

impl World {
    pub fn new() -> Self {
        if std::env::var_os("STOREFS_TRACE").is_some() {
            let _ = tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .try_init();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let behind = Arc::new(Faulty::new(Memory::new()));
        let new = NewStore::named(StoreName::new("default").unwrap());
        let (info, _) = runtime.block_on(behind.inner().create_store(new)).unwrap();
        Self {
            behind,
            store: info.id,
            runtime: Arc::new(runtime),
            temp: tempfile::tempdir().unwrap(),
        }
    }

    pub fn mount(&self) -> Mount {
        self.mount_with("one", options())
    }

    /// A mount with folders of its own.
    pub fn mount_with(&self, folders: &str, options: cached::Options) -> Mount {
        self.mount_over(self.behind.clone(), folders, options)
    }

    pub fn mount_over(
        &self,
        backend: Arc<dyn Backend>,
        folders: &str,
        options: cached::Options,
    ) -> Mount {
        let volume = self.try_mount(backend, folders, options).unwrap();
        let volume = Arc::new(volume);
        let fs = Fs::new(volume.clone(), tree_options());
        let runtime = self.runtime.clone();
        Mount {
            fs,
            volume,
            runtime,
        }
    }

    /// Another process may need a moment to give the folders up.
    pub fn try_mount(
        &self,
        backend: Arc<dyn Backend>,
        folders: &str,
        options: cached::Options,
    ) -> Result<Cached, Error> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let handle = self.runtime.handle().clone();
            let (cache, spool) = (self.cache(folders), self.spool(folders));
            match Cached::open(backend.clone(), &cache, &spool, options.clone(), handle) {
                Err(e) if e.kind() == Kind::Busy && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    pub fn spool(&self, folders: &str) -> PathBuf {
        self.temp.path().join(folders).join("spool")
    }

    pub fn cache(&self, folders: &str) -> PathBuf {
        self.temp.path().join(folders).join("cache")
    }

    pub fn id(&self, key: &str) -> RecordId {
        RecordId {
            store: self.store.clone(),
            key: Key::new(key).unwrap(),
        }
    }

    /// Somebody else writes.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Meta {
        self.put_as(key, bytes, "text/plain; charset=utf-8")
    }

    pub fn put_as(&self, key: &str, bytes: &[u8], content_type: &str) -> Meta {
        let content_type = ContentType::stored(content_type);
        let (id, body) = (self.id(key), Body::from(bytes));
        let put = self
            .behind
            .inner()
            .put(&id, body, &content_type, Precondition::None);
        self.runtime.block_on(put).unwrap()
    }

    pub fn delete(&self, key: &str) {
        let id = self.id(key);
        let delete = self.behind.inner().delete(&id, Precondition::None);
        self.runtime.block_on(delete).unwrap();
    }

    /// What the backend has.
    pub fn there(&self, key: &str) -> Option<Vec<u8>> {
        let id = self.id(key);
        let fetched = self
            .runtime
            .block_on(self.behind.inner().get(&id, None))
            .ok()?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut { fetched.bytes }, &mut bytes).unwrap();
        Some(bytes)
    }

    pub fn type_there(&self, key: &str) -> String {
        let meta = self
            .runtime
            .block_on(self.behind.inner().head(&self.id(key)))
            .unwrap();
        meta.content_type.unwrap().as_str().to_owned()
    }

    pub fn keys_there(&self) -> Vec<String> {
        let query = storefs::backend::ListQuery::default();
        let page = self
            .runtime
            .block_on(self.behind.inner().list(&self.store, query))
            .unwrap();
        page.records
            .iter()
            .map(|(key, _)| key.as_str().to_owned())
            .collect()
    }

    pub fn count(&self, verb: Verb) -> usize {
        self.behind.count(verb)
    }
}

pub fn tree_options() -> storefs::fs::Options {
    storefs::fs::Options {
        show: Show::default(),
        default_store: StoreName::new("default").unwrap(),
        stores: Vec::new(),
        input_key: "INPUT".to_owned(),
        ttl: None,
        shared_files: false,
        parked: 0,
        source: "memory:".to_owned(),
    }
}

pub fn me() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

pub fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: me(),
        ..Caller::default()
    }
}

pub type Done<T = ()> = Result<T, Kind>;

pub fn kinds<T>(result: Result<T, Error>) -> Done<T> {
    result.map_err(|e| e.kind())
}

/// Waits until something holds; panics when it never does.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The files of a spool that hold anything, and what it could not use.
pub fn bytes_in(spool: &Path) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    let bytes = spool.join("bytes");
    let bytes = names_in(&bytes).into_iter().map(|name| bytes.join(name));
    let bad = names_in(spool)
        .into_iter()
        .filter(|name| name.contains('.'));
    let bad = bad.map(|name| spool.join(name));
    bytes.filter(holds).chain(bad).collect()
}

/// The notes of a spool that are not struck out, oldest first.
pub fn notes_in(spool: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(spool.join("notes")).unwrap();
    let live = text.lines().filter(|line| !line.starts_with('#'));
    live.map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The names in a folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
