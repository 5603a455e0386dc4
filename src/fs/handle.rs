//! Open files and the handles on them: which file is open, what is still to be committed. It knows no name.

use super::layer::Layer;
use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, ETag, StoreName};
use crate::volume::{Draft, FileStat, Opened, Reader};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Locks a mutex also after a panic elsewhere: what it guards is kept whole by each operation.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tells that a file was written: length, last write, last change of the inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamp {
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl From<&FileStat> for Stamp {
    fn from(file: &FileStat) -> Self {
        Self {
            size: file.size,
            modified_ns: file.modified_ns,
            changed_ns: file.changed_ns,
        }
    }
}

/// One version's file, shared by all handles on its inode.
#[derive(Debug)]
pub struct OpenFile {
    /// The inode it belongs to.
    pub ino: u64,
    /// The file.
    pub file: Arc<File>,
    /// Open for writing too.
    pub writable: bool,
    /// The version it shows, where a commit seals what was written.
    pub(super) layer: Option<RwLock<Layer>>,
    /// Fetches the bytes that are not in the file yet.
    pub(super) reader: Option<Arc<Reader>>,
    /// Something was written into the layer since it was made. Its times need not show that: a clock may stand.
    pub(super) wrote: AtomicBool,
    /// It was written without the kernel knowing of what inode, which may take it to be shorter than it is.
    pub(super) written_beside: AtomicBool,
    /// The tag by which a server knows the bytes that it was opened with.
    tag: Option<ETag>,
    state: Mutex<Writing>,
}

/// What is still to be done for a file that is being written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Not yet the record of its name.
    pub(super) draft: Option<Draft>,
    /// The draft is a copy of the record, and nothing to commit unless it was changed.
    pub(super) copied: bool,
    /// The file as it was when it was last committed or opened.
    pub(super) stamp: Stamp,
    /// The type set on it by name.
    pub(super) explicit: Option<ContentType>,
    /// The name it claims against other mounts.
    pub(super) claim: Option<(StoreName, Box<str>)>,
    /// A write into the draft failed: it must not replace what is whole.
    pub(super) failed: Option<Kind>,
    /// For that reason it was given up, and its name leads to what was there before.
    pub(super) lost: Option<Kind>,
    /// Handles that may write.
    pub(super) writers: u32,
    /// The name is for reading only, whatever the file's own mode says.
    pub(super) fixed: bool,
    /// The thread that made the file, while it is a draft of a new record.
    pub(super) maker: u32,
    /// How the draft joins a record that somebody else made under its name meanwhile; without it that is replaced.
    pub(super) join: Option<Join>,
}

/// What becomes of a draft whose maker did not ask for an empty file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    /// What is written goes to the end of what is there.
    pub(super) appends: bool,
    /// It has joined another one, and goes on with that.
    pub(super) begun: bool,
    /// So many bytes of the draft are in the other one's file already.
    pub(super) done: u64,
}

impl Join {
    /// Whether the draft joins what it finds under its name. In this mount a newer draft takes the name, and who finishes last
    /// replaces it.
    pub(super) fn is_due(&self, changed: bool, superseded: bool) -> bool {
        (self.appends || !changed) && (self.begun || !superseded)
    }
}

impl Writing {
    /// Whether its name will only lead to these bytes when they are finished.
    pub(super) fn is_new(&self) -> bool {
        self.draft.is_some() && !self.copied
    }

    /// Whether it must be given up: of a file that was written in place nothing else is left.
    pub(super) fn has_lost_bytes(&self) -> bool {
        self.failed.is_some() && self.draft.is_some()
    }
}

impl OpenFile {
    /// A file that is a record, or with a draft one that will be.
    pub(super) fn new(ino: u64, file: Arc<File>, writable: bool, writing: Writing) -> Arc<Self> {
        Arc::new(Self {
            ino,
            file,
            writable,
            layer: writing.draft.as_ref().and_then(Layer::draft),
            reader: None,
            wrote: AtomicBool::new(false),
            written_beside: AtomicBool::new(false),
            tag: None,
            state: Mutex::new(writing),
        })
    }

