//! What the kernel does between programs and the tree: it keeps names and lookup counts, asks again after ESTALE, and
//! forgets.

mod stores;

use super::operation::{How, NOTE, Name};
use super::run::Way;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use storefs::backend::dir::{Folder, FolderOptions};
use storefs::error::{Error, Kind};
use storefs::fs::{Attr, Caller, Change, Fs, Notice, Options, ROOT, Show};
use storefs::record::StoreName;
use storefs::volume::Local;

type Done<T = ()> = Result<T, Kind>;

/// An open file.
struct Open {
    number: u64,
    ino: u64,
    file: Arc<File>,
}

/// The kernel's side of one mount.
pub struct Kernel {
    fs: Arc<Fs>,
    sender: Sender<Notice>,
    notices: Receiver<Notice>,
    shared_files: bool,
    stores: BTreeMap<&'static str, u64>,
    names: BTreeMap<Name, u64>,
    counts: HashMap<u64, u64>,
    retired: HashSet<u64>,
    open: BTreeMap<u64, Open>,
}

fn kind(error: &Error) -> Kind {
    // To a program both are ENOENT.
    if error.kind() == Kind::StoreNotFound {
        Kind::NotFound
    } else {
        error.kind()
    }
}

fn caller(pid: u32) -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid,
        ..Caller::default()
    }
}

impl Kernel {
    /// Mounts a folder. With `shared_files` the kernel itself reads and writes the files.
    pub fn mount(folder: &Path, way: Way) -> Self {
        let options = FolderOptions {
            layout: Some(way.layout),
            read_only: false,
            input_keys: vec!["INPUT".to_owned()],
        };
        let source = folder.display().to_string();
        let folder = Folder::open(folder, options).unwrap();
        let options = Options {
            show: Show::default(),
            default_store: StoreName::new("default").unwrap(),
            stores: Vec::new(),
            input_key: "INPUT".to_owned(),
            ttl: None,
            shared_files: way.shared_files,
            parked: 8,
            source,
        };
        let fs = Fs::new(Arc::new(Local::new(folder, false)), options);
        let (sender, given) = channel();
        let (pass_on, notices) = channel();
        fs.send_notices_to(sender.clone());
        // Ends with the tree and this.
        std::thread::spawn(move || {
            for notice in given {
                match notice {
                    // Dropped, it is answered.
                    Notice::Barrier(_) => {}
                    Notice::Entry { .. } | Notice::Attributes(_) | Notice::Contents(_) => {
                        let _ = pass_on.send(notice);
                    }
                }
            }
        });
        if way.watches {
            fs.watch();
        }
        Self {
            fs,
            sender,
            notices,
            shared_files: way.shared_files,
            stores: BTreeMap::new(),
            names: BTreeMap::new(),
            counts: HashMap::new(),
            retired: HashSet::new(),
            open: BTreeMap::new(),
        }
    }

    /// What the tree told to drop is dropped.
    pub fn settle(&mut self) {
        let (done, all) = channel();
        let _ = self.sender.send(Notice::Barrier(done));
        let _ = all.recv();
        while let Ok(notice) = self.notices.try_recv() {
            if let Notice::Entry { parent, name } = notice {
                let store = self
                    .stores
                    .iter()
                    .find(|(_, ino)| **ino == parent)
                    .map(|(store, _)| *store);
                self.names
                    .retain(|known, _| Some(known.store) != store || known.key != &*name);
            }
        }
    }

    fn count(&mut self, ino: u64) {
        assert!(!self.retired.contains(&ino), "inode {ino} came back");
        *self.counts.entry(ino).or_default() += 1;
    }

    fn store(&mut self, store: &'static str) -> Done<u64> {
        if let Some(ino) = self.stores.get(store) {
            return Ok(*ino);
        }
        let attr = self.fs.lookup(ROOT, store).wait().map_err(|e| kind(&e))?;
        self.count(attr.ino);
        self.stores.insert(store, attr.ino);
        Ok(attr.ino)
    }

