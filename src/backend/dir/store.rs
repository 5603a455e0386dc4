//! One store's directory: sends each call to the layout that has the name. It never keeps a record's bytes.

use super::js_lock::is_held;
use super::sdk::Sdk;
use super::shared::Shared;
use super::{
    Area, FileStat, Layout, Listed, Origin, Place, cursor, disk, layout, look, plain, repair,
    scratch, sdk,
};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::{MAX_PYTHON, NameKind, classify};
use crate::record::key::{MAX_KEY, key_fault};
use crate::record::{ContentType, StoreName};
use rustix::fs;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// One store's directory.
#[derive(Debug)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
    name: StoreName,
    /// Its name now; a store may be renamed while it is open.
    current: Mutex<StoreName>,
    dir: OwnedFd,
    id: (u64, u64),
    scratch: OnceLock<OwnedFd>,
    /// What is known of it in an SDK's layout; none when it is plain.
    pub(super) sdk: Option<Sdk>,
    pub(super) marked: AtomicBool,
    /// How many are changing the store under the lock that other processes see.
    holders: Mutex<u32>,
    /// Held by those who look before they write.
    turn: Mutex<()>,
}

/// A file that is to become a record: where it is now, and its open form when there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) file: &'a str,
    pub(super) open: &'a File,
}

/// A file that became a record.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) place: Place,
    /// The type that it has now, unless none is kept of it.
    pub(super) content_type: Option<ContentType>,
}

impl Source<'_> {
    /// Whether it is in this directory already.
    pub(super) fn is_in(&self, dir: BorrowedFd<'_>) -> bool {
        self.dir.as_raw_fd() == dir.as_raw_fd()
    }
}

impl Store {
    pub(super) fn new(shared: Arc<Shared>, name: StoreName, dir: OwnedFd) -> Result<Self> {
        let stat =
            fs::fstat(&dir).map_err(|error| Error::io("open the store", name.as_str(), error))?;
        let sdk = (!layout::is_plain(&shared, &name)).then(Sdk::default);
        Ok(Self {
            shared,
            current: Mutex::new(name.clone()),
            name,
            dir,
            id: (stat.st_dev, stat.st_ino),
            scratch: OnceLock::new(),
            sdk,
            marked: AtomicBool::new(false),
            holders: Mutex::new(0),
            turn: Mutex::new(()),
        })
    }

    /// Device and inode of its directory.
    pub(super) fn id(&self) -> (u64, u64) {
        self.id
    }

    pub(super) fn holders(&self) -> &Mutex<u32> {
        &self.holders
    }

    /// Keeps others of this process who look before they write from writing meanwhile.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same if it is nobody's just now.
    pub(super) fn turn_at_once(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether a record can be looked up without reading the directory first.
    pub(super) fn is_ready(&self) -> bool {
        self.sdk.as_ref().is_none_or(|sdk| sdk.is_fresh(&self.dir))
    }

    /// Waits a moment while an SDK writes into the file in place, so that no half of it is read. True when it had to.
    pub fn wait_for_writer(&self, place: &Place) -> Result<bool> {
        if self.sdk.is_none() || place.area != Area::Store {
            return Ok(false);
        }
        Ok(sdk::wait_for_writer(
            self.found_dir(place.area)?,
            &place.file,
        ))
    }

    /// Whether an SDK is writing this file just now.
    pub(super) fn is_held(&self, place: &Place) -> bool {
        place.area == Area::Store && is_held(self.dir.as_fd(), &place.file)
    }

    pub(super) fn is_plain(&self) -> bool {
        self.sdk.is_none()
    }

    pub(super) fn is(&self, id: (u64, u64)) -> bool {
        self.id == id
    }

    /// Somebody begins or ceases to be told of every change of the directory, and to pass it on by `refresh`.
    pub(super) fn watched(&self, watched: bool) {
        if let Some(sdk) = &self.sdk {
            sdk.watched(watched);
        }
    }

    /// Its name when it was opened.
    pub fn name(&self) -> &StoreName {
        &self.name
    }

    /// Its name now.
    pub(super) fn current(&self) -> StoreName {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn renamed(&self, to: &StoreName) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = to.clone();
    }

    /// Its layout. It is decided when the store is first read, and again when it is empty.
    pub fn layout(&self) -> Layout {
        match &self.sdk {
            None => Layout::Plain,
            Some(sdk) => sdk::fresh(self, sdk).map_or(Layout::Dual, |state| state.layout()),
        }
    }

    /// The store's directory, or that of its scratch files (made when missing).
    pub fn dir(&self, area: Area) -> Result<BorrowedFd<'_>> {
        match area {
            Area::Store => Ok(self.dir.as_fd()),
            Area::Scratch => self.scratch_dir(true),
        }
    }

