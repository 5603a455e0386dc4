//! Edits on disk: `<seq>.data` and `<seq>.json`, each written under another name first. The listing is the queue. What was
//! committed here is never written again.

use super::evict::Room;
use super::note::Note;
use super::spare::Spare;
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::sys;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a folder, and those above it, that only its owner may look into. One that is there stays as it is. Fails as mkdir(2)
/// does.
pub fn private_dir(path: &Path) -> Result<()> {
    let failed = |e| Error::io("make the folder", path.display().to_string(), e);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)
}

/// Takes a folder for this process alone, until the lock is dropped.
pub(super) fn take_folder(path: &Path) -> Result<File> {
    private_dir(path)?;
    let lock = path.join("lock");
    let shown = lock.display().to_string();
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock)
        .map_err(|e| Error::io("open", shown.clone(), e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let why = "another storefs uses this folder; unmount that one or choose another with -o cache=";
            Err(Error::because(
                "use the folder",
                path.display().to_string(),
                Kind::Busy,
                why,
            ))
        }
        Err(e) => Err(Error::io("lock", shown, e)),
    }
}

/// The folder of edits.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    next: AtomicU64,
    /// Files of notes that are not needed any more, in the folder of drafts.
    spare: Spare,
    _lock: File,
}

/// A file that is being written in the spool. Dropped uncommitted, it is removed.
#[derive(Debug)]
pub struct Spooled {
    /// Open for reading and writing.
    pub(in crate::volume) file: Arc<File>,
    /// Keeps it within the room for unsent bytes.
    pub(in crate::volume) room: Arc<Room>,
    /// The type that it was committed with, unless that is not known.
    pub(in crate::volume) content_type: Option<ContentType>,
    path: Option<PathBuf>,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl Spooled {
    /// Gives the file a name outside of the spool's queue.
    pub(super) fn rename_to(&mut self, to: &Path) -> Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, to)
                .map_err(|e| Error::io("rename the draft to", to.display().to_string(), e))?;
            self.path = None;
        }
        Ok(())
    }
}

/// An edit that was read back.
pub(super) type Found = (u64, Note);

