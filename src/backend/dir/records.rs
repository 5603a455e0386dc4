//! Records of the backend, by blocking calls on the store that an id names. No record is held in memory but the piece that
//! is being copied.

use super::backend::DirBackend;
use super::sdk::Writing;
use super::temp::Draft;
use super::uses::Use;
use super::{Area, CommitIf, FileStat, Origin, Place, Store};
use crate::backend::ChangeKind;
use crate::error::{Error, Kind, Result};
use crate::record::{Body, ContentType, ETag, Meta, Precondition, RecordId, Size};
use crate::sys;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Mode of a new record's file.
const MODE: u32 = 0o644;

/// A time of the file system.
pub(super) fn time(ns: i64) -> SystemTime {
    match u64::try_from(ns) {
        Ok(after) => UNIX_EPOCH + Duration::from_nanos(after),
        Err(_) => UNIX_EPOCH - Duration::from_nanos(ns.unsigned_abs()),
    }
}

/// The tag of a version.
pub(super) fn etag(stat: &FileStat) -> ETag {
    let times = (i128::from(stat.modified_ns), i128::from(stat.changed_ns));
    ETag::of_file(stat.inode, stat.size, times)
}

pub(super) fn meta(stat: &FileStat, content_type: Option<ContentType>) -> Meta {
    Meta {
        size: Size::Exact(stat.size),
        content_type,
        etag: Some(etag(stat)),
        modified: Some(time(stat.modified_ns)),
    }
}

/// A record of this key, never a file that is only shown.
pub(super) fn find(store: &Store, key: &str) -> Result<(Place, FileStat)> {
    let (place, stat) = store.find(key)?;
    if place.origin != Origin::Record {
        return Err(Error::new("find", key, Kind::NotFound));
    }
    Ok((place, stat))
}

/// Whether the record is as the caller believes. Called with the store locked.
fn check(store: &Store, id: &RecordId, only_if: &Precondition) -> Result<()> {
    if *only_if == Precondition::None {
        return Ok(());
    }
    let found = match find(store, id.key.as_str()) {
        Ok((_, stat)) => Some(etag(&stat)),
        Err(error) if error.kind() == Kind::NotFound => None,
        Err(error) => return Err(error),
    };
    match (only_if, found) {
        (Precondition::None, _) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Match(wanted), Some(found)) if *wanted == found => Ok(()),
        _ => Err(Error::new("check", id.to_string(), Kind::Changed)),
    }
}

/// Gives a file a time of its own. The system's are coarse, and a file made a moment after another was removed may have
/// its inode number: then the two would have one tag.
fn stamp(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::now())
}

/// A put of no more bytes than this is a few calls that wait for no disk.
const SMALL: usize = 64 * 1024;

/// A record that is to be put, as far as nobody else is concerned.
pub(super) struct Ready {
    store: Arc<Store>,
    draft: Draft,
    content_type: ContentType,
    only_if: Precondition,
}

impl DirBackend {
    fn ready(
        &self,
        store: Arc<Store>,
        id: &RecordId,
        body: &Body,
        content_type: ContentType,
        only_if: Precondition,
    ) -> Result<Ready> {
        store.may_create(id.key.as_str())?;
        let draft = self.folder.draft(MODE)?;
        let copied = match body {
            Body::Bytes(bytes) => draft.file.write_all_at(bytes, 0),
            Body::File(file) | Body::Counted(file, _) => sys::copy(file, &draft.file),
        };
        copied
            .and_then(|()| stamp(&draft.file))
            .map_err(|error| Error::io("put", id.to_string(), error))?;
        Ok(Ready {
            store,
            draft,
            content_type,
            only_if,
        })
    }

    /// Makes it the record, while the caller holds the store's turn and its lock.
    fn commit(&self, id: &RecordId, ready: &mut Ready) -> Result<Meta> {
        check(&ready.store, id, &ready.only_if)?;
        let commit_if = match ready.only_if {
            Precondition::Absent => CommitIf::Absent,
            Precondition::None | Precondition::Match(_) => CommitIf::Any,
        };
        let (key, content_type) = (id.key.as_str(), Some(&ready.content_type));
        let committed = ready
            .store
            .commit(&mut ready.draft, key, content_type, &commit_if, true);
        let (_, stat) = committed.map_err(|error| {
            if error.kind() == Kind::Exists && commit_if == CommitIf::Absent {
                return error.with_kind(Kind::Changed);
            }
            error
        })?;
        self.live.tell(id, ChangeKind::Put, Some(etag(&stat)));
        Ok(meta(&stat, Some(ready.content_type.clone())))
    }

