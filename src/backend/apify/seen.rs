//! What a server has shown that it can do. Nothing of it is configured; a server that shows nothing is asked for nothing.

use crate::record::key::StoreId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a store that answered is taken to be there, when a record of it is not.
const ALIVE: Duration = Duration::from_secs(2);
/// How many stores are remembered.
const STORES: usize = 1024;

/// Something that a server can do.
#[derive(Debug, Default)]
pub(super) struct Sign(AtomicBool);

impl Sign {
    pub(super) fn show(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_shown(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that a server was asked about.
#[derive(Debug, Default)]
pub(super) struct Verdict(AtomicU8);

impl Verdict {
    pub(super) fn set(&self, can: bool) {
        self.0.store(if can { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// `None` while it was not asked.
    pub(super) fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            said => Some(said == 2),
        }
    }

    pub(super) fn is_yes(&self) -> bool {
        self.get() == Some(true)
    }
}

/// What one server has shown.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// It answers with the part of a record that was asked for.
    pub ranges: Sign,
    /// Its parts are those of an encoded form.
    pub encoded_parts: Sign,
    /// It tells the lengths of records as they are when decoded.
    pub exact: Sign,
    /// It checks conditions together with a write.
    pub conditions: Verdict,
    /// It tells of changes.
    pub feed: Verdict,
    alive: Mutex<HashMap<StoreId, Instant>>,
}

impl Seen {
    /// The store answered.
    pub(super) fn store_is_there(&self, id: &StoreId) {
        let mut alive = self.alive();
        if alive.len() >= STORES {
            alive.clear();
        }
        match alive.get_mut(id) {
            Some(when) => *when = Instant::now(),
            None => drop(alive.insert(id.clone(), Instant::now())),
        }
    }

    /// The store was deleted, or may have been.
    pub(super) fn store_is_gone(&self, id: &StoreId) {
        self.alive().remove(id);
    }

    /// Whether the store has answered lately.
    pub(super) fn was_there(&self, id: &StoreId) -> bool {
        let alive = self.alive();
        alive.get(id).is_some_and(|when| when.elapsed() < ALIVE)
    }

    fn alive(&self) -> MutexGuard<'_, HashMap<StoreId, Instant>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
