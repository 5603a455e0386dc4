//! The bytes of a record on their way to a backend. A body can always be read again from its start.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in memory, or a file that nobody writes any more.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A sealed file; it is read from offset 0 whatever its position is.
    File(Arc<File>),
    /// The same, and what was read of it.
    Counted(Arc<File>, Arc<Reads>),
}

/// What was read of a body, in bytes.
#[derive(Debug, Default)]
pub struct Reads {
    /// By all its readers together, each of which begins anew.
    pub all: AtomicU64,
    /// By the one that came farthest.
    pub farthest: AtomicU64,
}

impl Body {
    /// The length in bytes.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) | Self::Counted(file, _) => Ok(file.metadata()?.len()),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// A new reader from the first byte.
    pub fn reader(&self) -> Box<dyn Read + Send> {
        match self {
            Self::Bytes(bytes) => Box::new(Cursor::new(bytes.clone())),
            Self::File(file) => Box::new(FileReader {
                file: file.clone(),
                at: 0,
                read: None,
            }),
            Self::Counted(file, read) => Box::new(FileReader {
                file: file.clone(),
                at: 0,
                read: Some(read.clone()),
            }),
        }
    }

    /// All bytes at once.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// Reads a shared file by position, so that readers do not disturb each other.
struct FileReader {
    file: Arc<File>,
    at: u64,
    read: Option<Arc<Reads>>,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        if let Some(read) = &self.read {
            read.all.fetch_add(count as u64, Ordering::Relaxed);
            read.farthest.fetch_max(self.at, Ordering::Relaxed);
        }
        Ok(count)
    }
}
