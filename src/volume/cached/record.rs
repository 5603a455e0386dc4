//! One record as the index has it: where it stands, what it shows, what waits to be sent of it.

use super::evict::Room;
use super::note::{Note, Shown};
use super::reader::Reader;
use super::state::{Change, Remote, State};
use crate::error::Kind;
use crate::record::{ContentType, ETag, Key, Meta, Size, nanoseconds};
use crate::volume::FileStat;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

/// How long a version that was handed to a reader is what a later write is made on.
const READ_COUNTS: Duration = Duration::from_secs(600);

/// Bytes of one version that are here in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    /// The file's number in the cache folder.
    pub(super) number: u64,
    pub(super) size: u64,
}

/// The version that the next write is made on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Base {
    pub(super) etag: ETag,
    /// Read, and counts until then; one that was written here counts for ever.
    pub(super) until: Option<SystemTime>,
}

impl Base {
    /// What the next write is made on after an edit with this base was set aside: a version that is not there.
    pub(super) fn lost(base: &Remote) -> Self {
        let etag = match base {
            Remote::At(etag) => etag.clone(),
            Remote::Unknown | Remote::Absent => ETag::new("set-aside"),
        };
        let until = Some(SystemTime::now() + READ_COUNTS);
        Self { etag, until }
    }
}

/// An upload that did not work.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Which try it was, of all.
    pub(super) attempt: u64,
    /// The edit that was sent.
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// One record. There may be a million, so what few of them have is apart.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: State,
    /// The number of the version that is shown.
    pub(super) version: u64,
    /// Its place in listings.
    pub(super) position: u64,
    pub(super) size: Size,
    pub(super) content_type: Option<ContentType>,
    /// When what is shown was last changed, in nanoseconds since 1970.
    modified_ns: i64,
    /// When the backend last said so.
    pub(super) checked: Option<Instant>,
    /// The count of changes when it last changed here.
    pub(super) tick: u64,
    rare: Option<Box<Rare>>,
}

/// What only records have that were read, written or told of since they were listed. A record leads to it as if it were its
/// own; it takes room once something of it is set.
#[derive(Debug)]
pub(super) struct Rare {
    /// How it is shown, where that is not as every version of the backend.
    shown: Option<Shown>,
    /// What the backend has as far as is known, while something else is saved here.
    there: Remote,
    /// When the newest edit is due.
    pub(super) due: Option<Instant>,
    /// What the feed told last.
    pub(super) heard: Option<Remote>,
    pub(super) kept: Option<Kept>,
    pub(super) reader: Weak<Reader>,
    pub(super) used: u64,
    /// It was fetched before anybody opened it, or is.
    pub(super) ahead: bool,
    /// Until when its bytes are needed here.
    pub(super) held: Option<Instant>,
    pub(super) base: Option<Base>,
    /// The version whose length could not be learned.
    pub(super) unmeasured: Option<u64>,
    /// Notes of the edits that wait, by number.
    pub(super) notes: BTreeMap<u64, Arc<Note>>,
    /// What the edits that wait take of the room for unsent bytes.
    pub(super) rooms: BTreeMap<u64, Arc<Room>>,
    pub(super) tries: u32,
    pub(super) failure: Option<Box<Failure>>,
    /// The last edit that was saved by this mount.
    pub(super) saved: u64,
    /// The highest edit that was accepted or settled in another way.
    pub(super) done: u64,
    /// Our side of the last conflict: which edit, and what it is called now.
    pub(super) aside: Option<Box<(u64, Key)>>,
}

/// The rare part of those that have none.
static PLAIN: Rare = Rare::new();

impl Rare {
    const fn new() -> Self {
        Self {
            shown: None,
            there: Remote::Unknown,
            due: None,
            heard: None,
            kept: None,
            reader: Weak::new(),
            used: 0,
            ahead: false,
            held: None,
            base: None,
            unmeasured: None,
            notes: BTreeMap::new(),
            rooms: BTreeMap::new(),
            tries: 0,
            failure: None,
            saved: 0,
            done: 0,
            aside: None,
        }
    }
}

impl Deref for Record {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&PLAIN)
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(Rare::new()))
    }
}

