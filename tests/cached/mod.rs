//! A tree over a cached volume over a faulty backend in memory, without a kernel: what programs do, in a line each.
// Each test program that takes this module in uses its own part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storefs::backend::faulty::{Faulty, Verb};
use storefs::backend::memory::Memory;
use storefs::backend::{Backend, NewStore};
use storefs::error::{Error, Kind};
use storefs::fs::{Attr, Caller, Change, Fs, ROOT, Show};
use storefs::record::key::StoreId;
use storefs::record::{Body, ContentType, Key, Meta, Precondition, RecordId, StoreName};
use storefs::volume::cached::{self, Cached};
use storefs::volume::{Now, Volume};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The backend that most tests stand on.
pub type Behind = Arc<Faulty<Memory>>;

/// Folders, a backend with the store `default`, and a runtime.
pub struct World {
    pub behind: Behind,
    pub store: StoreId,
    pub runtime: Arc<Runtime>,
    temp: TempDir,
}

/// Quick in everything, so that tests are.
pub fn options() -> cached::Options {
    cached::Options {
        debounce: Duration::from_millis(20),
        ttl: Duration::from_millis(50),
        host: "box".to_owned(),
        young: Duration::from_secs(30),
        parting: Duration::from_millis(300),
        look_patience: Duration::from_millis(500),
        patience: Duration::from_secs(2),
        backoff: Duration::from_millis(5),
        offline_pause: Duration::from_millis(50),
        ..cached::Options::default()
    }
}

impl World {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let behind = Arc::new(Faulty::new(Memory::new()));
        let new = NewStore::named(StoreName::new("default").unwrap());
        let (info, _) = runtime.block_on(behind.inner().create_store(new)).unwrap();
        Self {
            behind,
            store: info.id,
            runtime: Arc::new(runtime),
            temp: tempfile::tempdir().unwrap(),
        }
    }

    pub fn mount(&self) -> Mount {
        self.mount_with("one", options())
    }

    /// A mount with folders of its own.
    pub fn mount_with(&self, folders: &str, options: cached::Options) -> Mount {
        self.mount_over(self.behind.clone(), folders, options)
    }

    pub fn mount_over(
        &self,
        backend: Arc<dyn Backend>,
        folders: &str,
        options: cached::Options,
    ) -> Mount {
        let volume = self.try_mount(backend, folders, options).unwrap();
        let volume = Arc::new(volume);
        let fs = Fs::new(volume.clone(), tree_options());
        let runtime = self.runtime.clone();
        Mount {
            fs,
            volume,
            runtime,
        }
    }

    /// Another process may need a moment to give the folders up.
    pub fn try_mount(
        &self,
        backend: Arc<dyn Backend>,
        folders: &str,
        options: cached::Options,
    ) -> Result<Cached, Error> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let handle = self.runtime.handle().clone();
            let (cache, spool) = (self.cache(folders), self.spool(folders));
            match Cached::open(backend.clone(), &cache, &spool, options.clone(), handle) {
                Err(e) if e.kind() == Kind::Busy && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    pub fn spool(&self, folders: &str) -> PathBuf {
        self.temp.path().join(folders).join("spool")
    }

    pub fn cache(&self, folders: &str) -> PathBuf {
        self.temp.path().join(folders).join("cache")
    }

    pub fn id(&self, key: &str) -> RecordId {
        RecordId {
            store: self.store.clone(),
            key: Key::new(key).unwrap(),
        }
    }

    /// Somebody else writes.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Meta {
        self.put_as(key, bytes, "text/plain; charset=utf-8")
    }

    pub fn put_as(&self, key: &str, bytes: &[u8], content_type: &str) -> Meta {
        let content_type = ContentType::stored(content_type);
        let (id, body) = (self.id(key), Body::from(bytes));
        let put = self
            .behind
            .inner()
            .put(&id, body, &content_type, Precondition::None);
        self.runtime.block_on(put).unwrap()
    }

    pub fn delete(&self, key: &str) {
        let id = self.id(key);
        let delete = self.behind.inner().delete(&id, Precondition::None);
        self.runtime.block_on(delete).unwrap();
    }

    /// What the backend has.
    pub fn there(&self, key: &str) -> Option<Vec<u8>> {
        let id = self.id(key);
        let fetched = self
            .runtime
            .block_on(self.behind.inner().get(&id, None))
            .ok()?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut { fetched.bytes }, &mut bytes).unwrap();
        Some(bytes)
    }

    pub fn type_there(&self, key: &str) -> String {
        let meta = self
            .runtime
            .block_on(self.behind.inner().head(&self.id(key)))
            .unwrap();
        meta.content_type.unwrap().as_str().to_owned()
    }

    pub fn keys_there(&self) -> Vec<String> {
        let query = storefs::backend::ListQuery::default();
        let page = self
            .runtime
            .block_on(self.behind.inner().list(&self.store, query))
            .unwrap();
        page.records
            .iter()
            .map(|(key, _)| key.as_str().to_owned())
            .collect()
    }

    pub fn count(&self, verb: Verb) -> usize {
        self.behind.count(verb)
    }
}