    /// A put that need not wait for anybody is done at once; of any other it gives back what is ready.
    pub(super) fn put_at_once(
        &self,
        id: &RecordId,
        body: &Body,
        content_type: &ContentType,
        only_if: &Precondition,
    ) -> Option<std::result::Result<Result<Meta>, Ready>> {
        if !matches!(body, Body::Bytes(bytes) if bytes.len() <= SMALL) {
            return None;
        }
        // In an SDK's layout a write may have to wait for the SDK, and moves several files.
        let store = self.at_once(&id.store, Use::Write)?;
        let ready = self.ready(
            store.clone(),
            id,
            body,
            content_type.clone(),
            only_if.clone(),
        );
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(error) => return Some(Ok(Err(error))),
        };
        let turn = store.turn_at_once();
        if let (Some(_turn), Ok(Some(_writing))) = (turn, Writing::now(&store)) {
            return Some(Ok(self.commit(id, &mut ready)));
        }
        Some(Err(ready))
    }

    /// The rest of a put that had to wait.
    pub(super) fn put_ready(&self, id: &RecordId, mut ready: Ready) -> Result<Meta> {
        let store = ready.store.clone();
        let _turn = store.turn();
        let _writing = Writing::wait(&store)?;
        self.commit(id, &mut ready)
    }

    pub(super) fn put_now(
        &self,
        id: &RecordId,
        body: &Body,
        content_type: ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let store = self.used(&id.store, Use::Write)?;
        let ready = self.ready(store, id, body, content_type, only_if)?;
        self.put_ready(id, ready)
    }

    pub(super) fn delete_now(&self, id: &RecordId, only_if: &Precondition) -> Result<()> {
        let store = self.used(&id.store, Use::Delete)?;
        let _turn = store.turn();
        let _writing = Writing::wait(&store)?;
        find(&store, id.key.as_str())?;
        check(&store, id, only_if)?;
        store.remove(id.key.as_str())?;
        self.live.tell(id, ChangeKind::Delete, None);
        Ok(())
    }

    /// A record whose looking up is a few calls that wait for no disk and for nobody.
    pub(super) fn get_at_once(&self, id: &RecordId) -> Option<Result<(File, Meta)>> {
        let key = id.key.as_str();
        let store = self.at_once(&id.store, Use::Read)?;
        if !store.is_plain() && find(&store, key).is_ok_and(|(place, _)| store.is_held(&place)) {
            return None;
        }
        Some(fetch(&store, key))
    }

    pub(super) fn get_now(&self, id: &RecordId) -> Result<(File, Meta)> {
        let store = self.used(&id.store, Use::Read)?;
        fetch(&store, id.key.as_str())
    }
}

/// A record's open file and what is known of that version.
fn fetch(store: &Store, key: &str) -> Result<(File, Meta)> {
    if store.is_plain() {
        let (file, stat, content_type) = super::plain::fetch(store, key)?;
        return Ok((file, meta(&stat, Some(content_type))));
    }
    let mut tries = 0;
    loop {
        let (place, _) = find(store, key)?;
        let opened = store.open(&place, false);
        tries += 1;
        let file = match opened {
            Err(error) if error.kind() == Kind::NotFound && tries < 4 => continue,
            other => other?,
        };
        let stat = FileStat::of_file(&file)?;
        let content_type = store.content_type(key, &place)?;
        // The type belongs to these bytes only if the record is still this file.
        let same = find(store, key).is_ok_and(|(_, now)| now.inode == stat.inode);
        if same || tries == 4 {
            return Ok((file, meta(&stat, Some(content_type))));
        }
    }
}

/// What a listing tells of a record; `None` when it is gone.
pub(super) fn listed(store: &Store, key: &str) -> Result<Option<Meta>> {
    if store.is_plain() {
        return match fetch(store, key) {
            Ok((_, meta)) => Ok(Some(meta)),
            Err(error) if super::ids::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        };
    }
    for _ in 0..4 {
        let found = find(store, key).and_then(|(place, stat)| {
            let content_type = store.content_type(key, &place)?;
            Ok((stat, content_type, store.stat(&place)?))
        });
        match found {
            // The type is that of the bytes only if they were not replaced meanwhile.
            Ok((stat, content_type, now)) if now.inode == stat.inode => {
                return Ok(Some(meta(&now, Some(content_type))));
            }
            Ok(_) => {}
            Err(error) if super::ids::is_missing(&error) => match store.find(key) {
                Err(error) if super::ids::is_missing(&error) => return Ok(None),
                _ => {}
            },
            Err(error) => return Err(error),
        }
    }
    // Somebody replaces it without a pause: it is there, and this much is sure.
    Ok(find(store, key).ok().map(|(_, stat)| meta(&stat, None)))
}

/// Reads a part of a file by position.
pub(super) struct Part {
    pub(super) file: File,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The directory of a store's records.
pub(super) fn stat_of(store: &Store) -> Result<FileStat> {
    FileStat::of_file(store.dir(Area::Store)?)
}
