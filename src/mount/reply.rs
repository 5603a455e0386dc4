//! Answers of the tree as answers to the kernel, now or when they are ready. Every request gets exactly one.

use super::errno::errno;
use crate::error::{Error, Result};
use crate::fs::{Attr, FileKind};
use crate::volume::Now;
use fuser::{FileAttr, FileType, INodeNo};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;

/// A request that can be answered with a failure.
pub(super) trait Fail {
    /// Answers with an errno.
    fn fail(self, errno: fuser::Errno);
}

macro_rules! fails {
    ($($reply:ty),*) => {
        $(impl Fail for $reply {
            fn fail(self, errno: fuser::Errno) {
                self.error(errno);
            }
        })*
    };
}

fails!(
    fuser::ReplyAttr,
    fuser::ReplyCreate,
    fuser::ReplyData,
    fuser::ReplyEmpty,
    fuser::ReplyEntry,
    fuser::ReplyLseek,
    fuser::ReplyOpen,
    fuser::ReplyStatfs,
    fuser::ReplyWrite,
    fuser::ReplyXattr
);

/// Answers a request: in place when the answer is known, else from the runtime when it is.
pub(super) fn answer<T, R>(
    runtime: &Handle,
    op: &'static str,
    now: Now<T>,
    reply: R,
    success: impl FnOnce(T, R) + Send + 'static,
) where
    T: Send + 'static,
    R: Fail + Send + 'static,
{
    match now {
        Now::Ready(result) => settle(op, result, reply, success),
        Now::Wait(wait) => {
            runtime.spawn(async move { settle(op, wait.await, reply, success) });
        }
    }
}

fn settle<T, R: Fail>(op: &'static str, result: Result<T>, reply: R, success: impl FnOnce(T, R)) {
    match result {
        Ok(value) => success(value, reply),
        Err(error) => reply.fail(told(op, &error)),
    }
}

/// The errno of a failure, which the log is told as far as somebody may want to know it.
pub(super) fn told(op: &'static str, error: &Error) -> fuser::Errno {
    use crate::error::Kind;
    let number = errno(error);
    let fault = [Kind::Io, Kind::Corrupt, Kind::Exhausted, Kind::NoSpace];
    if fault.contains(&error.kind()) {
        tracing::error!("{op}: {error}");
    } else {
        tracing::debug!("{op}: {error} ({number:?})");
    }
    number
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// The kind of a file in the library's words.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::Regular => FileType::RegularFile,
        FileKind::Link => FileType::Symlink,
    }
}

/// Attributes in the library's words.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.accessed_ns),
        mtime: time(attr.modified_ns),
        ctime: time(attr.changed_ns),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with a value, or with its size when that is asked for.
pub(super) fn give(value: &[u8], room: u32, reply: fuser::ReplyXattr) {
    if room == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > room as usize {
        reply.error(fuser::Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
