//! How often a store was used since its card was last written. Only numbers; nothing here waits or fails.

use super::card::{Card, now};
use crate::backend::{Counts, StoreInfo};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

/// Uses are written to the card at most this often, in milliseconds.
const PAUSE: u64 = 30_000;

/// What a use was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    Read,
    Write,
    Delete,
    List,
}

/// Uses that the card does not tell of yet.
#[derive(Debug, Default)]
pub(super) struct Uses {
    counts: [AtomicU64; 4],
    accessed: AtomicU64,
    modified: AtomicU64,
    /// When they were last written, or first counted.
    written: AtomicU64,
}

impl Uses {
    /// Counts one. True when it is time to write them.
    pub(super) fn count(&self, what: Use) -> bool {
        let now = now();
        self.counts[what as usize].fetch_add(1, Relaxed);
        self.accessed.store(now, Relaxed);
        if matches!(what, Use::Write | Use::Delete) {
            self.modified.store(now, Relaxed);
        }
        let written = self.written.load(Relaxed);
        if written == 0 {
            self.written.store(now, Relaxed);
        }
        // One of all who see that it is time does it.
        written != 0
            && now.saturating_sub(written) > PAUSE
            && self
                .written
                .compare_exchange(written, now, Relaxed, Relaxed)
                .is_ok()
    }

    fn counts(&self, get: impl Fn(&AtomicU64) -> u64) -> Counts {
        let [reads, writes, deletes, lists] = &self.counts;
        Counts {
            reads: get(reads),
            writes: get(writes),
            deletes: get(deletes),
            lists: get(lists),
        }
    }

    /// Whether there is anything to write.
    pub(super) fn any(&self) -> bool {
        self.accessed.load(Relaxed) != 0
    }

    /// Moves them into the card.
    pub(super) fn pour(&self, card: &mut Card) {
        card.counts = sum(card.counts, self.counts(|count| count.swap(0, Relaxed)));
        let later = |old: Option<u64>, new: u64| Some(new).filter(|new| *new > 0).max(old);
        card.accessed = later(card.accessed, self.accessed.swap(0, Relaxed));
        card.modified = later(card.modified, self.modified.swap(0, Relaxed));
    }

    /// Adds them to what the card says.
    pub(super) fn add_to(&self, info: &mut StoreInfo) {
        info.counts = sum(info.counts, self.counts(|count| count.load(Relaxed)));
        let later = |old, new: u64| {
            (new > 0)
                .then(|| UNIX_EPOCH + Duration::from_millis(new))
                .max(old)
        };
        info.accessed = later(info.accessed, self.accessed.load(Relaxed));
        info.modified = later(info.modified, self.modified.load(Relaxed));
    }
}

fn sum(one: Counts, other: Counts) -> Counts {
    Counts {
        reads: one.reads + other.reads,
        writes: one.writes + other.writes,
        deletes: one.deletes + other.deletes,
        lists: one.lists + other.lists,
    }
}
