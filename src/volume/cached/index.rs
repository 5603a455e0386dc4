//! What is known of every record: the one table of the cached volume. Its lock is held for work in memory only.

use super::record::{Kept, Record};
use super::state::{Edit, Event, Remote, State};
use super::store::Store;
use crate::record::key::StoreId;
use crate::record::{Meta, RecordId, Size, StoreName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Weak;
use std::time::{Duration, Instant};

/// So many names that do not exist are remembered for a store.
const MOST_ABSENT: usize = 4096;
/// From so many on those are left out for which nobody waits any more.
const MOST_AWAITED: usize = 256;

/// Whether two lengths may be those of one version.
fn same_length(one: Size, other: Size) -> bool {
    match (one, other) {
        (Size::Exact(one), Size::Exact(other)) | (Size::Told(one), Size::Told(other)) => {
            one == other
        }
        (Size::Exact(_), _) | (_, Size::Exact(_)) => false,
        (Size::Unknown, _) | (_, Size::Unknown) => true,
    }
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) stores: HashMap<StoreId, Store>,
    pub(super) dirs: BTreeMap<StoreName, StoreId>,
    /// Other names of stores that somebody has used.
    pub(super) others: HashMap<StoreName, StoreId>,
    /// When all stores were last listed.
    pub(super) listed: Option<Instant>,
    /// What is due when.
    pub(super) queue: BTreeSet<(Instant, RecordId)>,
    /// Edits that are saved and not settled.
    pub(super) unsettled: BTreeSet<u64>,
    /// Which edit has taken the place of one that was not settled.
    replaced: HashMap<u64, u64>,
    /// Edits for which others wait, or did.
    awaited: BTreeSet<u64>,
    /// What is being sent.
    pub(super) in_flight: BTreeSet<RecordId>,
    /// Until when a record is sent at the latest that is edited again and again.
    latest: HashMap<RecordId, Instant>,
    /// Cached files of versions that are gone.
    pub(super) dropped: Vec<Kept>,
    count: u64,
    pub(super) conflicts: u64,
}

impl Index {
    /// A number that nothing else here has.
    pub(super) fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// An edit has taken the place of others of its record that waited.
    pub(super) fn replace(&mut self, old: &[u64], new: u64) {
        for newer in self.replaced.values_mut().filter(|it| old.contains(it)) {
            *newer = new;
        }
        let others = old.iter().filter(|old| **old != new);
        self.replaced.extend(others.map(|old| (*old, new)));
        let unsettled = &self.unsettled;
        self.replaced
            .retain(|_, newer| unsettled.contains(newer) || *newer == new);
    }

    /// Another edit is sent only after this one.
    pub(super) fn note_awaited(&mut self, seq: u64) {
        if self.awaited.len() >= MOST_AWAITED {
            let awaited = std::mem::take(&mut self.awaited);
            self.awaited = awaited
                .into_iter()
                .filter(|seq| self.is_unsettled(*seq))
                .collect();
        }
        self.awaited.insert(seq);
    }

