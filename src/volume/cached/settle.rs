//! What follows the end of an upload: in the index, in the spool and in the cache. It sends nothing.

use super::Inner;
use super::index::Index;
use super::note::Note;
use super::record::{Base, Kept, Record};
use super::send::{Answer, Parcel};
use super::spool::Spool;
use super::state::{Change, Edit, Event, Remote, State, Step};
use crate::error::Result;
use crate::record::RecordId;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

impl Inner {
    /// Moves a record's state. Numbers of edits whose files are not needed any more.
    pub(super) fn apply(&self, id: &RecordId, event: Event) -> Vec<u64> {
        let mut index = self.index();
        apply_in(&mut index, id, event).map_or_else(Vec::new, |step| seqs(&step))
    }

    /// Removes files of edits: the oldest first, so that after a kill none is left without those that followed it.
    pub(super) fn forget(&self, mut seqs: Vec<u64>) {
        seqs.sort_unstable();
        for seq in seqs {
            self.spool.forget(seq);
        }
    }

    /// The same for edits whose place another one took.
    pub(super) fn forget_replaced(&self, seqs: Vec<u64>, by: u64) {
        self.spool.force_successor(&seqs, by);
        self.forget(seqs);
    }

    /// Does what follows an answer.
    /// On failure it is as if no answer had come.
    pub(super) fn settle(
        self: &Arc<Self>,
        id: &RecordId,
        parcel: &Parcel,
        answer: Answer,
    ) -> Result<()> {
        let is_conflict =
            matches!(&answer.event, Event::Refused(theirs) if *theirs != Remote::Absent);
        let saving = || self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let saving = is_conflict.then(saving);
        // First, since there may be no room for it.
        let copy = match &saving {
            Some(saving) => self.save_aside(saving, id)?,
            None => None,
        };
        let kept = self.keep_sent(parcel, &answer);
        let (step, mut forget, unused, dir) = {
            let mut index = self.index();
            let Some(step) = apply_in(&mut index, id, answer.event.clone()) else {
                return Ok(());
            };
            let unused = self.follow_step(&mut index, id, parcel, &answer, &step, kept);
            let forget = seqs(&step);
            let dir = index.stores.get(&id.store).map(|store| store.dir.clone());
            if let Some((edit, seq, other)) = &copy {
                self.set_aside(&mut index, (id, *edit), (other, *seq));
            }
            self.keeper.record(&index, id);
            (step, forget, unused, dir)
        };
        drop(saving);
        if let Some((edit, seq, _)) = copy {
            self.spool.force_successor(&[edit.seq], seq);
            forget.push(edit.seq);
        }
        let waits = matches!(step.state, State::Dirty { .. });
        if waits && let Err(e) = self.rebase(id) {
            tracing::warn!("{id}: a crash before the next upload may make a conflict copy: {e}");
        }
        self.forget(forget);
        for kept in unused {
            self.drop_cached(kept);
        }
        if let Some(dir) = dir.filter(|_| step.invalidate) {
            self.tell(&dir, Some(id.key.as_str()));
        }
        if kept.is_some() {
            self.cache_grew(0);
        }
        Ok(())
    }

    /// A record is not being sent any more; what waits of it is in the queue again.
    pub(super) fn land(&self, id: &RecordId) {
        let mut index = self.index();
        index.in_flight.remove(id);
        let due = index
            .record(id)
            .filter(|record| !record.is_clean())
            .map(Record::due);
        if let Some(due) = due {
            index.enqueue(id, due);
        }
    }

    /// The bytes that were sent go on as cached ones.
    fn keep_sent(&self, parcel: &Parcel, answer: &Answer) -> Option<Kept> {
        if parcel.edit.change != Change::Put || !matches!(answer.event, Event::Accepted(_)) {
            return None;
        }
        let number = self.index().number();
        let kept = Kept {
            number,
            size: parcel.note.size?,
        };
        std::fs::hard_link(self.spool.data(parcel.edit.seq), self.cached_file(number)).ok()?;
        self.cache_bytes
            .fetch_add(kept.size, std::sync::atomic::Ordering::Relaxed);
        Some(kept)
    }

