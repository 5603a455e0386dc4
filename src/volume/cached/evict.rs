//! How much is kept: unsent bytes have a budget that writers wait for, cached bytes go when there are too many. Bytes that
//! were not sent yet are never dropped.

use super::Inner;
use super::index::Index;
use super::record::Kept;
use crate::error::{Error, Kind, Result};
use crate::record::RecordId;
use crate::volume::Now;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How much may be saved or being written without being sent.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
    freed: Notify,
    patience: Duration,
}

impl Budget {
    pub(super) fn new(limit: u64, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            freed: Notify::new(),
            patience,
        })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A file that uses nothing yet.
    pub(super) fn room(self: &Arc<Self>) -> Arc<Room> {
        Arc::new(Room {
            budget: self.clone(),
            length: AtomicU64::new(0),
        })
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|all| *all <= self.limit);
        bytes == 0
            || self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
                .is_ok()
    }
}

/// What one unsent file uses of the budget. Dropped, it is given back.
#[derive(Debug)]
pub struct Room {
    budget: Arc<Budget>,
    length: AtomicU64,
}

impl Room {
    /// Waits until the file may have this length; `Kind::NoSpace` when that does not come about. Nothing was written then.
    pub fn grow(self: &Arc<Self>, length: u64) -> Now<()> {
        if self.try_grow(length) {
            return Now::ok(());
        }
        let room = self.clone();
        Now::Wait(Box::pin(async move {
            let wait = async {
                loop {
                    let freed = room.budget.freed.notified();
                    if room.try_grow(length) {
                        return;
                    }
                    freed.await;
                }
            };
            let patience = room.budget.patience;
            tokio::time::timeout(patience, wait).await.map_err(|_| {
                let why = format!(
                    "{} bytes wait to be sent, and no more than {} may; it goes on when the backend takes some",
                    room.budget.used(),
                    room.budget.limit
                );
                Error::because("write", "", Kind::NoSpace, why)
            })
        }))
    }

    fn try_grow(&self, length: u64) -> bool {
        let has = self.length.load(Ordering::Relaxed);
        if length <= has {
            return true;
        }
        let fits = self.budget.take(length - has);
        if fits {
            // Another writer may have grown it since; then both took a part of the same.
            let had = self.length.fetch_max(length, Ordering::Relaxed);
            self.budget.give_back(had.clamp(has, length) - has);
        }
        fits
    }

    /// The file has this length whether there is room for it or not.
    pub(super) fn set(&self, length: u64) {
        let had = self.length.swap(length, Ordering::Relaxed);
        if length >= had {
            self.budget.used.fetch_add(length - had, Ordering::Relaxed);
        } else {
            self.budget.give_back(had - length);
        }
    }
}

impl Budget {
    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.give_back(*self.length.get_mut());
    }
}

/// Which cached files to drop, of all by their last use: the oldest, until the rest fits.
pub(super) fn to_drop<T>(mut files: Vec<(u64, u64, T)>, used: u64, limit: u64) -> Vec<T> {
    files.sort_unstable_by_key(|(last_use, ..)| *last_use);
    let mut over = used.saturating_sub(limit);
    let mut drop = Vec::new();
    for (_, size, file) in files {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(size);
        drop.push(file);
    }
    drop
}

/// Takes the cached files that the index knows, and removes the others. How many bytes there are.
pub(super) fn adopt(dir: &Path, index: &mut Index) -> Result<u64> {
    let failed = |e| Error::io("list the cache", dir.display().to_string(), e);
    let mut sizes = HashMap::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u64>().ok());
        if let (Some(number), Ok(meta)) = (number, entry.metadata()) {
            sizes.insert(number, meta.len());
            index.numbers_from(number);
        }
    }
    let mut all = 0;
    for record in index
        .stores
        .values_mut()
        .flat_map(|store| store.records.values_mut())
    {
        let Some(kept) = record.kept else { continue };
        if sizes.get(&kept.number) == Some(&kept.size) {
            sizes.remove(&kept.number);
            all += kept.size;
        } else {
            record.kept = None;
        }
    }
    for number in sizes.keys() {
        let _ = std::fs::remove_file(dir.join(number.to_string()));
    }
    Ok(all)
}

impl Inner {
    pub(super) fn cached_file(&self, number: u64) -> PathBuf {
        self.cache.join(number.to_string())
    }

    /// There are more cached bytes: the ones not used for longest go when there are too many of all.
    pub(super) fn cache_grew(self: &Arc<Self>, bytes: u64) {
        self.cache_bytes.fetch_add(bytes, Ordering::Relaxed);
        let cached = self.cached_bytes();
        let used = cached.saturating_add(self.budget.used());
        // While it is known that more cannot go yet, looking through all records again would not help.
        if used <= self.options.cache_size || self.evicting.load(Ordering::Relaxed) {
            return;
        }
        // A little more than necessary goes, so that the next look is not due at once.
        let limit = self.options.cache_size / 10 * 9;
        let dropped = {
            let now = Instant::now();
            let mut index = self.index();
            let files = index.stores.values().flat_map(|store| {
                store.records.iter().filter_map(|(key, record)| {
                    // Who has it open keeps the bytes anyway.
                    let open = record.reader.strong_count() > 0;
                    let held = open || record.held.is_some_and(|until| until > now);
                    let kept = record.kept.filter(|_| record.is_clean() && !held)?;
                    let id = RecordId {
                        store: store.id.clone(),
                        key: key.clone(),
                    };
                    Some((record.used, kept.size, (id, kept)))
                })
            });
            let drop = to_drop(files.collect(), used, limit);
            for (id, _) in &drop {
                if let Some(record) = index.record_mut(id) {
                    record.kept = None;
                }
                self.keeper.record(&index, id);
            }
            drop
        };
        let freed: u64 = dropped.iter().map(|(_, kept)| kept.size).sum();
        for (_, kept) in dropped {
            self.drop_cached(kept);
        }
        let over = used.saturating_sub(freed) > self.options.cache_size;
        if over && !self.evicting.swap(true, Ordering::Relaxed) {
            // What was used a moment ago goes when that is longer ago.
            let inner = Arc::downgrade(self);
            self.runtime.spawn(async move {
                tokio::time::sleep(super::open::HELD).await;
                if let Some(inner) = inner.upgrade() {
                    inner.evicting.store(false, Ordering::Relaxed);
                    inner.cache_grew(0);
                }
            });
        }
    }

    /// How many bytes are cached. A file may be dropped before it is counted, and then there seem to be less than none.
    pub(super) fn cached_bytes(&self) -> u64 {
        let cached = self.cache_bytes.load(Ordering::Relaxed).cast_signed();
        cached.max(0).cast_unsigned()
    }

    pub(super) fn cache_shrank(&self, bytes: u64) {
        self.cache_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Removes the cached files of versions that are gone.
    pub(super) fn sweep(&self) {
        let dropped = std::mem::take(&mut self.index().dropped);
        for kept in dropped {
            self.drop_cached(kept);
        }
    }

    /// Removes a cached file that the index does not name any more.
    pub(super) fn drop_cached(&self, kept: Kept) {
        let _ = std::fs::remove_file(self.cached_file(kept.number));
        self.cache_shrank(kept.size);
    }
}
