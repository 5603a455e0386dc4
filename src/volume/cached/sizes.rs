//! Lengths that the backend does not tell, learned by reading: for who asked for exact sizes. A length is never guessed.

use super::Inner;
use super::record::Kept;
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{RecordId, Size};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// So many records are read at one time to learn their lengths.
const AT_ONCE: usize = 8;

/// A record whose length nobody tells may at least have so many bytes, however small the cache is.
const LEAST_WHOLE: u64 = 1 << 30;

/// Copies a body of no more than `most` bytes, and tells how far it is.
fn copy_counted(
    from: &mut dyn Read,
    to: &File,
    so_far: &AtomicU64,
    most: u64,
) -> std::io::Result<u64> {
    let mut piece = vec![0; 256 << 10];
    loop {
        let at = so_far.load(Ordering::Relaxed);
        let count = from.read(&mut piece)?;
        if count == 0 {
            return Ok(at);
        }
        if at + count as u64 > most {
            let why = format!("it has more than {most} bytes (raise -o cache-size= to read it)");
            return Err(std::io::Error::other(why));
        }
        to.write_all_at(&piece[..count], at)?;
        so_far.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Inner {
    /// Fetches all of a record whose length nobody tells.
    pub(super) async fn fetch_whole(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        let since = self.index().tick();
        let get = self.backend.get(id, None);
        let subject = id.to_string();
        let fetched = self
            .within(self.options.patience, "read", &subject, get)
            .await;
        let mut fetched = fetched?;
        let (file, number, path) = self.cache_file()?;
        let so_far = Arc::new(AtomicU64::new(0));
        let count = so_far.clone();
        // Nobody told where it ends, so it may not end at all.
        let most = self.options.cache_size.max(LEAST_WHOLE);
        let mut copied = tokio::task::spawn_blocking(move || {
            copy_counted(&mut fetched.bytes, &file, &count, most).map(|size| (size, fetched.meta))
        });
        let failed = |why: String| Error::because("read", id.to_string(), Kind::Io, why);
        let mut before = 0;
        let copied = loop {
            match tokio::time::timeout(self.options.patience, &mut copied).await {
                Ok(done) => break done.map_err(|e| failed(e.to_string()))?,
                Err(_) => {
                    let now = so_far.load(Ordering::Relaxed);
                    if std::mem::replace(&mut before, now) == now {
                        let _ = std::fs::remove_file(&path);
                        return Err(failed("nothing came any more".to_owned()));
                    }
                }
            }
        };
        let (size, mut meta) = copied.map_err(|e| {
            let _ = std::fs::remove_file(&path);
            failed(e.to_string())
        })?;
        meta.size = Size::Exact(size);
        let kept = {
            let mut index = self.index();
            index.seen(id, &meta, since);
            let kept = index
                .record_mut(id)
                .filter(|record| record.is_clean() && record.tick <= since)
                .map(|record| {
                    record.size = meta.size;
                    record.kept.replace(Kept { number, size })
                });
            if let Some(old) = kept {
                index.dropped.extend(old);
            }
            self.keeper.record(&index, id);
            kept.map(drop)
        };
        self.sweep();
        match kept {
            Some(()) => self.cache_grew(size),
            None => drop(std::fs::remove_file(&path)),
        }
        Ok(())
    }

    /// Whether the length of a record is asked for and not known.
    pub(super) fn lacks_size(&self, id: &RecordId) -> bool {
        self.options.exact_sizes
            && self.index().record(id).is_some_and(|record| {
                record.exists()
                    && record.is_clean()
                    && record.size.exact().is_none()
                    && record.unmeasured != Some(record.version)
            })
    }

    /// Learns the length of a record, when it is asked for.
    pub(super) async fn learn_size(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        if !self.lacks_size(id) {
            return Ok(());
        }
        let version = self.index().record(id).map(|record| record.version);
        let fetched = self.fetch_whole(id).await;
        if let Err(e) = &fetched
            && e.kind() != Kind::Offline
            && let Some(record) = self.index().record_mut(id)
        {
            // It is not read again and again for that.
            record.unmeasured = version;
        }
        fetched
    }

    /// Learns the lengths of all records of a store, when they are asked for. What cannot be learned now is tried again when
    /// somebody looks at that record.
    pub(super) async fn learn_sizes(self: &Arc<Self>, store: &StoreId) {
        if !self.options.exact_sizes {
            return;
        }
        let keys: Vec<_> = {
            let index = self.index();
            let records = index.stores.get(store).map(|store| store.records.iter());
            let unknown = records.into_iter().flatten().filter(|(_, record)| {
                record.exists() && record.is_clean() && record.size.exact().is_none()
            });
            unknown.map(|(key, _)| key.clone()).collect()
        };
        let mut learning = JoinSet::new();
        for key in keys {
            if learning.len() >= AT_ONCE {
                learning.join_next().await;
            }
            if self.is_offline() {
                break;
            }
            let id = RecordId {
                store: store.clone(),
                key,
            };
            let inner = self.clone();
            learning.spawn(async move {
                if let Err(e) = inner.learn_size(&id).await {
                    tracing::warn!("the length of {id} is not known: {e}");
                }
            });
        }
        while learning.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_that_never_ends_is_given_up_at_the_limit() {
        let file = tempfile::tempfile().unwrap();
        let so_far = AtomicU64::new(0);
        let mut endless = std::io::repeat(b'x');
        let error = copy_counted(&mut endless, &file, &so_far, 3 << 20).unwrap_err();
        assert!(error.to_string().contains("cache-size"), "{error}");
        assert!(file.metadata().unwrap().len() <= 3 << 20);
        so_far.store(0, Ordering::Relaxed);
        let mut short = &[b'x'; 1000][..];
        assert_eq!(
            copy_counted(&mut short, &file, &so_far, 1000).unwrap(),
            1000
        );
    }
}
