//! Saving edits: into the spool and then into the index, one after another. It knows where bytes are and never reads them.

use super::Inner;
use super::edit::blank;
use super::note::Note;
use super::record::Record;
use super::settle::{apply_in, seqs};
use super::spool::Spool;
use super::state::{Change, Edit, Event, Remote};
use crate::error::{Error, Kind, Result};
use crate::record::{RecordId, Size};
use crate::volume::{Origin, Stat};
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

/// A record that is edited all the time is sent after so many times the pause that is waited for.
const MOST_DEBOUNCES: u32 = 10;

impl Inner {
    /// Takes a saved edit into the index. The number it has there; on failure the one it has in the spool.
    pub(super) fn saved(
        self: &Arc<Self>,
        mut seq: u64,
        mut note: Note,
        room: Option<Arc<super::evict::Room>>,
        due: Instant,
        version: Option<u64>,
    ) -> std::result::Result<(u64, Stat), (u64, Error)> {
        let id = note.id.clone();
        let mut index = loop {
            let index = self.index();
            // The edit before it may have been accepted since its base was looked up; or it waits, and this one replaces it.
            let waits = index.record(&id).is_some_and(|record| !record.is_clean());
            let base = match index.record(&id).map(Record::next_base) {
                // Who makes a record exclusively does not write over one that came since.
                Some(base) if base != note.base && (waits || note.base != Remote::Absent) => base,
                _ => break index,
            };
            drop(index);
            note.base = base;
            seq = self.spool.save_again(seq, &note).map_err(|e| (seq, e))?;
        };
        let (tick, fresh) = (index.number(), index.number());
        let known = index.record(&id).is_some();
        if index.enter(&id, Remote::Absent).is_some() {
            index.unsettled.insert(seq);
        }
        if let Some(after) = note.after {
            index.note_awaited(after);
        }
        let Some(record) = index.record_mut(&id) else {
            let gone = Error::new("write", id.to_string(), Kind::StoreNotFound);
            return Err((seq, gone));
        };
        if !known && note.base == Remote::Unknown && note.conflict {
            record.set_there(Remote::Unknown);
        }
        let unused = record.kept.take();
        record.tick = tick;
        record.version = version.unwrap_or(fresh);
        record.reader = std::sync::Weak::new();
        record.tries = 0;
        record.failure = None;
        record.saved = seq;
        if note.change == Change::Put {
            record.size = note.size.map_or(Size::Unknown, Size::Exact);
            record.content_type.clone_from(&note.content_type);
            record.show(note.shown);
        }
        let (edit, base) = (
            Edit {
                seq,
                change: note.change,
            },
            note.base.clone(),
        );
        record.rooms.extend(room.map(|room| (seq, room)));
        record.notes.insert(seq, Arc::new(note));
        let stat = record.stat();
        let forget = apply_in(&mut index, &id, Event::Saved(edit, base)).map(|step| seqs(&step));
        let due = index.due_of_edit(&id, due, self.options.debounce * MOST_DEBOUNCES);
        if index.in_flight.contains(&id) {
            if let Some(record) = index.record_mut(&id) {
                record.due = Some(due);
            }
        } else {
            index.enqueue(&id, due);
        }
        drop(index);
        self.forget_replaced(forget.unwrap_or_default(), seq);
        if let Some(kept) = unused {
            self.drop_cached(kept);
        }
        let stat = Stat {
            file: stat,
            origin: Origin::Record,
        };
        Ok((seq, stat))
    }

    /// An edit was accepted while a newer one waited: what that one is made on is known only now.
    pub(super) fn rebase(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let (seq, note, due, version) = {
            let index = self.index();
            let Some(record) = index.record(id) else {
                return Ok(());
            };
            let base = record.next_base();
            match (record.state.newest(), record.newest_note()) {
                (Some(edit), Some(note)) if note.base != base => {
                    let note = Note {
                        base,
                        // It may have been touched since.
                        shown: record.shown(),
                        replaces: index.awaited_of(id),
                        ..Note::clone(note)
                    };
                    (edit.seq, note, record.due(), record.version)
                }
                _ => return Ok(()),
            }
        };
        let (again, room) = match note.size {
            Some(size) => {
                let room = self.budget.room();
                room.set(size);
                (
                    self.spool.save_copy(&self.spool.data(seq), &note)?,
                    Some(room),
                )
            }
            None => (self.spool.save(&note)?, None),
        };
        let saved = self.saved(again, note, room, due, Some(version));
        drop(saving);
        saved.map(drop).map_err(|(again, e)| self.unsaved(again, e))
    }

    /// Saves an edit whose bytes this puts into the spool.
    pub(super) fn save_with(
        self: &Arc<Self>,
        put: impl FnOnce(&Spool, &Note) -> Result<u64>,
        note: Note,
        due: Instant,
        version: Option<u64>,
    ) -> Result<u64> {
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.save_among(&saving, put, note, due, version)
    }

