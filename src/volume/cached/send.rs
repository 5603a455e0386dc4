//! Sending one edit: with its precondition, and what an answer means. It decides nothing about when.

use super::Inner;
use super::index::{Base, Index, Kept, Record};
use super::note::Note;
use super::state::{Change, Edit, Event, Remote, State, Step};
use crate::error::{Error, Kind, Result};
use crate::record::{Body, ContentType, Meta, Precondition, RecordId, Size};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The slowest upload that is waited for, in bytes a second.
const SLOWEST: u64 = 64 << 10;

/// What is sent.
pub(super) struct Parcel {
    edit: Edit,
    base: Remote,
    note: Arc<Note>,
    /// What may be there already, the edit itself last.
    tried: Vec<(Edit, Arc<Note>)>,
}

/// What came of it.
pub(super) struct Answer {
    event: Event,
    /// What the backend has now, when it said so.
    meta: Option<Meta>,
}

impl Inner {
    /// Moves a record's state. Numbers of edits whose files are not needed any more.
    pub(super) fn apply(&self, id: &RecordId, event: Event) -> Vec<u64> {
        let mut index = self.index();
        apply_in(&mut index, id, event).map_or_else(Vec::new, |step| seqs(&step))
    }

    /// Removes files of edits.
    pub(super) fn forget(&self, seqs: Vec<u64>) {
        for seq in seqs {
            self.spool.forget(seq);
        }
    }

    pub(super) fn begin(&self, id: &RecordId) -> Option<Parcel> {
        let mut index = self.index();
        apply_in(&mut index, id, Event::Started)?;
        let record = index.record_mut(id)?;
        record.there = Remote::Unknown;
        let State::Uploading { base, sent, .. } = &record.state else {
            return None;
        };
        let noted = |edit: Edit| Some((edit, record.notes.get(&edit.seq)?.clone()));
        Some(Parcel {
            edit: *sent,
            base: base.clone(),
            note: record.notes.get(&sent.seq)?.clone(),
            tried: record.state.tried().into_iter().filter_map(noted).collect(),
        })
    }

    /// Sends it and finds out what the answer means.
    pub(super) async fn deliver(
        self: &Arc<Self>,
        id: &RecordId,
        parcel: &Parcel,
    ) -> Result<Answer> {
        let mut only_if = parcel.base.precondition();
        if !self.properties.conditional_put && only_if != Precondition::None {
            // Looked at first, then written: the next best thing.
            if let Some(answer) = self.look_first(id, parcel).await? {
                return Ok(answer);
            }
            only_if = Precondition::None;
        }
        let subject = id.to_string();
        match parcel.edit.change {
            Change::Put => {
                let (body, content_type) = self.body(id, parcel).await?;
                let size = parcel.note.size.unwrap_or_default();
                let time = self.options.patience + Duration::from_secs(size / SLOWEST);
                let put = self.backend.put(id, body, &content_type, only_if);
                match self.within(time, "put", &subject, put).await {
                    Ok(mut meta) => {
                        meta.content_type.get_or_insert(content_type);
                        let event = Event::Accepted(remote_of(&meta));
                        Ok(Answer {
                            event,
                            meta: Some(meta),
                        })
                    }
                    Err(e) if e.kind() == Kind::Changed => self.refused(id, parcel).await,
                    Err(e) => Err(e),
                }
            }
            Change::Delete => {
                let delete = self.backend.delete(id, only_if);
                match self
                    .within(self.options.patience, "delete", &subject, delete)
                    .await
                {
                    Ok(()) => Ok(gone()),
                    Err(e) if e.kind() == Kind::NotFound => Ok(gone()),
                    Err(e) if e.kind() == Kind::Changed => self.refused(id, parcel).await,
                    Err(e) => Err(e),
                }
            }
        }
    }

