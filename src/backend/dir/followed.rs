//! One store that is followed: its sorted keys and the feed of its changes, both kept true by our own writes and by what the
//! system tells, or else by looking.

use super::keys::Keys;
use super::records::{etag, find, stat_of};
use super::{Area, Origin, Store};
use crate::backend::feed::{Feed, FeedPosition, Ring};
use crate::backend::{ChangeKind, watch::Watcher};
use crate::error::{Kind, Result};
use crate::record::key::StoreId;
use crate::record::{ETag, Key};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many versions are remembered as told, so that one change is not told twice.
const TOLD: usize = 16 * 1024;
/// A state of a directory this young may still get a change that its times do not show.
const YOUNG: Duration = Duration::from_millis(50);

/// A store that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) id: StoreId,
    state: Mutex<State>,
    /// Held while the keys are read, so that they are read once.
    reading: Mutex<()>,
    ring: Ring,
    /// Whether the system tells of changes.
    watched: AtomicBool,
}

#[derive(Debug)]
struct State {
    store: Arc<Store>,
    keys: Option<Keys>,
    /// What changed while the keys are being read.
    meanwhile: Option<Vec<Key>>,
    /// The versions told last; when the system tells nothing, those of all keys.
    told: HashMap<Key, Option<ETag>>,
    /// The directory's times that the keys are right for.
    times: Option<(i64, i64)>,
    used: Instant,
    /// How often it was looked for and not found.
    missed: u32,
}

impl Followed {
    pub(super) fn new(id: &StoreId, store: Arc<Store>) -> Result<Self> {
        Ok(Self {
            id: id.clone(),
            state: Mutex::new(State {
                store,
                keys: None,
                meanwhile: None,
                told: HashMap::new(),
                times: None,
                used: Instant::now(),
                missed: 0,
            }),
            reading: Mutex::default(),
            ring: Ring::new()?,
            watched: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    /// Begins to watch. Whether it could be done; once for each directory.
    pub(super) fn watch(&self, watcher: Option<&Watcher>) {
        let store = self.lock().store.clone();
        let watch = watcher.map(|watcher| watcher.add_at(&self.id, store.dir(Area::Store)?));
        let watched = match watch {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!("the store {} is looked through instead: {error}", self.id);
                false
            }
        };
        self.watched.store(watched, Relaxed);
        store.watched(watched);
    }

    /// Ends it.
    pub(super) fn unwatch(&self, watcher: Option<&Watcher>) {
        self.lock().store.watched(false);
        if let Some(watcher) = watcher {
            watcher.remove(&self.id);
        }
    }

    pub(super) fn is_at(&self, store: &Store) -> bool {
        self.lock().store.id() == store.id()
    }

    /// Another directory has taken the old one's place, as after an SDK's purge.
    pub(super) fn moved_to(&self, store: Arc<Store>, watcher: Option<&Watcher>) {
        self.lock().store = store;
        self.watch(watcher);
        self.doubt();
    }

    /// What is known may be wrong.
    pub(super) fn doubt(&self) {
        let mut state = self.lock();
        state.keys = None;
        if self.is_watched() {
            state.told.clear();
        }
        let store = state.store.clone();
        self.ring.tell(None, ChangeKind::Reset, None);
        drop(state);
        if let Err(error) = store.refresh(None) {
            tracing::debug!("the store {} cannot be looked at: {error}", self.id);
        }
    }

    pub(super) fn listen(&self, after: Option<FeedPosition>) -> Feed {
        self.ring.listen(after)
    }

    /// Whether anybody reads the feed.
    pub(super) fn is_heard(&self) -> bool {
        self.ring.is_heard()
    }

    /// Since when nobody has asked for it, and how many bytes its keys take.
    pub(super) fn rest(&self) -> (Instant, usize) {
        let state = self.lock();
        (state.used, state.keys.as_ref().map_or(0, Keys::bytes))
    }

    /// Lets go of the keys.
    pub(super) fn forget_keys(&self) {
        self.lock().keys = None;
    }

    /// Counts a vain look for it, or sets the count back.
    pub(super) fn missed(&self, missed: bool) -> u32 {
        let mut state = self.lock();
        state.missed = if missed { state.missed + 1 } else { 0 };
        state.missed
    }

    /// A record was changed by ourselves.
    pub(super) fn tell(&self, key: &Key, kind: ChangeKind, etag: Option<ETag>) {
        let mut state = self.lock();
        match kind {
            ChangeKind::Put => self.there(&mut state, key, etag),
            ChangeKind::Delete | ChangeKind::Reset => self.gone(&mut state, key),
        }
    }

    fn there(&self, state: &mut State, key: &Key, etag: Option<ETag>) {
        if let Some(keys) = &mut state.keys {
            keys.insert(key.as_str());
        }
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.push(key.clone());
        }
        if state.told.get(key) != Some(&etag) {
            self.remember(state, key, etag.clone());
            self.ring.tell(Some(key.clone()), ChangeKind::Put, etag);
        }
    }

    fn gone(&self, state: &mut State, key: &Key) {
        let listed = state.keys.as_mut().map(|keys| keys.remove(key.as_str()));
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.push(key.clone());
        }
        let told = match state.told.get(key) {
            Some(Some(_)) => false,
            Some(None) => true,
            // Of a file that came and went, or is no record, nothing was ever told.
            None => listed == Some(false),
        };
        if !told {
            self.remember(state, key, None);
            self.ring.tell(Some(key.clone()), ChangeKind::Delete, None);
        }
    }

