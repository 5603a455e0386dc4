//! Removing the files of records. What a mend takes away by `take_away` is not removed when somebody else has put another file there.

use super::catalog::Entry;
use super::plan::Plan;
use super::sdk::{self, Sdk, Writing};
use super::{Area, FileStat, Layout, Store, disk, target};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::python_encode;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Removes what the key had and no longer has. The record is written; what cannot be removed is only left over.
pub(super) fn clean_up(dir: BorrowedFd<'_>, old: &Entry, plan: &Plan) {
    let target = &plan.target;
    let sidecar = target
        .sidecar
        .as_ref()
        .map(|(stem, _)| target::sidecar_file(stem));
    for file in files_of(old) {
        let kept = file == target.value
            || Some(&file) == sidecar.as_ref()
            || Some(&file) == target.link.as_ref();
        if !kept && let Err(error) = disk::remove(dir, &file) {
            tracing::warn!(
                "cannot remove {file}, which {} does not need any more: {error}",
                plan.key
            );
        }
    }
}

/// All files of a key, in the order in which they are removed.
fn files_of(entry: &Entry) -> Vec<String> {
    let mut files = Vec::with_capacity(3);
    if entry.link {
        files.push(python_encode(&entry.key));
    }
    files.extend(entry.stem().map(|stem| target::sidecar_file(&stem)));
    files.push(entry.file().into_owned());
    files.extend(entry.extras().iter().map(ToString::to_string));
    files
}

/// Removes a record; with `only` just when its file is this inode.
pub(super) fn remove(store: &Store, sdk: &Sdk, key: &str, only: Option<u64>) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let writing = Writing::wait(store)?;
    let mut state = sdk::fresh(store, sdk)?;
    if state
        .catalog
        .owner(key, key)
        .is_some_and(|owner| owner.is_superseded(key))
    {
        return Err(super::store::foreign("remove the record", key));
    }
    let entry = state
        .catalog
        .get(key)
        .filter(|entry| !entry.absent)
        .cloned();
    let entry = entry.ok_or_else(|| Error::new("remove the record", key, Kind::NotFound))?;
    let failed = |error: Errno| disk::failed("remove the record", key, error);
    if let Some(only) = only
        && let Some(stat) = disk::stat_if_there(dir, &entry.file()).map_err(failed)?
        && stat.inode != only
    {
        return Ok(());
    }
    let mut files = files_of(&entry);
    if state.layout() == Layout::Python {
        // As the Python SDK does it: without its value a sidecar is nothing to it.
        files.sort_by_key(|file| *file != entry.file());
    }
    for file in files {
        if let Err(error) = disk::remove(dir, &file) {
            state.doubt();
            return Err(failed(error));
        }
    }
    state.catalog.remove(key);
    state.stamp(dir);
    drop(writing);
    Ok(())
}

/// Removes a file if it is the one that was meant: it is asked under another name, where nobody can replace it. True
/// when it is gone.
pub(super) fn take_away(
    store: &Store,
    file: &str,
    meant: &dyn Fn(&FileStat) -> bool,
) -> Result<bool> {
    let dir = store.dir(Area::Store)?;
    let temp = store.shared.temp()?;
    let failed = |error: Errno| disk::failed("remove", file, error);
    if !disk::stat_if_there(dir, file)
        .map_err(failed)?
        .is_some_and(|stat| meant(&stat))
    {
        return Ok(false);
    }
    let name = temp.name();
    match disk::rename(dir, file, temp.dir(), &name, true) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(failed(error)),
    }
    let gone = disk::stat(temp.dir(), &name).is_ok_and(|stat| meant(&stat));
    if !gone {
        match disk::rename(temp.dir(), &name, dir, file, true) {
            // Newer still: then this one was replaced.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    disk::remove(temp.dir(), &name).map_err(failed)?;
    Ok(gone)
}
