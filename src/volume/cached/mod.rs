//! A volume over any backend: edits are saved on local disk first and sent in the background, what was read stays here. It
//! never gives up what it accepted, and never shows what the backend was not told as if it had been.

mod ahead;
mod answers;
mod conflict;
mod edit;
mod evict;
mod follow;
mod index;
mod keep;
mod left;
mod list;
mod names;
mod note;
mod notes;
mod open;
mod ranges;
mod reader;
mod record;
mod recover;
mod remote;
mod rest;
mod save;
mod scratch;
mod send;
mod settle;
mod show;
mod sizes;
mod spool;
pub mod state;
mod store;
mod stores;
mod upload;
mod volume;
mod wait;

pub use evict::Room;
pub use reader::Reader;
pub use rest::remove_spent;
pub use spool::{Spooled, private_dir};

use super::Heard;
use crate::backend::{Backend, Properties};
use crate::error::{Error, Result};
use crate::record::{RecordId, StoreName};
use evict::Budget;
use index::Index;
use keep::Keeper;
use rest::Rest;
use spool::Spool;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

/// How a cached volume behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nothing can be written.
    pub read_only: bool,
    /// How old what is shown may be, where changes are not pushed.
    pub ttl: Duration,
    /// How long after an edit it is sent, if no other follows; after ten times that in any case.
    pub debounce: Duration,
    /// A close waits until the backend has the record.
    pub write_through: bool,
    /// An fsync forces the spool to disk and does not wait for the backend.
    pub fsync_local: bool,
    /// Cached bytes go when there are more than this.
    pub cache_size: u64,
    /// So many bytes may wait to be sent.
    pub unsent_size: u64,
    /// The unnamed store that is shown as `default`, by its id.
    pub default_store: Option<StoreName>,
    /// An empty store may be removed.
    pub allow_store_delete: bool,
    /// Lengths that the backend does not tell are learned by reading.
    pub exact_sizes: bool,
    /// What this machine is called, for the names of conflict copies.
    pub host: String,
    /// How long a record waits that a program probably renames in a moment.
    pub young: Duration,
    /// How long a record stays at the backend that was renamed to a scratch name.
    pub parting: Duration,
    /// How long a look-up may take.
    pub look_patience: Duration,
    /// How long anything else may go without progress.
    pub patience: Duration,
    /// How long the first pause is after a failed upload; it doubles up to 25 times of that.
    pub backoff: Duration,
    /// How long the pause is while the backend cannot be reached.
    pub offline_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            ttl: Duration::from_secs(1),
            debounce: Duration::from_millis(500),
            write_through: false,
            fsync_local: false,
            cache_size: 10 << 30,
            unsent_size: 8 << 30,
            default_store: None,
            allow_store_delete: false,
            exact_sizes: false,
            host: "host".to_owned(),
            young: Duration::from_secs(30),
            parting: Duration::from_secs(5),
            look_patience: Duration::from_secs(3),
            patience: Duration::from_secs(30),
            backoff: Duration::from_millis(200),
            offline_pause: Duration::from_secs(30),
        }
    }
}

/// A backend with a working copy on local disk.
#[derive(Debug)]
pub struct Cached {
    inner: Arc<Inner>,
}

pub(in crate::volume) struct Inner {
    backend: Arc<dyn Backend>,
    /// What the backend can do was found out.
    learned: watch::Sender<bool>,
    options: Options,
    runtime: Handle,
    index: Mutex<Index>,
    keeper: Keeper,
    spool: Spool,
    budget: Arc<Budget>,
    cache: PathBuf,
    cache_bytes: AtomicU64,
    /// The cache is too full and looked at again in a moment.
    evicting: AtomicBool,
    /// Something is due earlier than before.
    schedule: Notify,
    /// Until when the task of uploads sleeps.
    planned: Mutex<Option<Instant>>,
    connections: Arc<Semaphore>,
    /// Held while an edit is saved, so that the order on disk is that in the index.
    saving: Mutex<()>,
    ahead: Mutex<ahead::Ahead>,
    /// Listings that are being taken, one of each store at a time.
    listings: Mutex<HashMap<StoreName, Arc<tokio::sync::Mutex<()>>>>,
    /// Stores that are being looked at again.
    store_looks: Mutex<HashSet<StoreName>>,
    /// Names that are being made exclusively, and whether as a temporary one is.
    claims: Mutex<HashMap<(StoreName, Box<str>), bool>>,
    progress: watch::Sender<Progress>,
    attempts: AtomicU64,
    /// How far the sending of each record came that is not done yet: the edit, and its bytes.
    farthest: Mutex<HashMap<RecordId, (u64, u64)>>,
    /// Since when the backend cannot be reached, and when that was last tried.
    offline: Mutex<Option<Offline>>,
    /// When somebody had last waited in vain, and how long.
    silence: Mutex<Option<(Instant, Duration)>>,
    heard: OnceLock<Heard>,
    /// What earlier runs left unsent.
    rests: Mutex<Vec<Rest>>,
    /// None after the end.
    tasks: Mutex<Option<Vec<JoinHandle<()>>>>,
    _lock: File,
}

