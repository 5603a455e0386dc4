//! Edits on disk: files of bytes in `bytes`, and the notes that make edits of them. Bytes without a note are a draft, and
//! nobody's after the end of the process. What was committed here is never written again.

use super::evict::Room;
use super::left::{adopt_single_notes, bad_name, check, numbers_in};
use super::note::Note;
use super::notes::{self, Notes};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::sys;
use rustix::fs::{FlockOperation, flock};
use std::collections::HashSet;
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

/// Makes a file that only its owner may look into. Fails as open(2) does, also when it is there.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    new_file(path, 0o600)
}

fn new_file(path: &Path, mode: u32) -> std::io::Result<File> {
    OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(mode)
        .open(path)
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
    /// The next number of an edit or of a file of bytes: none is both.
    next: AtomicU64,
    notes: Notes,
    umask: u32,
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
    /// Where it is, and its number there.
    place: Option<(PathBuf, u64)>,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.place {
            let _ = fs::remove_file(path);
        }
    }
}

impl Spooled {
    /// Gives the file a name outside of the spool's queue.
    pub(super) fn rename_to(&mut self, to: &Path) -> Result<()> {
        if let Some((path, _)) = &self.place {
            fs::rename(path, to)
                .map_err(|e| Error::io("rename the draft to", to.display().to_string(), e))?;
            self.place = None;
        }
        Ok(())
    }
}

/// An edit that was read back.
pub(super) type Found = (u64, Note);

