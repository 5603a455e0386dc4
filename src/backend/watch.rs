//! Events of a folder: which files of which store others may have changed, by inotify. It looks at no file itself.

use crate::error::{Error, Result};
use crate::record::StoreName;
use crate::record::file_name::text_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events are gathered for so long before they are handled: a program that writes one record causes several.
const GATHER: Duration = Duration::from_millis(10);
/// So long without an event is a quiet moment.
const QUIET: Duration = Duration::from_millis(100);
/// The longest time until one is made up.
const RESTLESS: Duration = Duration::from_secs(1);
const BUFFER: usize = 64 * 1024;
/// Names that come and go.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);
/// What happens to a store's files, too.
const STORE: WatchFlags = NAMES.union(WatchFlags::MODIFY).union(WatchFlags::ATTRIB);

/// What happened to a file of a directory.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Happened {
    /// The name came, or came to stand for another file.
    pub came: bool,
    /// The name went.
    pub went: bool,
    /// Bytes or attributes changed.
    pub changed: bool,
}

/// What was gathered.
#[derive(Default, Debug)]
pub struct Batch {
    /// Files by store; `None` is the directory of the stores itself.
    pub files: HashMap<Option<StoreName>, HashMap<Box<str>, Happened>>,
    /// Events were lost: anything may have changed.
    pub overflow: bool,
    /// There were no events for a moment after there had been some, or the wait for that was long.
    pub quiet: bool,
}

/// Watches the directory of the stores and those stores that it is told of.
#[derive(Debug)]
pub struct Watcher {
    inner: Arc<Inner>,
    wake: OwnedFd,
    barriers: SyncSender<SyncSender<()>>,
}

#[derive(Debug)]
struct Inner {
    inotify: OwnedFd,
    root: PathBuf,
    watched: Mutex<HashMap<i32, Option<StoreName>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether changes by others cause events here. On file systems shared over a network, or served by another program, those
/// made elsewhere do not.
pub fn can_watch(path: &Path) -> bool {
    // From linux/magic.h and the file systems' own headers.
    const NFS: u64 = 0x6969;
    const SMB: [u64; 3] = [0x517b, 0xff53_4d42, 0xfe53_4d42];
    const FUSE: u64 = 0x6573_5546;
    const NINE_P: u64 = 0x0102_1997;
    const CEPH: u64 = 0x00c3_6400;
    const AFS: [u64; 2] = [0x5346_414f, 0x6b41_4653];
    rustix::fs::statfs(path).is_ok_and(|found| {
        let kind = u64::try_from(found.f_type).unwrap_or(0) & 0xffff_ffff;
        let shared = [NFS, FUSE, NINE_P, CEPH].contains(&kind);
        !shared && !SMB.contains(&kind) && !AFS.contains(&kind)
    })
}

impl Watcher {
    /// Watches a directory of stores. `handle` is called from a thread of the watcher with what was gathered.
    pub fn start(root: &Path, mut handle: impl FnMut(Batch) + Send + 'static) -> Result<Self> {
        let failed = |e| Error::io("watch", root.display().to_string(), e);
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let inner = Arc::new(Inner {
            inotify,
            root: root.to_owned(),
            watched: Mutex::default(),
        });
        inner.add(None)?;
        let (listen, wake) = rustix::pipe::pipe_with(
            rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
        )
        .map_err(failed)?;
        let (barriers, asked) = sync_channel(16);
        let own = inner.clone();
        std::thread::Builder::new()
            .name("storefs-watch".into())
            .spawn(move || run(&own, &listen, &asked, &mut handle))
            .map_err(|e| Error::io("watch", root.display().to_string(), e))?;
        Ok(Self {
            inner,
            wake,
            barriers,
        })
    }

    /// Watches a store; at most once. Fails when watches have run out.
    pub fn add(&self, store: &StoreName) -> Result<()> {
        self.inner.add(Some(store))
    }

    /// Watches a directory, wherever it is and whatever it is called later; its events are told of `store`.
    pub fn add_at(&self, store: &StoreName, dir: BorrowedFd<'_>) -> Result<()> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        self.inner.watch(Some(store), &path, STORE)
    }

