//! Encoded bodies as they were sent, kept beside the records they decode to. It is a cache: whatever of it is missing is
//! answered from the record. Nothing in it is used for another version of a record than the one it came with.

use super::body::blocking;
use super::encodings::Encoding;
use super::upload::Received;
use crate::error::{Error, Result};
use crate::record::{ETag, RecordId, hex};
use rustix::fs::{AtFlags, CWD, linkat};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Length of what stands behind a body: its encoding and the tag of its version.
const LABEL: usize = 256;

/// The folder of encoded bodies.
#[derive(Debug)]
pub(super) struct Sent {
    folder: PathBuf,
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
    /// The cache in this folder, which is made. It is swept when it holds more than `limit` bytes.
    pub(super) fn open(folder: &Path, limit: u64) -> Result<Arc<Self>> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(folder)
            .map_err(|why| Error::io("make the folder", folder.display().to_string(), why))?;
        let sent = Arc::new(Self {
            folder: folder.to_owned(),
            bytes: AtomicU64::new(0),
            limit,
        });
        let known = sent.files().iter().map(|(_, length, _)| length).sum();
        sent.bytes.store(known, Ordering::Relaxed);
        Ok(sent)
    }

    fn path(&self, id: &RecordId) -> PathBuf {
        let digest = Sha256::digest(id.key.as_str());
        self.folder.join(id.store.as_str()).join(hex(&digest[..16]))
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
        let file = File::open(self.path(id)).ok()?;
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
            tracing::warn!("keep an encoded body in {}: {why}", self.folder.display());
        }
    }

    fn keep_now(&self, id: &RecordId, label: &str, body: &Received) -> io::Result<()> {
        let path = self.path(id);
        let folder = path.parent().unwrap_or(&self.folder);
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
            _ => {}
        }
        let label = format!("{label:LABEL$}");
        let temporary = match body {
            Received::File(file, length) => match link(file, *length, &label, folder) {
                Ok(temporary) => temporary,
                // Not every file system has files without a name that can get one.
                Err(_) => written(&mut body.reader(), &label, folder)?,
            },
            Received::Bytes(bytes) => written(&mut &bytes[..], &label, folder)?,
        };
        let replaced = fs::metadata(&path).map_or(0, |about| about.len());
        fs::rename(&temporary, &path)?;
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
        if self.bytes.load(Ordering::Relaxed) > 0 {
            let _ = fs::remove_file(self.path(id));
        }
    }

    /// Forgets everything of a store.
    pub(super) async fn forget_store(&self, store: &str) {
        let folder = self.folder.join(store);
        let _ = blocking(move || fs::remove_dir_all(folder)).await;
    }

    /// Every file with its length and age.
    fn files(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let stores = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let files = stores.filter_map(|store| fs::read_dir(store.path()).ok());
        let files = files.flatten().flatten().filter_map(|file| {
            let about = file.metadata().ok()?;
            let age = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some((file.path(), about.len(), age))
        });
        files.collect()
    }

    /// Removes the oldest quarter and more.
    fn sweep(&self) {
        let mut files = self.files();
        files.sort_by_key(|(_, _, age)| *age);
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (path, length, _) in files {
            if total <= self.limit / 4 * 3 {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= length;
            }
        }
        self.bytes.store(total, Ordering::Relaxed);
    }
}

/// Puts the label behind a file that has no name and gives it one.
fn link(file: &File, length: u64, label: &str, folder: &Path) -> io::Result<PathBuf> {
    file.write_all_at(label.as_bytes(), length)?;
    // A name that no other thread or process has: the file's own number.
    let name = format!(".{}-{}", std::process::id(), file.as_raw_fd());
    let temporary = folder.join(name);
    let _ = fs::remove_file(&temporary);
    // This is the way to give it one (linkat(2), AT_SYMLINK_FOLLOW).
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, open, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
    Ok(temporary)
}

/// Writes a body and its label into a new file.
fn written(body: &mut dyn Read, label: &str, folder: &Path) -> io::Result<PathBuf> {
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(folder)?;
    io::copy(body, &mut file)?;
    file.write_all(label.as_bytes())?;
    let (_, temporary) = file.keep().map_err(|why| why.error)?;
    Ok(temporary)
}

impl Found {
    /// Its bytes.
    pub(super) fn into_reader(self) -> Box<dyn Read + Send> {
        let length = self.length;
        Box::new(io::Read::take(self.file, length))
    }
}