impl Spool {
    /// Takes the folder, and removes what was never finished in it. The edits that wait there, oldest first. What cannot be
    /// used is put aside and told; nothing is deleted but bytes without a note.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Found>)> {
        let lock = take_folder(dir)?;
        let mut found = notes::read(dir)?;
        private_dir(&dir.join(BYTES))?;
        let old = adopt_single_notes(dir, &mut found)?;
        let files = numbers_in(&dir.join(BYTES), "")?;
        let waits: Vec<_> = found.notes.keys().copied().collect();
        for seq in waits {
            match found
                .notes
                .get(&seq)
                .map(|(data, note)| check(dir, *data, note))
            {
                Some(Err(why)) if why.kind() == Kind::NotFound => found.drop_sent(seq),
                Some(Err(why)) => found.set_aside(seq, &why),
                Some(Ok(())) | None => {}
            }
        }
        found.set_aside_what_follows();
        found.keep_bad(dir)?;
        // Before the notes are written without what was bad among them.
        let known: HashSet<_> = found.notes.values().filter_map(|(data, _)| *data).collect();
        for number in &files {
            let path = file_of(dir, *number);
            let gone = match known.contains(number) {
                true => Ok(()),
                false if found.is_doubtful() => fs::rename(&path, bad_name(dir, *number)),
                false => fs::remove_file(&path),
            };
            gone.map_err(|e| Error::io("tidy up", path.display().to_string(), e))?;
        }
        let notes = Notes::begin(dir, &found)?;
        for path in old {
            let gone = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            gone.map_err(|e| Error::io("tidy up", path.display().to_string(), e))?;
        }
        let kept = numbers_in(dir, ".bad")?;
        let numbers = files.into_iter().chain(kept);
        let last = numbers.chain(found.notes.keys().copied()).max();
        let spool = Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(last.unwrap_or(0) + 1),
            notes,
            umask: sys::umask(),
            _lock: lock,
        };
        let mut edits: Vec<_> = found
            .notes
            .into_iter()
            .map(|(seq, (_, note))| (seq, note))
            .collect();
        edits.sort_unstable_by_key(|(seq, _)| *seq);
        Ok((spool, edits))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn file(&self, number: u64) -> PathBuf {
        file_of(&self.dir, number)
    }

    /// The bytes of an edit. There is no such file when it has none, or is over.
    pub(super) fn data(&self, seq: u64) -> PathBuf {
        self.file(self.notes.data(seq).unwrap_or(seq))
    }

    /// A new file to write into.
    pub(super) fn draft(&self, mode: u32, room: Arc<Room>) -> Result<Spooled> {
        let number = self.number();
        let path = self.file(number);
        let failed = |e| Error::io("make a draft in the spool", path.display().to_string(), e);
        // Other users cannot get into the folder, so these bits only tell what the record shows.
        let mode = mode & 0o7777 | 0o600;
        let file = new_file(&path, mode).map_err(failed)?;
        if mode & self.umask != 0 {
            file.set_permissions(Permissions::from_mode(mode))
                .map_err(failed)?;
        }
        Ok(Spooled {
            file: Arc::new(file),
            room,
            content_type: None,
            place: Some((path, number)),
        })
    }

    /// Saves an edit with the bytes of a draft. On failure the draft is one as before.
    pub(super) fn save_draft(&self, draft: &mut Spooled, note: &Note) -> Result<u64> {
        let Some((_, number)) = &draft.place else {
            let why = "it is a record already";
            return Err(Error::because("commit the draft", "", Kind::Stale, why));
        };
        let seq = self.number();
        self.notes.add(seq, Some(*number), note)?;
        draft.place = None;
        Ok(seq)
    }

    /// Makes an edit that nobody knows of the draft again that it was.
    pub(super) fn take_back(&self, draft: &mut Spooled, seq: u64) {
        let number = self.notes.end(seq);
        draft.place = number.map(|number| (self.file(number), number));
    }

    /// Saves an edit whose bytes are a copy of, or another name for, a file that nobody writes.
    pub(super) fn save_copy(&self, from: &Path, note: &Note) -> Result<u64> {
        let number = self.take_in(from)?;
        self.save_file(number, note)
    }

    /// Another name beside the edits for a file that nobody writes, or a copy of it. Its number.
    fn take_in(&self, from: &Path) -> Result<u64> {
        let number = self.number();
        if fs::hard_link(from, self.file(number)).is_err() {
            self.copy(from, number)?;
        }
        Ok(number)
    }

    /// A copy, beside the edits, of a file of which somebody may still have a descriptor. That may take its time. Its number.
    pub(super) fn copy_aside(&self, from: &Path) -> Result<u64> {
        let number = self.number();
        self.copy(from, number).map(|()| number)
    }

    fn copy(&self, from: &Path, number: u64) -> Result<()> {
        let failed = |e| Error::io("copy into the spool", from.display().to_string(), e);
        let source = File::open(from).map_err(failed)?;
        let to = self.file(number);
        let target = private_file(&to).map_err(failed)?;
        sys::copy(&source, &target).map_err(|e| {
            let _ = fs::remove_file(&to);
            failed(e)
        })
    }

    /// Saves an edit with the bytes of this number; on failure they are removed.
    pub(super) fn save_file(&self, number: u64, note: &Note) -> Result<u64> {
        let seq = self.number();
        self.notes.add(seq, Some(number), note).inspect_err(|_| {
            let _ = fs::remove_file(self.file(number));
        })?;
        Ok(seq)
    }

    /// Saves an edit without bytes.
    pub(super) fn save(&self, note: &Note) -> Result<u64> {
        let seq = self.number();
        self.notes.add(seq, None, note)?;
        Ok(seq)
    }

    /// Saves an edit whose bytes are a copy of, or another name for, a file that nobody writes, and one without bytes that is
    /// sent after it, which is told its number.
    pub(super) fn save_move(
        &self,
        from: &Path,
        note: &Note,
        follows: Option<&mut Note>,
    ) -> Result<(u64, Option<u64>)> {
        let number = self.take_in(from)?;
        let seq = self.number();
        let next = follows.map(|next| {
            next.after = Some(seq);
            (self.number(), None, &*next)
        });
        let edits: Vec<_> = [(seq, Some(number), note)]
            .into_iter()
            .chain(next)
            .collect();
        self.notes.add_all(&edits).inspect_err(|_| {
            let _ = fs::remove_file(self.file(number));
        })?;
        Ok((seq, next.map(|(seq, ..)| seq)))
    }

    /// Edits that were forced to disk are about to go, since another one takes their place: then that is forced to disk, too.
    pub(super) fn force_successor(&self, old: &[u64], by: u64) {
        if old.iter().any(|seq| self.notes.is_synced(*seq))
            && let Err(e) = self.sync(by)
        {
            tracing::warn!("a power failure now may lose what was forced to disk before: {e}");
        }
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

    /// Takes an edit out of the queue. Its bytes go too.
    pub(super) fn forget(&self, seq: u64) {
        // The note first: bytes without one are no edit.
        let Some(number) = self.notes.end(seq) else {
            return;
        };
        let path = self.file(number);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{} stays in the spool: {e}", path.display());
            }
            _ => {}
        }
    }

    /// Forces an edit to disk.
    pub(super) fn sync(&self, seq: u64) -> Result<()> {
        let force = |path: PathBuf| match File::open(&path).and_then(|file| file.sync_all()) {
            // Sent meanwhile, or without bytes.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| Error::io("fsync", path.display().to_string(), e)),
        };
        force(self.data(seq))?;
        force(self.dir.join(BYTES))?;
        self.notes.sync()?;
        // The notes may have been written anew.
        force(self.dir.clone())
    }
}

/// The folder of files of bytes, each called by its number.
pub(super) const BYTES: &str = "bytes";

pub(super) fn file_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(BYTES).join(number.to_string())
}
