//! The content type of a file whose name changes. When it lost that while it was open, another one may have the name by now,
//! which must not be told or given the type that is meant for this.

use super::Fs;
use super::handle::lock;
use super::inode::Spot;
use super::xattr::MIME_TYPE;
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{Body, ContentType};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

impl Fs {
    /// The file of an inode to which no name leads, and for which no record is going to be made.
    pub(super) fn nameless(&self, ino: u64) -> Option<Arc<File>> {
        let table = lock(&self.table);
        let inode = table.get(ino)?;
        let is_nameless = !inode.linked && !inode.drafting && !inode.superseded;
        let open = inode.open.as_ref().filter(|_| is_nameless)?;
        Some(open.file.clone())
    }

    /// The type that is kept with the file itself, else what the name that it had and its bytes say.
    pub(super) fn nameless_type(&self, file: Arc<File>, key: &str) -> Result<ContentType> {
        if self.volume.has_descriptors()
            && let Ok(Some(kept)) = xattr::get_deref(path(&file), MIME_TYPE)
            && let Ok(kept) = ContentType::parse(&kept)
        {
            return Ok(kept);
        }
        ContentType::guess(key, &Body::File(file)).map_err(|e| Error::io("read", key, e))
    }

    /// Keeps a type with the file itself, or with `None` takes it away.
    pub(super) fn set_nameless_type(
        &self,
        file: &File,
        key: &str,
        to: Option<&ContentType>,
    ) -> Result<()> {
        if !self.volume.has_descriptors() {
            let why = "it was replaced or removed since it was opened";
            return Err(Error::because("set the type of", key, Kind::Stale, why));
        }
        let done = match to {
            Some(to) => xattr::set_deref(path(file), MIME_TYPE, to.as_str().as_bytes()),
            None => xattr::remove_deref(path(file), MIME_TYPE),
        };
        match done {
            Err(e) if to.is_none() && e.raw_os_error() == Some(libc::ENODATA) => Ok(()),
            done => done.map_err(|e| Error::io("set the type of", key, e)),
        }
    }

    /// The type that a new name says, where the old one said none and the bytes do not contradict it.
    pub(super) fn type_of_new_name(&self, from: &Spot, to: &str) -> Option<ContentType> {
        let said = ContentType::guess_from_name(to).filter(|_| !is_scratch(to))?;
        if ContentType::guess_from_name(&from.name).is_some() {
            return None;
        }
        let opened = self.volume.open(&from.store, &from.name, false, true);
        let contradicted = said.contradicts(&*opened.wait().ok()?.file).ok()?;
        (!contradicted).then_some(said)
    }

    /// Gives a record the type that it is to keep, unless its bytes contradict that.
    pub(super) fn keep_type(&self, target: &Spot, kept: &ContentType) -> Result<()> {
        let opened = self
            .volume
            .open(&target.store, &target.name, false, true)
            .wait()?;
        let decided = ContentType::decide(None, Some(kept), &target.name, &*opened.file)
            .map_err(|e| Error::io("read", &*target.name, e))?;
        let now = self
            .volume
            .content_type(&target.store, &target.name)
            .wait()?;
        if now == decided {
            return Ok(());
        }
        self.volume
            .set_content_type(&target.store, &target.name, Some(&decided))
            .wait()
    }
}

fn path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
