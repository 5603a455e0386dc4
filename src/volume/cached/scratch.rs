//! Scratch names: files of editors that stay on this machine, beside the spool and as long as they are not removed. Nothing
//! of them ever reaches a backend.

use super::Inner;
use super::spool::{Spooled, private_dir};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::sys;
use crate::volume::{FileStat, Opened, Origin, Stat, Touch};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, Permissions};
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Their folder in the spool.
pub(super) const NAME: &str = "scratch";
/// Where scratch names begin in a listing; records come before.
pub(super) const LISTED_FROM: u64 = 1 << 61;

fn folder(inner: &Inner, dir: &StoreName) -> Result<PathBuf> {
    let index = inner.index();
    let id = index.dirs.get(dir).cloned();
    let id = id.ok_or_else(|| Error::new("find the store", dir.as_str(), Kind::StoreNotFound))?;
    Ok(inner.spool.dir().join(NAME).join(id.as_str()))
}

fn path(inner: &Inner, dir: &StoreName, name: &str) -> Result<PathBuf> {
    Ok(folder(inner, dir)?.join(name))
}

fn failed(op: &'static str, name: &str) -> impl Fn(std::io::Error) -> Error {
    let name = name.to_owned();
    move |e| Error::io(op, name.clone(), e)
}

fn stat_at(path: &Path, name: &str) -> Result<Stat> {
    let found = rustix::fs::lstat(path).map_err(|e| Error::io("stat", name, e))?;
    Ok(Stat {
        file: FileStat::of_disk(&found),
        origin: Origin::Scratch,
    })
}

pub(super) fn stat(inner: &Inner, dir: &StoreName, name: &str) -> Result<Stat> {
    stat_at(&path(inner, dir, name)?, name)
}

/// A writer gets a copy, as of a record: what it writes under the name that the file has when it ends is all there.
pub(super) fn open(inner: &Inner, dir: &StoreName, name: &str, write: bool) -> Result<Opened> {
    let file = File::open(path(inner, dir, name)?).map_err(failed("open", name))?;
    let stat = Stat {
        file: FileStat::of_file(&file)?,
        origin: Origin::Scratch,
    };
    let draft = match write {
        true => Some(inner.copy_of(&file, &stat.file)?),
        false => None,
    };
    let file = match &draft {
        Some(draft) => draft.file.clone(),
        None => Arc::new(file),
    };
    Ok(Opened {
        file,
        stat,
        writable: write,
        draft,
        sealed: false,
        tag: None,
        reader: None,
    })
}

/// Names with where they stand in a listing, in that order.
pub(super) fn list(inner: &Inner, dir: &StoreName) -> Result<Vec<(u64, String, Stat)>> {
    let entries = match fs::read_dir(folder(inner, dir)?) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("list the scratch files of", dir.as_str()))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if let Ok(name) = entry.file_name().into_string()
            && let Ok(stat) = stat_at(&entry.path(), &name)
        {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            found.push((LISTED_FROM + (hasher.finish() >> 4), name, stat));
        }
    }
    found.sort_unstable_by_key(|(next, ..)| *next);
    Ok(found)
}

pub(super) fn commit(
    inner: &Inner,
    draft: &mut Spooled,
    dir: &StoreName,
    name: &str,
) -> Result<Stat> {
    private_dir(&folder(inner, dir)?)?;
    let path = path(inner, dir, name)?;
    draft.rename_to(&path)?;
    stat_at(&path, name)
}

pub(super) fn remove(inner: &Inner, dir: &StoreName, name: &str) -> Result<()> {
    fs::remove_file(path(inner, dir, name)?).map_err(failed("remove", name))
}

pub(super) fn rename(
    inner: &Inner,
    from: (&StoreName, &str),
    to: (&StoreName, &str),
) -> Result<()> {
    private_dir(&folder(inner, to.0)?)?;
    fs::rename(path(inner, from.0, from.1)?, path(inner, to.0, to.1)?)
        .map_err(failed("rename", from.1))
}

/// A record gets a scratch name.
pub(super) fn from_record(
    inner: &Inner,
    bytes: &Path,
    stat: &FileStat,
    to: (&StoreName, &str),
) -> Result<()> {
    private_dir(&folder(inner, to.0)?)?;
    let mut draft = inner.spool.draft(stat.mode & 0o7777, inner.budget.room())?;
    let source = File::open(bytes).map_err(failed("open", to.1))?;
    sys::copy(&source, &draft.file).map_err(failed("copy", to.1))?;
    draft.rename_to(&path(inner, to.0, to.1)?)?;
    let times = Touch {
        modified_ns: Some(stat.modified_ns),
        ..Touch::default()
    };
    touch(inner, to.0, to.1, &times)
}

/// A scratch file becomes a record.
pub(super) fn to_record(
    inner: &Arc<Inner>,
    from: (&StoreName, &str),
    to: (&StoreName, &str),
) -> Result<()> {
    let path = path(inner, from.0, from.1)?;
    let stat = stat_at(&path, from.1)?.file;
    if stat.mode & libc::S_IFMT != libc::S_IFREG {
        let why = "a record is no link";
        return Err(Error::because("rename", from.1, Kind::NotPermitted, why));
    }
    inner.save_file(&path, &stat, to)?;
    fs::remove_file(&path).map_err(failed("rename", from.1))
}

pub(super) fn read_link(inner: &Inner, dir: &StoreName, name: &str) -> Result<Vec<u8>> {
    let target = fs::read_link(path(inner, dir, name)?).map_err(failed("readlink", name))?;
    Ok(target.as_os_str().as_bytes().to_vec())
}

pub(super) fn create_link(
    inner: &Inner,
    dir: &StoreName,
    name: &str,
    target: &[u8],
) -> Result<Stat> {
    private_dir(&folder(inner, dir)?)?;
    let path = path(inner, dir, name)?;
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &path)
        .map_err(failed("symlink", name))?;
    stat_at(&path, name)
}

pub(super) fn touch(inner: &Inner, dir: &StoreName, name: &str, touch: &Touch) -> Result<()> {
    let path = path(inner, dir, name)?;
    if let Some(mode) = touch.mode {
        fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))
            .map_err(failed("chmod", name))?;
    }
    if touch.accessed_ns.is_some() || touch.modified_ns.is_some() {
        let times = Timestamps {
            last_access: timespec(touch.accessed_ns),
            last_modification: timespec(touch.modified_ns),
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::io("set the times of", name, e))?;
    }
    Ok(())
}

pub(super) fn timespec(ns: Option<i64>) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    match ns {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(ns) => Timespec {
            tv_sec: ns.div_euclid(SECOND),
            tv_nsec: ns.rem_euclid(SECOND),
        },
    }
}
