//! fuser's callbacks, each handing its request to the tree. Nothing is decided here but what the kernel may cache.

use super::passthrough::Passthrough;
use super::reply::{answer, file_attr, file_type, nanoseconds, told};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, Attr, Caller, Change, Fs, Opened};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

/// Pages of one request: 1 MiB, the kernel's own limit unless an administrator raised it.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background.
const MAX_BACKGROUND: u16 = 64;

pub(super) struct Adapter {
    pub(super) fs: Arc<Fs>,
    pub(super) runtime: Handle,
    pub(super) passthrough: Arc<Passthrough>,
}

/// A name as the tree has names. What is not UTF-8 cannot be one.
fn name_of(name: &OsStr) -> Result<&str> {
    name.to_str()
        .ok_or_else(|| Error::because("use the name", "", Kind::Invalid, "not UTF-8"))
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

fn time_change(time: Option<TimeOrNow>) -> Option<Option<i64>> {
    time.map(|time| match time {
        TimeOrNow::Now => None,
        TimeOrNow::SpecificTime(at) => Some(nanoseconds(at)),
    })
}

impl Adapter {
    /// Counts the request and does its work. A panic ends this request alone: the reply is dropped, which answers EIO.
    fn run(&self, op: &'static str, work: impl FnOnce(&Arc<Fs>)) {
        self.fs.counters.request(op);
        if catch_unwind(AssertUnwindSafe(|| work(&self.fs))).is_err() {
            tracing::error!("{op}: the operation panicked; it was answered with EIO");
        }
    }

    fn answer_entry(&self, op: &'static str, now: crate::volume::Now<Attr>, reply: ReplyEntry) {
        let ttl = self.fs.ttl();
        answer(
            &self.runtime,
            op,
            now,
            reply,
            move |attr, reply: ReplyEntry| {
                let attr_ttl = if attr.keep { ttl } else { Duration::ZERO };
                reply.entry_with_ttls(&attr_ttl, &ttl, &file_attr(&attr), Generation(0));
            },
        );
    }
}

/// How the kernel is to treat an open file.
fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.open.text.is_some() || opened.open.append.is_some() {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    }
    if !opened.open.writer {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    flags
}

fn gives_to_kernel(passthrough: &Passthrough, opened: &Opened) -> bool {
    passthrough.is_on() && opened.open.text.is_none()
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        for flag in wanted {
            // An older kernel does without.
            let _ = config.add_capabilities(flag);
        }
        if !config
            .capabilities()
            .contains(InitFlags::FUSE_ATOMIC_O_TRUNC)
        {
            return Err(io::Error::other("this kernel's FUSE has no ATOMIC_O_TRUNC"));
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        if self.passthrough.is_on() {
            let taken = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
                && config.set_max_stack_depth(1).is_ok();
            if !taken {
                self.passthrough.turn_off();
            }
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.run("lookup", |fs| {
            let found = match name_of(name) {
                Ok(name) => fs.lookup(parent.0, name),
                Err(e) => crate::volume::Now::err(e.with_kind(Kind::NotFound)),
            };
            self.answer_entry("lookup", found.not_found_if_illegal(), reply);
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.run("forget", |fs| fs.forget(ino.0, count));
        self.passthrough.sweep(ino.0);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.run("getattr", |fs| {
            let ttl = fs.ttl();
            let now = fs.getattr(ino.0, fh.map(|fh| fh.0));
            answer(
                &self.runtime,
                "getattr",
                now,
                reply,
                move |attr, reply: ReplyAttr| {
                    let ttl = if attr.keep { ttl } else { Duration::ZERO };
                    reply.attr(&ttl, &file_attr(&attr));
                },
            );
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.run("setattr", |fs| {
            let (accessed, modified) = (time_change(atime), time_change(mtime));
            let change = Change {
                mode,
                uid,
                gid,
                size,
                accessed,
                modified,
            };
            let now = fs.setattr(ino.0, change, fh.map(|fh| fh.0), caller(request));
            answer(
                &self.runtime,
                "setattr",
                now,
                reply,
                |attr, reply: ReplyAttr| {
                    reply.attr(&Duration::ZERO, &file_attr(&attr));
                },
            );
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        self.run("readlink", |fs| {
            let now = fs.readlink(ino.0);
            answer(
                &self.runtime,
                "readlink",
                now,
                reply,
                |target, reply: ReplyData| reply.data(&target),
            );
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        self.run("mknod", |fs| {
            let now = named(name, |name| fs.mknod(parent.0, name, mode, caller(request)));
            self.answer_entry("mknod", now, reply);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.run("mkdir", |fs| {
            let now = named(name, |name| fs.mkdir(parent.0, name, mode, caller(request)));
            self.answer_entry("mkdir", now, reply);
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run("unlink", |fs| {
            let now = named(name, |name| fs.unlink(parent.0, name));
            answer(
                &self.runtime,
                "unlink",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run("rmdir", |fs| {
            let now = named(name, |name| fs.rmdir(parent.0, name));
            answer(
                &self.runtime,
                "rmdir",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn symlink(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.run("symlink", |fs| {
            let target = target.as_os_str().as_encoded_bytes();
            let now = named(name, |name| fs.symlink(parent.0, name, target));
            self.answer_entry("symlink", now, reply);
        });
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.run("rename", |fs| {
            let now = named(name, |name| {
                named(newname, |newname| {
                    fs.rename((parent.0, name), (newparent.0, newname), flags.bits())
                })
            });
            answer(
                &self.runtime,
                "rename",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.run("link", |_| reply.error(Errno::EPERM));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.run("open", |fs| {
            let (now, passthrough) = (
                fs.open(ino.0, flags.0, caller(request)),
                self.passthrough.clone(),
            );
            let fs = fs.clone();
            answer(
                &self.runtime,
                "open",
                now,
                reply,
                move |opened: Opened, reply: ReplyOpen| {
                    let (handle, flags) = (FileHandle(opened.handle), open_flags(&opened));
                    if !gives_to_kernel(&passthrough, &opened) {
                        return reply.opened(handle, flags);
                    }
                    let file = &opened.open.file;
                    match passthrough.backing(file, || reply.open_backing(&*file.file)) {
                        Ok(backing) => reply.opened_passthrough(handle, flags, &backing),
                        Err(e) => {
                            fs.release(opened.handle);
                            reply.error(told(
                                "open",
                                &Error::io("hand to the kernel", "", e).with_kind(Kind::Io),
                            ));
                        }
                    }
                },
            );
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.run("create", |fs| {
            let ttl = fs.ttl();
            let now = named(name, |name| {
                fs.create(parent.0, name, mode, flags, caller(request))
            });
            let (fs, passthrough) = (fs.clone(), self.passthrough.clone());
            answer(
                &self.runtime,
                "create",
                now,
                reply,
                move |(attr, opened): (Attr, Opened), reply: ReplyCreate| {
                    let (handle, flags) = (FileHandle(opened.handle), open_flags(&opened));
                    let ttl = if attr.keep { ttl } else { Duration::ZERO };
                    let attr = file_attr(&attr);
                    if !gives_to_kernel(&passthrough, &opened) {
                        return reply.created(&ttl, &attr, Generation(0), handle, flags);
                    }
                    let file = &opened.open.file;
                    match passthrough.backing(file, || reply.open_backing(&*file.file)) {
                        Ok(backing) => {
                            reply.created_passthrough(
                                &ttl,
                                &attr,
                                Generation(0),
                                handle,
                                flags,
                                &backing,
                            );
                        }
                        Err(e) => {
                            fs.release(opened.handle);
                            reply.error(told(
                                "create",
                                &Error::io("hand to the kernel", "", e).with_kind(Kind::Io),
                            ));
                        }
                    }
                },
            );
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.run("read", |fs| {
            READ_BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(size as usize, 0);
                match fs.read(fh.0, offset, buffer) {
                    Ok(count) => reply.data(&buffer[..count]),
                    Err(e) => reply.error(told("read", &e)),
                }
            });
        });
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.run("write", |fs| match fs.write(fh.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(told("write", &e)),
        });
    }

    fn flush(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.run("flush", |fs| {
            let now = fs.flush(fh.0, request.pid());
            answer(
                &self.runtime,
                "flush",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.run("release", |fs| {
            fs.release(fh.0);
            self.passthrough.sweep(ino.0);
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.run("fsync", |fs| {
            let now = fs.fsync(fh.0, datasync);
            answer(
                &self.runtime,
                "fsync",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.run("fsyncdir", |fs| {
            let now = fs.fsync_directory(ino.0);
            answer(
                &self.runtime,
                "fsyncdir",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.run("opendir", |fs| {
            let flags = if fs.may_cache_listing(ino.0) {
                FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
            } else {
                FopenFlags::empty()
            };
            let now = fs.opendir(ino.0);
            answer(
                &self.runtime,
                "opendir",
                now,
                reply,
                move |(), reply: ReplyOpen| {
                    reply.opened(FileHandle(0), flags);
                },
            );
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.run("releasedir", |_| reply.ok());
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.run("readdir", |fs| {
            let listed = fs.readdir(ino.0, offset, false, &mut |entry| {
                // The kernel wants a number here; it is not the one that stat shows until the name is looked up.
                let ino = if entry.ino == 0 {
                    u64::from(u32::MAX)
                } else {
                    entry.ino
                };
                !reply.add(INodeNo(ino), entry.next, file_type(entry.kind), entry.name)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(told("readdir", &e)),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.run("readdirplus", |fs| {
            let ttl = fs.ttl();
            let listed = fs.readdir(ino.0, offset, true, &mut |entry| {
                let attr = entry
                    .attr
                    .unwrap_or_else(|| fs::placeless(entry.ino, entry.kind));
                let ttl = if attr.keep { ttl } else { Duration::ZERO };
                let ino = INodeNo(entry.ino);
                !reply.add(
                    ino,
                    entry.next,
                    entry.name,
                    &ttl,
                    &file_attr(&attr),
                    Generation(0),
                )
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(told("readdirplus", &e)),
            }
        });
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.run("statfs", |fs| {
            let now = fs.statfs(ino.0);
            answer(
                &self.runtime,
                "statfs",
                now,
                reply,
                |space, reply: ReplyStatfs| {
                    reply.statfs(
                        space.blocks,
                        space.free,
                        space.available,
                        space.files,
                        space.files_free,
                        space.block,
                        space.max_name,
                        space.block,
                    );
                },
            );
        });
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.run("setxattr", |fs| {
            let now = named(name, |name| fs.setxattr(ino.0, name, value, flags));
            answer(
                &self.runtime,
                "setxattr",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.run("getxattr", |fs| {
            let now = named(name, |name| fs.getxattr(ino.0, name));
            answer(
                &self.runtime,
                "getxattr",
                now,
                reply,
                move |value, reply| give(&value, size, reply),
            );
        });
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.run("listxattr", |fs| {
            let now = fs.listxattr(ino.0);
            answer(
                &self.runtime,
                "listxattr",
                now,
                reply,
                move |value, reply| give(&value, size, reply),
            );
        });
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run("removexattr", |fs| {
            let now = named(name, |name| fs.removexattr(ino.0, name));
            answer(
                &self.runtime,
                "removexattr",
                now,
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // default_permissions is always on: the kernel has checked.
        self.run("access", |_| reply.ok());
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.run("fallocate", |fs| {
            match fs.fallocate(fh.0, offset, length, mode) {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(told("fallocate", &e)),
            }
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.run("lseek", |fs| match fs.seek(fh.0, offset, whence) {
            Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(e) => reply.error(told("lseek", &e)),
        });
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.run("copy_file_range", |fs| {
            match fs.copy_range((fh_in.0, offset_in), (fh_out.0, offset_out), len) {
                Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
                Err(e) => reply.error(told("copy_file_range", &e)),
            }
        });
    }
}

thread_local! {
    /// One buffer for each event loop: reads are answered in place.
    static READ_BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn named<T: Send + 'static>(
    name: &OsStr,
    work: impl FnOnce(&str) -> crate::volume::Now<T>,
) -> crate::volume::Now<T> {
    match name_of(name) {
        Ok(name) => work(name),
        Err(e) => crate::volume::Now::err(e),
    }
}

/// Answers with a value, or with its size when that is asked for.
fn give(value: &[u8], room: u32, reply: ReplyXattr) {
    if room == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > room as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
