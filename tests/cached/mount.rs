//! What programs do on a mounted tree, in a line each.

use super::{Done, caller, kinds, me};
use std::sync::Arc;
use storefs::error::Kind;
use storefs::fs::{Attr, Change, Fs, ROOT};
use storefs::volume::cached::Cached;
use storefs::volume::{Now, Volume};
use tokio::runtime::Runtime;

/// A mounted tree.
pub struct Mount {
    pub fs: Arc<Fs>,
    pub volume: Arc<Cached>,
    pub runtime: Arc<Runtime>,
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
        self.wait(self.fs.look_up(dir, name, me()).not_found_if_illegal())
    }

    pub fn exists(&self, name: &str) -> bool {
        match self.look(name) {
            Ok(_) => true,
            Err(Kind::NotFound) => false,
            Err(other) => panic!("{name}: {other:?}"),
        }
    }

    /// open(2). After ESTALE the name is looked up again, once.
    pub fn open(&self, name: &str, flags: i32) -> Done<u64> {
        for _ in 0..2 {
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

    pub fn volume_status(&self) -> serde_json::Value {
        self.volume.status()
    }

    pub fn queue(&self) -> String {
        self.volume.queue()
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
