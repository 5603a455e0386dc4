//! Stores in the SDKs' layouts: what is known of one, kept true by looking at its directory's times before every use.
//! It never holds a record's bytes.

use super::catalog::{Catalog, Entry};
use super::js_lock::{age, is_held};
use super::scan::{self, Found};
use super::shared::Shared;
use super::{Area, FileStat, Layout, Listed, Origin, Place, Store, attrs, disk, layout, target};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::record::content_type::{BINARY, TEXT};
use crate::record::file_name::{encode_foreign, sidecar_stem};
use crate::record::key::key_fault;
use crate::record::types_table::content_type_of_extension;
use rustix::fs::FlockOperation;
use std::borrow::Cow;
use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A look at a directory that changed this short a time before is looked at once more: times of the file system are
/// coarse, and a change by somebody else may hide beside one of ours.
const SETTLED: Duration = Duration::from_secs(1);
/// How many names are copied out for a listing at a time.
const BATCH: usize = 256;
/// How long an open waits for an SDK that is just writing the file.
const TORN: Duration = Duration::from_millis(200);

/// What is known of a store.
#[derive(Debug, Default)]
pub(super) struct Sdk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) catalog: Catalog,
    pub(super) layout: Option<Layout>,
    stamp: Option<Stamp>,
    /// Names that changed by somebody else's hand and were not told yet.
    changed: HashSet<String>,
}

/// The directory's times at the last look.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    modified_ns: i64,
    changed_ns: i64,
    taken: Instant,
    settled: bool,
}

impl Stamp {
    fn of(stat: &FileStat) -> Self {
        Self {
            modified_ns: stat.modified_ns,
            changed_ns: stat.changed_ns,
            taken: Instant::now(),
            settled: age(stat.modified_ns.max(stat.changed_ns)) > SETTLED,
        }
    }

    fn holds(&self, stat: &FileStat) -> bool {
        self.modified_ns == stat.modified_ns
            && self.changed_ns == stat.changed_ns
            && (self.settled || self.taken.elapsed() < SETTLED)
    }
}

impl State {
    /// The layout, once the store was read.
    pub(super) fn layout(&self) -> Layout {
        self.layout.unwrap_or(Layout::Dual)
    }

    /// After a write of our own: the directory as it is now is what the catalog says.
    pub(super) fn stamp(&mut self, dir: BorrowedFd<'_>) {
        self.stamp = disk::stat_open(dir).ok().map(|stat| Stamp::of(&stat));
    }

    /// Makes the next use read the directory again.
    pub(super) fn doubt(&mut self) {
        self.stamp = None;
    }
}

/// Held while a store is changed, so that two daemons do not mend or write one record at a time. The SDKs know nothing
/// of it.
pub(super) struct Writing<'a> {
    dir: BorrowedFd<'a>,
    held: bool,
}

impl<'a> Writing<'a> {
    /// Waits up to about a second and goes on all the same: somebody who holds it for ever must not stop the mount.
    pub(super) fn wait(dir: BorrowedFd<'a>) -> Self {
        for _ in 0..200 {
            let writing = Self::now(dir);
            if writing.held {
                return writing;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        tracing::warn!("somebody holds the lock of a store's directory; going on without it");
        Self { dir, held: false }
    }

    fn now(dir: BorrowedFd<'a>) -> Self {
        let held = rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok();
        Self { dir, held }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.held {
            let _ = rustix::fs::flock(self.dir, FlockOperation::Unlock);
        }
    }
}

impl Sdk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Whether this key is the run's input in some SDK's eyes.
    pub(super) fn is_input(&self, key: &str) -> bool {
        self.inputs().any(|input| input == key)
    }

    /// The keys that are inputs.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &str> {
        let named = self.options.input_keys.iter().map(String::as_str);
        std::iter::once("INPUT").chain(named)
    }
}

