//! The plain layout: a record's file has the key as its name, and its type is the attribute `user.mime_type`. The type is
//! stored only where the name does not say it. Nothing is kept in memory.

use super::store::{Installed, Source};
use super::{Area, FileStat, Listed, Origin, Place, Store, attrs, cursor, disk, store};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::record::file_name::{encode_foreign, is_plain_long, plain_encode};
use crate::record::key::key_fault;
use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;
use std::borrow::Cow;
use std::fs::File;
use std::os::fd::BorrowedFd;

fn place(file: &str, origin: Origin) -> Place {
    Place {
        file: file.into(),
        area: Area::Store,
        origin,
    }
}

pub(super) fn find(store: &Store, key: &str) -> Result<(Place, FileStat)> {
    let place = place(&plain_encode(key), Origin::Record);
    let stat = store.stat(&place)?;
    Ok((place, stat))
}

/// A record's open file, what fstat says of it and its type: all three of one version, whoever replaces it meanwhile.
pub(super) fn fetch(store: &Store, key: &str) -> Result<(File, FileStat, ContentType)> {
    let dir = store.dir(Area::Store)?;
    let failed = |error: Errno| match error {
        // What is no file is no record.
        Errno::ISDIR => Error::new("open", key, Kind::NotFound),
        error => disk::failed("open", key, error),
    };
    let (file, stat) = disk::open_with_stat(dir, &plain_encode(key)).map_err(failed)?;
    let stored = attrs::text_of(&file, attrs::TYPE)
        .map_err(|error| disk::failed("read the content type of", key, error))?;
    let content_type = match stored {
        Some(stored) => ContentType::stored(&stored),
        None => ContentType::guess(key, &file)
            .map_err(|error| Error::io("read the content type of", key, error))?,
    };
    Ok((file, stat, content_type))
}

/// A file whose name is no key, by its listed spelling.
pub(super) fn find_foreign(store: &Store, name: &str, file: &str) -> Result<(Place, FileStat)> {
    if !disk::is_file_name(file) {
        return Err(Error::new("find the file", name, Kind::NotFound));
    }
    let place = place(file, Origin::Foreign);
    let stat = store.stat(&place)?;
    Ok((place, stat))
}

/// The key whose file name is a shortened one needs an attribute beside it.
pub(super) fn may_create(store: &Store, key: &str) -> Result<()> {
    let file = plain_encode(key);
    if file != key && !store.shared.has_attributes() {
        return Err(too_long(key));
    }
    store::refuse_link(store.dir(Area::Store)?, &file)
}

/// The type that is stored; `None` leaves it to the name and the bytes.
fn stored_type(dir: BorrowedFd<'_>, file: &str) -> Result<Option<ContentType>> {
    attrs::text(dir, file, attrs::TYPE)
        .map(|text| text.map(|text| ContentType::stored(&text)))
        .map_err(|error| disk::failed("read the content type of", file, error))
}

pub(super) fn content_type(store: &Store, name: &str, place: &Place) -> Result<ContentType> {
    if let Some(stored) = stored_type(store.dir(place.area)?, &place.file)? {
        return Ok(stored);
    }
    if let Some(named) = ContentType::guess_from_name(name) {
        return Ok(named);
    }
    let file = store.open(place, false)?;
    ContentType::guess_from_bytes(&file)
        .map_err(|error| Error::io("read the content type of", name, error))
}

pub(super) fn set_content_type(
    store: &Store,
    key: &str,
    to: Option<&ContentType>,
) -> Result<(Place, FileStat)> {
    let (place, _) = find(store, key)?;
    let dir = store.dir(Area::Store)?;
    let named = ContentType::guess_from_name(key);
    let done = match to {
        Some(to) if named.as_ref() != Some(to) => {
            attrs::set(dir, &place.file, attrs::TYPE, to.as_str())
        }
        _ => attrs::unset(dir, &place.file, attrs::TYPE),
    };
    done.map_err(|error| disk::failed("set the content type of", key, error))?;
    let stat = store.stat(&place)?;
    Ok((place, stat))
}

