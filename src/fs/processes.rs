//! Which processes still have a file, as /proc tells it. It is asked only when a file that was written is closed.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// So deep children are looked for; shells nest a few.
const GENERATIONS: u32 = 4;

/// The process of a thread; `None` when it is gone.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim()
        .parse()
        .ok()
}

/// Whether two threads belong to one process.
pub(super) fn same(one: u32, other: u32) -> bool {
    one == other || process_of(one).is_some_and(|process| process_of(other) == Some(process))
}

/// A record, as the paths of descriptors show it.
pub(super) struct Trace<'a> {
    /// How the path ends, wherever a process sees the mount.
    pub(super) end: &'a str,
    /// The folder below: a daemon or an SDK that has the file open there does not have the mount's.
    pub(super) source: &'a str,
}

impl Trace<'_> {
    fn is(&self, path: &[u8]) -> bool {
        // The kernel says so of a name that leads to a newer draft by now.
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let below = path.strip_prefix(self.source.as_bytes());
        path.ends_with(self.end.as_bytes()) && below.is_none_or(|rest| !rest.starts_with(b"/"))
    }
}

/// The descriptors of the record that a process has. One that cannot be looked into is taken to have none.
fn descriptors(process: u32, trace: &Trace<'_>) -> impl Iterator<Item = OsString> {
    let found = fs::read_dir(format!("/proc/{process}/fd"));
    let all = found.into_iter().flatten().flatten();
    let of_it = all.filter(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|path| trace.is(path.as_os_str().as_encoded_bytes()))
    });
    of_it.map(|descriptor| descriptor.file_name())
}

/// Whether a process has the record open.
pub(super) fn has_open(process: u32, trace: &Trace<'_>) -> bool {
    descriptors(process, trace).next().is_some()
}

/// Whether a process has it open for writing.
pub(super) fn holds(process: u32, trace: &Trace<'_>) -> bool {
    descriptors(process, trace).any(|descriptor| may_write(process, &descriptor))
}

/// Whether a descriptor is open for writing: one that only reads is none of those that finish a file.
fn may_write(process: u32, descriptor: &OsStr) -> bool {
    let path = Path::new("/proc")
        .join(process.to_string())
        .join("fdinfo")
        .join(descriptor);
    let text = fs::read_to_string(path).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// Whether a child of the process, or a child of that, has one.
pub(super) fn a_child_holds(process: u32, trace: &Trace<'_>) -> bool {
    descendant_holds(process, trace, GENERATIONS)
}

fn descendant_holds(process: u32, trace: &Trace<'_>, generations: u32) -> bool {
    children(process).into_iter().any(|child| {
        holds(child, trace) || (generations > 1 && descendant_holds(child, trace, generations - 1))
    })
}

/// The list of a thread's children.
struct Children {
    thread: u32,
    file: File,
    opened: Instant,
}

/// For so long a list is read again without being opened again. No other thread can have the number by then: Linux hands the
/// numbers out in turn, and there are at least 32,768 (pid_max in proc_sys_kernel(5)).
const REREAD: Duration = Duration::from_millis(2);

thread_local! {
    static CHILDREN: RefCell<Option<Children>> = const { RefCell::new(None) };
}

/// The children of one thread: the thread that opened a file is the one that forks for it in a shell.
fn children(thread: u32) -> Vec<u32> {
    let mut list = [0; 512];
    // Few programs that write a file have any, so this is one short read.
    let read = CHILDREN.with_borrow_mut(|last| {
        if let Some(last) = last
            && last.thread == thread
            && last.opened.elapsed() < REREAD
        {
            return last.file.read_at(&mut list, 0);
        }
        let file = File::open(format!("/proc/{thread}/task/{thread}/children"))?;
        let opened = Instant::now();
        let count = file.read_at(&mut list, 0)?;
        *last = Some(Children {
            thread,
            file,
            opened,
        });
        Ok(count)
    });
    let text = std::str::from_utf8(&list[..read.unwrap_or(0)]).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