    /// Watches a store no longer.
    pub fn remove(&self, store: &StoreName) {
        let mut watched = lock(&self.inner.watched);
        let own = watched
            .iter()
            .filter(|(_, each)| each.as_ref() == Some(store));
        let own: Vec<i32> = own.map(|(watch, _)| *watch).collect();
        for watch in own {
            // It is gone with its directory, or goes now.
            let _ = inotify::remove_watch(&self.inner.inotify, watch);
            watched.remove(&watch);
        }
    }

    /// Waits until every event there was before this call is handled.
    pub fn settle(&self) {
        let (done, wait) = sync_channel(1);
        if self.barriers.send(done).is_ok() {
            // A full pipe wakes as well as one more byte.
            let _ = rustix::io::write(&self.wake, &[0]);
            let _ = wait.recv();
        }
    }
}

impl Inner {
    fn add(&self, store: Option<&StoreName>) -> Result<()> {
        match store {
            Some(name) => {
                let path = self.root.join(name.as_str());
                self.watch(store, &path, STORE | WatchFlags::DONT_FOLLOW)
            }
            None => self.watch(None, &self.root, NAMES),
        }
    }

    fn watch(&self, store: Option<&StoreName>, path: &Path, flags: WatchFlags) -> Result<()> {
        // Taken before the watch is made, so that its first event finds it.
        let mut watched = lock(&self.watched);
        let watch = inotify::add_watch(&self.inotify, path, flags)
            .map_err(|e| Error::io("watch", path.display().to_string(), e))?;
        watched.insert(watch, store.cloned());
        Ok(())
    }
}

/// Gathers events and handles them, until the watcher is dropped.
fn run(
    inner: &Inner,
    listen: &OwnedFd,
    asked: &Receiver<SyncSender<()>>,
    handle: &mut (impl FnMut(Batch) + Send),
) {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); BUFFER];
    // Since when there were events without a quiet moment.
    let mut restless: Option<Instant> = None;
    let quiet = || Batch {
        quiet: true,
        ..Batch::default()
    };
    loop {
        let mut ready = [
            PollFd::new(&inner.inotify, PollFlags::IN),
            PollFd::new(listen, PollFlags::IN),
        ];
        let timeout = restless.map(|_| Timespec {
            tv_sec: 0,
            tv_nsec: QUIET.subsec_nanos().into(),
        });
        if let Err(e) = poll(&mut ready, timeout.as_ref()) {
            if e == rustix::io::Errno::INTR {
                continue;
            }
            tracing::error!("the folder is not watched any more: {e}");
            return;
        }
        if restless.is_some_and(|since| {
            ready.iter().all(|end| end.revents().is_empty()) || since.elapsed() > RESTLESS
        }) {
            restless = None;
            handle(quiet());
            continue;
        }
        let (events, woken) = (ready[0].revents(), ready[1].revents());
        if events.contains(PollFlags::IN) && woken.is_empty() {
            std::thread::sleep(GATHER);
        }
        // Whoever asked before the events are read is answered after they are handled.
        let mut waiting = Vec::new();
        if !woken.is_empty() {
            let mut bytes = [0; 64];
            let _ = rustix::io::read(listen, &mut bytes);
            waiting.extend(asked.try_iter());
        }
        let batch = gather(inner, &mut buffer);
        if batch.overflow || !batch.files.is_empty() {
            restless.get_or_insert_with(Instant::now);
            handle(batch);
        }
        if !waiting.is_empty() {
            restless = None;
            handle(quiet());
        }
        for done in waiting {
            let _ = done.send(());
        }
        if woken.contains(PollFlags::HUP) {
            return;
        }
    }
}

fn gather(inner: &Inner, buffer: &mut [MaybeUninit<u8>]) -> Batch {
    let mut batch = Batch::default();
    let mut reader = inotify::Reader::new(inner.inotify.as_fd(), buffer);
    while let Ok(event) = reader.next() {
        let flags = event.events();
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            batch.overflow = true;
            continue;
        }
        let mut watched = lock(&inner.watched);
        if flags.contains(ReadFlags::IGNORED) {
            watched.remove(&event.wd());
            continue;
        }
        let Some(store) = watched.get(&event.wd()).cloned() else {
            continue;
        };
        drop(watched);
        let Some(name) = event.file_name().map(|name| text_of(name.to_bytes())) else {
            continue;
        };
        let files = batch.files.entry(store).or_default();
        let happened = files.entry((&*name).into()).or_default();
        happened.came |= flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        happened.went |= flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
        happened.changed |= flags.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB);
    }
    batch
}