    /// The directory of a place that was found; nothing is made.
    pub(super) fn found_dir(&self, area: Area) -> Result<BorrowedFd<'_>> {
        match area {
            Area::Store => Ok(self.dir.as_fd()),
            Area::Scratch => self.scratch_dir(false),
        }
    }

    fn scratch_dir(&self, make: bool) -> Result<BorrowedFd<'_>> {
        if let Some(dir) = self.scratch.get() {
            return Ok(dir.as_fd());
        }
        let dir = self.shared.scratch(&self.current(), make)?;
        Ok(self.scratch.get_or_init(|| dir).as_fd())
    }

    /// The longest name this layout keeps, in bytes, for statfs.
    pub fn max_name(&self) -> u32 {
        let most = match &self.sdk {
            None => MAX_KEY,
            Some(_) => MAX_PYTHON,
        };
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Where a name's bytes are and what fstatat says of them. `Kind::NotFound` when there is no such record;
    /// `Kind::Invalid` or `Kind::NameTooLong` for a name that can never be here.
    pub fn find(&self, name: &str) -> Result<(Place, FileStat)> {
        match (classify(name), &self.sdk) {
            (NameKind::Key(key), None) => plain::find(self, key),
            (NameKind::Key(key), Some(sdk)) => look::find(self, sdk, key),
            (NameKind::Scratch, _) => scratch::find(self, name),
            (NameKind::Foreign(decoded), None) => plain::find_foreign(self, name, &decoded),
            (NameKind::Foreign(decoded), Some(sdk)) => look::find(self, sdk, &decoded),
            (NameKind::Illegal(why), _) => Err(illegal("find the record", name, why)),
        }
    }

    /// Whether a record of this name may be created here: the rule it breaks otherwise.
    pub fn may_create(&self, name: &str) -> Result<()> {
        self.shared.may_write("make the record")?;
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::may_create(self, key),
                Some(sdk) => look::may_create(self, sdk, key),
            },
            NameKind::Scratch => scratch::may_create(name),
            NameKind::Foreign(_) => Err(self.no_key("make the record", name)),
            NameKind::Illegal(why) => Err(illegal("make the record", name, why)),
        }
    }

    /// The error for a name that is no key: a file of the folder may be listed so.
    pub(super) fn no_key(&self, op: &'static str, name: &str) -> Error {
        match key_fault(name.as_bytes()) {
            Some(why) if self.find(name).is_err() => illegal(op, name, why),
            _ => foreign(op, name),
        }
    }

    /// fstatat of a place found before; `Kind::NotFound` when the file is gone or no regular file (or scratch link).
    pub fn stat(&self, place: &Place) -> Result<FileStat> {
        let failed = |error: Errno| disk::failed("stat", &place.file, error);
        let stat = disk::stat(self.found_dir(place.area)?, &place.file).map_err(failed)?;
        if stat.is_file() || (place.area == Area::Scratch && stat.is_link()) {
            return Ok(stat);
        }
        Err(Error::because(
            "stat",
            &*place.file,
            Kind::NotFound,
            "it is no regular file",
        ))
    }

    /// Opens the file of a place beneath its directory, following no link. `write` opens it for reading and writing.
    /// In the js layout this may wait up to 200 ms while an SDK holds the file's lock.
    pub fn open(&self, place: &Place, write: bool) -> Result<File> {
        if write {
            self.shared.may_write("open for writing")?;
            if matches!(place.origin, Origin::Foreign | Origin::Alias) {
                return Err(foreign("open for writing", &place.file));
            }
        }
        let dir = self.found_dir(place.area)?;
        self.wait_for_writer(place)?;
        disk::open_file(dir, &place.file, write)
            .map_err(|error| disk::failed("open", &place.file, error))
    }

    /// A descriptor of a place's file for its attributes only; of a scratch link itself.
    pub fn open_path(&self, place: &Place) -> Result<OwnedFd> {
        disk::open_beneath(self.found_dir(place.area)?, &place.file, fs::OFlags::PATH)
            .map_err(|error| disk::failed("open", &place.file, error))
    }

    /// The record's content type: stored, else guessed.
    pub fn content_type(&self, name: &str, place: &Place) -> Result<ContentType> {
        match (place.area, &self.sdk) {
            (Area::Scratch, _) => scratch::content_type(self, name, place),
            (Area::Store, None) => plain::content_type(self, name, place),
            (Area::Store, Some(sdk)) => {
                if let NameKind::Foreign(decoded) = classify(name) {
                    return look::content_type(self, sdk, &decoded, place);
                }
                look::content_type(self, sdk, name, place)
            }
        }
    }

    /// Calls `each` for every listed name after the entry whose `next` was `after` (0 from the start), until it
    /// returns false.
    pub fn list(&self, after: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        if let Some(position) = cursor::in_store(after) {
            let more = match &self.sdk {
                None => plain::list(self, position, each)?,
                Some(sdk) => look::list(self, sdk, after, each)?,
            };
            if !more {
                return Ok(());
            }
        }
        scratch::list(self, cursor::in_scratch(after), each)
    }

    /// Takes in what changed in the directory. `files`: only these file names may have changed (from inotify);
    /// `None`: anything may have. Returns the names, as the mount shows them, whose place or type changed or that came
    /// or went; in the plain layout simply the names of those files.
    pub fn refresh(&self, files: Option<&[&str]>) -> Result<Vec<String>> {
        match &self.sdk {
            None => plain::refresh(self, files.unwrap_or_default()),
            Some(sdk) => sdk::refresh(self, sdk, files),
        }
    }

    /// Whether something was left to mend at the last look; never in layout plain.
    pub fn is_unmended(&self) -> bool {
        self.sdk.as_ref().is_some_and(|sdk| sdk.lock().unmended)
    }

    /// Mends what the SDKs left of a store that both read. True when nothing is left to mend; what an SDK may still be
    /// writing is, for up to two seconds.
    pub fn mended(&self) -> Result<bool> {
        match &self.sdk {
            None => Ok(true),
            Some(sdk) => repair::mended(self, sdk),
        }
    }

    /// Waits until everything written so far in this directory is on disk.
    pub fn sync(&self) -> Result<()> {
        // The bytes of files that were closed long ago count too, and only this reaches them all.
        fs::syncfs(&self.dir)
            .map_err(|error| Error::io("sync the store", self.name.as_str(), error))
    }

    /// Before the directory is removed: `Kind::NotEmpty` when a record is left, else what is no record goes.
    pub(super) fn empty_out(&self) -> Result<()> {
        let mut left = None;
        self.list(0, &mut |listed| {
            if listed.area == Area::Store {
                left = Some(listed.name.to_owned());
            }
            false
        })?;
        match left {
            Some(name) => Err(Error::because(
                "remove the store",
                self.name.as_str(),
                Kind::NotEmpty,
                format!("it still holds {name}"),
            )),
            None => self
                .sdk
                .as_ref()
                .map_or(Ok(()), |sdk| repair::empty_out(self, sdk)),
        }
    }

    /// After a rename: an SDK's own file in the store has to say the new name.
    pub(super) fn tell_name(&self, name: &StoreName) -> Result<()> {
        match self.sdk {
            None => Ok(()),
            Some(_) => repair::tell_name(self, name),
        }
    }
}

/// The error for a name that can never be here.
pub(super) fn illegal(op: &'static str, name: &str, why: &'static str) -> Error {
    let long = name.len() > MAX_KEY && name.bytes().all(crate::record::key::is_key_byte);
    let kind = if long {
        Kind::NameTooLong
    } else {
        Kind::Invalid
    };
    Error::because(op, format!("{name:?}"), kind, why)
}

/// The error for a change of a file that is listed only so that nothing is hidden.
pub(super) fn foreign(op: &'static str, name: &str) -> Error {
    Error::because(
        op,
        name,
        Kind::NotPermitted,
        "this is no key, so it is listed for reading only; copy it to a legal key",
    )
}

/// A link to elsewhere under a record's name is somebody's own: it is not followed, and not replaced either.
pub(super) fn refuse_link(dir: BorrowedFd<'_>, file: &str) -> Result<()> {
    if !disk::leads_elsewhere(dir, file) {
        return Ok(());
    }
    let why = "the folder has a link of this name to another place, which is not followed; remove it there first";
    tracing::warn!("{file}: {why}");
    Err(Error::because("make the record", file, Kind::Exists, why))
}