    /// Looks a name up, whatever was known of it.
    pub fn lookup(&mut self, name: Name) -> Done<Attr> {
        self.lookup_by(name, 0)
    }

    fn lookup_by(&mut self, name: Name, thread: u32) -> Done<Attr> {
        let parent = self.store(name.store)?;
        self.names.remove(&name);
        let attr = self
            .fs
            .look_up(parent, name.key, thread)
            .wait()
            .map_err(|e| kind(&e))?;
        self.count(attr.ino);
        if attr.entry_ttl > Duration::ZERO {
            self.names.insert(name, attr.ino);
        }
        Ok(attr)
    }

    fn ino(&mut self, name: Name, thread: u32) -> Done<u64> {
        match self.names.get(&name) {
            Some(ino) => Ok(*ino),
            None => self.lookup_by(name, thread).map(|attr| attr.ino),
        }
    }

    fn keep(&mut self, handle: u64, opened: &storefs::fs::Opened) {
        let (number, file) = (opened.handle, &opened.open.file);
        let open = Open {
            number,
            ino: file.ino,
            file: file.file.clone(),
        };
        self.open.insert(handle, open);
    }

    /// open(2). After ESTALE the name is looked up again, once.
    pub fn open(
        &mut self,
        name: Name,
        how: How,
        mode: u32,
        by: u32,
        blind: bool,
        handle: u64,
    ) -> Done {
        let flags = flags(how);
        let creates = flags & libc::O_CREAT != 0;
        let parent = self.store(name.store)?;
        let mut blind = blind && creates;
        for _ in 0..2 {
            let known = if blind {
                Err(Kind::NotFound)
            } else {
                self.ino(name, by)
            };
            let opened = match known {
                Ok(_) if flags & libc::O_EXCL != 0 => return Err(Kind::Exists),
                Ok(ino) => self.fs.open(ino, flags & !libc::O_CREAT, caller(by)).wait(),
                Err(Kind::NotFound) if creates => {
                    let made = self
                        .fs
                        .create(parent, name.key, mode, flags, caller(by))
                        .wait();
                    made.map(|(attr, opened)| {
                        self.count(attr.ino);
                        self.names.insert(name, attr.ino);
                        opened
                    })
                }
                Err(why) => return Err(why),
            };
            match opened {
                Ok(opened) => {
                    self.keep(handle, &opened);
                    return Ok(());
                }
                Err(why) if why.kind() == Kind::Stale => {
                    self.names.remove(&name);
                    blind = false;
                }
                Err(why) => return Err(kind(&why)),
            }
        }
        panic!("{name:?} is stale after it was looked up again");
    }

    /// All bytes of an open file.
    pub fn read(&self, handle: u64) -> Vec<u8> {
        let open = &self.open[&handle];
        let mut bytes = vec![0; 4096];
        let count = match self.shared_files {
            true => open.file.read_at(&mut bytes, 0).unwrap(),
            false => self.fs.read(open.number, 0, &mut bytes).unwrap(),
        };
        bytes.truncate(count);
        bytes
    }

    pub fn write(&self, handle: u64, at: u64, bytes: &[u8], append: bool) {
        let open = &self.open[&handle];
        let end = || open.file.metadata().unwrap().len();
        match self.shared_files {
            true => open
                .file
                .write_all_at(bytes, if append { end() } else { at })
                .unwrap(),
            false => self.fs.write(open.number, at, bytes).unwrap(),
        }
    }

    fn change(&mut self, ino: u64, change: Change, handle: Option<u64>) -> Done {
        self.fs
            .setattr(ino, change, handle, caller(1))
            .wait()
            .map(drop)
            .map_err(|e| kind(&e))
    }

    pub fn truncate(&mut self, handle: u64, size: u64) -> Done {
        let (number, ino) = (self.open[&handle].number, self.open[&handle].ino);
        let change = Change {
            size: Some(size),
            ..Change::default()
        };
        self.change(ino, change, Some(number))
    }

    pub fn set(&mut self, name: Name, change: Change) -> Done {
        let ino = self.ino(name, 0)?;
        self.change(ino, change, None)
    }

