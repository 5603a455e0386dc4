//! Mending a dual store after an SDK rewrote it, so that both SDKs read the same again. It touches only what we made, and
//! nothing that an SDK is just writing.

use super::catalog::Entry;
use super::js_lock::{JsLock, age, is_held, take_all};
use super::names;
use super::plan::{self, existing_type};
use super::removal;
use super::scan::Scan;
use super::sdk::{self, Sdk, State};
use super::sidecar::Form;
use super::{Area, FileStat, Layout, Origin, Place, Store, attrs, commit, disk, look, target};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::{python_encode, sidecar_stem};
use crate::record::key::key_fault;
use crate::record::{ContentType, StoreName};
use rustix::fs::FileType;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// So many keys are mended in one look, so that no call waits long.
const AT_ONCE: usize = 256;
/// What looks unfinished is left alone until it is this old.
const UNFINISHED: Duration = Duration::from_secs(2);
/// A value without a sidecar is the JavaScript SDK's, unless the Python SDK is about to write the sidecar: to take it for a
/// record of another key would be for ever. That SDK needs a few milliseconds.
const ALONE: Duration = Duration::from_millis(500);

/// How a look ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repaired {
    /// The directory is not as it was scanned.
    pub(super) changed: bool,
    /// Something is to be mended later.
    pub(super) left: bool,
}

/// Mends what a scan found.
pub(super) fn repair(
    store: &Store,
    state: &mut State,
    scan: &Scan,
    orphans: &[String],
) -> Repaired {
    let Ok(dir) = store.dir(Area::Store) else {
        return Repaired::default();
    };
    let (mut changed, mut left) = (false, false);
    let mut remove = |file: &str, why: &str, meant: &dyn Fn(&FileStat) -> bool| {
        match removal::take_away(store, file, meant) {
            Ok(true) => {
                tracing::debug!("removed {file}: {why}");
                changed = true;
            }
            // Somebody has put another one there.
            Ok(false) => left = true,
            Err(error) => tracing::warn!("cannot remove {file}, though {why}: {error}"),
        }
    };
    for (link, inode) in &scan.dangling {
        let meant = |stat: &FileStat| stat.inode == *inode;
        let why = "an SDK removed the record behind this link";
        remove(link, why, &meant);
    }
    for (stem, inode) in &scan.lonely {
        let meant = |stat: &FileStat| stat.inode == *inode;
        let why = "an SDK removed the record beside it";
        remove(&target::sidecar_file(stem), why, &meant);
    }
    for file in orphans {
        // With the lock, the JavaScript SDK cannot begin to write what is being removed.
        let Ok(Some(_lock)) = JsLock::take(dir, file) else {
            continue;
        };
        let mark = attrs::text(dir, file, attrs::DUAL).unwrap_or_default();
        let meant = |stat: &FileStat| mark.as_ref() == Some(&sdk::mark(stat));
        remove(file, "the Python SDK removed the record", &meant);
    }
    let settled = disk::stat_open(dir).is_ok_and(|stat| age(stat.modified_ns) > UNFINISHED);
    let inputs: Vec<&str> = store.shared.inputs().collect();
    let broken: Vec<Entry> = state
        .catalog
        .from(0)
        .filter(|entry| match inputs.contains(&&*entry.key) {
            true => is_named_after_file(entry),
            false => {
                let of_one = scan.evidence.dual && is_of_one(entry);
                let later = is_broken(entry, true) || of_one;
                let now = is_broken(entry, settled) || (of_one && is_alone(dir, entry));
                left |= later && !now;
                now
            }
        })
        .filter(|entry| {
            let content_type = entry.content_type.as_ref();
            target::fault(Layout::Dual, &entry.key, content_type, &inputs).is_none()
        })
        .cloned()
        .collect();
    left |= broken.len() > AT_ONCE;
    for entry in broken.iter().take(AT_ONCE) {
        if !is_ours(dir, entry) {
            continue;
        }
        if is_busy(dir, entry, &scan.temporaries) {
            left = true;
            continue;
        }
        let Some(_locks) = lock_out_javascript(dir, entry) else {
            left = true;
            continue;
        };
        changed = true;
        match mend(store, state, entry) {
            Ok(()) => {}
            // An SDK was faster; the next look finds what it left.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Busy) => left = true,
            Err(error) => {
                tracing::warn!("cannot mend {} after an SDK rewrote it: {error}", entry.key)
            }
        }
    }
    Repaired { changed, left }
}

