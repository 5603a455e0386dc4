//! The hidden `.storefs` directory: files that show what the mount does. Nothing can be changed through it.

use super::handle::{Handle, OpenFile, Writing, lock};
use super::{Attr, CONTROL, Caller, FileKind, Fs, Opened};
use crate::error::{Error, Kind, Result};
use crate::volume::Now;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const STATUS: u64 = super::inode::CONTROL_FILES;
const METRICS: u64 = STATUS + 1;
const QUEUE: u64 = STATUS + 2;
const INPUT: u64 = STATUS + 3;
const FILES: [(&str, u64); 4] = [
    ("status", STATUS),
    ("metrics", METRICS),
    ("queue", QUEUE),
    ("INPUT", INPUT),
];

/// What the tree counts.
#[derive(Debug)]
pub struct Counters {
    commits: AtomicU64,
    failed: AtomicU64,
    requests: [AtomicU64; REQUESTS.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commits: AtomicU64::default(),
            failed: AtomicU64::default(),
            requests: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

/// The kernel's requests, as it calls them.
const REQUESTS: [&str; 35] = [
    "lookup",
    "forget",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "open",
    "create",
    "read",
    "write",
    "flush",
    "release",
    "fsync",
    "fsyncdir",
    "opendir",
    "releasedir",
    "readdir",
    "readdirplus",
    "statfs",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "access",
    "fallocate",
    "lseek",
    "copy_file_range",
    "ioctl",
    "other",
];

impl Counters {
    /// Counts a request of the kernel.
    pub fn request(&self, name: &str) {
        let index = REQUESTS
            .iter()
            .position(|known| *known == name)
            .unwrap_or(REQUESTS.len() - 1);
        self.requests[index].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each request came.
    fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REQUESTS
            .iter()
            .zip(&self.requests)
            .map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }

    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed_commit(&self, _error: &Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the inode is the control directory or in it.
pub(super) fn is_control(ino: u64) -> bool {
    ino == CONTROL || FILES.iter().any(|(_, file)| *file == ino)
}

/// The files of the control directory. The original INPUT is there only when the tree shows another one in its place.
pub(super) fn files(input_key: &str) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let both = input_key != "INPUT";
    FILES
        .into_iter()
        .filter(move |(_, ino)| both || *ino != INPUT)
}

impl Fs {
    pub(super) fn lookup_control(self: &Arc<Self>, name: &str) -> Now<Attr> {
        match files(&self.input_key()).find(|(file, _)| *file == name) {
            Some((_, ino)) => self.control_attr(ino).into(),
            None => Now::err(Error::new("look up", name, Kind::NotFound)),
        }
    }

    pub(super) fn control_attr(&self, ino: u64) -> Result<Attr> {
        if ino == INPUT {
            let stat = self.volume.known(&self.options.default_store, "INPUT")?;
            let mut attr = self.options.show.attr(ino, &stat);
            attr.mode &= 0o444;
            return Ok(attr);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let directory = ino == CONTROL;
        Ok(Attr {
            ino,
            // The text is made when it is opened; its length is not known before.
            size: 0,
            blocks: 0,
            kind: if directory {
                FileKind::Directory
            } else {
                FileKind::Regular
            },
            mode: if directory { 0o555 } else { 0o444 },
            links: if directory { 2 } else { 1 },
            uid: self
                .options
                .show
                .uid
                .unwrap_or(rustix::process::getuid().as_raw()),
            gid: self
                .options
                .show
                .gid
                .unwrap_or(rustix::process::getgid().as_raw()),
            accessed_ns: now,
            modified_ns: now,
            changed_ns: now,
            ttl: Duration::ZERO,
            entry_ttl: Duration::ZERO,
        })
    }

    pub(super) fn open_control(self: &Arc<Self>, ino: u64, caller: Caller) -> Now<Opened> {
        if ino != INPUT {
            let text = match ino {
                STATUS => format!("{:#}\n", self.status()),
                METRICS => self.metrics(),
                _ => self.volume.queue(),
            };
            return self.hand_out_text(ino, text.into_bytes(), caller).into();
        }
        let this = self.clone();
        self.volume
            .open(&self.options.default_store, "INPUT", false, true)
            .and_then(move |opened| {
                let whole = match &opened.reader {
                    Some(reader) => reader.ensure(0..u64::MAX),
                    None => Now::ok(()),
                };
                whole.then(move |()| {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut &*opened.file, &mut bytes)
                        .map_err(|e| Error::io("read", "INPUT", e))?;
                    this.hand_out_text(ino, bytes, caller)
                })
            })
    }

    fn hand_out_text(&self, ino: u64, text: Vec<u8>, caller: Caller) -> Result<Opened> {
        let nothing = File::open("/dev/null").map_err(|e| Error::io("open", "/dev/null", e))?;
        let file = OpenFile::new(ino, Arc::new(nothing), false, Writing::default());
        let number = self.handles.add(Handle {
            file,
            writer: false,
            append: None,
            direct: false,
            beside: false,
            durable: false,
            at_end: false,
            told_failure: AtomicBool::new(false),
            opener: caller.pid,
            text: Some(text.into()),
            resized: false,
            tag: None,
            kept: false,
        });
        Ok(Opened {
            handle: number,
            open: self.handle(number)?,
        })
    }

    /// What the mount is and does, as JSON.
    pub fn status(&self) -> serde_json::Value {
        let refusals: Vec<_> = lock(&self.refusals)
            .iter()
            .map(|refusal| {
                let at = refusal.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                serde_json::json!({
                    "name": refusal.name,
                    "why": refusal.why,
                    "at": humantime::format_rfc3339_seconds(UNIX_EPOCH + at).to_string(),
                })
            })
            .collect();
        let inodes = lock(&self.table).len();
        serde_json::json!({
            "source": self.options.source,
            "backend": self.volume.status(),
            "defaultStore": self.options.default_store.as_str(),
            "inputKey": &*self.input_key(),
            "watching": self.watching_status(),
            "inodes": inodes,
            "handles": self.handles.len(),
            "commits": self.counters.commits.load(Ordering::Relaxed),
            "failedCommits": self.counters.failed.load(Ordering::Relaxed),
            "pending": self.volume.pending(),
            "requests": self.counters.requests().collect::<std::collections::BTreeMap<_, _>>(),
            "refused": refusals,
        })
    }

    /// The counters in the text format of Prometheus.
    fn metrics(&self) -> String {
        let inodes = lock(&self.table).len();
        let commits = self.counters.commits.load(Ordering::Relaxed);
        let failed = self.counters.failed.load(Ordering::Relaxed);
        let handles = self.handles.len();
        format!(
            "# TYPE storefs_inodes gauge\nstorefs_inodes {inodes}\n\
             # TYPE storefs_handles gauge\nstorefs_handles {handles}\n\
             # TYPE storefs_commits_total counter\nstorefs_commits_total {commits}\n\
             # TYPE storefs_failed_commits_total counter\nstorefs_failed_commits_total {failed}\n"
        )
    }
}
