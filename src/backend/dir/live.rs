//! The stores of a folder that are followed, and the thread that looks after them. Nothing is followed until somebody lists
//! a store or asks for its changes, and nothing for longer than it is of use.

use super::Folder;
use super::backend::DirBackend;
use super::followed::Followed;
use super::records::listed;
use super::uses::Use;
use crate::backend::watch::{Batch, Watcher};
use crate::backend::{ChangeKind, KeyPage, ListQuery};
use crate::error::{Kind, Result};
use crate::record::key::StoreId;
use crate::record::{ETag, Key, RecordId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Between two looks at what is followed.
const TICK: Duration = Duration::from_secs(1);
/// A store that nobody has asked for in so long is let go of.
const UNUSED: Duration = Duration::from_secs(10 * 60);
/// The keys of all stores together take at most about so many bytes.
const MOST: usize = 256 * 1024 * 1024;
/// A store that was not there at so many looks is gone: an SDK's purge takes it away for a moment only.
const PATIENCE: u32 = 2;

/// What is followed.
#[derive(Debug)]
pub(super) struct Live {
    folder: Arc<Folder>,
    /// Whether changes here are told by the system at all.
    watch: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watcher: Option<Arc<Watcher>>,
    stores: HashMap<StoreId, Arc<Followed>>,
    /// Whether the thread runs.
    ticking: bool,
}

impl Live {
    pub(super) fn new(folder: Arc<Folder>, watch: bool) -> Arc<Self> {
        Arc::new(Self {
            folder,
            watch,
            state: Mutex::default(),
        })
    }

    /// Whether the folder is on a disk of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.watch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watcher(&self) -> Option<Arc<Watcher>> {
        self.lock().watcher.clone()
    }

    fn all(&self) -> Vec<Arc<Followed>> {
        self.lock().stores.values().cloned().collect()
    }

    /// Tells whoever follows the store what we did to a record.
    pub(super) fn tell(&self, id: &RecordId, kind: ChangeKind, etag: Option<ETag>) {
        let followed = self.lock().stores.get(&id.store).cloned();
        if let Some(followed) = followed {
            followed.tell(&id.key, kind, etag);
        }
    }

    /// Takes in what the system told.
    fn absorb(&self, batch: &Batch) {
        if batch.overflow {
            self.all().iter().for_each(|followed| followed.doubt());
        }
        for (id, files) in &batch.files {
            let followed = id
                .as_ref()
                .and_then(|id| self.lock().stores.get(id).cloned());
            if let Some(followed) = followed {
                let files: Vec<&str> = files.keys().map(|file| &**file).collect();
                followed.absorb(&files);
            }
        }
    }

    /// Starts the watcher and the thread when they are not there yet.
    fn start(self: &Arc<Self>, state: &mut State) {
        if self.watch && state.watcher.is_none() {
            let weak = Arc::downgrade(self);
            let started = Watcher::start(&self.folder.stores_path(), move |batch| {
                if let Some(live) = weak.upgrade() {
                    live.absorb(&batch);
                }
            });
            match started {
                Ok(watcher) => state.watcher = Some(Arc::new(watcher)),
                Err(error) => tracing::warn!("stores are looked through instead: {error}"),
            }
        }
        if !state.ticking {
            let weak = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("storefs-follow".into());
            match thread.spawn(move || tick(&weak)) {
                Ok(_) => state.ticking = true,
                Err(error) => tracing::warn!("nobody looks after the stores: {error}"),
            }
        }
    }

    fn let_go(&self, followed: &Followed) {
        let mut state = self.lock();
        state.stores.remove(&followed.id);
        let watcher = state.watcher.clone();
        drop(state);
        followed.unwatch(watcher.as_deref());
    }

    /// The store is gone.
    pub(super) fn end(&self, id: &StoreId) {
        let followed = self.lock().stores.get(id).cloned();
        if let Some(followed) = followed {
            self.let_go(&followed);
        }
    }

    /// One look at everything that is followed. False when there is nothing.
    fn look(self: &Arc<Self>) -> bool {
        {
            let mut state = self.lock();
            if state.stores.is_empty() {
                state.ticking = false;
                return false;
            }
        }
        let backend = DirBackend {
            folder: self.folder.clone(),
            live: self.clone(),
        };
        for followed in self.all() {
            match backend.store_of(&followed.id) {
                Ok(store) => {
                    followed.missed(false);
                    if !followed.is_at(&store) {
                        followed.moved_to(store, self.watcher().as_deref());
                    }
                }
                Err(error) if error.kind() == Kind::StoreNotFound => {
                    if followed.missed(true) >= PATIENCE {
                        self.let_go(&followed);
                        continue;
                    }
                }
                Err(error) => tracing::debug!("{} cannot be looked at: {error}", followed.id),
            }
            if followed.is_heard() {
                if !followed.is_watched()
                    && let Err(error) = followed.look_through(false)
                {
                    tracing::debug!("{} cannot be looked through: {error}", followed.id);
                }
            } else if followed.rest().0.elapsed() > UNUSED {
                self.let_go(&followed);
            }
        }
        self.keep_small(MOST);
        true
    }

    /// Lets go of the keys that were not asked for the longest, until the rest take no more than so many bytes.
    fn keep_small(&self, most: usize) {
        let all = self.all().into_iter();
        let mut kept: Vec<_> = all.map(|followed| (followed.rest(), followed)).collect();
        kept.sort_by_key(|((used, _), _)| *used);
        let mut sum: usize = kept.iter().map(|((_, bytes), _)| bytes).sum();
        for ((_, bytes), followed) in kept {
            if sum <= most {
                return;
            }
            followed.forget_keys();
            sum -= bytes;
        }
    }
}