/// What is known of the store, as true as it was a moment ago.
pub(super) fn fresh<'a>(store: &'a Store, sdk: &'a Sdk) -> Result<MutexGuard<'a, State>> {
    let mut state = sdk.lock();
    let dir = store.dir(Area::Store)?;
    let stat =
        disk::stat_open(dir).map_err(|error| disk::failed("look at the store", "", error))?;
    if !state.stamp.is_some_and(|stamp| stamp.holds(&stat)) {
        read(store, &mut state, &stat)?;
    }
    Ok(state)
}

/// Reads the directory, and mends what an SDK left of a dual store.
fn read(store: &Store, state: &mut State, stat: &FileStat) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let first = state.layout.is_none();
    let is_input = |key: &str| store.shared.is_input(key.split('.').next().unwrap_or(key));
    let mut found = scan::read(
        dir,
        &|stem, inode| state.catalog.known(stem, inode),
        &is_input,
    )?;
    if state.layout.is_none() || found.found.is_empty() {
        state.layout = Some(with_links(
            store,
            layout::decide(&store.shared, dir, found.evidence),
        ));
    }
    let mut orphans = Vec::new();
    if state.layout() == Layout::Dual {
        found.found.retain(|found| {
            let orphan = is_orphan(dir, found);
            if orphan {
                orphans.push(found.value.clone());
            }
            !orphan
        });
    }
    let changed = state.catalog.replace(std::mem::take(&mut found.found));
    if !first {
        state
            .changed
            .extend(changed.iter().map(|key| shown(key).into_owned()));
    }
    state.stamp = Some(Stamp::of(stat));
    if state.layout() == Layout::Dual && !store.shared.options.read_only {
        let writing = Writing::now(dir);
        if writing.held && super::repair::repair(store, state, &found, &orphans) {
            drop(writing);
            state.stamp(dir);
        }
    }
    Ok(())
}

/// Dual only where there can be links.
fn with_links(store: &Store, layout: Layout) -> Layout {
    if layout == Layout::Dual && !store.shared.has_links() {
        return Layout::Js;
    }
    layout
}

/// Whether this is a value of ours that the Python SDK removed: it takes its link and its sidecar and knows nothing of
/// the file behind. One that was written since is somebody's record.
fn is_orphan(dir: BorrowedFd<'_>, found: &Found) -> bool {
    if found.sidecar.is_some() || found.link || !found.extras.is_empty() {
        return false;
    }
    let (Ok(Some(mark)), Ok(stat)) = (
        attrs::text(dir, &found.value, attrs::DUAL),
        disk::stat(dir, &found.value),
    ) else {
        return false;
    };
    mark == self::mark(&stat) && !is_held(dir, &found.value)
}

/// What marks a value file of a dual store: the version that its link and sidecar were made for.
pub(super) fn mark(stat: &FileStat) -> String {
    format!("{:x}-{:x}", stat.size, stat.modified_ns)
}

/// A key as it is listed.
pub(super) fn shown(key: &str) -> Cow<'_, str> {
    match key_fault(key.as_bytes()) {
        None => Cow::Borrowed(key),
        Some(_) => Cow::Owned(encode_foreign(key)),
    }
}

pub(super) fn place(entry: &Entry) -> Place {
    Place {
        file: entry.file().into(),
        area: Area::Store,
        origin: match key_fault(entry.key.as_bytes()) {
            None => Origin::Record,
            Some(_) => Origin::Foreign,
        },
    }
}

fn missing(name: &str) -> Error {
    Error::new("find the record", name, Kind::NotFound)
}

/// `key` is the decoded name of one that is no key.
pub(super) fn find(store: &Store, sdk: &Sdk, key: &str) -> Result<(Place, FileStat)> {
    for again in [false, true] {
        let (place, told) = {
            let mut state = fresh(store, sdk)?;
            if again {
                let dir = store.dir(Area::Store)?;
                let stat =
                    disk::stat_open(dir).map_err(|error| disk::failed("find", key, error))?;
                read(store, &mut state, &stat)?;
            }
            look_up(&state, key).ok_or_else(|| missing(key))?
        };
        match store.stat(&place) {
            Ok(stat) => {
                super::repair::mend_size(store, sdk, (key, &place), told, &stat);
                return Ok((place, stat));
            }
            // It went between the look and now.
            Err(error) if error.kind() == Kind::NotFound && !again => {}
            Err(error) => return Err(error),
        }
    }
    Err(missing(key))
}