    fn remember(&self, state: &mut State, key: &Key, etag: Option<ETag>) {
        if self.is_watched() {
            if state.told.len() >= TOLD {
                state.told.clear();
            }
        } else if etag.is_none() {
            state.told.remove(key);
            return;
        }
        state.told.insert(key.clone(), etag);
    }

    /// The system told that files changed.
    pub(super) fn absorb(&self, files: &[&str]) {
        let mut state = self.lock();
        let store = state.store.clone();
        let Ok(names) = store.refresh(Some(files)) else {
            drop(state);
            return self.doubt();
        };
        for name in names {
            if let Ok(key) = Key::new(&name) {
                self.look_at(&mut state, &store, &key);
            }
        }
    }

    fn look_at(&self, state: &mut State, store: &Store, key: &Key) {
        match find(store, key.as_str()) {
            Ok((_, stat)) => self.there(state, key, Some(etag(&stat))),
            Err(error) if error.kind() == Kind::NotFound => self.gone(state, key),
            Err(error) => tracing::debug!("{key} of {} cannot be looked at: {error}", self.id),
        }
    }

    /// Makes the keys right for this moment: reads them when they are not known, else takes in what was not told yet.
    pub(super) fn keys_are_right(&self, watcher: Option<&Watcher>) -> Result<()> {
        let store = {
            let mut state = self.lock();
            state.used = Instant::now();
            state.store.clone()
        };
        let stat = stat_of(&store)?;
        let times = Some((stat.modified_ns, stat.changed_ns));
        let is_right = |state: &State| state.keys.is_some() && state.times == times;
        if is_right(&self.lock()) {
            return Ok(());
        }
        let known = self.lock().keys.is_some();
        if let Some(watcher) = watcher.filter(|_| known && self.is_watched()) {
            watcher.settle();
            let mut state = self.lock();
            if state.keys.is_some() {
                state.times = times;
                return Ok(());
            }
        }
        let reading = self.reading.lock();
        let _reading = reading.unwrap_or_else(PoisonError::into_inner);
        if is_right(&self.lock()) {
            return Ok(());
        }
        self.lock().meanwhile = Some(Vec::new());
        let read = read_keys(&store).map(Keys::of);
        let mut state = self.lock();
        let meanwhile = state.meanwhile.take().unwrap_or_default();
        state.keys = Some(read?);
        for key in meanwhile {
            self.look_at(&mut state, &store, &key);
        }
        let settled = super::js_lock::age(stat.modified_ns.max(stat.changed_ns)) > YOUNG;
        state.times = times.filter(|_| settled || self.is_watched());
        Ok(())
    }

    /// Keys in order after or from one, at most so many.
    pub(super) fn keys(&self, from: &str, after: bool, prefix: &str, most: usize) -> Vec<Key> {
        let state = self.lock();
        let keys = state.keys.as_ref().map(|keys| keys.from(from, after));
        keys.into_iter()
            .flatten()
            .take_while(|key| key.starts_with(prefix))
            .take(most)
            .filter_map(|key| Key::new(key).ok())
            .collect()
    }

    /// Looks at every record, where the system tells nothing. `quietly` the first time: what is there is not news.
    pub(super) fn look_through(&self, quietly: bool) -> Result<()> {
        let store = self.lock().store.clone();
        let mut there = HashSet::new();
        for key in read_keys(&store)? {
            let Ok(key) = Key::new(&key) else { continue };
            let Ok((_, stat)) = find(&store, key.as_str()) else {
                continue;
            };
            let mut state = self.lock();
            if quietly {
                state.told.insert(key.clone(), Some(etag(&stat)));
            } else {
                self.there(&mut state, &key, Some(etag(&stat)));
            }
            there.insert(key);
        }
        let mut state = self.lock();
        let gone = state.told.keys().filter(|key| !there.contains(*key));
        let gone: Vec<Key> = gone.cloned().collect();
        for key in gone {
            self.look_at(&mut state, &store, &key);
        }
        Ok(())
    }
}

fn read_keys(store: &Store) -> Result<Vec<Box<str>>> {
    let mut keys = Vec::new();
    store.list(0, &mut |listed| {
        if listed.origin == Origin::Record {
            keys.push(listed.name.into());
        }
        listed.area == Area::Store
    })?;
    Ok(keys)
}