/// Lists from a position of the directory. False when `each` wanted no more.
pub(super) fn list(
    store: &Store,
    from: u64,
    each: &mut dyn FnMut(Listed<'_>) -> bool,
) -> Result<bool> {
    let dir = store.dir(Area::Store)?;
    disk::walk(dir, from, &mut |entry| {
        if entry.kind != FileType::RegularFile {
            return Ok(true);
        }
        let (name, origin) = match key_fault(entry.name.as_bytes()) {
            None => (Cow::Borrowed(entry.name), Origin::Record),
            Some(_) => {
                let (name, origin) = shown(dir, entry.name);
                (Cow::Owned(name), origin)
            }
        };
        Ok(each(Listed {
            name: &name,
            file: entry.name,
            area: Area::Store,
            origin,
            next: cursor::after_record(entry.after),
        }))
    })
}

/// How a file whose name is no key is shown: by the key it stands for, or percent-encoded.
fn shown(dir: BorrowedFd<'_>, file: &str) -> (String, Origin) {
    if is_plain_long(file)
        && let Ok(Some(key)) = attrs::text(dir, file, attrs::KEY)
        && key_fault(key.as_bytes()).is_none()
        && plain_encode(&key) == file
    {
        return (key, Origin::Record);
    }
    (encode_foreign(file), Origin::Foreign)
}

pub(super) fn install(
    store: &Store,
    source: Source<'_>,
    key: &str,
    content_type: Option<&ContentType>,
    new: bool,
    inherit: bool,
) -> Result<Installed> {
    let dir = store.dir(Area::Store)?;
    let file = plain_encode(key);
    let failed = |error: Errno| disk::failed("write the record", key, error);
    // With `new` the rename itself asks whether there is one.
    let old = match new {
        true => None,
        false => disk::stat_if_there(dir, &file).map_err(failed)?,
    };
    let named = ContentType::guess_from_name(key);
    let mut existing = None;
    if let Some(old) = old {
        replaceable(key, &old)?;
        let names = attrs::names(dir, &file).map_err(failed)?;
        if content_type.is_none() && names.has(attrs::TYPE) {
            existing = stored_type(dir, &file)?;
        }
        if inherit {
            attrs::inherit(dir, &file, &old, &names, source.open)?;
        }
    }
    // Whether the bytes contradict the type or not, a type that the name says is what comes out.
    let decided = match (content_type, existing) {
        (Some(explicit), _) => explicit.clone(),
        (None, Some(existing)) if named.as_ref() == Some(&existing) => existing,
        (None, existing) => ContentType::decide(None, existing.as_ref(), key, source.open)
            .map_err(|error| Error::io("read the draft of", key, error))?,
    };
    if named.as_ref() != Some(&decided) {
        store.put_type(source.open, key, &decided)?;
    }
    Ok(Installed {
        place: rename(store, source, key, new)?,
        content_type: Some(decided),
    })
}

/// The last step of a commit: the file gets its name.
fn rename(store: &Store, source: Source<'_>, key: &str, new: bool) -> Result<Place> {
    let file = plain_encode(key);
    let failed = |error: Errno| disk::failed("write the record", key, error);
    if file != key {
        rustix::fs::fsetxattr(source.open, attrs::KEY, key.as_bytes(), XattrFlags::empty())
            .map_err(|error| match attrs::unsupported(error) {
                true => too_long(key),
                false => failed(error),
            })?;
    }
    let dir = store.dir(Area::Store)?;
    disk::rename(source.dir, source.file, dir, &file, new).map_err(failed)?;
    Ok(place(&file, Origin::Record))
}

/// Where there are no attributes a shortened file name could not be told from any other.
fn too_long(key: &str) -> Error {
    let why = "this file system keeps no user.* attributes, and without them a key has at most 255 characters here";
    Error::because("write the record", key, Kind::NameTooLong, why)
}

/// Whether what has this name now is a record, which may be replaced.
fn replaceable(key: &str, old: &FileStat) -> Result<()> {
    if old.is_file() {
        return Ok(());
    }
    let (kind, why) = if old.file_type() == FileType::Directory {
        (Kind::IsADirectory, "a directory has this name")
    } else {
        (Kind::Exists, "something that is no record has this name")
    };
    Err(Error::because("write the record", key, kind, why))
}

pub(super) fn written_in_place(store: &Store, key: &str) -> Result<(Place, FileStat)> {
    let (place, stat) = find(store, key)?;
    let dir = store.dir(Area::Store)?;
    if let Some(stored) = stored_type(dir, &place.file)? {
        let file = store.open(&place, false)?;
        let unread = |error| Error::io("read the record", key, error);
        if stored.contradicts(&file).map_err(unread)? {
            let guess = ContentType::guess(key, &file).map_err(unread)?;
            return set_content_type(store, key, Some(&guess));
        }
    }
    Ok((place, stat))
}

pub(super) fn remove(store: &Store, key: &str) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let file = plain_encode(key);
    rustix::fs::unlinkat(dir, &*file, rustix::fs::AtFlags::empty()).map_err(|error| match error {
        // A directory is no record, and was never shown.
        Errno::ISDIR => Error::new("remove the record", key, Kind::NotFound),
        error => disk::failed("remove the record", key, error),
    })
}

/// Renames within or between plain stores. The type goes with the file, or is written down when the new name would say
/// another one.
pub(super) fn move_record(
    from: (&Store, &str, &Place),
    to_store: &Store,
    to: &str,
    no_replace: bool,
) -> Result<Place> {
    let (store, key, at) = from;
    let failed = |error: Errno| disk::failed("rename the record", key, error);
    let dir = store.dir(Area::Store)?;
    let target_dir = to_store.dir(Area::Store)?;
    let file = plain_encode(to);
    if ContentType::guess_from_name(key) != ContentType::guess_from_name(to)
        && stored_type(dir, &at.file)?.is_none()
    {
        let content_type = content_type(store, key, at)?;
        match attrs::set(dir, &at.file, attrs::TYPE, content_type.as_str()) {
            Err(error) if attrs::unsupported(error) => store.shared.warn_of_attributes(),
            other => other.map_err(failed)?,
        }
    }
    if file != to {
        attrs::set(dir, &at.file, attrs::KEY, to).map_err(|error| {
            match attrs::unsupported(error) {
                true => too_long(to),
                false => failed(error),
            }
        })?;
    }
    if !no_replace && let Some(old) = disk::stat_if_there(target_dir, &file).map_err(failed)? {
        replaceable(to, &old)?;
    }
    disk::rename(dir, &at.file, target_dir, &file, no_replace).map_err(failed)?;
    Ok(place(&file, Origin::Record))
}

/// The names of files as they are listed.
pub(super) fn refresh(store: &Store, files: &[&str]) -> Result<Vec<String>> {
    let dir = store.dir(Area::Store)?;
    Ok(files
        .iter()
        .filter(|file| disk::is_file_name(file))
        .map(|file| match key_fault(file.as_bytes()) {
            None => (*file).to_owned(),
            Some(_) => shown(dir, file).0,
        })
        .collect())
}