/// Where the bytes of a name are, and which size its sidecar tells.
fn look_up(state: &State, key: &str) -> Option<(Place, Option<u64>)> {
    if let Some(entry) = state.catalog.get(key) {
        let told = entry.beside.as_ref().and_then(|beside| beside.size);
        return (!entry.absent).then(|| (place(entry), told));
    }
    let owner = state.catalog.owner(key, "")?;
    let named = |origin| {
        let place = Place {
            file: key.into(),
            area: Area::Store,
            origin,
        };
        Some((place, None))
    };
    if owner.extras().iter().any(|extra| **extra == *key) {
        return named(Origin::Foreign).filter(|_| sidecar_stem(key).is_none());
    }
    // The JavaScript SDK's own file name, as a person sees it in the folder.
    let alias = state.layout() == Layout::Js && owner.file() == key && !owner.absent;
    named(Origin::Alias).filter(|_| alias)
}

/// A key's names in a listing: its own, then those of older values of it. Each has a position of its own.
const NAMES: u64 = 16;

/// Lists from a position. False when `each` wanted no more.
pub(super) fn list(
    store: &Store,
    sdk: &Sdk,
    after: u64,
    each: &mut dyn FnMut(Listed<'_>) -> bool,
) -> Result<bool> {
    let mut from = after;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        let mut ended = true;
        {
            let state = fresh(store, sdk)?;
            for entry in state.catalog.from(from / NAMES) {
                if batch.len() >= BATCH {
                    ended = false;
                    break;
                }
                let first = entry.seq * NAMES;
                for (at, (name, file, origin)) in (first + 1..).zip(names_of(&state, entry)) {
                    if at > from {
                        batch.push((name, file, origin, at));
                    }
                }
            }
        }
        for (name, file, origin, next) in batch {
            from = next;
            let listed = Listed {
                name: &name,
                file: &file,
                area: Area::Store,
                origin,
                next,
            };
            if !each(listed) {
                return Ok(false);
            }
        }
        if ended {
            return Ok(true);
        }
    }
}

/// The names a key is listed with, their files and what kind of name each is.
fn names_of(state: &State, entry: &Entry) -> Vec<(String, Box<str>, Origin)> {
    let mut names = Vec::with_capacity(1);
    if !entry.absent {
        let place = place(entry);
        names.push((shown(&entry.key).into_owned(), place.file, place.origin));
    }
    for extra in entry.extras() {
        let hidden = sidecar_stem(extra).is_some() || state.catalog.get(extra).is_some();
        if !hidden && names.len() + 1 < NAMES as usize {
            names.push((extra.to_string(), extra.clone(), Origin::Foreign));
        }
    }
    names
}

/// The rule of the store's layout that a new key breaks.
pub(super) fn may_create(store: &Store, sdk: &Sdk, key: &str) -> Result<()> {
    let layout = {
        let state = fresh(store, sdk)?;
        if state.catalog.get(key).is_some_and(|entry| !entry.absent) {
            return Ok(());
        }
        if let Some((place, _)) = look_up(&state, key)
            && place.origin == Origin::Foreign
        {
            return Err(super::store::foreign("make the record", key));
        }
        state.layout()
    };
    let inputs: Vec<&str> = store.shared.inputs().collect();
    let named = ContentType::guess_from_name(key);
    target::may_keep(layout, key, named.as_ref(), &inputs)
}

