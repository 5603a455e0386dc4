//! What the kernel is told it may do by itself: capabilities at the start, flags of each open file, lifetimes of what it
//! was told. It never touches a record.

use super::passthrough::Passthrough;
use super::reply::{Fail, file_attr, told};
use crate::error::{Error, Kind};
use crate::fs::{Attr, Fs, Opened};
use fuser::{
    FileHandle, FopenFlags, Generation, InitFlags, KernelConfig, ReplyCreate, ReplyEntry, ReplyOpen,
};
use std::io;
use std::sync::Arc;

/// Bytes of one request: 1 MiB, the kernel's own limit unless an administrator raised it.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background.
const MAX_BACKGROUND: u16 = 64;

/// Agrees with the kernel on what each side does.
pub(super) fn negotiate(config: &mut KernelConfig, passthrough: &Passthrough) -> io::Result<()> {
    if !config
        .capabilities()
        .contains(InitFlags::FUSE_ATOMIC_O_TRUNC)
    {
        return Err(io::Error::other("this kernel's FUSE has no ATOMIC_O_TRUNC"));
    }
    let wanted = [
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_ASYNC_DIO,
        // A listing may be put into the kernel's cache after it was told to drop it. With this it compares the directory's
        // times before it uses one.
        InitFlags::FUSE_AUTO_INVAL_DATA,
        // A link never leads elsewhere: another target is another inode.
        InitFlags::FUSE_CACHE_SYMLINKS,
        // Else the kernel asks for the file's capabilities before every write.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    ];
    for flag in wanted {
        // An older kernel does without.
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_background(MAX_BACKGROUND);
    if passthrough.is_on() {
        let taken = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        if !taken {
            passthrough.turn_off();
        }
    }
    Ok(())
}

/// Answers with a name's inode.
pub(super) fn entry(attr: &Attr, reply: ReplyEntry) {
    reply.entry_with_ttls(&attr.ttl, &attr.entry_ttl, &file_attr(attr), Generation(0));
}

/// How the kernel is to treat an open file.
fn flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    let open = &opened.open;
    if open.text.is_some() || open.append.is_some() || open.resized || open.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    }
    if !opened.open.writer {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    if opened.open.kept {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

/// Answers an open, with the file itself where the kernel takes it.
pub(super) fn opened(fs: &Fs, passthrough: &Passthrough, opened: &Opened, reply: ReplyOpen) {
    let (handle, flags) = (FileHandle(opened.handle), flags(opened));
    if !passthrough.takes(opened) {
        return reply.opened(handle, flags);
    }
    let file = &opened.open.file;
    match passthrough.backing(file, || reply.open_backing(&*file.file)) {
        Ok(backing) => reply.opened_passthrough(handle, flags, &backing),
        Err(e) => refused(fs, opened, "open", e, reply),
    }
}

/// Answers a creation, likewise.
pub(super) fn created(
    fs: &Fs,
    passthrough: &Passthrough,
    (attr, opened): &(Attr, Opened),
    reply: ReplyCreate,
) {
    let (handle, flags) = (FileHandle(opened.handle), flags(opened));
    let (ttl, attr) = (attr.ttl, file_attr(attr));
    if !passthrough.takes(opened) {
        return reply.created(&ttl, &attr, Generation(0), handle, flags);
    }
    let file = &opened.open.file;
    match passthrough.backing(file, || reply.open_backing(&*file.file)) {
        Ok(id) => reply.created_passthrough(&ttl, &attr, Generation(0), handle, flags, &id),
        Err(e) => refused(fs, opened, "create", e, reply),
    }
}

/// The kernel did not take a file: other opens of its inode would fail as well, so this one does.
fn refused(fs: &Fs, opened: &Opened, op: &'static str, why: io::Error, reply: impl Fail) {
    fs.release(opened.handle);
    let error = Error::io("hand the file to the kernel", "", why).with_kind(Kind::Io);
    reply.fail(told(op, &error));
}

/// Lets a listing be kept when changes are pushed.
pub(super) fn listing(fs: &Arc<Fs>, ino: u64) -> FopenFlags {
    if fs.may_cache_listing(ino) {
        FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}
