//! Opening records: from what is here, or with a reader that fetches. A version that was opened stays what it is.

use super::reader::Reader;
use super::record::Kept;
use super::{Inner, scratch};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{ETag, RecordId, Size, StoreName};
use crate::sys;
use crate::volume::{Draft, FileStat, Now, Opened, Origin, Stat};
use rustix::fs::Timestamps;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Copies of more than this are made on the blocking pool, in bytes.
pub(super) const LARGE: u64 = 1 << 20;
/// How often a record is opened again whose bytes are here no longer when they are to be used.
const TRIES: u32 = 3;
/// How long bytes are here at least after they were asked for.
pub(super) const HELD: Duration = Duration::from_secs(2);

impl Inner {
    /// What is known of a name here.
    pub(super) fn known(&self, dir: &StoreName, name: &str) -> Result<Stat> {
        if is_scratch(name) {
            return scratch::stat(self, dir, name);
        }
        let id = self.id(dir, name)?;
        let index = self.index();
        match index.record(&id).filter(|record| record.exists()) {
            Some(record) => Ok(Stat {
                file: record.stat(),
                origin: Origin::Record,
            }),
            None => Err(Error::new("look up", id.to_string(), Kind::NotFound)),
        }
    }

    /// Whether what is known of a record need not be asked for.
    pub(super) fn is_current(&self, id: &RecordId) -> bool {
        let index = self.index();
        let ttl = self.options.ttl;
        let Some(store) = index.stores.get(&id.store) else {
            return false;
        };
        match store.records.get(&id.key) {
            Some(record) => store.is_current(record, ttl),
            None => store.is_absent(&id.key, ttl),
        }
    }

    /// Whether what is shown of a name waits to be sent, so that nobody need be asked.
    pub(super) fn is_unsent(&self, dir: &StoreName, name: &str) -> bool {
        let Ok(id) = self.id(dir, name) else {
            return false;
        };
        let index = self.index();
        index.record(&id).is_some_and(|record| !record.is_clean())
    }

    /// Whether all bytes of a record are here.
    pub(super) fn is_here(&self, id: &RecordId) -> bool {
        let index = self.index();
        let record = index.record(id);
        record
            .is_some_and(|record| record.exists() && (!record.is_clean() || record.kept.is_some()))
    }

    pub(super) fn open(
        self: &Arc<Self>,
        dir: &StoreName,
        name: &str,
        write: bool,
        fall_back: bool,
    ) -> Now<Opened> {
        if write
            && !fall_back
            && let Err(e) = self.writable("open for writing", name)
        {
            return Now::err(e);
        }
        let write = write && !self.options.read_only;
        if is_scratch(name) {
            let size = scratch::stat(self, dir, name).map_or(0, |stat| stat.file.size);
            let (inner, dir, name) = (self.clone(), dir.clone(), name.to_owned());
            let open = move || scratch::open(&inner, &dir, &name, write);
            return match write && size > LARGE {
                true => Now::blocking(open),
                false => open().into(),
            };
        }
        if self.known_store(dir, false).is_some() || self.is_unsent(dir, name) {
            let id = match self.id(dir, name) {
                Ok(id) => id,
                Err(e) => return Now::err(e),
            };
            if self.is_current(&id) && (self.is_here(&id) || self.known(dir, name).is_err()) {
                return self.open_here(id, write);
            }
        }
        let (inner, dir, name) = (self.clone(), dir.clone(), name.to_owned());
        self.run(async move {
            inner.resolve(&dir).await?;
            let id = inner.id(&dir, &name)?;
            inner.open_remote(id, write).await
        })
    }

    fn open_here(self: &Arc<Self>, id: RecordId, write: bool) -> Now<Opened> {
        let large = write
            && self
                .index()
                .record(&id)
                .is_some_and(|record| record.stat().size > LARGE);
        if !write && self.was_fetched_ahead(&id) {
            self.reads_on(&id);
        }
        let inner = self.clone();
        if large {
            return Now::blocking(move || inner.open_file(&id, write));
        }
        match inner.open_file(&id, write) {
            // It was evicted just now.
            Err(e) if e.kind() == Kind::Offline => {
                self.run(async move { inner.open_remote(id, write).await })
            }
            done => done.into(),
        }
    }

    /// The bytes of a record that is about to be used are not evicted for a moment.
    pub(super) fn hold(&self, id: &RecordId) {
        if let Some(record) = self.index().record_mut(id) {
            record.held = Some(Instant::now() + HELD);
        }
    }

    /// Opens a record whose bytes are here.
    fn open_file(self: &Arc<Self>, id: &RecordId, write: bool) -> Result<Opened> {
        let (file, stat, tag) = self.with_whole(id, |path, whole| match File::open(path) {
            Ok(file) => Ok((file, whole.stat, whole.tag)),
            Err(e) => Err(Error::io("open", path.display().to_string(), e)),
        })?;
        let stat = Stat {
            file: stat,
            origin: Origin::Record,
        };
        if !write {
            return Ok(Opened {
                file: Arc::new(file),
                stat,
                writable: false,
                draft: None,
                sealed: true,
                tag,
                reader: None,
            });
        }
        let draft = self.copy_of(&file, &stat.file)?;
        Ok(Opened {
            file: draft.file.clone(),
            stat,
            writable: true,
            draft: Some(draft),
            sealed: false,
            tag: None,
            reader: None,
        })
    }

    /// A draft with the bytes and attributes of a version.
    pub(super) fn copy_of(&self, file: &File, stat: &FileStat) -> Result<Draft> {
        let failed = |e| Error::io("copy the record", "", e);
        let room = self.budget.room();
        room.set(stat.size);
        let draft = self.spool.draft(stat.mode & 0o7777, room)?;
        sys::copy(file, &draft.file).map_err(failed)?;
        let times = Timestamps {
            last_access: scratch::timespec(Some(stat.accessed_ns)),
            last_modification: scratch::timespec(Some(stat.modified_ns)),
        };
        rustix::fs::futimens(&*draft.file, &times).map_err(|e| failed(e.into()))?;
        Ok(Draft::in_spool(draft))
    }