    /// The same for who keeps other edits from being saved meanwhile.
    pub(super) fn save_among(
        self: &Arc<Self>,
        _saving: &MutexGuard<'_, ()>,
        put: impl FnOnce(&Spool, &Note) -> Result<u64>,
        mut note: Note,
        due: Instant,
        version: Option<u64>,
    ) -> Result<u64> {
        let room = self.budget.room();
        room.set(note.size.unwrap_or_default());
        let replaces = self.index().awaited_of(&note.id);
        note.replaces.extend(replaces);
        let seq = put(&self.spool, &note)?;
        let saved = self.saved(seq, note, Some(room), due, version);
        let (seq, _) = saved.map_err(|(seq, e)| self.unsaved(seq, e))?;
        self.reschedule_for(due);
        Ok(seq)
    }

    /// Whether a record is still this version; if not, its bytes are to be looked for again.
    pub(super) fn must_be(&self, id: &RecordId, version: u64) -> Result<()> {
        let index = self.index();
        let same = |record: &Record| record.exists() && record.version == version;
        match index.record(id).is_some_and(same) {
            true => Ok(()),
            false => Err(Error::new("find", id.to_string(), Kind::NotFound)),
        }
    }

    /// Saves bytes of a record as the newest version of another one, and that the first goes once that was sent: both or
    /// nothing. `version` is what the bytes are of it.
    pub(super) fn save_move(
        self: &Arc<Self>,
        (source, path, version): (&RecordId, &Path, u64),
        mut note: Note,
        due: Instant,
        goes: Instant,
    ) -> Result<()> {
        let room = self.budget.room();
        room.set(note.size.unwrap_or_default());
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.must_be(source, version)?;
        let (mut removal, of_source) = {
            let index = self.index();
            note.replaces = index.awaited_of(&note.id);
            let record = index.record(source);
            let of_source: Vec<_> =
                record.map_or_else(Vec::new, |it| it.notes.keys().copied().collect());
            let removal = match record.filter(|record| record.is_only_here()) {
                Some(record) => {
                    // After a kill they are not there as well.
                    note.replaces.extend(record.notes.keys());
                    note.replaces.extend(index.awaited_of(source));
                    None
                }
                None => Some(Note {
                    change: Change::Delete,
                    replaces: index.awaited_of(source),
                    ..blank(source.clone(), record.map_or(Remote::Unknown, Record::base))
                }),
            };
            (removal, of_source)
        };
        let (first, gone) = self.spool.save_move(path, &note, removal.as_mut())?;
        let saved = self.saved(first, note, Some(room), due, Some(version));
        let (seq, _) = saved.map_err(|(seq, e)| {
            gone.into_iter().for_each(|gone| self.spool.forget(gone));
            self.unsaved(seq, e)
        })?;
        self.reschedule_for(due);
        self.spool.force_successor(&of_source, seq);
        let (Some(mut removal), Some(mut gone)) = (removal, gone) else {
            drop(saving);
            return self.save_removal(source, goes, Some(seq));
        };
        if seq != first {
            removal.after = Some(seq);
            gone = self.spool.save_again(gone, &removal)?;
        }
        let removed = self.saved(gone, removal, None, goes, None);
        drop(saving);
        removed.map_err(|(gone, e)| self.unsaved(gone, e))?;
        self.reschedule_for(goes);
        Ok(())
    }

    /// An edit that nobody was told of goes out of the spool again.
    fn unsaved(&self, seq: u64, why: Error) -> Error {
        self.spool.forget(seq);
        why
    }

    /// Saves that a record goes. One that never left this machine is given up without a word to the backend.
    pub(super) fn save_removal(
        self: &Arc<Self>,
        id: &RecordId,
        due: Instant,
        after: Option<u64>,
    ) -> Result<()> {
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let base = {
            // Asked and done in one go: once it is being sent, the backend may have it.
            let mut index = self.index();
            let missing = || Error::new("remove", id.to_string(), Kind::NotFound);
            let record = index
                .record(id)
                .filter(|record| record.exists())
                .ok_or_else(missing)?;
            if record.is_only_here() {
                let gone = index.remove(id);
                let seqs = gone.as_ref().map_or_else(Vec::new, |gone| {
                    gone.notes.keys().copied().collect::<Vec<_>>()
                });
                if let Some(after) = after {
                    index.replace(&seqs, after);
                }
                for seq in &seqs {
                    index.unsettled.remove(seq);
                }
                if let Some(gone) = gone {
                    index.doubt_after(id, &gone);
                }
                drop(index);
                match after {
                    Some(after) => self.forget_replaced(seqs, after),
                    None => self.forget(seqs),
                }
                self.progress.send_modify(|progress| progress.ended += 1);
                return Ok(());
            }
            record.base()
        };
        let note = Note {
            change: Change::Delete,
            after,
            replaces: self.index().awaited_of(id),
            ..blank(id.clone(), base)
        };
        let seq = self.spool.save(&note)?;
        let saved = self.saved(seq, note, None, due, None);
        saved.map_err(|(seq, e)| self.unsaved(seq, e))?;
        drop(saving);
        self.reschedule_for(due);
        Ok(())
    }
}
