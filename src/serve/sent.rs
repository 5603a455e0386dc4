//! Encoded bodies as they were sent, kept beside the records they decode to. It is a cache: whatever of it is missing is
//! answered from the record. Nothing in it is used for another version of a record than the one it came with.

use super::body::blocking;
use super::encodings::Encoding;
use super::upload::Received;
use crate::backend::dir::OwnDir;
use crate::record::{ETag, RecordId, hex};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Length of what stands behind a body: its encoding and the tag of its version.
const LABEL: usize = 256;

/// The folder of encoded bodies.
#[derive(Debug)]
pub(super) struct Sent {
    /// Without one nothing is kept.
    folder: Option<OwnDir>,
    /// Bytes in it, as far as this process knows.
    bytes: AtomicU64,
    limit: u64,
}

/// An encoded body that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// How it is encoded.
    pub encoding: Encoding,
    /// Its length.
    pub length: u64,
    /// Its bytes from the first one on.
    pub file: File,
}

impl Sent {
    /// The cache in the server's own folder. It is swept when it holds more than `limit` bytes. Without a folder, or when it
    /// cannot be used, nothing is kept.
    pub(super) fn open(server: Option<&OwnDir>, limit: u64) -> Arc<Self> {
        let folder = server.and_then(|server| {
            let made = server.make_below("encoded");
            made.inspect_err(|why| tracing::warn!("{why}; encoded bodies are not kept"))
                .ok()
        });
        let sent = Self {
            folder,
            bytes: AtomicU64::new(0),
            limit,
        };
        let known = sent.files().iter().map(|file| file.length).sum();
        sent.bytes.store(known, Ordering::Relaxed);
        Arc::new(sent)
    }

    /// The encoded body of this version, if it is here and the client accepts it. It looks at one small piece of a disk.
    pub(super) fn find(
        &self,
        id: &RecordId,
        etag: &ETag,
        accepts: impl Fn(Encoding) -> bool,
    ) -> Option<Found> {
        if self.bytes.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let folder = self.folder.as_ref()?;
        let file = folder.read_in(id.store.as_str(), &name(id)).ok()?;
        let length = file.metadata().ok()?.len().checked_sub(LABEL as u64)?;
        let mut label = [0; LABEL];
        file.read_exact_at(&mut label, length).ok()?;
        let label = std::str::from_utf8(&label).ok()?;
        let (encoding, tag) = label.trim_end().split_once(' ')?;
        let encoding = Encoding::named(encoding)?;
        (tag == etag.as_str() && accepts(encoding)).then_some(Found {
            encoding,
            length,
            file,
        })
    }

    /// Keeps the body that decodes to this version. When that fails the record is whole all the same.
    pub(super) async fn keep(
        self: &Arc<Self>,
        id: RecordId,
        etag: &ETag,
        encoding: Encoding,
        body: Received,
    ) {
        let label = format!("{} {}", encoding.name(), etag.as_str());
        if label.len() > LABEL || body.len() > self.limit / 4 {
            return;
        }
        let this = self.clone();
        let kept = blocking(move || this.keep_now(&id, &label, &body)).await;
        if let Err(why) = kept {
            tracing::warn!("keep an encoded body: {why}");
        }
    }

    fn keep_now(&self, id: &RecordId, label: &str, body: &Received) -> io::Result<()> {
        let Some(all) = &self.folder else {
            return Ok(());
        };
        let folder = all.make_below(id.store.as_str());
        let folder = folder.map_err(io::Error::other)?;
        let name = name(id);
        let label = format!("{label:LABEL$}");
        let replaced = folder.stat(&name).map_or(0, |about| about.size);
        let linked = match body {
            Received::File(file, length) => file
                .write_all_at(label.as_bytes(), *length)
                .and_then(|()| folder.link(file, &name))
                .is_ok(),
            Received::Bytes(_) => false,
        };
        // Not every file system has files without a name that can get one.
        if !linked {
            folder.write(&name, |file| {
                io::copy(&mut body.reader(), file)?;
                file.write_all(label.as_bytes())
            })?;
        }
        let length = body.len() + LABEL as u64;
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let _ = self
            .bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(replaced))
            });
        if before + length > self.limit {
            self.sweep();
        }
        Ok(())
    }

    /// Forgets a record's body.
    pub(super) fn forget(&self, id: &RecordId) {
        if let (Some(folder), true) = (&self.folder, self.bytes.load(Ordering::Relaxed) > 0) {
            let _ = folder.remove_in(id.store.as_str(), &name(id));
        }
    }

    /// Forgets everything of a store.
    pub(super) async fn forget_store(self: &Arc<Self>, store: &str) {
        let (this, store) = (self.clone(), store.to_owned());
        let forget = move || {
            let folder = this.folder.as_ref();
            folder.map_or(Ok(()), |folder| folder.remove_tree(&store))
        };
        let _ = blocking(move || forget().map_err(io::Error::other)).await;
    }

    /// Every file.
    fn files(&self) -> Vec<Kept> {
        let mut files = Vec::new();
        let Some(all) = &self.folder else {
            return files;
        };
        for store in all.directories().unwrap_or_default() {
            let Ok(Some(folder)) = all.find_below(&store) else {
                continue;
            };
            for name in folder.files().unwrap_or_default() {
                if let Ok(about) = folder.stat(&name) {
                    files.push(Kept {
                        store: store.clone(),
                        name,
                        length: about.size,
                        changed: about.modified_ns,
                    });
                }
            }
        }
        files
    }

    /// Removes the oldest quarter and more.
    fn sweep(&self) {
        let mut files = self.files();
        files.sort_by_key(|file| file.changed);
        let mut total: u64 = files.iter().map(|file| file.length).sum();
        for file in files {
            if total <= self.limit / 4 * 3 {
                break;
            }
            let folder = self.folder.as_ref();
            let removed = folder.map(|folder| folder.remove_in(&file.store, &file.name));
            if matches!(removed, Some(Ok(()))) {
                total -= file.length;
            }
        }
        self.bytes.store(total, Ordering::Relaxed);
    }
}

/// A file of the cache.
struct Kept {
    store: String,
    name: String,
    length: u64,
    /// In nanoseconds since 1970.
    changed: i64,
}

/// What a record's file is called in its store's folder.
fn name(id: &RecordId) -> String {
    let digest = Sha256::digest(id.key.as_str());
    hex(&digest[..16])
}

impl Found {
    /// Its bytes.
    pub(super) fn into_reader(self) -> Box<dyn Read + Send> {
        let length = self.length;
        Box::new(io::Read::take(self.file, length))
    }
}
