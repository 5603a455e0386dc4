//! What happens to names: removed, renamed, given another type or other attributes. Bytes only ever change in `edit`.

use super::answers::legal;
use super::edit::{blank, shown_of};
use super::note::{Note, Shown};
use super::open::LARGE;
use super::record::Kept;
use super::spool::Spool;
use super::state::Remote;
use super::{Inner, scratch};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{ContentType, ETag, RecordId, StoreName, now_ns};
use crate::volume::{FileStat, Now, Touch};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// How often bytes are looked for that move in the moment they are used.
const TRIES: u32 = 5;
/// The largest record that is moved to another store by a rename.
const MOST_MOVED: u64 = 64 << 20;

impl Inner {
    pub(super) fn remove(self: &Arc<Self>, dir: &StoreName, name: &str) -> Result<()> {
        self.writable("remove", name)?;
        if is_scratch(name) {
            return scratch::remove(self, dir, name);
        }
        let id = self.id(dir, name)?;
        self.save_removal(&id, Instant::now() + self.options.debounce, None)
    }

    /// Where the bytes of a record are, all of them, and what is known of it.
    pub(super) fn whole(&self, id: &RecordId) -> Result<(PathBuf, Whole)> {
        let mut index = self.index();
        let used = index.number();
        let missing = || Error::new("find", id.to_string(), Kind::NotFound);
        let record = index
            .record_mut(id)
            .filter(|record| record.exists())
            .ok_or_else(missing)?;
        record.used = used;
        // What is done with these bytes is made on this version.
        record.was_read();
        let path = match (record.state.newest(), record.kept) {
            (Some(edit), _) => self.spool.data(edit.seq),
            (None, Some(Kept { number, .. })) => self.cached_file(number),
            (None, None) => {
                let why = "its bytes are not here";
                return Err(Error::because("read", id.to_string(), Kind::Offline, why));
            }
        };
        let whole = Whole {
            version: record.version,
            stat: record.stat(),
            content_type: record.content_type.clone(),
            base: record.base(),
            tag: record.etag().cloned(),
        };
        Ok((path, whole))
    }

