//! Stores in the SDKs' layouts: what is known of one, kept true by looking at its directory's times before every use.
//! It never holds a record's bytes.

use super::catalog::Catalog;
use super::js_lock::{age, is_held};
use super::look::shown;
use super::names;
use super::scan::{self, Found};
use super::shared::Shared;
use super::{Area, FileStat, Layout, Store, attrs, disk, layout};
use crate::error::Result;
use crate::record::file_name::sidecar_stem;
use crate::record::now_ns;
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A look at a directory that changed this short a time before is looked at once more: times of the file system are
/// coarse, and a change by somebody else may hide beside one of ours.
const SETTLED: Duration = Duration::from_secs(1);
/// The coarsest times there are: FAT's, in whole seconds and two apart.
const COARSE: Duration = Duration::from_secs(2);
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
    /// Something of a dual store waits for an SDK to be done with it before it is mended.
    pub(super) unmended: bool,
    /// Names that changed by somebody else's hand and were not told yet.
    changed: HashSet<String>,
    /// Whether anybody asks for those names; otherwise they would only pile up.
    asked: bool,
    /// Whether somebody is told of every change of the directory and passes it on.
    watched: bool,
}

/// The directory's times at the last look.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    modified_ns: i64,
    changed_ns: i64,
    taken: Instant,
    settled: bool,
}

/// How old a directory's times must be before another change surely has other ones.
pub(super) fn settling(stat: &FileStat) -> Duration {
    let whole = |ns: i64| ns % 1_000_000_000 == 0;
    match whole(stat.modified_ns) && whole(stat.changed_ns) {
        true => SETTLED + COARSE,
        false => SETTLED,
    }
}

impl Stamp {
    fn of(stat: &FileStat, watched: bool) -> Self {
        Self {
            modified_ns: stat.modified_ns,
            changed_ns: stat.changed_ns,
            taken: Instant::now(),
            settled: watched || age(stat.modified_ns.max(stat.changed_ns)) > settling(stat),
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
        let watched = self.watched;
        let stat = disk::stat_open(dir).ok();
        self.stamp = stat.map(|stat| Stamp::of(&stat, watched));
    }

    /// Makes the next use read the directory again.
    pub(super) fn doubt(&mut self) {
        self.stamp = None;
    }
}

/// Held while a store is changed, so that two daemons do not mend or write one record at a time. The SDKs know nothing
/// of it. Within a process it only counts: there the store's own locks keep order.
pub(super) struct Writing<'a> {
    holders: &'a Mutex<u32>,
    dir: BorrowedFd<'a>,
}

impl<'a> Writing<'a> {
    /// Waits up to about a second and goes on all the same: somebody who holds it for ever must not stop the mount.
    pub(super) fn wait(store: &'a Store) -> Result<Self> {
        for _ in 0..200 {
            if let Some(writing) = Self::now(store)? {
                return Ok(writing);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        tracing::warn!(
            "somebody holds the lock of {}; going on without it",
            store.name()
        );
        let (holders, dir) = (store.holders(), store.dir(Area::Store)?);
        *holders.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Ok(Self { holders, dir })
    }

    /// The same for two stores, in one order everywhere.
    pub(super) fn in_both(one: &'a Store, other: &'a Store) -> Result<(Self, Option<Self>)> {
        if one.id() == other.id() {
            return Ok((Self::wait(one)?, None));
        }
        let (first, second) = match one.id() < other.id() {
            true => (one, other),
            false => (other, one),
        };
        Ok((Self::wait(first)?, Some(Self::wait(second)?)))
    }

    /// None when another process holds it.
    pub(super) fn now(store: &'a Store) -> Result<Option<Self>> {
        let (holders, dir) = (store.holders(), store.dir(Area::Store)?);
        let mut count = holders.lock().unwrap_or_else(PoisonError::into_inner);
        if *count == 0 && rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return Ok(None);
        }
        *count += 1;
        Ok(Some(Self { holders, dir }))
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut count = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= 1;
        if *count == 0 {
            let _ = rustix::fs::flock(self.dir, FlockOperation::Unlock);
        }
    }
}

impl Sdk {
    /// Whether what is known is true now. False also when somebody is just using it.
    pub(super) fn is_fresh(&self, dir: impl AsFd) -> bool {
        let Ok(state) = self.state.try_lock() else {
            return false;
        };
        let stat = disk::stat_open(dir);
        stat.is_ok_and(|stat| state.stamp.is_some_and(|stamp| stamp.holds(&stat)))
    }

