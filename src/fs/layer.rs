//! Files whose versions are sealed: what was committed is never written again, so the next write goes into a copy. Files
//! that are written in place have no layer.

use super::Fs;
use super::handle::{OpenFile, Stamp, Writing, lock};
use crate::error::{Error, Kind, Result};
use crate::volume::{Draft, FileStat, Now, Room};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The version that an open file shows now.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) file: Arc<File>,
    /// What is shown of it once nobody writes into it any more.
    pub(super) sealed: Option<FileStat>,
    room: Option<Arc<Room>>,
}

impl Layer {
    /// A version that is as it is.
    pub(super) fn sealed(file: Arc<File>, stat: FileStat) -> RwLock<Self> {
        RwLock::new(Self {
            file,
            sealed: Some(stat),
            room: None,
        })
    }

    /// A draft, if it is one that a commit seals.
    pub(super) fn draft(draft: &Draft) -> Option<RwLock<Self>> {
        let room = draft.room()?;
        Some(RwLock::new(Self {
            file: draft.file.clone(),
            sealed: None,
            room: Some(room.clone()),
        }))
    }
}

/// The file to read or write through. While it is held, the version stays.
pub(super) enum Bytes<'a> {
    Own(&'a File),
    Layer(RwLockReadGuard<'a, Layer>),
}

impl Deref for Bytes<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Own(file) => file,
            Self::Layer(layer) => &layer.file,
        }
    }
}

impl OpenFile {
    fn layer(&self) -> Option<RwLockReadGuard<'_, Layer>> {
        let layer = self.layer.as_ref()?;
        Some(layer.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn layer_mut(&self) -> Option<RwLockWriteGuard<'_, Layer>> {
        let layer = self.layer.as_ref()?;
        Some(layer.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file to read from.
    pub(super) fn bytes(&self) -> Bytes<'_> {
        self.layer().map_or(Bytes::Own(&self.file), Bytes::Layer)
    }

    /// What is shown of the file.
    pub(super) fn stat(&self) -> Result<FileStat> {
        match self.layer() {
            None => FileStat::of_file(&*self.file),
            Some(layer) => match layer.sealed {
                Some(stat) => Ok(stat),
                None => FileStat::of_file(&*layer.file),
            },
        }
    }

    /// Whether the file is a version that was committed and that nobody wrote to since.
    pub(super) fn is_sealed(&self) -> bool {
        self.layer().is_some_and(|layer| layer.sealed.is_some())
    }

    /// How much a write would have to copy first.
    pub(super) fn sealed_length(&self) -> u64 {
        let sealed = self.layer().and_then(|layer| layer.sealed);
        sealed.map_or(0, |stat| stat.size)
    }

    /// Whether other handles may see a version of their own: nobody can write through this one.
    pub(super) fn is_pinned(&self) -> bool {
        self.layer.is_some() && !self.writable
    }

    /// Does something to the layer while nobody writes.
    pub(super) fn while_still<T>(&self, work: impl FnOnce(Option<&mut Layer>) -> T) -> T {
        match self.layer_mut() {
            Some(mut layer) => work(Some(&mut layer)),
            None => work(None),
        }
    }

    /// Writes to the end of what is there, with no other writer between; none when that was sealed in this moment.
    pub(super) fn append(&self, bytes: &[u8]) -> Option<io::Result<()>> {
        self.while_still(|layer| match layer {
            Some(layer) if layer.sealed.is_some() => None,
            Some(layer) => {
                self.wrote.store(true, Ordering::Relaxed);
                let end = layer.file.metadata().map(|found| found.len());
                Some(end.and_then(|end| layer.file.write_all_at(bytes, end)))
            }
            None => Some(Err(io::ErrorKind::Unsupported.into())),
        })
    }

    /// Whether there is something to commit.
    pub(super) fn is_changed(&self, writing: &Writing) -> Result<bool> {
        if self.is_sealed() {
            return Ok(false);
        }
        Ok(self.wrote.load(Ordering::Relaxed) || writing.stamp != Stamp::from(&self.stat()?))
    }

    /// Attributes of a sealed version changed.
    pub(super) fn now_shows(&self, change: impl FnOnce(&mut FileStat)) {
        if let Some(mut layer) = self.layer_mut()
            && let Some(stat) = layer.sealed.as_mut()
        {
            change(stat);
        }
    }

    /// Waits for the bytes of a range, if they are still to come.
    pub(super) fn fetch(&self, offset: u64, length: u64) -> Now<()> {
        match &self.reader {
            None => Now::ok(()),
            Some(reader) => reader.ensure(offset..offset.saturating_add(length)),
        }
    }

    /// Waits until there is room for the file to reach this length.
    pub(super) fn make_room(&self, length: u64) -> Now<()> {
        match self.layer().and_then(|layer| layer.room.clone()) {
            None => Now::ok(()),
            Some(room) => room.grow(length),
        }
    }
}

impl Fs {
    /// The file to write into: a sealed version is copied first.
    pub(super) fn bytes_to_write<'a>(&self, open: &'a OpenFile) -> Result<Bytes<'a>> {
        loop {
            let bytes = open.bytes();
            match &bytes {
                Bytes::Layer(layer) if layer.sealed.is_some() => drop(bytes),
                Bytes::Own(_) => return Ok(bytes),
                Bytes::Layer(_) => {
                    // The layer is held, so that nobody seals it before the write.
                    open.wrote.store(true, Ordering::Relaxed);
                    return Ok(bytes);
                }
            }
            self.unseal(open)?;
        }
    }

    fn unseal(&self, open: &OpenFile) -> Result<()> {
        if !open.writable {
            return Err(super::commit::not_open_for("write"));
        }
        let spot = lock(&self.table)
            .spot(open.ino)
            .ok_or_else(|| Error::new("write", "", Kind::Stale))?;
        let mut writing = open.writing();
        let Some(stat) = open.layer().and_then(|layer| layer.sealed) else {
            return Ok(());
        };
        let draft = self.volume.reopen(&spot.store, &open.bytes(), &stat)?;
        writing.stamp = Stamp::from(&FileStat::of_file(&*draft.file)?);
        writing.copied = true;
        open.while_still(|layer| {
            if let (Some(layer), Some(fresh)) = (layer, Layer::draft(&draft)) {
                *layer = fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
            }
        });
        writing.draft = Some(draft);
        if let Some(inode) = lock(&self.table).get_mut(open.ino) {
            inode.drafting = true;
            inode.told = 0;
        }
        Ok(())
    }
}