pub fn tree_options() -> storefs::fs::Options {
    storefs::fs::Options {
        show: Show::default(),
        default_store: StoreName::new("default").unwrap(),
        stores: Vec::new(),
        input_key: "INPUT".to_owned(),
        ttl: None,
        shared_files: false,
        parked: 0,
        source: "memory:".to_owned(),
    }
}

pub fn me() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

pub fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: me(),
    }
}

pub type Done<T = ()> = Result<T, Kind>;

pub fn kinds<T>(result: Result<T, Error>) -> Done<T> {
    result.map_err(|e| e.kind())
}

/// A mounted tree.
pub struct Mount {
    pub fs: Arc<Fs>,
    pub volume: Arc<Cached>,
    runtime: Arc<Runtime>,
}

impl Mount {
    /// Waits as the kernel's door does.
    pub fn wait<T: Send + 'static>(&self, now: Now<T>) -> Done<T> {
        kinds(self.runtime.block_on(now.into_wait()))
    }

    pub fn dir(&self, store: &str) -> Done<u64> {
        Ok(self.wait(self.fs.lookup(ROOT, store))?.ino)
    }

    pub fn look(&self, name: &str) -> Done<Attr> {
        let dir = self.dir("default")?;
        self.wait(self.fs.lookup(dir, name))
    }

    pub fn exists(&self, name: &str) -> bool {
        match self.look(name) {
            Ok(_) => true,
            Err(Kind::NotFound) => false,
            Err(other) => panic!("{name}: {other:?}"),
        }
    }

    /// open(2). After ESTALE the name is looked up again.
    pub fn open(&self, name: &str, flags: i32) -> Done<u64> {
        for _ in 0..4 {
            let known = self.look(name);
            let opened = match known {
                Ok(_) if flags & libc::O_EXCL != 0 => return Err(Kind::Exists),
                Ok(attr) => self.wait(self.fs.open(attr.ino, flags & !libc::O_CREAT, caller())),
                Err(Kind::NotFound) if flags & libc::O_CREAT != 0 => {
                    let dir = self.dir("default")?;
                    let made = self.fs.create(dir, name, 0o644, flags, caller());
                    self.wait(made).map(|(_, opened)| opened)
                }
                Err(e) => return Err(e),
            };
            match opened {
                Err(Kind::Stale) => {}
                other => return other.map(|opened| opened.handle),
            }
        }
        Err(Kind::Stale)
    }

    pub fn read_at(&self, handle: u64, offset: u64, length: usize) -> Done<Vec<u8>> {
        self.wait(self.fs.prepare_read(handle, offset, length as u64))?;
        let mut buffer = vec![0; length];
        let count = kinds(self.fs.read(handle, offset, &mut buffer))?;
        buffer.truncate(count);
        Ok(buffer)
    }

    pub fn write_at(&self, handle: u64, offset: u64, bytes: &[u8]) -> Done {
        self.wait(self.fs.prepare_write(handle, offset, bytes.len() as u64))?;
        kinds(self.fs.write(handle, offset, bytes))
    }

    pub fn flush(&self, handle: u64) -> Done {
        self.wait(self.fs.flush(handle, me()))
    }

    /// close(2): its result is that of the flush.
    pub fn close(&self, handle: u64) -> Done {
        let flushed = self.flush(handle);
        self.fs.release(handle);
        flushed
    }

    /// All that an open file has.
    pub fn read_all(&self, handle: u64) -> Done<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let piece = self.read_at(handle, all.len() as u64, 128 << 10)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
        }
    }

    /// cat
    pub fn read(&self, name: &str) -> Done<Vec<u8>> {
        let handle = self.open(name, libc::O_RDONLY)?;
        let read = self.read_all(handle);
        self.close(handle)?;
        read
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name).unwrap()).unwrap()
    }

    fn write_with(&self, name: &str, bytes: &[u8], flags: i32) -> Done {
        let handle = self.open(name, flags)?;
        let written = self.write_at(handle, 0, bytes);
        self.close(handle).and(written)
    }

    /// echo > name
    pub fn write(&self, name: &str, bytes: &[u8]) -> Done {
        self.write_with(name, bytes, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
    }

    /// echo >> name
    pub fn append(&self, name: &str, bytes: &[u8]) -> Done {
        self.write_with(name, bytes, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND)
    }

    pub fn remove(&self, name: &str) -> Done {
        self.look(name)?;
        let dir = self.dir("default")?;
        self.wait(self.fs.unlink(dir, name))
    }

    pub fn rename(&self, from: &str, to: &str) -> Done {
        self.look(from)?;
        let _ = self.look(to);
        let dir = self.dir("default")?;
        self.wait(self.fs.rename((dir, from), (dir, to), 0))
    }

    pub fn list(&self) -> Done<Vec<String>> {
        self.list_of("default")
    }

    pub fn list_of(&self, store: &str) -> Done<Vec<String>> {
        let dir = self.dir(store)?;
        self.wait(self.fs.opendir(dir))?;
        let mut names = Vec::new();
        kinds(self.fs.readdir(dir, 0, true, &mut |entry| {
            names.push(entry.name.to_owned());
            true
        }))?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    pub fn set(&self, name: &str, change: Change) -> Done<Attr> {
        let attr = self.look(name)?;
        self.wait(self.fs.setattr(attr.ino, change, None, caller()))
    }

    pub fn attribute(&self, name: &str, attribute: &str) -> Done<String> {
        let attr = self.look(name)?;
        let value = self.wait(self.fs.getxattr(attr.ino, attribute))?;
        Ok(String::from_utf8(value).unwrap())
    }

    pub fn set_type(&self, name: &str, to: &str) -> Done {
        let attr = self.look(name)?;
        self.wait(
            self.fs
                .setxattr(attr.ino, "user.mime_type", to.as_bytes(), 0),
        )
    }

    pub fn fsync(&self, name: &str) -> Done {
        let handle = self.open(name, libc::O_WRONLY)?;
        let synced = self.wait(self.fs.fsync(handle, false));
        self.fs.release(handle);
        synced
    }

    /// storefs sync
    pub fn sync(&self) -> Done {
        self.wait(self.volume.sync(None))
    }

    pub fn pending(&self) -> usize {
        self.volume.pending()
    }

    /// As a process that is killed: nothing is finished.
    pub fn kill(self) {
        let Self { fs, volume, .. } = self;
        drop(fs);
        drop(volume);
    }
}

/// Waits until something holds; panics when it never does.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The names in a folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