    async fn head(&self, id: &RecordId) -> Result<Option<Meta>> {
        let subject = id.to_string();
        let head = self.backend.head(id);
        match self
            .within(self.options.patience, "head", &subject, head)
            .await
        {
            Ok(meta) => Ok(Some(meta)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn look_first(
        self: &Arc<Self>,
        id: &RecordId,
        parcel: &Parcel,
    ) -> Result<Option<Answer>> {
        let there = self.head(id).await?;
        let now = there.as_ref().map_or(Remote::Absent, remote_of);
        // Without a tag there is nothing to compare.
        if now == parcel.base || now == Remote::Unknown {
            return Ok(None);
        }
        self.meaning(id, parcel, there).await.map(Some)
    }

    async fn refused(self: &Arc<Self>, id: &RecordId, parcel: &Parcel) -> Result<Answer> {
        let there = self.head(id).await?;
        self.meaning(id, parcel, there).await
    }

    /// The record is not the version that the edit was made on: whether what is there is ours all the same.
    async fn meaning(
        self: &Arc<Self>,
        id: &RecordId,
        parcel: &Parcel,
        there: Option<Meta>,
    ) -> Result<Answer> {
        let Some(meta) = there else {
            let event = Event::Refused(Remote::Absent);
            return Ok(Answer { event, meta: None });
        };
        let remote = remote_of(&meta);
        for (edit, note) in &parcel.tried {
            if edit.change != Change::Put || !self.is_same(id, &meta, *edit, note).await? {
                continue;
            }
            let same_type = note.content_type.is_none() || note.content_type == meta.content_type;
            let event = if *edit == parcel.edit && same_type {
                Event::Accepted(remote)
            } else {
                Event::Ours(remote)
            };
            return Ok(Answer {
                event,
                meta: Some(meta),
            });
        }
        let event = Event::Refused(remote);
        Ok(Answer {
            event,
            meta: Some(meta),
        })
    }

    /// Whether what is there has the bytes of this edit.
    async fn is_same(&self, id: &RecordId, meta: &Meta, edit: Edit, note: &Note) -> Result<bool> {
        if let (Size::Exact(theirs), Some(ours)) = (meta.size, note.size)
            && theirs != ours
        {
            return Ok(false);
        }
        let get = self.backend.get(id, None);
        let fetched = self
            .within(self.options.patience, "get", &id.to_string(), get)
            .await?;
        if fetched.meta.etag != meta.etag {
            return Err(Error::new("compare", id.to_string(), Kind::Changed));
        }
        let path = self.spool.data(edit.seq);
        let compared = tokio::task::spawn_blocking(move || {
            let ours = File::open(&path)?;
            same_bytes(fetched.bytes, std::io::BufReader::new(ours))
        });
        match compared.await {
            Ok(same) => same.map_err(|e| Error::io("compare", id.to_string(), e)),
            Err(e) => Err(Error::because(
                "compare",
                id.to_string(),
                Kind::Io,
                e.to_string(),
            )),
        }
    }

    async fn body(&self, id: &RecordId, parcel: &Parcel) -> Result<(Body, ContentType)> {
        let path = self.spool.data(parcel.edit.seq);
        let failed = |e| Error::io("read the spool", path.display().to_string(), e);
        let body = Body::File(Arc::new(File::open(&path).map_err(failed)?));
        if let Some(known) = &parcel.note.content_type {
            return Ok((body, known.clone()));
        }
        // The type that the record has was not known when it was written.
        let existing = self.head(id).await?.and_then(|meta| meta.content_type);
        let decided = ContentType::decide(None, existing.as_ref(), id.key.as_str(), &body);
        Ok((body, decided.map_err(failed)?))
    }

    /// Does what follows an answer.
    pub(super) fn settle(self: &Arc<Self>, id: &RecordId, parcel: &Parcel, answer: Answer) {
        let kept = self.keep_sent(parcel, &answer);
        let (step, forget, unused, dir) = {
            let mut index = self.index();
            index.in_flight.remove(id);
            let Some(step) = apply_in(&mut index, id, answer.event.clone()) else {
                return;
            };
            let unused = self.follow_step(&mut index, id, parcel, &answer, &step, kept);
            let forget = seqs(&step);
            let dir = index.stores.get(&id.store).map(|store| store.dir.clone());
            self.keeper.record(&index, id);
            (step, forget, unused, dir)
        };
        if let Some(edit) = step.rename_aside {
            self.set_aside(id, edit);
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
        record.there = remote.clone();
        if let (Event::Accepted(_) | Event::Ours(_), Remote::At(etag)) = (&answer.event, &remote) {
            record.base = Some(Base {
                etag: etag.clone(),
                until: None,
            });
        }
        if step.state
            == (State::Clean {
                remote: Remote::Absent,
            })
        {
            unused.extend(kept);
            let gone = index.remove(id);
            unused.extend(gone.and_then(|record| record.kept));
            return unused;
        }
        match (&answer.event, record.is_clean()) {
            (Event::Accepted(_), true) => {
                unused.extend(std::mem::replace(&mut record.kept, kept));
                // The feed may have told of somebody else's version since.
                let ours = record.heard.is_none() || record.heard.as_ref() == record.etag();
                record.checked = ours.then(Instant::now);
                if let Some(meta) = &answer.meta {
                    record.content_type.clone_from(&meta.content_type);
                }
            }
            (_, true) => {
                unused.extend(kept.into_iter().chain(record.kept.take()));
                record.base = None;
                record.version = version;
                record.checked = None;
                if let Some(meta) = &answer.meta {
                    record.take_in(meta);
                }
            }
            (_, false) => {
                unused.extend(kept);
                let due = match answer.event {
                    Event::Accepted(_) => record.due,
                    _ => Instant::now(),
                };
                index.enqueue(id, due);
            }
        }
        unused
    }

    /// Our side of a conflict becomes a record of its own.
    fn set_aside(self: &Arc<Self>, id: &RecordId, edit: Edit) {
        let note = self
            .index()
            .record_mut(id)
            .and_then(|record| record.notes.remove(&edit.seq));
        let Some(note) = note else { return };
        let saved = self.save_aside(id, edit, &note);
        let mut index = self.index();
        match saved {
            Ok(other) => {
                index.conflicts += 1;
                if let Some(record) = index.record_mut(id) {
                    record.rooms.remove(&edit.seq);
                    record.done = record.done.max(edit.seq);
                    record.aside = Some((edit.seq, other.key.clone()));
                }
                index.unsettled.remove(&edit.seq);
                drop(index);
                self.spool.forget(edit.seq);
                tracing::warn!(
                    "{id} was changed by somebody else: theirs keeps the name, ours is {}",
                    other.key
                );
            }
            Err(e) => {
                // It stays in the spool and is found there by the next mount.
                tracing::error!(
                    "{id} was changed by somebody else, and our side cannot be renamed: {e}"
                );
            }
        }
    }

    fn save_aside(self: &Arc<Self>, id: &RecordId, edit: Edit, note: &Note) -> Result<RecordId> {
        let mut number = 0;
        let other = loop {
            let most = self.properties.max_key;
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
        let note = Note {
            id: other.clone(),
            base: Remote::Unknown,
            after: None,
            conflict: true,
            content_type: note.content_type.clone(),
            ..note.clone()
        };
        self.save_bytes(&self.spool.data(edit.seq), note, Instant::now(), None)?;
        Ok(other)
    }
}

/// Moves a record's state in the index.
pub(super) fn apply_in(index: &mut Index, id: &RecordId, event: Event) -> Option<Step> {
    let record = index.record_mut(id)?;
    let unknown = State::Clean {
        remote: Remote::Unknown,
    };
    match std::mem::replace(&mut record.state, unknown).next(event) {
        Ok(step) => {
            record.state = step.state.clone();
            for edit in &step.forget {
                record.notes.remove(&edit.seq);
                record.rooms.remove(&edit.seq);
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

fn remote_of(meta: &Meta) -> Remote {
    meta.etag.clone().map_or(Remote::Unknown, Remote::At)
}

fn gone() -> Answer {
    Answer {
        event: Event::Accepted(Remote::Absent),
        meta: None,
    }
}

fn same_bytes(mut one: impl Read, mut other: impl Read) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = fill(&mut one, &mut left)?;
        if fill(&mut other, &mut right)? != count || left[..count] != right[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

impl Record {
    /// Whether the backend is known not to have it, and nothing was sent.
    pub(super) fn is_only_here(&self) -> bool {
        let State::Dirty { tried, .. } = &self.state else {
            return false;
        };
        self.there == Remote::Absent && tried.is_empty()
    }
}