    /// The file of a record that was opened.
    pub(super) fn of_record(ino: u64, opened: Opened, mut writing: Writing) -> Result<Arc<Self>> {
        let layer = match &opened.draft {
            Some(draft) => {
                writing.stamp = Stamp::from(&FileStat::of_file(&*opened.file)?);
                writing.copied = true;
                Layer::draft(draft)
            }
            None => opened
                .sealed
                .then(|| Layer::sealed(opened.file.clone(), opened.stat.file)),
        };
        writing.draft = opened.draft;
        Ok(Arc::new(Self {
            ino,
            file: opened.file,
            writable: opened.writable,
            layer,
            reader: opened.reader,
            wrote: AtomicBool::new(false),
            written_beside: AtomicBool::new(false),
            tag: opened.tag,
            state: Mutex::new(writing),
        }))
    }

    /// The server's tag of the version that the file is and stays, whoever has it open.
    pub(super) fn only_tag(&self) -> Option<&ETag> {
        self.tag.as_ref().filter(|_| !self.writable)
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        lock(&self.state)
    }

    /// The file of a draft into which nothing was written yet.
    pub(super) fn of_draft(ino: u64, draft: Draft, stat: &FileStat) -> Arc<Self> {
        let (file, stamp) = (draft.file.clone(), Stamp::from(stat));
        let writing = Writing {
            draft: Some(draft),
            stamp,
            ..Writing::default()
        };
        Self::new(ino, file, true, writing)
    }

    /// Remembers that bytes are missing in the draft.
    pub(super) fn note_failure<T>(&self, done: Result<T>) -> Result<T> {
        if let Err(e) = &done
            && matches!(e.kind(), Kind::NoSpace | Kind::Io)
        {
            self.writing().failed = Some(e.kind());
        }
        done
    }

    /// A descriptor that appends, whatever offset the kernel gives.
    pub(super) fn appending(&self) -> Result<File> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map(File::from)
            .map_err(|e| Error::io("open for appending", "", e))
    }
}

/// One open of a file.
#[derive(Debug)]
pub struct Handle {
    /// The open file.
    pub file: Arc<OpenFile>,
    /// Opened for writing.
    pub writer: bool,
    /// The descriptor that appends, when the kernel does not write by itself.
    pub append: Option<File>,
    /// The daemon gets what is written and nobody reads through it: the kernel's cache would only cost a request for the
    /// file's capabilities.
    pub direct: bool,
    /// What is written through it the kernel does not know of the file's own inode.
    pub(super) beside: bool,
    /// Opened with O_SYNC or O_DSYNC.
    pub(super) durable: bool,
    /// Every write goes to the end of what is there by then.
    pub(super) at_end: bool,
    /// The thread that opened it.
    pub opener: u32,
    /// A failed upload was told through it.
    pub(super) told_failure: AtomicBool,
    /// The text of a control file, made when it was opened.
    pub text: Option<Arc<[u8]>>,
    /// The kernel may take the file to have another length than it has, and must not cut reads there.
    pub resized: bool,
    /// The server's tag of the version that all bytes read through it are of.
    pub(super) tag: Option<ETag>,
    /// What the kernel keeps of the inode's bytes is of this version.
    pub kept: bool,
}

/// All handles by number.
#[derive(Default)]
pub(super) struct Handles {
    open: Mutex<(u64, HashMap<u64, Arc<Handle>>)>,
}

impl Handles {
    pub(super) fn add(&self, handle: Handle) -> u64 {
        let mut open = lock(&self.open);
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Arc::new(handle));
        number
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Handle>> {
        lock(&self.open).1.get(&number).cloned()
    }

    pub(super) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        lock(&self.open).1.remove(&number)
    }

    /// The files that some handle may write.
    pub(super) fn writers(&self) -> Vec<Arc<OpenFile>> {
        let open = lock(&self.open);
        open.1
            .values()
            .filter(|handle| handle.writer)
            .map(|handle| handle.file.clone())
            .collect()
    }

    /// The threads that opened an inode.
    pub(super) fn openers(&self, ino: u64) -> Vec<u32> {
        let open = lock(&self.open);
        let of_it = open.1.values().filter(|handle| handle.file.ino == ino);
        of_it.map(|handle| handle.opener).collect()
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.open).1.len()
    }
}
