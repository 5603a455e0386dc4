//! Answers to questions about names: from the index when it is current, else after asking the backend.

use super::{Inner, scratch};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{ContentType, RecordId, StoreName};
use crate::volume::{Entry, Now, Origin, Stat};
use std::fs::File;
use std::future::Future;
use std::sync::Arc;

/// How many names are copied out of the index at a time.
const BATCH: usize = 256;
impl Inner {
    /// An answer that is worked out on the volume's own runtime, whoever waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Now<T> {
        let task = self.runtime.spawn(work);
        Now::Wait(Box::pin(async move {
            match task.await {
                Ok(result) => result,
                Err(e) => Err(Error::because("run", "", Kind::Io, e.to_string())),
            }
        }))
    }

    /// The record of a name once its store is known and the record itself is current.
    pub(super) async fn current(self: &Arc<Self>, dir: &StoreName, name: &str) -> Result<RecordId> {
        self.resolve(dir).await?;
        let id = self.id(dir, name)?;
        if !self.is_current(&id) {
            self.refresh_record(&id).await?;
        }
        Ok(id)
    }

    /// The same, with all bytes here.
    pub(super) async fn hydrated(
        self: &Arc<Self>,
        dir: &StoreName,
        name: &str,
    ) -> Result<RecordId> {
        self.resolve(dir).await?;
        let id = self.id(dir, name)?;
        self.hold(&id);
        let opened = self.open(dir, name, false, true).into_wait().await?;
        if let Some(reader) = &opened.reader {
            reader.finish().await?;
        }
        Ok(id)
    }

    pub(super) fn stat(self: &Arc<Self>, dir: &StoreName, name: &str) -> Now<Stat> {
        if self.known_store(dir, false).is_some() || self.is_unsent(dir, name) {
            if is_scratch(name) {
                return scratch::stat(self, dir, name).into();
            }
            match self.id(dir, name) {
                Err(e) => return Now::err(e),
                Ok(id) if self.is_current(&id) && !self.lacks_size(&id) => {
                    return self.known(dir, name).into();
                }
                Ok(_) => {}
            }
        } else if let Err(e) = legal(name) {
            return Now::err(e);
        }
        let (inner, dir, name) = (self.clone(), dir.clone(), name.to_owned());
        self.run(async move {
            if is_scratch(&name) {
                inner.resolve(&dir).await?;
            } else {
                let id = inner.current(&dir, &name).await?;
                match inner.learn_size(&id).await {
                    Err(e) if e.kind() == crate::error::Kind::NotFound => return Err(e),
                    // What was told is shown instead.
                    Err(e) => tracing::warn!("the length of {id} is not known: {e}"),
                    Ok(()) => {}
                }
            }
            inner.known(&dir, &name)
        })
    }

    pub(super) fn content_type(self: &Arc<Self>, dir: &StoreName, name: &str) -> Now<ContentType> {
        if is_scratch(name) {
            let guess = scratch::open(self, dir, name, false).and_then(|opened| {
                ContentType::guess(name, &*opened.file).map_err(|e| Error::io("read", name, e))
            });
            return guess.into();
        }
        let told = |inner: &Self, id: &RecordId| {
            let index = inner.index();
            let record = index.record(id).filter(|record| record.exists());
            record.and_then(|record| record.content_type.clone())
        };
        if let Ok(id) = self.id(dir, name)
            && self.is_current(&id)
            && let Some(found) = told(self, &id)
        {
            return Now::ok(found);
        }
        let (inner, dir, name) = (self.clone(), dir.clone(), name.to_owned());
        self.run(async move {
            let id = inner.current(&dir, &name).await?;
            inner.known(&dir, &name)?;
            if told(&inner, &id).is_none()
                && inner.index().record(&id).is_some_and(|r| r.is_clean())
            {
                inner.head_record(&id).await?;
            }
            if let Some(found) = told(&inner, &id) {
                return Ok(found);
            }
            // Nobody tells it: what its bytes say.
            inner.hydrated(&dir, &name).await?;
            let (path, _) = inner.whole(&id)?;
            let failed = |e| Error::io("read", id.to_string(), e);
            let file = File::open(path).map_err(failed)?;
            ContentType::guess(&name, &file).map_err(failed)
        })
    }

    pub(super) fn list(
        &self,
        dir: &StoreName,
        after: u64,
        with_stat: bool,
        each: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Result<()> {
        let mut from = after;
        while from < scratch::LISTED_FROM {
            let batch: Vec<_> = {
                let index = self.index();
                let missing = || Error::new("list", dir.as_str(), Kind::StoreNotFound);
                let store = index.store_of(dir).ok_or_else(missing)?;
                let records = store.after(from).take(BATCH);
                records
                    .map(|(key, record)| (key.clone(), record.position, record.stat()))
                    .collect()
            };
            let Some((_, last, _)) = batch.last() else {
                break;
            };
            from = *last;
            for (key, next, file) in &batch {
                let stat = Stat {
                    file: *file,
                    origin: Origin::Record,
                };
                let entry = Entry {
                    name: key.as_str(),
                    next: *next,
                    stat: with_stat.then_some(stat),
                };
                if !each(entry) {
                    return Ok(());
                }
            }
        }
        for (next, name, stat) in scratch::list(self, dir)? {
            let entry = Entry {
                name: &name,
                next,
                stat: with_stat.then_some(stat),
            };
            if next > after && !each(entry) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the newest edit of a record is sent; an fsync asks for it on disk first.
    pub(super) fn settled(
        self: &Arc<Self>,
        dir: &StoreName,
        name: &str,
        on_disk: bool,
        sent: bool,
    ) -> Now<()> {
        let Ok(id) = self.id(dir, name) else {
            return Now::ok(());
        };
        let (saved, waits) = {
            let index = self.index();
            let record = index.record(&id);
            record.map_or((0, false), |record| (record.saved, !record.is_clean()))
        };
        // Who writes through is also told of an upload that ended before it was asked for.
        if !(waits || self.options.write_through && saved > 0) {
            return Now::ok(());
        }
        let seq = self
            .index()
            .record(&id)
            .and_then(|record| record.state.newest());
        let seq = seq.map_or(saved, |edit| edit.seq);
        let inner = self.clone();
        self.run(async move {
            if on_disk {
                let spool = inner.clone();
                Now::blocking(move || spool.spool.sync(seq))
                    .into_wait()
                    .await?;
            }
            if sent {
                inner.wait_record(&id, seq).await?;
            }
            Ok(())
        })
    }
}

/// Whether there can be such a name.
pub(super) fn legal(name: &str) -> Result<()> {
    if is_scratch(name) {
        return Ok(());
    }
    crate::record::Key::new(name).map(|_| ())
}
