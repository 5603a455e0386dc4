//! Sending one edit: with its precondition, and what an answer means. It decides nothing about when.

use super::Inner;
use super::note::Note;
use super::settle::apply_in;
use super::state::{Change, Edit, Event, Remote, State};
use crate::backend::streamed::on_its_way;
use crate::error::{Error, Kind, Result};
use crate::record::body::Reads;
use crate::record::{Body, ContentType, ETag, Meta, Precondition, RecordId, Size};
use std::fs::File;
use std::io::Read;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often in the time that nothing may move for it is looked whether an upload did.
const LOOKS: u32 = 10;

/// What is sent.
pub(super) struct Parcel {
    pub(super) edit: Edit,
    pub(super) base: Remote,
    pub(super) note: Arc<Note>,
    /// What may be there already, the edit itself last.
    tried: Vec<(Edit, Arc<Note>)>,
}

/// What came of it.
pub(super) struct Answer {
    pub(super) event: Event,
    /// What the backend has now, when it said so.
    pub(super) meta: Option<Meta>,
}

impl Inner {
    pub(super) fn begin(&self, id: &RecordId) -> Option<Parcel> {
        let mut index = self.index();
        apply_in(&mut index, id, Event::Started)?;
        let record = index.record_mut(id)?;
        record.set_there(Remote::Unknown);
        record.heard = None;
        let State::Uploading(sending) = &record.state else {
            return None;
        };
        let sent = sending.sent;
        let noted = |edit: Edit| Some((edit, record.notes.get(&edit.seq)?.clone()));
        Some(Parcel {
            edit: sent,
            base: sending.base.clone(),
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
        if only_if != Precondition::None {
            self.until_learned(&id.store).await;
        }
        if !self.properties().conditional_put && only_if != Precondition::None {
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
                let reads = Arc::default();
                let body = Body::Counted(body, Arc::clone(&reads));
                let put = self.backend.put(id, body, &content_type, only_if);
                let put = self.while_moving((id, parcel.edit.seq), (&reads, size), put);
                match put.await {
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
                    // With its store it is gone as well.
                    Err(e) if matches!(e.kind(), Kind::NotFound | Kind::StoreNotFound) => {
                        Ok(gone())
                    }
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
        // Without a tag there is nothing to compare, except where nothing should be, or where a time stands for the version: that
        // of a new one is no tag yet.
        let made = there.as_ref().and_then(|meta| meta.modified);
        let made = made.and_then(ETag::of_time);
        let is_other = match &parcel.base {
            Remote::Absent => true,
            Remote::At(base) => base.is_of_time() && made.is_some_and(|made| made != *base),
            Remote::Unknown => false,
        };
        if now == parcel.base || (now == Remote::Unknown && !is_other) {
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

    /// An answer, however long it takes while bytes move. Who waits for uploads is told that they do, but not of bytes that were
    /// sent before: a server that refuses the record every time would be waited for without end.
    async fn while_moving<T>(
        &self,
        (id, seq): (&RecordId, u64),
        (reads, size): (&Reads, u64),
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut asked = pin!(asked);
        let patience = self.options.patience;
        let (mut seen, mut last) = (0, Instant::now());
        let mut news = false;
        loop {
            match tokio::time::timeout(patience / LOOKS, &mut asked).await {
                Ok(answer) => return self.answered(answer),
                Err(_) => {
                    let now = reads.all.load(Ordering::Relaxed);
                    if now != seen {
                        (seen, last) = (now, Instant::now());
                    }
                    let farthest = reads.farthest.load(Ordering::Relaxed);
                    let rest = match farthest >= size {
                        true => on_its_way(size),
                        false => Duration::ZERO,
                    };
                    // The backend, which knows better, gives up first.
                    if last.elapsed() > patience + rest + patience / LOOKS * 2 {
                        return Err(self.unanswered(patience, "put", &id.to_string()));
                    }
                    let farther = self.comes_to(id, seq, farthest);
                    news |= farther;
                    if farther || (news && last.elapsed() < rest) {
                        self.progress.send_modify(|progress| progress.moves += 1);
                    }
                }
            }
        }
    }

    /// So many bytes of an edit were sent by now. Whether no try of it came as far before.
    fn comes_to(&self, id: &RecordId, seq: u64, bytes: u64) -> bool {
        let mut farthest = self.farthest.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = farthest.entry(id.clone()).or_default();
        let farther = (seq, bytes) > *mark && bytes > 0;
        if farther {
            *mark = (seq, bytes);
        }
        farther
    }

    /// How far the sending of a record has come, at most: the edit, and its bytes.
    pub(super) fn farthest(&self, id: &RecordId) -> (u64, u64) {
        let farthest = self.farthest.lock().unwrap_or_else(PoisonError::into_inner);
        farthest.get(id).copied().unwrap_or_default()
    }

    /// The record is sent.
    pub(super) fn forget_farthest(&self, id: &RecordId) {
        let mut farthest = self.farthest.lock().unwrap_or_else(PoisonError::into_inner);
        farthest.remove(id);
    }

    async fn body(&self, id: &RecordId, parcel: &Parcel) -> Result<(Arc<File>, ContentType)> {
        let path = self.spool.data(parcel.edit.seq);
        let failed = |e| Error::io("read the spool", path.display().to_string(), e);
        let file = Arc::new(File::open(&path).map_err(failed)?);
        if let Some(known) = &parcel.note.content_type {
            return Ok((file, known.clone()));
        }
        // The type that the record has was not known when it was written.
        let existing = self.head(id).await?.and_then(|meta| meta.content_type);
        let decided = ContentType::decide(None, existing.as_ref(), id.key.as_str(), &*file);
        Ok((file, decided.map_err(failed)?))
    }
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