/// Mends what can be mended now. True when the files of every record are as both SDKs need them.
pub(super) fn mended(store: &Store, sdk: &Sdk) -> Result<bool> {
    let (mut mended, told) = {
        let mut state = sdk::fresh(store, sdk)?;
        if state.unmended {
            state.doubt();
            drop(state);
            state = sdk::fresh(store, sdk)?;
        }
        if state.layout() != Layout::Dual || store.shared.options.read_only {
            return Ok(true);
        }
        let sized = |entry: &Entry| {
            let size = entry.beside.as_ref().and_then(|beside| beside.size);
            let size = size.filter(|_| !entry.absent)?;
            Some((entry.key.clone(), look::place(entry), size))
        };
        let told: Vec<_> = state.catalog.from(0).filter_map(sized).collect();
        (!state.unmended, told)
    };
    for (key, place, size) in told {
        let Ok(stat) = store.stat(&place) else {
            continue;
        };
        if stat.size != size && place.origin == Origin::Record {
            mend_size(store, sdk, (&key, &place), Some(size), &stat);
            mended = false;
        }
    }
    Ok(mended)
}

/// The JavaScript SDK's locks of all values of a key; none when the SDK holds one, or wrote an older value again since the
/// directory was read: that is the newest then.
fn lock_out_javascript<'a>(dir: BorrowedFd<'a>, entry: &Entry) -> Option<Vec<JsLock<'a>>> {
    let locks = take_all(dir, entry).ok()??;
    let newest = disk::stat(dir, &entry.file()).ok()?.modified_ns;
    let is_older =
        |value: &str| disk::stat(dir, value).is_ok_and(|stat| stat.modified_ns <= newest);
    let values = entry.values();
    values.iter().all(|value| is_older(value)).then_some(locks)
}

/// Whether an input's sidecar has the file's name for its key: the Python SDK's way, which gives the JavaScript SDK a
/// second record.
fn is_named_after_file(entry: &Entry) -> bool {
    let file = entry.file();
    let python = entry
        .beside
        .as_ref()
        .is_some_and(|beside| beside.form == Form::Python);
    python && names::split(&file).1.is_some() && entry.stem().is_some_and(|stem| stem == file)
}

/// Whether a record in a store of ours is one that one SDK made and the other cannot see.
fn is_of_one(entry: &Entry) -> bool {
    if entry.link || entry.absent || key_fault(entry.key.as_bytes()).is_some() {
        return false;
    }
    let file = entry.file();
    match &entry.beside {
        None => names::split(&file).1.is_some(),
        Some(beside) => beside.form == Form::Python && *file == *python_encode(&entry.key),
    }
}

/// Whether no sidecar of its value is about to come: Python never writes into a file that was ours.
fn is_alone(dir: BorrowedFd<'_>, entry: &Entry) -> bool {
    let file = entry.file();
    entry.beside.is_some()
        || matches!(attrs::text(dir, &file, attrs::DUAL), Ok(Some(_)))
        || disk::stat(dir, &file).is_ok_and(|stat| age(stat.changed_ns) > ALONE)
}

/// Whether the files of a key are not as both SDKs need them, by an SDK's hand on what was ours.
fn is_broken(entry: &Entry, settled: bool) -> bool {
    let Some(beside) = &entry.beside else {
        return false;
    };
    if key_fault(entry.key.as_bytes()).is_some() {
        return false;
    }
    let superseded = !entry.extras().is_empty();
    let reduced = entry.link && beside.form != Form::Ours;
    let unlinked = settled && !entry.link && beside.form == Form::Ours && !entry.outdated;
    (superseded && (entry.outdated || entry.absent || !entry.link)) || reduced || unlinked
}

/// Whether a value of this key was written by us: then both SDKs read it, and an older value that one of them left is as
/// superseded as ours. Of keys that we never wrote everything stays.
fn is_ours(dir: BorrowedFd<'_>, entry: &Entry) -> bool {
    let marked = |file: &str| matches!(attrs::text(dir, file, attrs::DUAL), Ok(Some(_)));
    let mut older = entry
        .extras()
        .iter()
        .filter(|extra| sidecar_stem(extra).is_none())
        .peekable();
    older.peek().is_none() || older.any(|extra| marked(extra)) || marked(&entry.file())
}