fn tick(live: &Weak<Live>) {
    loop {
        std::thread::sleep(TICK);
        let Some(live) = live.upgrade() else { return };
        if !live.look() {
            return;
        }
    }
}

impl DirBackend {
    /// The store, followed from now on.
    fn follow(&self, id: &StoreId) -> Result<Arc<Followed>> {
        let store = self.store_of(id)?;
        let mut state = self.live.lock();
        if let Some(there) = state.stores.get(id).cloned() {
            let watcher = state.watcher.clone();
            drop(state);
            if !there.is_at(&store) {
                there.moved_to(store, watcher.as_deref());
            }
            return Ok(there);
        }
        let followed = Arc::new(Followed::new(id, store.clone())?);
        state.stores.insert(id.clone(), followed.clone());
        self.live.start(&mut state);
        followed.watch(state.watcher.as_deref());
        drop(state);
        // From here on the store remembers which names changed.
        store.refresh(Some(&[]))?;
        Ok(followed)
    }

    /// A store to listen to: what is there already is known, so that only changes are told.
    pub(super) fn follow_now(&self, id: &StoreId) -> Result<Arc<Followed>> {
        let followed = self.follow(id)?;
        if !followed.is_watched() && !followed.is_heard() {
            followed.look_through(true)?;
        }
        followed.keys_are_right(self.live.watcher().as_deref())?;
        Ok(followed)
    }

    pub(super) fn list_now(&self, id: &StoreId, query: &ListQuery) -> Result<KeyPage> {
        self.count(id, Use::List);
        let store = self.store_of(id)?;
        let followed = self.follow(id)?;
        followed.keys_are_right(self.live.watcher().as_deref())?;
        self.live.keep_small(MOST);
        let mut page = KeyPage::default();
        let start = query.after.as_ref().map(Key::as_str);
        let start = start.filter(|after| *after >= query.prefix.as_str());
        let (mut from, mut after) = match start {
            Some(start) => (start.to_owned(), true),
            None => (query.prefix.clone(), false),
        };
        loop {
            let wanted = (query.limit - page.records.len()).saturating_add(1);
            let keys = followed.keys(&from, after, &query.prefix, wanted);
            let ended = keys.len() < wanted;
            for key in keys {
                if page.records.len() == query.limit {
                    page.next = page.records.last().map(|(key, _)| key.clone());
                    return Ok(page);
                }
                from = key.as_str().to_owned();
                // Gone since the keys were read.
                if let Some(meta) = listed(&store, key.as_str())? {
                    page.records.push((key, meta));
                }
            }
            if ended {
                return Ok(page);
            }
            after = true;
        }
    }
}