pub(super) fn content_type(
    store: &Store,
    sdk: &Sdk,
    key: &str,
    place: &Place,
) -> Result<ContentType> {
    let (said, beside) = {
        let state = fresh(store, sdk)?;
        match state
            .catalog
            .get(key)
            .filter(|entry| entry.file() == *place.file)
        {
            Some(entry) => (
                entry.content_type.clone(),
                entry.beside.is_some() && !entry.outdated,
            ),
            // A superseded file or an alias: its own name is all that tells.
            None => (of_file_name(&place.file), false),
        }
    };
    if let Some(said) = said {
        if beside {
            return Ok(said);
        }
        // The extension says all but how the charset was spelt, and that is kept on the file.
        return Ok(super::plan::exact_type(store, &place.file)?.unwrap_or(said));
    }
    let file = store.open(place, false)?;
    of_bytes(key, &file, store.shared.is_input(key))
        .map_err(|error| Error::io("read the content type of", key, error))
}

fn of_file_name(file: &str) -> Option<ContentType> {
    let extension = scan::split(file).1?;
    content_type_of_extension(extension).map(ContentType::stored)
}

/// The type of a file whose name says none: JSON and the like only for an input, else text or not.
fn of_bytes(key: &str, file: &std::fs::File, is_input: bool) -> std::io::Result<ContentType> {
    if is_input {
        return ContentType::guess_from_bytes(file);
    }
    // The JavaScript SDK leaves the extension away when the key is one: `json` holds JSON.
    if let Some(named) = content_type_of_extension(key).map(ContentType::stored)
        && (named.is_json() || named.is_text())
        && !named.contradicts(file)?
    {
        return Ok(named);
    }
    let text = ContentType::stored(TEXT);
    Ok(match text.contradicts(file)? {
        false => text,
        true => ContentType::stored(BINARY),
    })
}

/// Waits a moment while an SDK is writing the file in place, so that no half of it is read.
pub(super) fn wait_for_writer(dir: BorrowedFd<'_>, file: &str) {
    let start = Instant::now();
    while is_held(dir, file) && start.elapsed() < TORN {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Takes in what changed, and tells the names that came, went or changed since the last call.
pub(super) fn refresh(store: &Store, sdk: &Sdk, files: Option<&[&str]>) -> Result<Vec<String>> {
    let dir = store.dir(Area::Store)?;
    let mut names = HashSet::new();
    {
        let mut state = sdk.lock();
        let mut known = files.is_some();
        for file in files.unwrap_or_default() {
            known &= agrees(dir, &state, file, &mut names);
        }
        if !known && state.stamp.is_some() {
            for key in files
                .unwrap_or_default()
                .iter()
                .filter_map(|file| sidecar_stem(file))
            {
                let key = state.catalog.owner(key, "").map(|entry| entry.key.clone());
                if let Some(key) = key {
                    state.catalog.doubt(&key);
                }
            }
            state.doubt();
        }
    }
    let mut state = fresh(store, sdk)?;
    names.extend(state.changed.drain());
    Ok(names.into_iter().collect())
}

/// Whether a file is as the catalog has it. The name of the record whose bytes it holds is added.
fn agrees(dir: BorrowedFd<'_>, state: &State, file: &str, names: &mut HashSet<String>) -> bool {
    if file == scan::STORE_FILE || file.ends_with(".lock") || scan::is_python_temporary(file) {
        return true;
    }
    let there = disk::is_file_name(file)
        .then(|| disk::stat(dir, file).ok())
        .flatten();
    if let Some(stem) = sidecar_stem(file) {
        let inode = there.map(|stat| stat.inode);
        let key = crate::record::file_name::python_decode(stem);
        let entry = key.and_then(|key| state.catalog.get(&key));
        let beside = entry.and_then(|entry| entry.beside.as_ref());
        return inode == beside.map(|beside| beside.inode);
    }
    let owner = state.catalog.owner(file, "");
    match (there, owner) {
        (None, None) => true,
        (Some(stat), Some(entry)) if stat.is_file() && entry.file() == file => {
            names.insert(shown(&entry.key).into_owned());
            true
        }
        (Some(stat), Some(entry)) => stat.is_link() && entry.link,
        _ => false,
    }
}
