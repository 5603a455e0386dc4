//! Attributes as the tree shows them. It never asks a disk for them.

use crate::volume::{FileStat, Origin, Stat};
use std::time::Duration;

/// What kind of file an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A store, the root or the control directory.
    Directory,
    /// A record.
    Regular,
    /// A link.
    Link,
}

/// The attributes of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Disk use in units of 512 bytes.
    pub blocks: u64,
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u16,
    /// Links: 0 once it has no name any more.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Last change of the bytes.
    pub modified_ns: i64,
    /// Last change of the inode.
    pub changed_ns: i64,
    /// How long the kernel may keep these attributes; not at all while the file is being written aside.
    pub ttl: Duration,
    /// How long it may keep the name that led here.
    pub entry_ttl: Duration,
}

/// What the options of the mount change in what is shown.
#[derive(Clone, Copy, Default, Debug)]
pub struct Show {
    /// Show this owner.
    pub uid: Option<u32>,
    /// Show this group.
    pub gid: Option<u32>,
    /// Take these permission bits away.
    pub umask: Option<u32>,
}

pub(super) const WRITE_BITS: u16 = 0o222;

impl Attr {
    /// The same, to be kept for so long.
    #[must_use]
    pub(super) fn kept(self, ttl: Duration) -> Self {
        Self {
            ttl,
            entry_ttl: ttl,
            ..self
        }
    }

    /// The same, whose name alone may be kept for so long.
    #[must_use]
    pub(super) fn name_kept(self, entry_ttl: Duration) -> Self {
        Self {
            ttl: Duration::ZERO,
            entry_ttl,
            ..self
        }
    }
}

impl Show {
    /// The attributes of an inode whose file the disk describes so.
    pub fn attr(&self, ino: u64, stat: &Stat) -> Attr {
        let mut attr = self.file(ino, &stat.file);
        if matches!(stat.origin, Origin::Foreign | Origin::Alias) {
            attr.mode &= !WRITE_BITS;
        }
        attr
    }

    /// The same, of a file or directory that is no record.
    pub fn file(&self, ino: u64, file: &FileStat) -> Attr {
        let kind = match file.mode & libc::S_IFMT {
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Link,
            _ => FileKind::Regular,
        };
        let mode = (file.mode & 0o7777) & !self.umask.unwrap_or(0);
        Attr {
            ino,
            size: file.size,
            blocks: file.blocks,
            kind,
            mode: mode as u16,
            links: if kind == FileKind::Directory {
                file.links.max(2)
            } else {
                1
            },
            uid: self.uid.unwrap_or(file.uid),
            gid: self.gid.unwrap_or(file.gid),
            accessed_ns: file.accessed_ns,
            modified_ns: file.modified_ns,
            changed_ns: file.changed_ns,
            ttl: Duration::ZERO,
            entry_ttl: Duration::ZERO,
        }
    }
}

/// Attributes for `.` and `..`, which the kernel does not take from a listing.
pub fn placeless(ino: u64, kind: FileKind) -> Attr {
    Attr {
        ino,
        size: 0,
        blocks: 0,
        kind,
        mode: 0,
        links: 1,
        uid: 0,
        gid: 0,
        accessed_ns: 0,
        modified_ns: 0,
        changed_ns: 0,
        ttl: Duration::ZERO,
        entry_ttl: Duration::ZERO,
    }
}