    /// Somebody begins or ceases to be told of every change of the directory.
    pub(super) fn watched(&self, watched: bool) {
        let mut state = self.lock();
        state.watched = watched;
        state.doubt();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
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
    let waits = |stamp: Stamp| state.unmended && stamp.taken.elapsed() > SETTLED;
    if !state
        .stamp
        .is_some_and(|stamp| stamp.holds(&stat) && !waits(stamp))
    {
        read(store, &mut state, &stat)?;
    }
    Ok(state)
}

/// Reads the directory, and mends what an SDK left of a dual store.
pub(super) fn read(store: &Store, state: &mut State, stat: &FileStat) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let first = state.layout.is_none();
    let is_input = |key: &str| store.shared.is_input(key);
    let began = now_ns();
    let mut found = scan::read(dir, &state.catalog, &is_input)?;
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
    state.catalog.was_read_at(began);
    if !first && state.asked {
        state
            .changed
            .extend(changed.iter().map(|key| shown(key).into_owned()));
    }
    state.stamp = Some(Stamp::of(stat, state.watched));
    let mends = state.layout() == Layout::Dual && !store.shared.options.read_only;
    state.unmended = mends;
    if mends
        && let Some(_writing) = Writing::now(store)?
        // Another mount may have been in the middle of a write when the directory was read. What looked broken then is not
        // mended: the next use reads again.
        && disk::stat_open(dir).is_ok_and(|now| {
            (now.modified_ns, now.changed_ns) == (stat.modified_ns, stat.changed_ns)
        })
    {
        let repaired = super::repair::repair(store, state, &found, &orphans);
        state.unmended = repaired.left;
        if repaired.changed {
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

/// Waits a moment while an SDK is writing the file in place. True when it had to.
pub(super) fn wait_for_writer(dir: BorrowedFd<'_>, file: &str) -> bool {
    let start = Instant::now();
    let mut waited = false;
    while is_held(dir, file) && start.elapsed() < TORN {
        std::thread::sleep(Duration::from_millis(10));
        waited = true;
    }
    waited
}

/// Takes in what changed, and tells the names that came, went or changed since the last call. Without any file it only
/// begins to remember names for the next.
pub(super) fn refresh(store: &Store, sdk: &Sdk, files: Option<&[&str]>) -> Result<Vec<String>> {
    if files.is_some_and(<[_]>::is_empty) {
        sdk.lock().asked = true;
        return Ok(Vec::new());
    }
    let dir = store.dir(Area::Store)?;
    let mut names = HashSet::new();
    {
        let mut state = sdk.lock();
        if !std::mem::replace(&mut state.asked, true) {
            // Nothing was remembered of a store that was let go of and opened again.
            names.extend(
                files
                    .unwrap_or_default()
                    .iter()
                    .flat_map(|file| may_be(file)),
            );
        }
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

/// The names that records of this file may have.
fn may_be(file: &str) -> Vec<String> {
    let stem = sidecar_stem(file).unwrap_or(file);
    let decoded = crate::record::file_name::python_decode(stem);
    let last = crate::record::file_name::js_decode(stem).map(|(key, _)| key);
    [
        Some(stem),
        Some(names::split(stem).0),
        last,
        decoded.as_deref(),
    ]
    .into_iter()
    .flatten()
    .map(|key| shown(key).into_owned())
    .collect()
}

/// Whether a file is as the catalog has it. The name of the record whose bytes it holds is added.
fn agrees(dir: BorrowedFd<'_>, state: &State, file: &str, names: &mut HashSet<String>) -> bool {
    if file == names::STORE_FILE || file.ends_with(".lock") || names::is_python_temporary(file) {
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