    /// What a new edit of this record has to name among what it replaces, so that those who wait find it after a restart.
    pub(super) fn awaited_of(&self, id: &RecordId) -> Vec<u64> {
        let notes = self.record(id).into_iter().flat_map(|it| it.notes.iter());
        let mut all: Vec<_> = notes
            .flat_map(|(seq, note)| {
                let own = self.awaited.contains(seq).then_some(*seq);
                note.replaces.iter().copied().chain(own)
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What was removed here may be somebody else's by then.
    pub(super) fn doubt_after(&mut self, id: &RecordId, gone: &Record) {
        let own = gone.base.as_ref().map(|base| Remote::At(base.etag.clone()));
        let is_ours = |it: &Remote| *it == Remote::Absent || Some(it) == own.as_ref();
        if gone.heard.as_ref().is_none_or(is_ours) {
            return;
        }
        let tick = self.number();
        if let Some(store) = self.stores.get_mut(&id.store) {
            store.doubt(Some(&id.key), tick);
            store.listed = None;
        }
    }

    /// Whether an edit, or what has taken its place, waits to be sent.
    pub(super) fn is_unsettled(&self, mut seq: u64) -> bool {
        while let Some(newer) = self.replaced.get(&seq) {
            seq = *newer;
        }
        self.unsettled.contains(&seq)
    }

    /// Numbers above this are free.
    pub(super) fn numbers_from(&mut self, number: u64) {
        self.count = self.count.max(number);
    }

    /// The count of changes so far.
    pub(super) fn tick(&self) -> u64 {
        self.count
    }

    /// A store has this other name.
    pub(super) fn called(&mut self, other: &StoreName, id: &StoreId) {
        if self.others.len() >= MOST_ABSENT {
            self.others.clear();
        }
        self.others.insert(other.clone(), id.clone());
    }

    pub(super) fn store_of(&self, dir: &StoreName) -> Option<&Store> {
        self.stores.get(self.dirs.get(dir)?)
    }

    pub(super) fn record(&self, id: &RecordId) -> Option<&Record> {
        self.stores
            .get(&id.store)?
            .records
            .get(&id.key)
            .map(|record| &**record)
    }

    pub(super) fn record_mut(&mut self, id: &RecordId) -> Option<&mut Record> {
        let store = self.stores.get_mut(&id.store)?;
        store.records.get_mut(&id.key).map(|record| &mut **record)
    }

    /// A store under this directory name; one that had it before has it no more.
    pub(super) fn enter_store(&mut self, id: &StoreId, dir: &StoreName, named: bool) -> &mut Store {
        let old = self.stores.get(id).map(|store| store.dir.clone());
        if let Some(old) = old.filter(|old| old != dir) {
            self.dirs.remove(&old);
        }
        let other = self.dirs.insert(dir.clone(), id.clone());
        if let Some(other) = other.filter(|other| other != id) {
            if let Some(store) = self.stores.get_mut(&other) {
                // Should something wait in it, that is found under its id.
                store.dir = other.clone();
                self.dirs.insert(other.clone(), other.clone());
            }
            self.remove_store(&other);
        }
        let store = self.stores.entry(id.clone()).or_insert_with(|| Store {
            id: id.clone(),
            dir: dir.clone(),
            named,
            secret: None,
            created_ns: 0,
            modified_ns: 0,
            records: BTreeMap::new(),
            order: Vec::new(),
            listed: None,
            complete: false,
            large: false,
            followed: false,
            following: false,
            used: None,
            absent: HashMap::new(),
            removed: HashMap::new(),
            checked: None,
            doubted: 0,
            denied: false,
        });
        store.dir = dir.clone();
        store.named = named;
        store
    }

    pub(super) fn has_pending(&self, id: &StoreId) -> bool {
        self.is_pending(Some(id))
    }

    /// The store is no more. What waits to be sent to it stays with its directory, so that somebody can take it elsewhere or
    /// give it up.
    pub(super) fn remove_store(&mut self, id: &StoreId) {
        if !self.has_pending(id)
            && let Some(gone) = self.stores.remove(id)
        {
            self.dirs.remove(&gone.dir);
            let kept = gone.records.into_values().filter_map(|record| record.kept);
            self.dropped.extend(kept);
        }
    }

    /// Forgets the store of this directory, unless it is this one.
    pub(super) fn free_dir(&mut self, dir: &str, of: &StoreId) {
        let store = self.stores.values().find(|store| store.dir.as_str() == dir);
        let other = store.map(|store| store.id.clone()).filter(|id| id != of);
        if let Some(other) = other {
            self.remove_store(&other);
        }
    }

    /// The record of this key, made when it is not known.
    pub(super) fn enter(&mut self, id: &RecordId, remote: Remote) -> Option<&mut Record> {
        let (position, version) = (self.number(), self.number());
        let store = self.stores.get_mut(&id.store)?;
        store.absent.remove(&id.key);
        if !store.records.contains_key(&id.key) {
            store.order.push((position, id.key.clone()));
            let record = Record::new(position, version, remote);
            store.records.insert(id.key.clone(), Box::new(record));
        }
        store.records.get_mut(&id.key).map(|record| &mut **record)
    }

    /// Nothing is known of the record any more, or that it is not there.
    pub(super) fn remove(&mut self, id: &RecordId) -> Option<Box<Record>> {
        let tick = self.number();
        let store = self.stores.get_mut(&id.store)?;
        let gone = store.records.remove(&id.key)?;
        store.tidy();
        store.removed.insert(id.key.clone(), tick);
        if store.removed.len() > MOST_ABSENT {
            store
                .removed
                .retain(|_, at| *at + MOST_ABSENT as u64 > tick);
        }
        if let Some(due) = gone.due {
            self.queue.remove(&(due, id.clone()));
        }
        self.latest.remove(id);
        Some(gone)
    }

    /// When an edit is sent that was to be sent at a time, so that each does not put off the next for ever: `most` after the
    /// first that waits, or its own time where that one was given more.
    pub(super) fn due_of_edit(&mut self, id: &RecordId, due: Instant, most: Duration) -> Instant {
        let latest = Instant::now() + most;
        let latest = *self.latest.entry(id.clone()).or_insert(latest.max(due));
        due.min(latest)
    }

    /// It is being sent: the next edit is the first again.
    pub(super) fn is_sent_now(&mut self, id: &RecordId) {
        self.latest.remove(id);
    }

    /// Puts it into the queue, for this moment.
    pub(super) fn enqueue(&mut self, id: &RecordId, due: Instant) {
        let Some(record) = self.record_mut(id) else {
            return;
        };
        if let Some(old) = record.due.replace(due) {
            self.queue.remove(&(old, id.clone()));
        }
        self.queue.insert((due, id.clone()));
    }

    /// Takes what the backend says of a record. `since` is the count of changes when it was asked. True when something else
    /// is shown now.
    pub(super) fn seen(&mut self, id: &RecordId, meta: &Meta, since: u64) -> bool {
        let version = self.number();
        let Some(store) = self.stores.get_mut(&id.store) else {
            return false;
        };
        if store.removed.get(&id.key).is_some_and(|at| *at > since) {
            return false;
        }
        let is_new = !store.records.contains_key(&id.key);
        let now = Instant::now();
        let remote = meta.etag.clone().map_or(Remote::Unknown, Remote::At);
        let Some(record) = self.enter(id, remote.clone()) else {
            return false;
        };
        if record.tick > since || !record.is_clean() {
            return false;
        }
        if is_new {
            record.checked = Some(now);
            // A listing that was asked for before knows nothing of it.
            record.tick = version;
            record.take_in(meta);
            return true;
        }
        if meta.etag.is_none() && meta.size.exact().is_none() && record.etag().is_some() {
            // This answer cannot tell versions apart; one with a tag can.
            return false;
        }
        record.checked = Some(now);
        let before = record.state.clone();
        let same = match (&before, &remote) {
            (
                State::Clean {
                    remote: Remote::At(old),
                },
                Remote::At(new),
            ) => old == new,
            // The bytes that are kept were sent to a server that did not say as which version. Somebody else's may be as long.
            (
                State::Clean {
                    remote: Remote::Unknown,
                },
                Remote::At(_),
            ) if record.kept.is_some() => false,
            // Nothing but the length tells versions apart.
            _ => same_length(record.size, meta.size),
        };
        if same {
            if remote != Remote::Unknown {
                record.state = State::Clean { remote };
            }
            if meta.content_type.is_some() {
                record.content_type.clone_from(&meta.content_type);
            }
            if meta.size.exact().is_some() || record.size.exact().is_none() {
                record.size = meta.size;
            }
            return false;
        }
        if let Ok(step) = before.next(Event::Seen(remote)) {
            record.state = step.state;
        }
        record.version = version;
        let old = record.kept.take();
        record.reader = Weak::new();
        record.take_in(meta);
        self.dropped.extend(old);
        true
    }

    /// The backend has no such record. True when something was shown under the name.
    pub(super) fn seen_absent(&mut self, id: &RecordId, since: u64) -> bool {
        let known = self
            .record(id)
            .map(|record| (record.tick, record.is_clean()));
        match known {
            Some((tick, true)) if tick <= since => {
                let gone = self.remove(id);
                self.dropped.extend(gone.and_then(|record| record.kept));
                self.note_absent(id);
                true
            }
            Some(_) => false,
            None => {
                let store = self.stores.get(&id.store);
                if store.is_some_and(|store| store.doubted <= since) {
                    self.note_absent(id);
                }
                false
            }
        }
    }

    fn note_absent(&mut self, id: &RecordId) {
        if let Some(store) = self.stores.get_mut(&id.store) {
            if store.absent.len() >= MOST_ABSENT {
                store.absent.clear();
            }
            store.absent.insert(id.key.clone(), Instant::now());
        }
    }

    /// Everything that waits to be sent, of a store or of all.
    pub(super) fn pending(&self, store: Option<&StoreId>) -> Vec<(RecordId, Edit)> {
        let all = self.waiting(store);
        all.map(|(id, edit)| (id.clone(), edit)).collect()
    }

    /// Whether anything waits to be sent.
    pub(super) fn is_pending(&self, store: Option<&StoreId>) -> bool {
        // Also while what follows the end of an upload is still being done.
        let mut sending = self.in_flight.iter();
        sending.any(|id| store.is_none_or(|store| *store == id.store))
            || self.waiting(store).next().is_some()
    }

    pub(super) fn waiting<'a>(
        &'a self,
        store: Option<&'a StoreId>,
    ) -> impl Iterator<Item = (&'a RecordId, Edit)> {
        let queued = self.queue.iter().map(|(_, id)| id);
        let waiting = queued.chain(self.in_flight.iter().filter(|id| {
            let due = self.record(id).map(Record::due);
            due.is_none_or(|due| !self.queue.contains(&(due, (*id).clone())))
        }));
        let of_store = waiting.filter(move |id| store.is_none_or(|store| *store == id.store));
        of_store.filter_map(|id| {
            let record = self.record(id)?;
            // Our side of a conflict that has no name of its own yet.
            let aside = record.notes.last_key_value();
            let aside = aside.map(|(seq, note)| Edit {
                seq: *seq,
                change: note.change,
            });
            Some((id, record.state.newest().or(aside)?))
        })
    }
}
