//! What the standard library and rustix lack. The only unsafe code of the program; nothing here decides anything.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Locks (`F_WRLCK`) or unlocks (`F_UNLCK`) one byte of an open file, without waiting. The lock belongs to the open file
/// description and ends with it. `EAGAIN` when another one holds it.
pub fn lock_byte(file: BorrowedFd<'_>, offset: u64, kind: libc::c_int) -> io::Result<()> {
    let Ok(start) = libc::off_t::try_from(offset) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    // SAFETY: `flock` is plain data for which all zeroes is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = 1;
    // SAFETY: the descriptor is open for the length of the call and `lock` is a valid flock structure.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Copies a whole file that nobody writes into an empty one: by sharing its blocks where the disk can, else within the kernel,
/// else through memory. Neither file's offset is used.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let (mut at, mut into) = (0, 0);
    let length = from.metadata()?.len();
    while at < length {
        let left = usize::try_from(length - at).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut into), left) {
            // Some file systems say so in the middle, too.
            Ok(0) => return copy_through_memory(from, to, at),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_through_memory(from, to, at);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through_memory(from: &File, to: &File, mut at: u64) -> io::Result<()> {
    let mut piece = vec![0; 256 << 10];
    loop {
        let count = from.read_at(&mut piece, at)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all_at(&piece[..count], at)?;
        at += count as u64;
    }
}

/// Has every block of memory of at least so many bytes given back to the system as soon as it is free. Otherwise glibc learns from
/// the first large one to keep others, for each thread (mallopt(3), M_MMAP_THRESHOLD). Other C libraries do nothing like it.
pub fn give_back_blocks_of(bytes: u32) {
    #[cfg(target_env = "gnu")]
    {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: it sets a number within the allocator, which takes its own lock for it.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Marks every descriptor from 3 up as close-on-exec, so that a program started next inherits only its standard three.
///
/// Fails with ENOSYS on kernels before 5.11.
pub fn keep_descriptors_from_children() -> io::Result<()> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Divides the process in two: the other one's number here, `None` in the other.
///
/// Only for a process with one thread: the new one has a copy of this thread and of no other, with all locks as they are.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: fork touches no memory of ours, and with one thread the copy is whole.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        number => Pid::from_raw(number)
            .filter(|_| number > 0)
            .map(Some)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Has this process ignore a signal from here on, and every program that it starts.
pub fn ignore(signal: libc::c_int) {
    // SAFETY: SIG_IGN is no function, so nothing of this program ever runs because of it.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Whether this process ignores a signal.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: `now` is plain data for which all zeroes is valid, and the call only writes to it.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Has a command write one line to a pipe before its program starts: this word and the number of its process. A pipe that nobody
/// reads any more holds nothing up.
pub fn announce(command: &mut Command, pipe: OwnedFd, word: &'static [u8]) {
    let announce = move || {
        let mut line = [0_u8; 64];
        let mut at = line.len() - 1;
        line[at] = b'\n';
        let mut number = std::process::id();
        loop {
            at -= 1;
            // The remainder is below ten.
            line[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        at = at.saturating_sub(word.len());
        line[at..at + word.len()].copy_from_slice(word);
        let line = &line[at..];
        // SAFETY: `line` is initialised and lives through the call; the signal gets back what it had.
        unsafe {
            let before = libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::write(pipe.as_raw_fd(), line.as_ptr().cast(), line.len());
            libc::signal(libc::SIGPIPE, before);
        }
        Ok(())
    };
    // SAFETY: between fork and exec this calls getpid, signal and write alone, which are safe there, and allocates nothing.
    unsafe { command.pre_exec(announce) };
}

/// Has a command start with this soft limit of open files, as far as its hard one allows.
pub fn limit_files(command: &mut Command, soft: u64) {
    let limit = move || {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        let current = Some(hard.map_or(soft, |hard| hard.min(soft)));
        let limit = Rlimit {
            current,
            maximum: hard,
        };
        // One that cannot be lowered is no reason not to start.
        let _ = rustix::process::setrlimit(Resource::Nofile, limit);
        Ok(())
    };
    // SAFETY: between fork and exec this calls prlimit alone, and allocates nothing.
    unsafe { command.pre_exec(limit) };
}

/// Closes every descriptor from 3 up but these two. What owns them must never be used or dropped again.
pub fn close_all_but(kept: [BorrowedFd<'_>; 2]) {
    let mut kept = kept.map(|fd| fd.as_raw_fd().unsigned_abs());
    kept.sort_unstable();
    let gaps = [
        (3, kept[0].saturating_sub(1)),
        (kept[0] + 1, kept[1].saturating_sub(1)),
        (kept[1] + 1, u32::MAX),
    ];
    for (first, last) in gaps {
        if first <= last {
            // SAFETY: close_range touches no memory of ours. Kernels before 5.9 lack it; then some stay open.
            unsafe { libc::syscall(libc::SYS_close_range, first.max(3), last, 0) };
        }
    }
}

/// The process group that a terminal listens to.
pub fn foreground_of(terminal: BorrowedFd<'_>) -> Option<Pid> {
    // SAFETY: a call on an open descriptor.
    Pid::from_raw(unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) })
}

/// Has a terminal listen to this process group. The terminal's signal for background processes that try this is held back
/// meanwhile, in this thread alone.
pub fn set_foreground_of(terminal: BorrowedFd<'_>, group: Pid) -> io::Result<()> {
    // SAFETY: signal sets are plain data, and all pointers are to locals that live through the calls.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
        let result = libc::tcsetpgrp(terminal.as_raw_fd(), group.as_raw_nonzero().get());
        let why = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if result == 0 { Ok(()) } else { Err(why) }
    }
}

/// getxattrat and listxattrat of Linux 6.13: the same numbers on every architecture but alpha.
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;

/// The kernel's `struct xattr_args`.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Reads an attribute of a file in an open directory into `value`, without following a link. Its length in bytes.
///
/// Fails with ENOSYS on kernels before 6.13.
pub fn getxattr_at(
    dir: BorrowedFd<'_>,
    file: &CStr,
    name: &CStr,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut args = XattrArgs {
        value: value.as_mut_ptr() as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: both names end in NUL, `args` has the size that is told, and the kernel writes at most `size` bytes at
    // `value`, which is borrowed for the length of the call.
    length(unsafe {
        libc::syscall(
            GETXATTRAT,
            dir.as_raw_fd(),
            file.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            name.as_ptr(),
            &raw mut args,
            size_of::<XattrArgs>(),
        )
    })
}

/// Reads the names of all attributes of a file in an open directory, each ended by NUL. Their length in bytes.
///
/// Fails with ENOSYS on kernels before 6.13.
pub fn listxattr_at(dir: BorrowedFd<'_>, file: &CStr, list: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the name ends in NUL, and the kernel writes at most `list.len()` bytes at `list`, which is borrowed for the
    // length of the call.
    length(unsafe {
        libc::syscall(
            LISTXATTRAT,
            dir.as_raw_fd(),
            file.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            list.as_mut_ptr(),
            list.len(),
        )
    })
}

fn length(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The process's umask, as permission bits, without changing it for a moment as umask(2) would: `Umask` of proc_pid_status(5).
/// All bits where that does not tell.
pub fn umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o7777)
}