    /// What the index shows after a step. Cached files that are not needed.
    fn follow_step(
        &self,
        index: &mut Index,
        id: &RecordId,
        parcel: &Parcel,
        answer: &Answer,
        step: &Step,
        kept: Option<Kept>,
    ) -> Vec<Kept> {
        let (tick, version) = (index.number(), index.number());
        let mut unused = Vec::new();
        let Some(record) = index.record_mut(id) else {
            return kept.into_iter().collect();
        };
        record.tick = tick;
        record.tries = 0;
        record.failure = None;
        if let Some(store) = index.stores.get_mut(&id.store) {
            store.denied = false;
        }
        let Some(record) = index.record_mut(id) else {
            return unused;
        };
        let settled = !matches!(answer.event, Event::Ours(_));
        if settled {
            record.done = record.done.max(parcel.edit.seq);
        }
        let remote = match &answer.event {
            Event::Accepted(remote) | Event::Refused(remote) | Event::Ours(remote) => {
                remote.clone()
            }
            Event::Saved(..) | Event::Started | Event::Failed { .. } | Event::Seen(_) => {
                Remote::Unknown
            }
        };
        record.set_there(remote.clone());
        if let Event::Accepted(_) | Event::Ours(_) = &answer.event {
            // Where nobody says which version ours is, the one before is no base any more.
            record.base = match &remote {
                Remote::At(etag) => Some(Base {
                    etag: etag.clone(),
                    until: None,
                }),
                Remote::Absent | Remote::Unknown => None,
            };
        }
        if step.state
            == (State::Clean {
                remote: Remote::Absent,
            })
        {
            unused.extend(kept);
            let gone = index.remove(id);
            if let Some(gone) = gone {
                index.doubt_after(id, &gone);
                unused.extend(gone.kept);
            }
            return unused;
        }
        match (&answer.event, record.is_clean()) {
            (Event::Accepted(_), true) => {
                unused.extend(std::mem::replace(&mut record.kept, kept));
                // The feed may have told of somebody else's version since.
                let ours = record.heard.as_ref().is_none_or(|heard| *heard == remote);
                record.checked = ours.then(Instant::now);
                if let Some(meta) = &answer.meta {
                    record.content_type.clone_from(&meta.content_type);
                }
            }
            (_, true) => {
                unused.extend(kept.into_iter().chain(record.kept.take()));
                // Who read or wrote our side did not see theirs, and must not write over it.
                record.base = step.rename_aside.map(|_| Base::lost(&parcel.base));
                record.version = version;
                record.checked = None;
                if let Some(meta) = &answer.meta {
                    record.take_in(meta);
                }
            }
            (_, false) => {
                unused.extend(kept);
                if !matches!(answer.event, Event::Accepted(_)) {
                    record.due = Some(Instant::now());
                }
            }
        }
        unused
    }

    /// The newest edit of a record is refused: it becomes a record of its own. That edit, and the one that took its place.
    fn save_aside(
        self: &Arc<Self>,
        saving: &MutexGuard<'_, ()>,
        id: &RecordId,
    ) -> Result<Option<(Edit, u64, RecordId)>> {
        let newest = {
            let index = self.index();
            let record = index.record(id);
            record.and_then(|it| Some((it.state.newest()?, it.newest_note()?.clone())))
        };
        let Some((edit, note)) = newest.filter(|(edit, _)| edit.change == Change::Put) else {
            return Ok(None);
        };
        let mut number = 0;
        let other = loop {
            let most = self.properties().max_key;
            let key =
                super::conflict::name(&id.key, note.saved_ns, &self.options.host, number, most)?;
            let other = RecordId {
                store: id.store.clone(),
                key,
            };
            if self.index().record(&other).is_none() {
                break other;
            }
            number += 1;
        };
        let mut replaces = note.replaces.clone();
        replaces.push(edit.seq);
        let note = Note {
            id: other.clone(),
            // Another mount may have chosen the same name for its own side.
            base: Remote::Absent,
            after: None,
            replaces,
            conflict: true,
            ..Note::clone(&note)
        };
        let data = self.spool.data(edit.seq);
        let put = |spool: &Spool, note: &Note| spool.save_copy(&data, note);
        let seq = self.save_among(saving, put, note, Instant::now(), None)?;
        Ok(Some((edit, seq, other)))
    }

    /// The index shows that our side of a conflict is a record of its own now.
    fn set_aside(
        &self,
        index: &mut Index,
        (id, edit): (&RecordId, Edit),
        (other, seq): (&RecordId, u64),
    ) {
        index.conflicts += 1;
        index.replace(&[edit.seq], seq);
        index.unsettled.remove(&edit.seq);
        if let Some(record) = index.record_mut(id) {
            record.notes.remove(&edit.seq);
            record.rooms.remove(&edit.seq);
            record.done = record.done.max(edit.seq);
            record.aside = Some(Box::new((edit.seq, other.key.clone())));
        }
        tracing::warn!(
            "{id} was changed by somebody else: theirs keeps the name, ours is {}",
            other.key
        );
    }
}

/// Moves a record's state in the index.
pub(super) fn apply_in(index: &mut Index, id: &RecordId, event: Event) -> Option<Step> {
    let record = index.record_mut(id)?;
    let there = record.there().clone();
    let unknown = State::Clean {
        remote: Remote::Unknown,
    };
    match std::mem::replace(&mut record.state, unknown).next(event) {
        Ok(step) => {
            record.state = step.state.clone();
            if !record.is_clean() {
                record.set_there(there);
            }
            for edit in &step.forget {
                record.notes.remove(&edit.seq);
                record.rooms.remove(&edit.seq);
            }
            if let Some(newest) = step.state.newest() {
                index.replace(&seqs(&step), newest.seq);
            }
            for edit in &step.forget {
                index.unsettled.remove(&edit.seq);
            }
            Some(step)
        }
        Err(illegal) => {
            tracing::error!(
                "{id}: {:?} cannot happen to {:?}",
                illegal.event,
                illegal.state
            );
            record.state = illegal.state;
            None
        }
    }
}

pub(super) fn seqs(step: &Step) -> Vec<u64> {
    step.forget.iter().map(|edit| edit.seq).collect()
}