/// What uploads did so far.
#[derive(Clone, Copy, Default, Debug)]
struct Progress {
    /// Uploads that ended.
    ended: u64,
    /// Those of them that worked.
    accepted: u64,
    /// How often bytes of one were seen to move.
    moves: u64,
}

/// The backend cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offline {
    since: std::time::SystemTime,
    tried: Instant,
    /// No upload is tried before.
    paused: Instant,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached")
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

impl Cached {
    /// A volume over a backend, with its cache and its spool in these folders. What an earlier mount left unsent is sent.
    /// Tasks run on `runtime` until the volume is dropped. `Kind::Busy` when another process uses one of the folders.
    pub fn open(
        backend: Arc<dyn Backend>,
        cache: &Path,
        spool: &Path,
        options: Options,
        runtime: Handle,
    ) -> Result<Self> {
        let (spool, found) = Spool::open(spool)?;
        let lock = spool::take_folder(cache)?;
        spool::private_dir(&cache.join("bytes"))?;
        let mut index = Index::default();
        let keeper = Keeper::open(cache, &mut index)?;
        if let Some(default) = &options.default_store {
            index.free_dir("default", default);
        }
        let properties = backend.properties();
        let budget = Budget::new(options.unsent_size, options.patience);
        recover::recover((&spool, found), &mut index, &budget, &options)?;
        let cache_bytes = evict::adopt(&cache.join("bytes"), &mut index)?;
        let inner = Arc::new(Inner {
            connections: Arc::new(Semaphore::new(properties.connections.max(1))),
            backend,
            learned: watch::Sender::new(false),
            options,
            runtime,
            index: Mutex::new(index),
            keeper,
            spool,
            budget,
            cache: cache.join("bytes"),
            cache_bytes: AtomicU64::new(cache_bytes),
            evicting: AtomicBool::new(false),
            schedule: Notify::new(),
            planned: Mutex::default(),
            saving: Mutex::default(),
            ahead: Mutex::default(),
            listings: Mutex::default(),
            store_looks: Mutex::default(),
            claims: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            attempts: AtomicU64::new(0),
            farthest: Mutex::default(),
            offline: Mutex::new(None),
            silence: Mutex::default(),
            heard: OnceLock::new(),
            rests: Mutex::default(),
            tasks: Mutex::new(Some(Vec::new())),
            _lock: lock,
        });
        if !inner.options.read_only {
            let uploads = inner.runtime.spawn(upload::run(inner.clone()));
            inner.keep_task(uploads);
        }
        Ok(Self { inner })
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        let tasks = self.inner.tasks().take();
        for task in tasks.into_iter().flatten() {
            task.abort();
        }
        self.inner.end_fetching_ahead();
        self.inner.rests().clear();
        self.inner.keeper.flush();
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Option<Vec<JoinHandle<()>>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the task with the volume. What is still under way then may have started one.
    fn keep_task(&self, task: JoinHandle<()>) {
        match &mut *self.tasks() {
            Some(tasks) => tasks.push(task),
            None => task.abort(),
        }
    }

    fn writable(&self, op: &'static str, subject: &str) -> Result<()> {
        if self.options.read_only {
            let kind = crate::error::Kind::ReadOnly;
            return Err(Error::because(op, subject, kind, "mounted read-only"));
        }
        Ok(())
    }

    /// Tells whoever listens that something else is shown now.
    fn tell(&self, dir: &StoreName, name: Option<&str>) {
        if let Some(heard) = self.heard.get() {
            heard(dir, name);
        }
    }

    /// What the backend can do, as far as it has shown that.
    fn properties(&self) -> Properties {
        self.backend.properties()
    }

    fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }
}