/// Whether an SDK is in the middle of writing this key.
fn is_busy(dir: BorrowedFd<'_>, entry: &Entry, temporaries: &[String]) -> bool {
    let encoded = python_encode(&entry.key);
    let begins = |name: &String| {
        name.strip_prefix(&*encoded)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    if temporaries.iter().any(begins) {
        return true;
    }
    let values = entry.extras().iter().map(|extra| &**extra);
    if values
        .chain([&*entry.file()])
        .any(|file| is_held(dir, file))
    {
        return true;
    }
    disk::stat(dir, &entry.file()).is_ok_and(|value| is_unfinished(dir, entry, &value))
}

/// Whether the Python SDK has written this value but not yet the sidecar, which it writes after it.
fn is_unfinished(dir: BorrowedFd<'_>, entry: &Entry, value: &FileStat) -> bool {
    let beside = entry
        .stem()
        .map(|stem| disk::stat(dir, &target::sidecar_file(&stem)));
    let Some(Ok(beside)) = beside else {
        return false;
    };
    let told = entry.beside.as_ref().and_then(|beside| beside.size);
    let complete = beside.modified_ns >= value.modified_ns && told == Some(value.size);
    !entry.outdated && !complete && age(value.modified_ns) < UNFINISHED
}

/// Gives a key the three files of the dual layout again, around the bytes it has now.
fn mend(store: &Store, state: &mut State, entry: &Entry) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    if entry.absent {
        for extra in entry.extras() {
            disk::remove(dir, extra)
                .map_err(|error| disk::failed("remove the older value", extra, error))?;
        }
        state.catalog.forget_extras(&entry.key);
        return Ok(());
    }
    let file = commit::open_entry(store, state, &entry.key)?;
    // The SDK may have replaced the value since it was looked at: the known type is not that one's.
    let opened = disk::stat_open(&file)
        .map_err(|error| disk::failed("mend the record", &entry.key, error))?;
    if is_unfinished(dir, entry, &opened) {
        let why = "an SDK is writing it";
        return Err(Error::because(
            "mend the record",
            &*entry.key,
            Kind::Busy,
            why,
        ));
    }
    let content_type = match existing_type(store, Layout::Dual, Some(entry))? {
        Some(known) => known,
        None => ContentType::guess(&entry.key, &file)
            .map_err(|error| Error::io("read the record", &*entry.key, error))?,
    };
    let plan = plan::plan(store, state, &entry.key, &content_type)?;
    commit::reshape_as(store, state, &plan, &file)
}

/// Mends a sidecar that tells another size than the file has, once nobody is writing it: the Python SDK lists that size.
pub(super) fn mend_size(
    store: &Store,
    sdk: &Sdk,
    (key, place): (&str, &Place),
    told: Option<u64>,
    stat: &FileStat,
) {
    let differs = told.is_some_and(|told| told != stat.size);
    if !differs || store.shared.options.read_only || age(stat.modified_ns) < UNFINISHED {
        return;
    }
    if place.origin != Origin::Record
        || store
            .dir(Area::Store)
            .is_ok_and(|dir| is_held(dir, &place.file))
    {
        return;
    }
    if let Err(error) = commit::written_in_place(store, sdk, key) {
        tracing::debug!("cannot mend the size that the sidecar of {key} tells: {error}");
    }
}

/// Removes what a store without records still holds: the SDKs' own file, sidecars, links and old temporaries.
pub(super) fn empty_out(store: &Store, sdk: &Sdk) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let absent: Vec<String> = {
        let state = sdk::fresh(store, sdk)?;
        let absent = state.catalog.from(0).filter(|entry| entry.absent);
        absent.map(|entry| entry.file().into_owned()).collect()
    };
    let mut names = Vec::new();
    disk::walk(dir, 0, &mut |entry| {
        let known = || {
            entry.name == names::STORE_FILE
                || sidecar_stem(entry.name).is_some()
                || absent.iter().any(|file| file == entry.name)
                || (names::is_python_temporary(entry.name) && is_old(dir, entry.name))
        };
        let file = entry.kind == FileType::RegularFile;
        if entry.kind == FileType::Symlink || (file && known()) {
            names.push(entry.name.to_owned());
        }
        Ok(true)
    })?;
    for name in names {
        disk::remove(dir, &name)
            .map_err(|error| disk::failed("remove the leftover", &name, error))?;
    }
    Ok(())
}

/// Whether a temporary was left behind rather than is being written.
fn is_old(dir: BorrowedFd<'_>, name: &str) -> bool {
    disk::stat(dir, name).is_ok_and(|stat| age(stat.modified_ns) > Duration::from_secs(60))
}

/// After a rename of the store: the SDKs' own file in it has to say the new name, or the JavaScript SDK would write to
/// the old one.
pub(super) fn tell_name(store: &Store, name: &StoreName) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let Ok(file) = disk::open_file(dir, names::STORE_FILE, false) else {
        return Ok(());
    };
    let failed =
        |error: std::io::Error| Error::io("tell the SDKs the new name of", name.as_str(), error);
    let mut text = String::new();
    file.take(64 * 1024)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&text) else {
        return Ok(());
    };
    fields.insert("name".to_owned(), name.as_str().into());
    let text = serde_json::to_string_pretty(&fields).map_err(|error| failed(error.into()))?;
    let temp = store.shared.temp()?;
    let (temporary, mut file) = temp.file(0o644)?;
    let put = file.write_all(text.as_bytes()).and_then(|()| {
        Ok(disk::rename(
            temp.dir(),
            &temporary,
            dir,
            names::STORE_FILE,
            false,
        )?)
    });
    if put.is_err() {
        let _ = disk::remove(temp.dir(), &temporary);
    }
    put.map_err(failed)
}
