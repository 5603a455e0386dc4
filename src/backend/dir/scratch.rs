//! Scratch files: names that editors use for a moment and no key can have. They are in `.storefs/scratch/<store>/` under
//! their own names and never in the store.

use super::store::{Installed, Source};
use super::{Area, FileStat, Listed, Origin, Place, Store, attrs, cursor, disk};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::record::file_name::{NameKind, classify};
use rustix::fs::{FileType, readlinkat, symlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn place(name: &str) -> Place {
    Place {
        file: name.into(),
        area: Area::Scratch,
        origin: Origin::Scratch,
    }
}

impl Store {
    /// Makes a link under a scratch name.
    pub fn make_link(&self, name: &str, target: &[u8]) -> Result<(Place, FileStat)> {
        symlinkat(OsStr::from_bytes(target), self.dir(Area::Scratch)?, name)
            .map_err(|error| Error::io("symlink", name, error))?;
        find(self, name)
    }

    /// The target of a link.
    pub fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        readlinkat(self.dir(place.area)?, &*place.file, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| Error::io("readlink", &*place.file, error))
    }
}

pub(super) fn may_create(name: &str) -> Result<()> {
    if disk::is_file_name(name) {
        return Ok(());
    }
    let why = "a scratch file's name has at most 255 bytes";
    Err(Error::because(
        "make the file",
        name,
        Kind::NameTooLong,
        why,
    ))
}

pub(super) fn find(store: &Store, name: &str) -> Result<(Place, FileStat)> {
    may_create(name)?;
    let place = place(name);
    let stat = store.stat(&place)?;
    Ok((place, stat))
}

pub(super) fn content_type(store: &Store, name: &str, place: &Place) -> Result<ContentType> {
    if let Some(stored) = stored_type(store, name)? {
        return Ok(stored);
    }
    let file = store.open(place, false)?;
    ContentType::guess(name, &file)
        .map_err(|error| Error::io("read the content type of", name, error))
}

/// The type that was set on it or came with it.
pub(super) fn stored_type(store: &Store, name: &str) -> Result<Option<ContentType>> {
    attrs::text(store.dir(Area::Scratch)?, name, attrs::TYPE)
        .map(|text| text.map(|text| ContentType::stored(&text)))
        .map_err(|error| disk::failed("read the content type of", name, error))
}

pub(super) fn set_content_type(
    store: &Store,
    name: &str,
    to: Option<&ContentType>,
) -> Result<(Place, FileStat)> {
    find(store, name)?;
    let dir = store.dir(Area::Scratch)?;
    let done = match to {
        Some(to) => attrs::set(dir, name, attrs::TYPE, to.as_str()),
        None => attrs::unset(dir, name, attrs::TYPE),
    };
    done.map_err(|error| disk::failed("set the content type of", name, error))?;
    find(store, name)
}

pub(super) fn list(
    store: &Store,
    from: u64,
    each: &mut dyn FnMut(Listed<'_>) -> bool,
) -> Result<()> {
    let dir = match store.found_dir(Area::Scratch) {
        Ok(dir) => dir,
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    disk::walk(dir, from, &mut |entry| {
        let shown = matches!(entry.kind, FileType::RegularFile | FileType::Symlink)
            && classify(entry.name) == NameKind::Scratch;
        Ok(!shown
            || each(Listed {
                name: entry.name,
                file: entry.name,
                area: Area::Scratch,
                origin: Origin::Scratch,
                next: cursor::after_scratch(entry.after),
            }))
    })?;
    Ok(())
}

pub(super) fn install(
    store: &Store,
    source: Source<'_>,
    name: &str,
    content_type: Option<&ContentType>,
    new: bool,
    inherit: bool,
) -> Result<Installed> {
    may_create(name)?;
    let failed = |error: Errno| disk::failed("write the file", name, error);
    let dir = store.dir(Area::Scratch)?;
    if let Some(old) = disk::stat_if_there(dir, name).map_err(failed)?
        && inherit
        && old.is_file()
    {
        let names = attrs::names(dir, name).map_err(failed)?;
        attrs::inherit(dir, name, &old, &names, source.open)?;
    }
    if let Some(content_type) = content_type {
        store.put_type(source.open, name, content_type)?;
    }
    disk::rename(source.dir, source.file, dir, name, new).map_err(failed)?;
    Ok(Installed {
        place: place(name),
        content_type: content_type.cloned(),
    })
}

pub(super) fn remove(store: &Store, name: &str) -> Result<()> {
    may_create(name)?;
    let dir = store.found_dir(Area::Scratch)?;
    rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty())
        .map_err(|error| disk::failed("remove the file", name, error))
}