    /// Does something with the bytes of a record. It is tried again when they move meanwhile: what was sent goes from the
    /// spool to the cache.
    pub(super) fn with_whole<T>(
        &self,
        id: &RecordId,
        mut work: impl FnMut(&Path, Whole) -> Result<T>,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            let (path, whole) = self.whole(id)?;
            match work(&path, whole) {
                Err(e) if e.kind() == Kind::NotFound && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    pub(super) fn rename(
        self: &Arc<Self>,
        from: (&StoreName, &str),
        to: (&StoreName, &str),
        no_replace: bool,
    ) -> Result<()> {
        self.writable("rename", from.1)?;
        if no_replace && self.known(to.0, to.1).is_ok() {
            return Err(Error::new("rename to", to.1, Kind::Exists));
        }
        match (is_scratch(from.1), is_scratch(to.1)) {
            (true, true) => return scratch::rename(self, from, to),
            (true, false) => return scratch::to_record(self, from, to),
            (false, true) => {
                let id = self.id(from.0, from.1)?;
                self.with_whole(&id, |path, whole| {
                    scratch::from_record(self, path, &whole.stat, to)
                })?;
                let due = Instant::now() + self.options.parting;
                return self.save_removal(&id, due, None);
            }
            (false, false) => {}
        }
        self.may_create(to.0, to.1)?;
        let source = self.id(from.0, from.1)?;
        let target = self.target(to.0, to.1)?;
        if source == target.id {
            return Ok(());
        }
        self.with_whole(&source, |path, whole| {
            if from.0 != to.0 && whole.stat.size > MOST_MOVED {
                return Err(Error::new("rename", from.1, Kind::CrossDevice));
            }
            let note = Note {
                size: Some(whole.stat.size),
                content_type: whole.content_type,
                shown: shown_of(&whole.stat),
                ..blank(target.id.clone(), target.base.clone())
            };
            let due = Instant::now() + self.delay(to.0, to.1);
            let goes = Instant::now() + self.options.debounce;
            self.save_move((&source, path, whole.version), note, due, goes)
        })
    }

    /// Makes sure that a rename can be done from here. Waits also where that copies much.
    pub(super) fn prepare_rename(
        self: &Arc<Self>,
        from: (&StoreName, &str),
        to: (&StoreName, &str),
    ) -> Now<()> {
        if !is_scratch(from.1)
            && let Ok(id) = self.id(from.0, from.1)
        {
            // Else what was just sent may leave a full cache before it gets its new name.
            self.hold(&id);
        }
        let is_current =
            |dir, name| is_scratch(name) || self.id(dir, name).is_ok_and(|id| self.is_current(&id));
        let is_here = |dir, name| {
            is_scratch(name)
                || self.id(dir, name).is_ok_and(|id| self.is_here(&id))
                || self.known(dir, name).is_err()
        };
        let from_is_ready = is_current(from.0, from.1) && is_here(from.0, from.1);
        if from_is_ready && (legal(to.1).is_err() || is_current(to.0, to.1)) {
            let size = self.known(from.0, from.1).map_or(0, |stat| stat.file.size);
            return match size > LARGE {
                true => Now::Wait(Box::pin(std::future::ready(Ok(())))),
                false => Now::ok(()),
            };
        }
        let inner = self.clone();
        let from = (from.0.clone(), from.1.to_owned());
        let to = (to.0.clone(), to.1.to_owned());
        self.run(async move {
            inner.resolve(&from.0).await?;
            inner.resolve(&to.0).await?;
            if legal(&to.1).is_ok() && !is_scratch(&to.1) {
                inner.current(&to.0, &to.1).await?;
            }
            if is_scratch(&from.1) {
                return Ok(());
            }
            match inner.hydrated(&from.0, &from.1).await {
                // It may be a draft that has no record yet.
                Err(e) if e.kind() != Kind::NotFound => Err(e),
                _ => Ok(()),
            }
        })
    }

    /// Gives a record another type.
    pub(super) fn set_content_type(
        self: &Arc<Self>,
        dir: &StoreName,
        name: &str,
        to: Option<&ContentType>,
    ) -> Now<()> {
        if is_scratch(name) {
            // A scratch file has none; what replaces a record takes that one's.
            return Now::ok(());
        }
        let (inner, to) = (self.clone(), to.cloned());
        let here = self.id(dir, name).ok().filter(|id| self.is_here(id));
        if let Some(id) = here.filter(|id| self.is_current(id)) {
            if self
                .known(dir, name)
                .is_ok_and(|stat| stat.file.size > LARGE)
            {
                return Now::blocking(move || inner.set_type(&id, to.as_ref()));
            }
            return self.set_type(&id, to.as_ref()).into();
        }
        let (dir, name) = (dir.clone(), name.to_owned());
        self.run(async move {
            let id = inner.hydrated(&dir, &name).await?;
            Now::blocking(move || inner.set_type(&id, to.as_ref()))
                .into_wait()
                .await
        })
    }

    /// Saves the bytes of a file that is no record as the newest version of one.
    pub(super) fn save_file(
        self: &Arc<Self>,
        path: &Path,
        stat: &FileStat,
        to: (&StoreName, &str),
    ) -> Result<()> {
        self.may_create(to.0, to.1)?;
        let target = self.target(to.0, to.1)?;
        let failed = |e| Error::io("rename", path.display().to_string(), e);
        let content_type = if target.unknown_type {
            None
        } else {
            let file = std::fs::File::open(path).map_err(failed)?;
            let existing = target.existing.as_ref();
            Some(ContentType::decide(None, existing, to.1, &file).map_err(failed)?)
        };
        let note = Note {
            size: Some(stat.size),
            content_type,
            shown: shown_of(stat),
            ..blank(target.id, target.base)
        };
        let due = Instant::now() + self.delay(to.0, to.1);
        // Who has it open may still write into it.
        let copy = self.spool.copy_aside(path)?;
        self.save_with(|spool, note| spool.save_file(copy, note), note, due, None)
            .map(|_| ())
    }

    /// Gives a record whose bytes are here another type.
    pub(super) fn set_type(
        self: &Arc<Self>,
        id: &RecordId,
        to: Option<&ContentType>,
    ) -> Result<()> {
        let failed = |e| Error::io("set the content type of", id.to_string(), e);
        self.with_whole(id, |path, whole| {
            let to = match to {
                Some(to) => to.clone(),
                None => {
                    let file = std::fs::File::open(path).map_err(failed)?;
                    ContentType::guess(id.key.as_str(), &file).map_err(failed)?
                }
            };
            if whole.content_type.as_ref() == Some(&to) {
                return Ok(());
            }
            let note = Note {
                size: Some(whole.stat.size),
                content_type: Some(to),
                shown: Shown {
                    changed_ns: now_ns(),
                    ..shown_of(&whole.stat)
                },
                ..blank(id.clone(), whole.base)
            };
            let due = Instant::now() + self.options.debounce;
            // Somebody may have written it since.
            let put = |spool: &Spool, note: &Note| {
                self.must_be(id, whole.version)?;
                spool.save_copy(path, note)
            };
            self.save_with(put, note, due, Some(whole.version))
                .map(|_| ())
        })
    }

    pub(super) fn touch(&self, dir: &StoreName, name: &str, touch: &Touch) -> Result<()> {
        self.writable("change", name)?;
        if is_scratch(name) {
            return scratch::touch(self, dir, name, touch);
        }
        let id = self.id(dir, name)?;
        let mut index = self.index();
        let missing = || Error::new("change", id.to_string(), Kind::NotFound);
        let record = index
            .record_mut(&id)
            .filter(|record| record.exists())
            .ok_or_else(missing)?;
        let mut stat = record.stat();
        let other = touch.uid.is_some_and(|uid| uid != stat.uid)
            || touch.gid.is_some_and(|gid| gid != stat.gid);
        if other {
            let why = "records of this source have no owner of their own";
            return Err(Error::because(
                "chown",
                id.to_string(),
                Kind::NotPermitted,
                why,
            ));
        }
        touch.apply(&mut stat);
        stat.changed_ns = now_ns();
        record.show(shown_of(&stat));
        self.keeper.record(&index, &id);
        Ok(())
    }
}

/// A record whose bytes are all here.
pub(super) struct Whole {
    version: u64,
    pub(super) stat: FileStat,
    content_type: Option<ContentType>,
    base: Remote,
    /// The tag by which the server knows these bytes.
    pub(super) tag: Option<ETag>,
}
