//! Saving edits: what was written, removed, renamed or given another type is in the spool before anybody is told so.

use super::note::{Note, Shown};
use super::record::Record;
use super::settle::{apply_in, seqs};
use super::spool::{Spool, Spooled};
use super::state::{Change, Edit, Event, Remote};
use super::{Inner, scratch};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{ContentType, Key, RecordId, Size, StoreName, now_ns};
use crate::volume::{FileStat, Origin, Stat};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Legal names that programs use for a moment: written, renamed, gone.
fn is_young(name: &str) -> bool {
    let swap = || {
        let end = name.rsplit_once(".sw").map_or("", |(_, end)| end);
        name.starts_with('.') && end.len() == 1
    };
    // What rsync appends to the name it will rename to.
    let temporary = || {
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        name.starts_with('.') && end.len() == 6 && name.matches('.').count() >= 2
    };
    name == "4913"
        || name.starts_with(".goutputstream-")
        || name.ends_with(".part")
        || name.ends_with(".crdownload")
        || swap()
        || temporary()
}

/// What is kept of a file's attributes.
pub(super) fn shown_of(stat: &FileStat) -> Shown {
    Shown {
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        accessed_ns: stat.accessed_ns,
        modified_ns: stat.modified_ns,
        changed_ns: stat.changed_ns,
    }
}

/// What is already under a name.
pub(super) struct Target {
    pub(super) id: RecordId,
    /// What a write is made on.
    pub(super) base: Remote,
    pub(super) existing: Option<ContentType>,
    /// There is a record, and its type is not known.
    pub(super) unknown_type: bool,
}

impl Inner {
    /// The record that a directory and a name stand for.
    pub(super) fn id(&self, dir: &StoreName, name: &str) -> Result<RecordId> {
        let key = Key::new(name)?;
        let index = self.index();
        let store = index.dirs.get(dir).cloned();
        let store =
            store.ok_or_else(|| Error::new("find the store", dir.as_str(), Kind::StoreNotFound))?;
        Ok(RecordId { store, key })
    }

    pub(super) fn may_create(&self, dir: &StoreName, name: &str) -> Result<()> {
        self.writable("create", name)?;
        if is_scratch(name) {
            return Ok(());
        }
        let id = self.id(dir, name)?;
        if name.len() > self.properties().max_key {
            let why = format!(
                "this source keeps keys of at most {} characters",
                self.properties().max_key
            );
            return Err(Error::because("create", name, Kind::NameTooLong, why));
        }
        if self
            .index()
            .stores
            .get(&id.store)
            .is_some_and(|store| store.denied)
        {
            let why = "the token may not write to this store";
            return Err(Error::because("create", name, Kind::Denied, why));
        }
        Ok(())
    }

    pub(super) fn target(&self, dir: &StoreName, name: &str) -> Result<Target> {
        let id = self.id(dir, name)?;
        let claimed = self.claimed(dir, name).is_some();
        let index = self.index();
        let record = index.record(&id);
        let exists = record.is_some_and(Record::exists);
        let existing = record
            .filter(|_| exists)
            .and_then(|record| record.content_type.clone());
        let base = match record {
            // What came since the name was claimed is not written over.
            _ if claimed => Remote::Absent,
            Some(record) => record.base(),
            None => Remote::Unknown,
        };
        Ok(Target {
            unknown_type: exists && existing.is_none(),
            existing,
            base,
            id,
        })
    }