    async fn open_remote(self: Arc<Self>, id: RecordId, write: bool) -> Result<Opened> {
        let mut tries = TRIES;
        loop {
            match self.clone().open_once(id.clone(), write).await {
                // Another version came in this moment, or the bytes have left the cache.
                Err(e) if e.kind() == Kind::Offline && tries > 0 && !self.is_offline() => {
                    tries -= 1;
                }
                done => return done,
            }
        }
    }

    async fn open_once(self: Arc<Self>, id: RecordId, write: bool) -> Result<Opened> {
        self.note_use(&id.store);
        self.follow(&id.store).await;
        self.hold(&id);
        if !self.is_current(&id) {
            match self.head_record(&id).await {
                Err(e) if e.kind() == Kind::Offline && self.is_here(&id) => {}
                other => other?,
            }
        }
        self.hold(&id);
        // It may be here by now for that reason.
        if (self.was_fetched_ahead(&id) || !self.is_here(&id)) && !write {
            self.reads_on(&id);
        }
        if !self.is_here(&id)
            && let Some(reader) = self.reader(&id).await?
        {
            if write {
                reader.finish().await?;
            } else {
                return self.open_reader(&id, reader);
            }
        }
        let inner = self.clone();
        Now::blocking(move || inner.open_file(&id, write))
            .into_wait()
            .await
    }

    fn open_reader(&self, id: &RecordId, reader: Arc<Reader>) -> Result<Opened> {
        let mut index = self.index();
        let used = index.number();
        let gone = || Error::new("open", id.to_string(), Kind::NotFound);
        let record = index
            .record_mut(id)
            .filter(|record| record.exists())
            .ok_or_else(gone)?;
        if !std::ptr::eq(record.reader.as_ptr(), Arc::as_ptr(&reader)) {
            // Another version came since. The name is looked up again.
            return Err(Error::new("open", id.to_string(), Kind::Stale));
        }
        record.was_read();
        record.used = used;
        Ok(Opened {
            file: reader.file.clone(),
            stat: Stat {
                file: FileStat {
                    size: reader.size(),
                    ..record.stat()
                },
                origin: Origin::Record,
            },
            writable: false,
            draft: None,
            sealed: true,
            tag: record.etag().cloned(),
            reader: Some(reader),
        })
    }

    /// A reader of the version that is shown; none when its bytes are here after all.
    pub(super) async fn reader(self: &Arc<Self>, id: &RecordId) -> Result<Option<Arc<Reader>>> {
        let known = {
            let index = self.index();
            let gone = || Error::new("open", id.to_string(), Kind::NotFound);
            let record = index
                .record(id)
                .filter(|record| record.exists())
                .ok_or_else(gone)?;
            if let Some(reader) = record.reader.upgrade() {
                return Ok(Some(reader));
            }
            if record.kept.is_some() {
                // The last byte came since the caller looked.
                return Ok(None);
            }
            (record.size, record.etag().cloned())
        };
        let (size, etag) = match known {
            (Size::Exact(size), Some(etag)) => (size, Some(etag)),
            _ => {
                // A listing need not tell enough.
                self.head_record(id).await?;
                match self.size_and_tag(id)? {
                    (Size::Exact(size), etag) => (size, etag),
                    (Size::Told(_) | Size::Unknown, _) => {
                        return self.fetch_whole(id).await.map(|()| None);
                    }
                }
            }
        };
        let (file, number, path) = self.cache_file()?;
        let reader = Reader::new(self, id, (etag.clone(), size), (file, number, path));
        let mut index = self.index();
        let Some(record) = index.record_mut(id) else {
            return Err(Error::new("open", id.to_string(), Kind::NotFound));
        };
        if !record.is_clean() || record.kept.is_some() {
            // Somebody wrote it here since, or fetched it.
            return Ok(None);
        }
        if let Some(other) = record.reader.upgrade() {
            return Ok(Some(other));
        }
        if record.etag() != etag.as_ref() || record.size != Size::Exact(size) {
            return Err(Error::new("open", id.to_string(), Kind::Stale));
        }
        record.reader = Arc::downgrade(&reader);
        Ok(Some(reader))
    }

    fn size_and_tag(&self, id: &RecordId) -> Result<(Size, Option<ETag>)> {
        let index = self.index();
        let record = index.record(id).filter(|record| record.exists());
        let gone = || Error::new("open", id.to_string(), Kind::NotFound);
        record
            .map(|record| (record.size, record.etag().cloned()))
            .ok_or_else(gone)
    }

    pub(super) fn cache_file(&self) -> Result<(File, u64, std::path::PathBuf)> {
        let number = self.index().number();
        let path = self.cached_file(number);
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("write the cache", path.display().to_string(), e))?;
        Ok((file, number, path))
    }

    /// A reader has every byte of its version: they are what is cached of the record, if it still is that version.
    pub(super) fn keep_reader(&self, reader: &Arc<Reader>) -> bool {
        let mut index = self.index();
        let id = reader.id();
        let Some(record) = index.record_mut(id) else {
            return false;
        };
        let same = std::ptr::eq(record.reader.as_ptr(), Arc::as_ptr(reader));
        if !same || !record.is_clean() {
            return false;
        }
        if let Some(kept) = record.kept {
            return kept.number == reader.number;
        }
        record.kept = Some(Kept {
            number: reader.number,
            size: reader.size(),
        });
        self.keeper.record(&index, id);
        true
    }
}
