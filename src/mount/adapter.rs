//! fuser's callbacks, each handing its request to the tree. Nothing is decided here.

use super::awake::Watched;
use super::caching;
use super::passthrough::Passthrough;
use super::reply::{answer, file_attr, file_type, give, told};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, Attr, Caller, Change, Fs};
use crate::record::nanoseconds;
use crate::volume::Now;
use fuser::*;
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub(super) struct Adapter {
    pub(super) fs: Arc<Fs>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) passthrough: Arc<Passthrough>,
    pub(super) awake: Watched,
    /// Dropped with the adapter, which the library does when its event loops have ended.
    pub(super) _alive: std::sync::mpsc::Sender<()>,
}

thread_local! {
    /// One buffer for each thread that answers reads. It is never given back, so that it is cleared once.
    static READ_BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Answers with bytes that are here.
fn give_bytes(fs: &Fs, handle: u64, (offset, size): (u64, usize), reply: ReplyData) {
    READ_BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        match fs.read(handle, offset, &mut buffer[..size]) {
            Ok(count) => reply.data(&buffer[..count]),
            Err(e) => reply.error(told("read", &e)),
        }
    });
}

/// A name as the tree has names. What is not UTF-8 cannot be one.
fn name_of(name: &OsStr) -> Result<&str> {
    name.to_str()
        .ok_or_else(|| Error::because("use the name", "", Kind::Invalid, "not UTF-8"))
}

fn named<T: Send + 'static>(name: &OsStr, work: impl FnOnce(&str) -> Now<T>) -> Now<T> {
    match name_of(name) {
        Ok(name) => work(name),
        Err(e) => Now::err(e),
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
        ..Caller::default()
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
        self.awake.0.note();
        if catch_unwind(AssertUnwindSafe(|| work(&self.fs))).is_err() {
            tracing::error!("{op}: the operation panicked; it was answered with EIO");
        }
    }

    fn done(&self, op: &'static str, reply: ReplyEmpty, work: impl FnOnce(&Arc<Fs>) -> Now<()>) {
        self.run(op, |fs| {
            answer(
                &self.runtime,
                op,
                work(fs),
                reply,
                |(), reply: ReplyEmpty| reply.ok(),
            );
        });
    }

    fn entry(&self, op: &'static str, reply: ReplyEntry, work: impl FnOnce(&Arc<Fs>) -> Now<Attr>) {
        self.run(op, |fs| {
            let told = |attr: Attr, reply| caching::entry(&attr, reply);
            answer(&self.runtime, op, work(fs), reply, told);
        });
    }

    fn attr(&self, op: &'static str, reply: ReplyAttr, work: impl FnOnce(&Arc<Fs>) -> Now<Attr>) {
        self.run(op, |fs| {
            let told = |attr: Attr, reply: ReplyAttr| reply.attr(&attr.ttl, &file_attr(&attr));
            answer(&self.runtime, op, work(fs), reply, told);
        });
    }

    fn value(
        &self,
        op: &'static str,
        room: u32,
        reply: ReplyXattr,
        work: impl FnOnce(&Arc<Fs>) -> Now<Vec<u8>>,
    ) {
        self.run(op, |fs| {
            let told = move |value: Vec<u8>, reply| give(&value, room, reply);
            answer(&self.runtime, op, work(fs), reply, told);
        });
    }
}

