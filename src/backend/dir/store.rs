//! One store's directory: sends each call to the layout that has the name. It never keeps a record's bytes.

use super::sdk::Sdk;
use super::shared::Shared;
use super::temp::Draft;
use super::{
    Area, CommitIf, FileStat, Layout, Listed, Origin, Place, attrs, commit, cursor, disk, layout,
    plain, repair, scratch, sdk,
};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::{MAX_PYTHON, NameKind, classify};
use crate::record::key::MAX_KEY;
use crate::record::{ContentType, StoreName};
use rustix::fs;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
    sdk: Option<Sdk>,
    marked: AtomicBool,
}

/// A file that is to become a record: where it is now, and its open form when there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) file: &'a str,
    pub(super) open: &'a File,
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
        })
    }

    /// Device and inode of its directory.
    pub(super) fn id(&self) -> (u64, u64) {
        self.id
    }

    pub(super) fn is_plain(&self) -> bool {
        self.sdk.is_none()
    }

    pub(super) fn is(&self, id: (u64, u64)) -> bool {
        self.id == id
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
            (NameKind::Key(key), Some(sdk)) => sdk::find(self, sdk, key),
            (NameKind::Scratch, _) => scratch::find(self, name),
            (NameKind::Foreign(decoded), None) => plain::find_foreign(self, name, &decoded),
            (NameKind::Foreign(decoded), Some(sdk)) => sdk::find(self, sdk, &decoded),
            (NameKind::Illegal(why), _) => Err(illegal("find the record", name, why)),
        }
    }

    /// Whether a record of this name may be created here: the rule it breaks otherwise.
    pub fn may_create(&self, name: &str) -> Result<()> {
        self.shared.may_write("make the record")?;
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => Ok(()),
                Some(sdk) => sdk::may_create(self, sdk, key),
            },
            NameKind::Scratch => scratch::may_create(name),
            NameKind::Foreign(_) => Err(foreign("make the record", name)),
            NameKind::Illegal(why) => Err(illegal("make the record", name, why)),
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
        if self.sdk.is_some() && place.area == Area::Store {
            sdk::wait_for_writer(dir, &place.file);
        }
        disk::open_file(dir, &place.file, write)
            .map_err(|error| disk::failed("open", &place.file, error))
    }

    /// The record's content type: stored, else guessed.
    pub fn content_type(&self, name: &str, place: &Place) -> Result<ContentType> {
        match (place.area, &self.sdk) {
            (Area::Scratch, _) => scratch::content_type(self, name, place),
            (Area::Store, None) => plain::content_type(self, name, place),
            (Area::Store, Some(sdk)) => {
                let decoded = match classify(name) {
                    NameKind::Foreign(decoded) => decoded,
                    _ => name.to_owned(),
                };
                sdk::content_type(self, sdk, &decoded, place)
            }
        }
    }

    /// Sets the record's content type, or with `None` returns it to the guess. The bytes stay; the file may get
    /// another name, so the new place is returned.
    pub fn set_content_type(
        &self,
        name: &str,
        to: Option<&ContentType>,
    ) -> Result<(Place, FileStat)> {
        self.shared.may_write("set the content type")?;
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::set_content_type(self, key, to),
                Some(sdk) => commit::set_content_type(self, sdk, key, to),
            },
            NameKind::Scratch => scratch::set_content_type(self, name, to),
            NameKind::Foreign(_) => Err(foreign("set the content type", name)),
            NameKind::Illegal(why) => Err(illegal("set the content type", name, why)),
        }
    }

    /// Calls `each` for every listed name after the entry whose `next` was `after` (0 from the start), until it
    /// returns false.
    pub fn list(&self, after: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        if let Some(position) = cursor::in_store(after) {
            let more = match &self.sdk {
                None => plain::list(self, position, each)?,
                Some(sdk) => sdk::list(self, sdk, after, each)?,
            };
            if !more {
                return Ok(());
            }
        }
        scratch::list(self, cursor::in_scratch(after), each)
    }

    /// Makes the draft the record of this name. The type is `content_type` when it is given, else it is decided from
    /// the record that is replaced, the name and the bytes. The draft takes mode, owner, ACL and `user.*` of the record
    /// it replaces when `inherit` is set. On failure the old record is whole and the draft is still a draft.
    pub fn commit(
        &self,
        draft: &mut Draft,
        name: &str,
        content_type: Option<&ContentType>,
        only_if: &CommitIf,
        inherit: bool,
    ) -> Result<(Place, FileStat)> {
        self.shared.may_write("write the record")?;
        let place = {
            let (dir, file) = draft.at()?;
            let source = Source {
                dir,
                file,
                open: &draft.file,
            };
            let new = *only_if == CommitIf::Absent;
            self.install(source, name, content_type, new, inherit)?
        };
        draft.committed();
        let stat = disk::stat_open(&*draft.file)
            .map_err(|error| disk::failed("stat the new record", name, error))?;
        Ok((place, stat))
    }

    /// Makes a file from elsewhere on the same disk what this name stands for. `new`: `Kind::Exists` when there is one.
    pub(super) fn install(
        &self,
        source: Source<'_>,
        name: &str,
        content_type: Option<&ContentType>,
        new: bool,
        inherit: bool,
    ) -> Result<Place> {
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => {
                    self.mark()?;
                    plain::install(self, source, key, content_type, new, inherit)
                }
                Some(sdk) => commit::install(self, sdk, source, key, content_type, new, inherit),
            },
            NameKind::Scratch => scratch::install(self, source, name, content_type, new, inherit),
            NameKind::Foreign(_) => Err(foreign("write the record", name)),
            NameKind::Illegal(why) => Err(illegal("write the record", name, why)),
        }
    }

    /// Remembers at the first write that the store is plain.
    fn mark(&self) -> Result<()> {
        if self.is_plain() && !self.marked.load(Ordering::Relaxed) {
            self.shared.mark(&self.current(), Layout::Plain)?;
            self.marked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// To be called when a record was written in place and its last writer is gone: the type is decided again, and a
    /// sidecar that tells a size is mended.
    pub fn written_in_place(&self, name: &str) -> Result<(Place, FileStat)> {
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::written_in_place(self, key),
                Some(sdk) => commit::written_in_place(self, sdk, key),
            },
            _ => self.find(name),
        }
    }

    /// Removes the record.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.shared.may_write("remove the record")?;
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::remove(self, key),
                Some(sdk) => commit::remove(self, sdk, key, None),
            },
            NameKind::Scratch => scratch::remove(self, name),
            NameKind::Foreign(_) => Err(foreign("remove the record", name)),
            NameKind::Illegal(why) => Err(illegal("remove the record", name, why)),
        }
    }

    /// Removes what has a name if it is still this inode.
    pub(super) fn remove_version(&self, name: &str, place: &Place, inode: u64) -> Result<()> {
        if let (Area::Store, Some(sdk)) = (place.area, &self.sdk) {
            return commit::remove(self, sdk, name, Some(inode));
        }
        match self.stat(place) {
            Ok(stat) if stat.inode == inode => self.remove(name),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Renames a record, also into another store, its type carried. `no_replace`: `Kind::Exists` when the target is there.
    pub fn rename(
        &self,
        from: &str,
        to_store: &Store,
        to: &str,
        no_replace: bool,
    ) -> Result<(Place, FileStat)> {
        self.shared.may_write("rename the record")?;
        to_store.may_create(to)?;
        let (place, stat) = self.find(from)?;
        if place.origin == Origin::Foreign || place.origin == Origin::Alias {
            return Err(foreign("rename the record", from));
        }
        if self.id == to_store.id && from == to {
            return match no_replace {
                true => Err(Error::new("rename the record to", to, Kind::Exists)),
                false => Ok((place, stat)),
            };
        }
        // The move asks again, at the moment it happens; here it is asked before the source is touched.
        if no_replace && to_store.find(to).is_ok() {
            return Err(Error::new("rename the record to", to, Kind::Exists));
        }
        let place = super::moves::rename(self, (from, &place, &stat), to_store, to, no_replace)?;
        let stat = to_store.stat(&place)?;
        Ok((place, stat))
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

    /// Sets the type attribute, and says once when the file system keeps none.
    pub(super) fn put_type(&self, file: &File, name: &str, to: &ContentType) -> Result<()> {
        match fs::fsetxattr(
            file,
            attrs::TYPE,
            to.as_str().as_bytes(),
            fs::XattrFlags::empty(),
        ) {
            Ok(()) => Ok(()),
            Err(error) if attrs::unsupported(error) => {
                self.shared.warn_of_attributes();
                Ok(())
            }
            Err(error) => Err(disk::failed("keep the content type of", name, error)),
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