impl Record {
    pub(super) fn new(position: u64, version: u64, remote: Remote) -> Self {
        Self {
            state: State::Clean { remote },
            version,
            position,
            size: Size::Unknown,
            content_type: None,
            modified_ns: 0,
            checked: None,
            tick: 0,
            rare: None,
        }
    }

    /// Whether the name leads to something.
    pub(super) fn exists(&self) -> bool {
        match self.state.newest() {
            Some(edit) => edit.change == Change::Put,
            None => {
                self.state
                    != State::Clean {
                        remote: Remote::Absent,
                    }
            }
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        matches!(self.state, State::Clean { .. })
    }

    /// The version that is shown, where it is the backend's.
    pub(super) fn etag(&self) -> Option<&ETag> {
        match &self.state {
            State::Clean {
                remote: Remote::At(tag),
            } => Some(tag),
            State::Clean { .. } | State::Dirty { .. } | State::Uploading { .. } => None,
        }
    }

    /// What the backend has as far as is known, whatever is saved here.
    pub(super) fn there(&self) -> &Remote {
        match &self.state {
            State::Clean { remote } => remote,
            State::Dirty(_) | State::Uploading(_) => &self.there,
        }
    }

    /// Notes what the backend has as far as is known, whatever is saved here.
    pub(super) fn set_there(&mut self, remote: Remote) {
        match &mut self.state {
            State::Clean { remote: known } => *known = remote,
            State::Dirty(_) | State::Uploading(_) => self.there = remote,
        }
    }

    /// When the newest edit is due.
    pub(super) fn due(&self) -> Instant {
        self.due.unwrap_or_else(Instant::now)
    }

    /// The attributes that it shows.
    pub(super) fn shown(&self) -> Shown {
        let as_every = || Shown::of_version(self.modified_ns);
        self.shown.unwrap_or_else(as_every)
    }

    /// It shows these from now on.
    pub(super) fn show(&mut self, shown: Shown) {
        self.modified_ns = shown.modified_ns;
        let other = (shown != Shown::of_version(shown.modified_ns)).then_some(shown);
        if self.shown != other {
            self.shown = other;
        }
    }

    /// What it shows.
    pub(super) fn stat(&self) -> FileStat {
        let size = self.size.shown();
        let shown = self.shown();
        FileStat {
            inode: self.version,
            size,
            blocks: size.div_ceil(512),
            mode: libc::S_IFREG | shown.mode & 0o7777,
            uid: shown.uid,
            gid: shown.gid,
            links: 1,
            accessed_ns: shown.accessed_ns,
            modified_ns: shown.modified_ns,
            changed_ns: shown.changed_ns,
        }
    }

    /// What a write now is made on.
    pub(super) fn base(&self) -> Remote {
        match &self.base {
            Some(base) if base.until.is_none_or(|until| until > SystemTime::now()) => {
                Remote::At(base.etag.clone())
            }
            _ => Remote::Unknown,
        }
    }

    /// What the next edit is made on: what waits to be sent is replaced by it.
    pub(super) fn next_base(&self) -> Remote {
        match &self.state {
            State::Clean { .. } => self.base(),
            State::Dirty(dirty) => dirty.base.clone(),
            State::Uploading(sending) => sending.base.clone(),
        }
    }

    /// These bytes are being handed to a reader.
    pub(super) fn was_read(&mut self) {
        let Some(etag) = self.etag().cloned() else {
            return;
        };
        if self
            .base
            .as_ref()
            .is_some_and(|base| base.etag == etag && base.until.is_none())
        {
            return;
        }
        let until = Some(SystemTime::now() + READ_COUNTS);
        self.base = Some(Base { etag, until });
    }

    /// The note of the newest edit.
    pub(super) fn newest_note(&self) -> Option<&Arc<Note>> {
        self.notes.get(&self.state.newest()?.seq)
    }
}

impl Record {
    /// What is shown of a version that the backend has.
    pub(super) fn take_in(&mut self, meta: &Meta) {
        self.size = meta.size;
        self.content_type.clone_from(&meta.content_type);
        let at = nanoseconds(meta.modified.unwrap_or_else(SystemTime::now));
        self.show(Shown::of_version(at));
    }

    /// Whether the backend is known not to have it, and nothing was sent.
    pub(super) fn is_only_here(&self) -> bool {
        let State::Dirty(dirty) = &self.state else {
            return false;
        };
        self.there == Remote::Absent && dirty.tried.is_empty()
    }
}