    /// Whether a name is being made exclusively, and then whether as a temporary one is.
    fn claimed(&self, dir: &StoreName, name: &str) -> Option<bool> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.get(&(dir.clone(), name.into())).copied()
    }

    pub(super) fn delay(&self, dir: &StoreName, name: &str) -> Duration {
        if self.options.write_through {
            Duration::ZERO
        } else if is_young(name) || self.claimed(dir, name) == Some(true) {
            self.options.young
        } else {
            self.options.debounce
        }
    }

    /// Makes a draft the newest version of a record.
    pub(super) fn commit(
        self: &Arc<Self>,
        draft: &mut Spooled,
        dir: &StoreName,
        name: &str,
        explicit: Option<&ContentType>,
    ) -> Result<Stat> {
        self.writable("write", name)?;
        if is_scratch(name) {
            return scratch::commit(self, draft, dir, name);
        }
        let target = self.target(dir, name)?;
        let failed = |e| Error::io("commit", format!("{dir}/{name}"), e);
        let stat = FileStat::of_file(&*draft.file)?;
        let content_type = match (explicit, target.unknown_type) {
            (None, true) => None,
            _ => {
                let existing = target.existing.as_ref();
                Some(ContentType::decide(explicit, existing, name, &*draft.file).map_err(failed)?)
            }
        };
        let note = Note {
            size: Some(stat.size),
            content_type: content_type.clone(),
            shown: shown_of(&stat),
            ..blank(target.id.clone(), target.base)
        };
        draft.room.set(stat.size);
        let due = Instant::now() + self.delay(dir, name);
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = self.spool.save_draft(draft, &note)?;
        let (_, stat) = self
            .saved(seq, note, Some(draft.room.clone()), due, None)
            .map_err(|(seq, e)| {
                self.spool.take_back(draft, seq);
                e
            })?;
        drop(saving);
        draft.content_type = content_type;
        // Nothing shows these bits any more; the folder's do.
        if let Err(e) = draft.file.set_permissions(Permissions::from_mode(0o600)) {
            tracing::debug!("the mode of an edit of {dir}/{name} stays: {e}");
        }
        self.reschedule_for(due);
        Ok(stat)
    }

    /// Takes a saved edit into the index. The number it has there; on failure the one it has in the spool.
    fn saved(
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
        let Some(record) = index.record_mut(&id) else {
            let gone = Error::new("write", id.to_string(), Kind::StoreNotFound);
            return Err((seq, gone));
        };
        if !known && note.base == Remote::Unknown && note.conflict {
            record.is_there(Remote::Unknown);
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
        index.replace(forget.as_deref().unwrap_or_default(), seq);
        if index.in_flight.contains(&id) {
            if let Some(record) = index.record_mut(&id) {
                record.due = Some(due);
            }
        } else {
            index.enqueue(&id, due);
        }
        drop(index);
        self.forget(forget.unwrap_or_default());
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

    /// Saves an edit whose bytes are those of a file that nobody writes.
    pub(super) fn save_bytes(
        self: &Arc<Self>,
        from: &Path,
        note: Note,
        due: Instant,
        version: Option<u64>,
    ) -> Result<u64> {
        self.save_with(
            |spool, note| spool.save_copy(from, note),
            note,
            due,
            version,
        )
    }

    /// Saves an edit whose bytes this puts into the spool.
    pub(super) fn save_with(
        self: &Arc<Self>,
        put: impl FnOnce(&Spool, &Note) -> Result<u64>,
        note: Note,
        due: Instant,
        version: Option<u64>,
    ) -> Result<u64> {
        let room = self.budget.room();
        room.set(note.size.unwrap_or_default());
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = put(&self.spool, &note)?;
        let saved = self.saved(seq, note, Some(room), due, version);
        let (seq, _) = saved.map_err(|(seq, e)| self.unsaved(seq, e))?;
        drop(saving);
        self.reschedule_for(due);
        Ok(seq)
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
                let seqs: Vec<u64> =
                    gone.map_or_else(Vec::new, |gone| gone.notes.keys().copied().collect());
                for seq in &seqs {
                    index.unsettled.remove(seq);
                }
                drop(index);
                self.forget(seqs);
                self.progress.send_modify(|(ended, _)| *ended += 1);
                return Ok(());
            }
            record.base()
        };
        let note = Note {
            change: Change::Delete,
            after,
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

/// A note that says nothing yet.
pub(super) fn blank(id: RecordId, base: Remote) -> Note {
    Note {
        id,
        change: Change::Put,
        size: None,
        content_type: None,
        base,
        saved_ns: now_ns(),
        shown: Shown::default(),
        after: None,
        conflict: false,
    }
}
