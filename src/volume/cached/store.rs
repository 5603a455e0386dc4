//! One store as the index has it: its records, how old what is known of it is, and what became doubtful.

use super::record::Record;
use crate::record::key::StoreId;
use crate::record::{Key, StoreName};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// So many positions that nothing has any more do no harm.
const FEW: usize = 64;

/// One store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) id: StoreId,
    /// Its directory.
    pub(super) dir: StoreName,
    pub(super) named: bool,
    /// Signs its public URLs, as far as we were told.
    pub(super) secret: Option<String>,
    pub(super) created_ns: i64,
    pub(super) modified_ns: i64,
    /// In boxes, since nodes of the tree are half empty.
    pub(super) records: BTreeMap<Key, Box<Record>>,
    /// The positions that were given out, each higher than the one before. What is gone stays among them for a while.
    pub(super) order: Vec<(u64, Key)>,
    /// When a complete listing was last taken.
    pub(super) listed: Option<Instant>,
    /// All its keys are known here, if perhaps not the newest.
    pub(super) complete: bool,
    /// It has more keys than one page of a listing.
    pub(super) large: bool,
    /// Changes are pushed, and none was missed since the listing.
    pub(super) followed: bool,
    pub(super) following: bool,
    /// When somebody last asked for something in it that had to be fetched.
    pub(super) used: Option<Instant>,
    pub(super) absent: HashMap<Key, Instant>,
    pub(super) removed: HashMap<Key, u64>,
    pub(super) checked: Option<Instant>,
    /// The count of changes when something was last told of it that an earlier answer does not know.
    pub(super) doubted: u64,
    /// Why nothing can be written here, when that is known.
    pub(super) denied: bool,
}

impl Store {
    /// Whether it is known that there is no such record, from no longer ago than `ttl`.
    pub(super) fn is_absent(&self, key: &Key, ttl: Duration) -> bool {
        if self.records.get(key).is_some_and(|record| !record.exists()) {
            return true;
        }
        let recent = |at: &Instant| at.elapsed() < ttl;
        !self.records.contains_key(key)
            && (self.is_fresh(ttl)
                || self
                    .absent
                    .get(key)
                    .is_some_and(|at| self.followed || recent(at)))
    }

    /// Whether its listing is complete and no older than `ttl`.
    pub(super) fn is_fresh(&self, ttl: Duration) -> bool {
        let recent = self
            .listed
            .is_some_and(|at| self.followed || at.elapsed() < ttl);
        self.complete && recent
    }

    /// Something may have changed under this key, or under any. `tick` is the count of changes now: answers that were
    /// asked for before do not count.
    pub(super) fn doubt(&mut self, key: Option<&Key>, tick: u64) {
        let doubt = |record: &mut Record| {
            record.checked = None;
            record.tick = tick;
        };
        self.doubted = tick;
        match key {
            Some(key) => {
                self.absent.remove(key);
                if let Some(record) = self.records.get_mut(key) {
                    doubt(record);
                }
            }
            None => {
                self.absent.clear();
                self.listed = None;
                self.records.values_mut().for_each(|record| doubt(record));
            }
        }
    }

    /// Records in the order of listings, after a position.
    pub(super) fn after(&self, position: u64) -> impl Iterator<Item = (&Key, &Record)> {
        let from = self.order.partition_point(|(at, _)| *at <= position);
        self.order[from..].iter().filter_map(|(at, key)| {
            let record: &Record = self.records.get(key)?;
            (record.position == *at && record.exists()).then_some((key, record))
        })
    }

    /// Forgets the positions of what is gone, when they are most of all.
    pub(super) fn tidy(&mut self) {
        if self.order.len() > 2 * self.records.len() + FEW {
            let records = &self.records;
            let is_used = |at: u64, record: &Record| record.position == at;
            self.order
                .retain(|(at, key)| records.get(key).is_some_and(|record| is_used(*at, record)));
        }
    }

    /// Whether a record is shown as it is at the backend, from no longer ago than `ttl`.
    pub(super) fn is_current(&self, record: &Record, ttl: Duration) -> bool {
        !record.is_clean()
            || record
                .checked
                .is_some_and(|at| self.followed || at.elapsed() < ttl)
    }
}