impl Spool {
    /// Takes the folder, and removes what was never finished in it.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let lock = take_folder(dir)?;
        let drafts = dir.join("drafts");
        if drafts.exists() {
            fs::remove_dir_all(&drafts)
                .map_err(|e| Error::io("empty", drafts.display().to_string(), e))?;
        }
        private_dir(&drafts)?;
        Ok(Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(1),
            spare: Spare::default(),
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn data(&self, seq: u64) -> PathBuf {
        self.dir.join(format!("{seq:016}.data"))
    }

    fn json(&self, seq: u64) -> PathBuf {
        self.dir.join(format!("{seq:016}.json"))
    }

    fn draft_path(&self) -> PathBuf {
        self.dir.join("drafts").join(self.number().to_string())
    }

    /// A new file to write into.
    pub(super) fn draft(&self, mode: u32, room: Arc<Room>) -> Result<Spooled> {
        let path = self.draft_path();
        let failed = |e| Error::io("make a draft in the spool", path.display().to_string(), e);
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // Other users cannot get into the folder, so these bits only tell what the record shows.
        file.set_permissions(Permissions::from_mode(mode | 0o600))
            .map_err(failed)?;
        Ok(Spooled {
            file: Arc::new(file),
            room,
            content_type: None,
            path: Some(path),
        })
    }

    /// Saves an edit with the bytes of a draft. On failure the draft is one as before.
    pub(super) fn save_draft(&self, draft: &mut Spooled, note: &Note) -> Result<u64> {
        let Some(path) = draft.path.clone() else {
            let why = "it is a record already";
            return Err(Error::because("commit the draft", "", Kind::Stale, why));
        };
        let seq = self.number();
        let data = self.data(seq);
        self.rename(&path, &data)?;
        match self.write_note(seq, note) {
            Ok(()) => {
                draft.path = None;
                Ok(seq)
            }
            Err(e) => {
                draft.path = Some(data);
                Err(e)
            }
        }
    }

    /// Makes an edit that nobody knows of the draft again that it was.
    pub(super) fn take_back(&self, draft: &mut Spooled, seq: u64) {
        let _ = fs::remove_file(self.json(seq));
        draft.path = Some(self.data(seq));
    }

    /// Saves an edit whose bytes are a copy of, or another name for, a file that nobody writes.
    pub(super) fn save_copy(&self, from: &Path, note: &Note) -> Result<u64> {
        let (seq, temporary) = (self.number(), self.draft_path());
        if fs::hard_link(from, &temporary).is_err() {
            self.copy(from, &temporary).inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })?;
        }
        self.save_file(seq, &temporary, note)
    }

    /// A copy, beside the edits, of a file of which somebody may still have a descriptor. That may take its time.
    pub(super) fn copy_aside(&self, from: &Path) -> Result<PathBuf> {
        let temporary = self.draft_path();
        let copied = self.copy(from, &temporary).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        });
        copied.map(|()| temporary)
    }

    /// Saves an edit with the bytes of such a copy.
    pub(super) fn save_aside(&self, copy: &Path, note: &Note) -> Result<u64> {
        let saved = self.save_file(self.number(), copy, note);
        saved.inspect_err(|_| {
            let _ = fs::remove_file(copy);
        })
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let failed = |e| Error::io("copy into the spool", from.display().to_string(), e);
        let source = File::open(from).map_err(failed)?;
        let target = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(to)
            .map_err(failed)?;
        sys::copy(&source, &target).map_err(failed)
    }

    fn save_file(&self, seq: u64, temporary: &Path, note: &Note) -> Result<u64> {
        self.rename(temporary, &self.data(seq))?;
        self.write_note(seq, note).inspect_err(|_| {
            let _ = fs::remove_file(self.data(seq));
        })?;
        Ok(seq)
    }

    /// Saves an edit without bytes.
    pub(super) fn save(&self, note: &Note) -> Result<u64> {
        let seq = self.number();
        self.write_note(seq, note)?;
        Ok(seq)
    }

    /// Saves an edit under another note; the first one is forgotten.
    pub(super) fn save_again(&self, seq: u64, note: &Note) -> Result<u64> {
        let again = match note.size {
            Some(_) => self.save_copy(&self.data(seq), note)?,
            None => self.save(note)?,
        };
        self.forget(seq);
        Ok(again)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| Error::io("save the edit", to.display().to_string(), e))
    }

    fn write_note(&self, seq: u64, note: &Note) -> Result<()> {
        let text = note.to_json(seq);
        let (temporary, written) = self.spare.write(self.draft_path(), text.as_bytes());
        let failed = |e| Error::io("save the edit", temporary.display().to_string(), e);
        written
            .map_err(failed)
            .and_then(|()| self.rename(&temporary, &self.json(seq)))
            .inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
    }

    /// Takes an edit out of the queue. Its bytes go too.
    pub(super) fn forget(&self, seq: u64) {
        let (json, data) = (self.json(seq), self.data(seq));
        // The note first: bytes without one are no edit.
        let noted = self.spare.give(&json, self.draft_path());
        for (path, gone) in [(&json, noted), (&data, fs::remove_file(&data))] {
            match gone {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("{} stays in the spool: {e}", path.display());
                }
                _ => {}
            }
        }
    }

    /// Forces an edit to disk.
    pub(super) fn sync(&self, seq: u64) -> Result<()> {
        for path in [self.data(seq), self.json(seq), self.dir.clone()] {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // Sent meanwhile, or without bytes.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(|e| Error::io("fsync", path.display().to_string(), e))?,
            }
        }
        Ok(())
    }

    /// The queue, oldest first. What cannot be used is put aside and told; nothing is deleted but bytes without a note.
    pub(super) fn list(&self) -> Result<Vec<Found>> {
        let failed = |e| Error::io("list the spool", self.dir.display().to_string(), e);
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some((seq, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Ok(seq) = seq.parse::<u64>() else {
                continue;
            };
            self.next.fetch_max(seq + 1, Ordering::Relaxed);
            match kind {
                "data" => bytes.push(seq),
                "json" => match self.read(seq) {
                    Ok(note) => found.push((seq, note)),
                    Err(e) => self.set_aside(seq, &e),
                },
                _ => {}
            }
        }
        found.sort_unstable_by_key(|(seq, _)| *seq);
        for seq in bytes {
            let noted = self.json(seq).exists() || self.dir.join(format!("{seq:016}.bad")).exists();
            if !noted {
                let _ = fs::remove_file(self.data(seq));
            }
        }
        Ok(found)
    }

    fn read(&self, seq: u64) -> Result<Note> {
        let path = self.json(seq);
        let text = fs::read_to_string(&path)
            .map_err(|e| Error::io("read", path.display().to_string(), e))?;
        let note = Note::from_json(&text, seq)?;
        if let Some(size) = note.size {
            let found = fs::metadata(self.data(seq)).map_or(0, |meta| meta.len());
            if found != size || !self.data(seq).exists() {
                let why = format!("it should have {size} bytes and has {found}");
                return Err(Error::because(
                    "read the edit",
                    path.display().to_string(),
                    Kind::Corrupt,
                    why,
                ));
            }
        }
        Ok(note)
    }

    fn set_aside(&self, seq: u64, why: &Error) {
        let to = self.dir.join(format!("{seq:016}.bad"));
        tracing::error!(
            "an edit cannot be used and is kept as {}: {why}",
            to.display()
        );
        let _ = fs::rename(self.json(seq), to);
    }
}
