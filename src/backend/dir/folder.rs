//! A storage folder: which stores there are, and their making, renaming and removal. It never looks into a record.

use super::card::{Identity, identity};
use super::cards::{Cards, Stores};
use super::disk;
use super::js_lock::age;
use super::sdk::settling;
use super::shared::Shared;
use super::temp::Draft;
use super::{FolderOptions, Layout, Store};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where the SDKs keep key-value stores in a storage folder.
const STORES: &str = "key_value_stores";
/// How long a store is not looked for while nothing tells that it was moved.
const STEADY: Duration = Duration::from_secs(1);
/// So many stores are kept open while nobody uses them.
const IDLE: usize = 256;

/// A storage folder: `key_value_stores/` with its stores, `.storefs/` with our temporaries, scratch files and markers.
#[derive(Debug)]
pub struct Folder {
    shared: Arc<Shared>,
    open: Mutex<Open>,
    cards: Cards,
}

/// What is open. The stores' own directory may be replaced while we run, and so may each store.
#[derive(Debug, Default)]
struct Open {
    dir: Option<(u64, Arc<OwnedFd>)>,
    stores: HashMap<StoreName, Arc<Store>>,
    steady: Steady,
}

/// Stores that were seen at their place, and what tells that nothing was moved since: the times at which the root and
/// the stores' own directory last changed, in nanoseconds since 1970.
#[derive(Debug, Default)]
struct Steady {
    seen: Option<([i64; 2], Instant)>,
    stores: HashSet<StoreName>,
}

impl Steady {
    /// A file system that is mounted over a directory changes no times, so the stores are looked for now and then.
    fn holds(&self, times: [i64; 2]) -> bool {
        self.seen
            .is_some_and(|(seen, at)| seen == times && at.elapsed() < STEADY)
    }
}

impl Folder {
    /// Opens a storage folder and makes what is missing of it, unless `read_only`. Removes temporaries that dead
    /// processes of ours left (a folder per process below `.storefs/tmp/`, held by flock).
    pub fn open(root: &Path, options: FolderOptions) -> Result<Arc<Self>> {
        let folder = Self {
            shared: Arc::new(Shared::open(root, options)?),
            open: Mutex::default(),
            cards: Cards::default(),
        };
        match folder.dir(!folder.shared.options.read_only) {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::StoreNotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Arc::new(folder))
    }

