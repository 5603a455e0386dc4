//! Saving edits: what was written, removed, renamed or given another type is in the spool before anybody is told so.

use super::note::{Note, Shown};
use super::record::Record;
use super::spool::Spooled;
use super::state::{Change, Remote};
use super::{Inner, scratch};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{ContentType, Key, RecordId, StoreName, now_ns};
use crate::volume::{FileStat, Stat};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
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
        let mut note = Note {
            size: Some(stat.size),
            content_type: content_type.clone(),
            shown: shown_of(&stat),
            ..blank(target.id.clone(), target.base)
        };
        draft.room.set(stat.size);
        let due = Instant::now() + self.delay(dir, name);
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        note.replaces = self.index().awaited_of(&note.id);
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
        replaces: Vec::new(),
        conflict: false,
    }
}