    pub fn flush(&self, handle: u64, by: u32) -> Done {
        self.fs
            .flush(self.open[&handle].number, by)
            .wait()
            .map_err(|e| kind(&e))
    }

    pub fn release(&mut self, handle: u64) {
        let open = self.open.remove(&handle).unwrap();
        self.fs.release(open.number);
    }

    pub fn fsync(&self, handle: u64) -> Done {
        self.fs
            .fsync(self.open[&handle].number, false)
            .wait()
            .map_err(|e| kind(&e))
    }

    pub fn unlink(&mut self, name: Name) -> Done {
        let parent = self.store(name.store)?;
        self.ino(name, 0)?;
        self.fs
            .unlink(parent, name.key)
            .wait()
            .map_err(|e| kind(&e))?;
        self.names.remove(&name);
        Ok(())
    }

    pub fn rename(&mut self, from: Name, to: Name, no_replace: bool) -> Done {
        let parents = (self.store(from.store)?, self.store(to.store)?);
        let ino = self.ino(from, 0)?;
        let _ = self.ino(to, 0);
        if from == to {
            return if no_replace {
                Err(Kind::Exists)
            } else {
                Ok(())
            };
        }
        let flags = if no_replace {
            libc::RENAME_NOREPLACE
        } else {
            0
        };
        let done = self
            .fs
            .rename((parents.0, from.key), (parents.1, to.key), flags)
            .wait();
        done.map_err(|e| kind(&e))?;
        self.names.remove(&from);
        self.names.insert(to, ino);
        Ok(())
    }

    pub fn get_xattr(&mut self, name: Name, attribute: &str) -> Done<String> {
        let ino = self.ino(name, 0)?;
        let value = self
            .fs
            .getxattr(ino, attribute)
            .wait()
            .map_err(|e| kind(&e))?;
        Ok(String::from_utf8(value).unwrap())
    }

    /// The listed attributes, without those that every record has.
    pub fn has_note(&mut self, name: Name) -> Done<bool> {
        let ino = self.ino(name, 0)?;
        let list = self.fs.listxattr(ino).wait().map_err(|e| kind(&e))?;
        let names: Vec<_> = list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .collect();
        assert!(names.contains(&&b"user.mime_type"[..]), "{name:?}");
        Ok(names.contains(&NOTE.as_bytes()))
    }

    pub fn set_xattr(&mut self, name: Name, attribute: &str, to: Option<&str>) -> Done {
        let ino = self.ino(name, 0)?;
        let done = match to {
            Some(to) => self.fs.setxattr(ino, attribute, to.as_bytes(), 0),
            None => self.fs.removexattr(ino, attribute),
        };
        done.wait().map_err(|e| kind(&e))
    }

    /// Whether a name is in the kernel's cache.
    pub fn has(&self, name: Name) -> bool {
        self.names.contains_key(&name)
    }

    /// A name leaves the kernel's cache, and with it every inode that nothing leads to any more.
    pub fn forget(&mut self, name: Name) {
        self.names.remove(&name);
        let held: HashSet<u64> = self
            .names
            .values()
            .chain(self.stores.values())
            .copied()
            .collect();
        let open: HashSet<u64> = self.open.values().map(|open| open.ino).collect();
        let unused: Vec<u64> = self
            .counts
            .keys()
            .copied()
            .filter(|ino| !held.contains(ino) && !open.contains(ino))
            .collect();
        for ino in unused {
            if let Some(count) = self.counts.remove(&ino) {
                self.fs.forget(ino, count);
                self.retired.insert(ino);
            }
        }
    }
}

fn flags(how: How) -> i32 {
    match how {
        How::Read => libc::O_RDONLY,
        How::Edit => libc::O_RDWR,
        How::Append => libc::O_WRONLY | libc::O_APPEND,
        How::Truncate => libc::O_RDWR | libc::O_TRUNC,
        How::Save => libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
        How::Create => libc::O_RDWR | libc::O_CREAT,
        How::CreateRead => libc::O_RDONLY | libc::O_CREAT,
        How::Log => libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND,
        How::New => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
    }
}