    /// The folder that holds the stores.
    pub fn stores_path(&self) -> PathBuf {
        self.shared.path.join(STORES)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn cards(&self) -> &Cards {
        &self.cards
    }

    fn prepare_cards(&self) -> Result<()> {
        self.cards.prepare(&self.shared, || self.stores_and_dir())
    }

    /// The directory of the stores, if there is one.
    pub(super) fn stores_dir(&self) -> Option<Arc<OwnedFd>> {
        self.dir(false).ok()
    }

    /// The stores' names, and the directory they are in.
    pub(super) fn stores_and_dir(&self) -> Result<Stores> {
        Ok(Stores {
            dir: self.stores_dir(),
            names: self.stores()?,
        })
    }

    /// Which directory a store is, and when it was made.
    pub(super) fn identity(&self, name: &StoreName) -> Result<(Identity, u64)> {
        identity(self.dir(false)?.as_fd(), name.as_str())
            .map_err(|error| not_a_store("look at the store", name, error))
    }

    /// The folder's options.
    pub fn options(&self) -> &FolderOptions {
        &self.shared.options
    }

    /// The names of all stores, in no order. The SDKs' own temporary directories are left out, and links.
    pub fn stores(&self) -> Result<Vec<StoreName>> {
        let dir = match self.dir(false) {
            Ok(dir) => dir,
            Err(error) if error.kind() == Kind::StoreNotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        disk::walk(dir.as_fd(), 0, &mut |entry| {
            if entry.kind == FileType::Directory
                && let Ok(name) = StoreName::new(entry.name)
            {
                names.push(name);
            }
            Ok(true)
        })?;
        Ok(names)
    }

    /// One store. The same `Arc` as long as its directory is the same inode; `Kind::StoreNotFound` when there is none.
    /// Costs two looks at open directories, and a stat when one of those changed, when it is open already.
    pub fn store(&self, name: &StoreName) -> Result<Arc<Store>> {
        if let Some(store) = self.still_open(name) {
            return Ok(store);
        }
        let dir = self.dir(false)?;
        let failed = |error: Errno| not_a_store("open the store", name, error);
        let stat = fs::statat(&*dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(failed(Errno::NOTDIR));
        }
        if let Some(store) = self.lock().stores.get(name)
            && store.is((stat.st_dev, stat.st_ino))
        {
            return Ok(store.clone());
        }
        let opened = disk::open_dir(dir.as_fd(), name.as_str()).map_err(failed)?;
        let store = Store::new(self.shared.clone(), name.clone(), opened)?;
        let mut open = self.lock();
        // Somebody else may have opened it meanwhile; there is one `Arc` for one directory.
        if let Some(there) = open.stores.get(name)
            && there.is(store.id())
        {
            return Ok(there.clone());
        }
        if open.stores.len() >= IDLE {
            open.steady = Steady::default();
            open.stores.retain(|_, store| Arc::strong_count(store) > 1);
        }
        let store = Arc::new(store);
        open.steady.stores.remove(name);
        open.stores.insert(name.clone(), store.clone());
        Ok(store)
    }

    /// A store that is open, if its directory is still at its place.
    fn still_open(&self, name: &StoreName) -> Option<Arc<Store>> {
        let (store, dir) = {
            let open = self.lock();
            let dir = open.dir.as_ref().map(|(_, dir)| dir.clone());
            (open.stores.get(name)?.clone(), dir)
        };
        let times = dir.and_then(|dir| self.times(dir.as_fd()));
        if let Some(times) = times {
            let open = self.lock();
            if open.steady.holds(times) && open.steady.stores.contains(name) {
                return open.stores.get(name).cloned();
            }
        }
        let path = format!("{STORES}/{}", name.as_str());
        let root = self.shared.root.as_fd();
        let stat = fs::statat(root, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let there = store.is((stat.st_dev, stat.st_ino));
        if let Some(times) = times.filter(|_| there) {
            let steady = &mut self.lock().steady;
            if !steady.holds(times) {
                *steady = Steady {
                    seen: Some((times, Instant::now())),
                    stores: HashSet::new(),
                };
            }
            steady.stores.insert(name.clone());
        }
        there.then_some(store)
    }

    /// When the root and the directory of the stores last changed; none when that is so short a time ago that another
    /// change may not show.
    fn times(&self, dir: BorrowedFd<'_>) -> Option<[i64; 2]> {
        let time = |dir: BorrowedFd<'_>| {
            let stat = disk::stat_open(dir).ok()?;
            let changed = stat.changed_ns.max(stat.modified_ns);
            (age(changed) > settling(&stat)).then_some(changed)
        };
        Some([time(self.shared.root.as_fd())?, time(dir)?])
    }

    /// Makes a store: mkdir and nothing else in it. `Kind::Exists` when there is one.
    pub fn create_store(&self, name: &StoreName, mode: u32) -> Result<Arc<Store>> {
        self.prepare_cards()?;
        let store = self.make_store(name, mode)?;
        self.cards.forget(&self.shared, name)?;
        Ok(store)
    }

    /// The same without a look at the cards.
    pub(super) fn make_store(&self, name: &StoreName, mode: u32) -> Result<Arc<Store>> {
        self.shared.may_write("make the store")?;
        let dir = self.dir(true)?;
        if !disk::make_dir(dir.as_fd(), name.as_str(), mode)? {
            return Err(Error::new("make the store", name.as_str(), Kind::Exists));
        }
        // What an earlier store of that name left in our directory is not this one's.
        self.shared.forget(name)?;
        if self.shared.options.layout == Some(Layout::Plain) {
            self.shared.mark(name, Layout::Plain)?;
        }
        self.store(name)
    }

    /// Removes a store that holds no record; `Kind::NotEmpty` when it does. Leftovers that are no records (an SDK's
    /// `__metadata__.json`, dangling links of ours) and its scratch files go with it.
    pub fn remove_store(&self, name: &StoreName) -> Result<()> {
        self.prepare_cards()?;
        self.drop_store(name)?;
        self.cards.forget(&self.shared, name)
    }

    /// The same without a look at the cards.
    pub(super) fn drop_store(&self, name: &StoreName) -> Result<()> {
        self.shared.may_write("remove the store")?;
        let store = self.store(name)?;
        let dir = self.dir(false)?;
        store.empty_out()?;
        match fs::unlinkat(&*dir, name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return Err(Error::new(
                    "remove the store",
                    name.as_str(),
                    Kind::NotEmpty,
                ));
            }
            Err(error) => return Err(not_a_store("remove the store", name, error)),
        }
        self.lock().stores.remove(name);
        self.shared.forget(name)
    }

    /// Renames a store's directory, its scratch folder and its marker; an SDK's `__metadata__.json` in it gets the new
    /// name. An existing target is replaced when it is empty; `Kind::NotEmpty`, or with `no_replace` `Kind::Exists`.
    pub fn rename_store(&self, from: &StoreName, to: &StoreName, no_replace: bool) -> Result<()> {
        self.prepare_cards()?;
        self.move_store(from, to, no_replace)?;
        self.cards.renamed(&self.shared, from, to)
    }

    /// The same without a look at the cards.
    pub(super) fn move_store(
        &self,
        from: &StoreName,
        to: &StoreName,
        no_replace: bool,
    ) -> Result<()> {
        self.shared.may_write("rename the store")?;
        let store = self.store(from)?;
        if from == to {
            return Ok(());
        }
        let dir = self.dir(false)?;
        match self.store(to) {
            Ok(_) if no_replace => {
                return Err(Error::new("rename the store to", to.as_str(), Kind::Exists));
            }
            Ok(target) => target.empty_out()?,
            Err(error) if error.kind() == Kind::StoreNotFound => {}
            Err(error) => return Err(error),
        }
        disk::rename(
            dir.as_fd(),
            from.as_str(),
            dir.as_fd(),
            to.as_str(),
            no_replace,
        )
        .map_err(|error| match error {
            Errno::NOTEMPTY => Error::new("rename the store to", to.as_str(), Kind::NotEmpty),
            Errno::EXIST if !no_replace => {
                Error::new("rename the store to", to.as_str(), Kind::NotEmpty)
            }
            error => not_a_store("rename the store", from, error),
        })?;
        {
            let mut open = self.lock();
            open.stores.remove(from);
            store.renamed(to);
            open.stores.insert(to.clone(), store.clone());
        }
        self.shared.rename(from, to)?;
        store.tell_name(to)
    }

    /// A new draft. `mode` is its permission bits.
    pub fn draft(&self, mode: u32) -> Result<Draft> {
        Draft::new(self.shared.temp()?, mode)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of the stores as it is now; `Kind::StoreNotFound` when it is not there and not to be made.
    fn dir(&self, make: bool) -> Result<Arc<OwnedFd>> {
        let root = self.shared.root.as_fd();
        let shown = || self.stores_path().display().to_string();
        let failed = |error: Errno| {
            let error = Error::io("open the folder of stores", shown(), error);
            if error.kind() == Kind::NotFound {
                return error.with_kind(Kind::StoreNotFound);
            }
            error
        };
        let found = match disk::stat(root, STORES) {
            Err(Errno::NOENT) if make => {
                match fs::mkdirat(root, STORES, Mode::from_raw_mode(0o777)) {
                    Ok(()) => {
                        let made = disk::open_dir(root, STORES).map_err(failed)?;
                        disk::give_to_owner(root, &made);
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                disk::stat(root, STORES)
            }
            other => other,
        };
        let inode = found.map_err(failed)?.inode;
        let mut open = self.lock();
        match &open.dir {
            Some((known, dir)) if *known == inode => Ok(dir.clone()),
            _ => {
                let dir = Arc::new(disk::open_dir(root, STORES).map_err(failed)?);
                open.stores.clear();
                open.dir = Some((inode, dir.clone()));
                Ok(dir)
            }
        }
    }
}

/// The error of a call on a store's directory.
fn not_a_store(op: &'static str, name: &StoreName, error: Errno) -> Error {
    let wrapped = Error::io(op, name.as_str(), error);
    match error {
        // A file or a link where a store could be is no store.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => wrapped.with_kind(Kind::StoreNotFound),
        _ => wrapped,
    }
}