// A line for each signature, however long: broken into lines they would be most of the file.
#[rustfmt::skip]
impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        caching::negotiate(config, &self.passthrough)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry("lookup", reply, |fs| named(name, |name| fs.look_up(parent.0, name, request.pid())).not_found_if_illegal());
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.run("forget", |fs| fs.forget(ino.0, count));
        self.passthrough.sweep(ino.0);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attr("getattr", reply, |fs| fs.attributes(ino.0, fh.map(|fh| fh.0)));
    }

    fn setattr(&self, request: &Request, ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>, atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, _: Option<SystemTime>, fh: Option<FileHandle>, _: Option<SystemTime>, _: Option<SystemTime>, _: Option<SystemTime>, _: Option<BsdFileFlags>, reply: ReplyAttr) {
        let change = Change { mode, uid, gid, size, accessed: time_change(atime), modified: time_change(mtime) };
        self.attr("setattr", reply, |fs| fs.change(ino.0, change, fh.map(|fh| fh.0), caller(request)));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.run("readlink", |fs| {
            answer(&self.runtime, "readlink", fs.readlink(ino.0), reply, |target, reply: ReplyData| reply.data(&target));
        });
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _rdev: u32, reply: ReplyEntry) {
        self.entry("mknod", reply, |fs| named(name, |name| fs.mknod(parent.0, name, mode, caller(request))));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.entry("mkdir", reply, |fs| named(name, |name| fs.mkdir(parent.0, name, mode, caller(request))));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done("unlink", reply, |fs| named(name, |name| fs.unlink(parent.0, name)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done("rmdir", reply, |fs| named(name, |name| fs.rmdir(parent.0, name)));
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_encoded_bytes();
        self.entry("symlink", reply, |fs| named(name, |name| fs.symlink(parent.0, name, target)));
    }

    fn rename(&self, _: &Request, parent: INodeNo, name: &OsStr, newparent: INodeNo, newname: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        self.done("rename", reply, |fs| named(name, |from| named(newname, |to| fs.rename((parent.0, from), (newparent.0, to), flags.bits()))));
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry("link", reply, |fs| named(name, |name| fs.link(name)));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.run("open", |fs| {
            let (now, fs, passthrough) = (fs.open(ino.0, flags.0, caller(request)), fs.clone(), self.passthrough.clone());
            answer(&self.runtime, "open", now, reply, move |opened, reply| caching::opened(&fs, &passthrough, &opened, reply));
        });
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, flags: i32, reply: ReplyCreate) {
        self.run("create", |fs| {
            let now = named(name, |name| fs.create(parent.0, name, mode, flags, caller(request)));
            let (fs, passthrough) = (fs.clone(), self.passthrough.clone());
            answer(&self.runtime, "create", now, reply, move |made, reply| caching::created(&fs, &passthrough, &made, reply));
        });
    }

    fn read(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        self.run("read", |fs| {
            let (here, fs) = (fs.prepare_read(fh.0, offset, size.into()), fs.clone());
            answer(&self.runtime, "read", here, reply, move |(), reply| give_bytes(&fs, fh.0, (offset, size as usize), reply));
        });
    }

    fn write(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, data: &[u8], _: WriteFlags, _: OpenFlags, _: Option<LockOwner>, reply: ReplyWrite) {
        let length = data.len() as u32;
        self.run("write", |fs| match fs.prepare_write(fh.0, offset, length.into()) {
            Now::Ready(Ok(())) => match fs.write(fh.0, offset, data) {
                Ok(()) => reply.written(length),
                Err(e) => reply.error(told("write", &e)),
            },
            coming @ (Now::Ready(_) | Now::Wait(_)) => {
                let (fs, data) = (fs.clone(), data.to_vec());
                let written = coming.then(move |()| fs.write(fh.0, offset, &data));
                answer(&self.runtime, "write", written, reply, move |(), reply: ReplyWrite| reply.written(length));
            }
        });
    }

    fn flush(&self, request: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.done("flush", reply, |fs| fs.flush(fh.0, request.pid()));
    }

    fn release(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool, reply: ReplyEmpty) {
        self.done("release", reply, |fs| {
            // It may be the file of another inode.
            let of = fs.handle(fh.0).map_or(ino.0, |handle| handle.file.ino);
            fs.release(fh.0);
            self.passthrough.sweep(of);
            Now::ok(())
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.done("fsync", reply, |fs| fs.fsync(fh.0, datasync));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.done("fsyncdir", reply, |fs| fs.fsync_directory(ino.0));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.run("opendir", |fs| {
            let flags = caching::listing(fs, ino.0);
            answer(&self.runtime, "opendir", fs.opendir(ino.0), reply, move |(), reply: ReplyOpen| reply.opened(FileHandle(0), flags));
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.done("releasedir", reply, |_| Now::ok(()));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.run("readdir", |fs| {
            let listed = fs.readdir(ino.0, offset, false, &mut |entry| {
                // The kernel wants a number here; it is not the one that stat shows until the name is looked up.
                let ino = if entry.ino == 0 { u64::from(u32::MAX) } else { entry.ino };
                !reply.add(INodeNo(ino), entry.next, file_type(entry.kind), entry.name)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(told("readdir", &e)),
            }
        });
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.run("readdirplus", |fs| {
            let listed = fs.readdir(ino.0, offset, true, &mut |entry| {
                let attr = entry.attr.unwrap_or_else(|| fs::placeless(entry.ino, entry.kind));
                // One lifetime for both, in this library.
                let ttl = attr.ttl.min(attr.entry_ttl);
                !reply.add(INodeNo(entry.ino), entry.next, entry.name, &ttl, &file_attr(&attr), Generation(0))
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(told("readdirplus", &e)),
            }
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.run("statfs", |fs| {
            answer(&self.runtime, "statfs", fs.statfs(ino.0), reply, |space, reply: ReplyStatfs| {
                reply.statfs(space.blocks, space.free, space.available, space.files, space.files_free, space.block, space.max_name, space.block);
            });
        });
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        self.done("setxattr", reply, |fs| named(name, |name| fs.setxattr(fs.meant(ino.0), name, value, flags)));
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.value("getxattr", size, reply, |fs| named(name, |name| fs.getxattr(fs.meant(ino.0), name)));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.value("listxattr", size, reply, |fs| fs.listxattr(fs.meant(ino.0)));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done("removexattr", reply, |fs| named(name, |name| fs.removexattr(fs.meant(ino.0), name)));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel has checked, or there is nothing to check. It need not ask again.
        self.run("access", |_| reply.error(Errno::ENOSYS));
    }

    fn fallocate(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        self.done("fallocate", reply, |fs| {
            let this = fs.clone();
            fs.prepare_write(fh.0, 0, 0).then(move |()| this.fallocate(fh.0, offset, length, mode))
        });
    }

    fn lseek(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.run("lseek", |fs| match fs.seek(fh.0, offset, whence) {
            Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(e) => reply.error(told("lseek", &e)),
        });
    }

    fn ioctl(&self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl) {
        // Programs ask whether a record is a terminal. It is not.
        self.run("ioctl", |_| reply.error(Errno::ENOTTY));
    }

    fn copy_file_range(&self, _: &Request, _: INodeNo, fh_in: FileHandle, offset_in: u64, _: INodeNo, fh_out: FileHandle, offset_out: u64, len: u64, _: CopyFileRangeFlags, reply: ReplyWrite) {
        self.run("copy_file_range", |fs| {
            let copied = fs.copy_range((fh_in.0, offset_in), (fh_out.0, offset_out), len);
            answer(&self.runtime, "copy_file_range", copied, reply, |count, reply: ReplyWrite| {
                reply.written(u32::try_from(count).unwrap_or(u32::MAX));
            });
        });
    }
}
