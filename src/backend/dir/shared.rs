//! What all stores of one folder share: its options and our own directory `.storefs`. It knows nothing of records.

use super::temp::TempDir;
use super::{FolderOptions, Layout, attrs, disk};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use rustix::fs::{self, AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Our own directory in the folder.
pub(super) const OURS: &str = ".storefs";
/// The stores' cards in it.
const CARDS: &str = "stores";
/// What a marker says of a store that is plain.
const PLAIN: &str = "plain";

/// What all stores of one folder share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: FolderOptions,
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
    /// Scratch files, a directory per store. In a read-only folder it may be missing, and the others too.
    scratch: Option<OwnedFd>,
    /// Markers, a file per store.
    layouts: Option<OwnedFd>,
    temp: Option<Arc<TempDir>>,
    warned_of_attributes: AtomicBool,
    links: OnceLock<bool>,
    folds: OnceLock<bool>,
    attributes: OnceLock<bool>,
}

impl Shared {
    pub(super) fn open(path: &Path, options: FolderOptions) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |error: Errno| Error::io("open the storage folder", shown.clone(), error);
        if !options.read_only {
            std::fs::create_dir_all(path)
                .map_err(|error| Error::io("make the storage folder", shown.clone(), error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let mut shared = Self {
            options,
            path: path.to_owned(),
            root,
            scratch: None,
            layouts: None,
            temp: None,
            warned_of_attributes: AtomicBool::new(false),
            links: OnceLock::new(),
            folds: OnceLock::new(),
            attributes: OnceLock::new(),
        };
        if shared.options.read_only {
            if let Ok(ours) = disk::open_dir(shared.root.as_fd(), OURS) {
                shared.scratch = disk::open_dir(ours.as_fd(), "scratch").ok();
                shared.layouts = disk::open_dir(ours.as_fd(), "layouts").ok();
            }
            return Ok(shared);
        }
        shared.make_ours().map_err(|error| {
            let refused = [Kind::Denied, Kind::NotPermitted, Kind::ReadOnly];
            if !refused.contains(&error.kind()) {
                return error;
            }
            let why = format!("{error} (to read only: storefs mount -o ro)");
            Error::because("open the storage folder", shown, error.kind(), why)
        })?;
        Ok(shared)
    }

    fn make_ours(&mut self) -> Result<()> {
        let ours = self.own_dir(self.root.as_fd(), OURS)?;
        self.scratch = Some(self.own_dir(ours.as_fd(), "scratch")?);
        self.layouts = Some(self.own_dir(ours.as_fd(), "layouts")?);
        self.temp = Some(TempDir::make(self.own_dir(ours.as_fd(), "tmp")?)?);
        Ok(())
    }

    /// Makes one of our directories when it is missing. One that root makes in another user's folder is that user's.
    fn own_dir(&self, parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
        if let Ok(there) = disk::open_dir(parent, name) {
            return Ok(there);
        }
        let made = disk::ensure_dir(parent, name, 0o700)?;
        disk::give_to_owner(self.root.as_fd(), &made);
        Ok(made)
    }

    /// Where temporaries are; `Kind::ReadOnly` in a read-only folder.
    pub(super) fn temp(&self) -> Result<&Arc<TempDir>> {
        self.temp.as_ref().ok_or_else(|| self.read_only("write"))
    }

    fn read_only(&self, op: &'static str) -> Error {
        let shown = self.path.display().to_string();
        Error::because(op, shown, Kind::ReadOnly, "the folder is mounted read-only")
    }

    /// `Kind::ReadOnly` when nothing may be changed.
    pub(super) fn may_write(&self, op: &'static str) -> Result<()> {
        if self.options.read_only {
            return Err(self.read_only(op));
        }
        Ok(())
    }

    /// The directory of a store's scratch files; made when it is missing and `make` says so.
    pub(super) fn scratch(&self, store: &StoreName, make: bool) -> Result<OwnedFd> {
        let name = store.as_str();
        let missing = || Error::new("open the scratch folder of", name, Kind::NotFound);
        let all = self.scratch.as_ref().ok_or_else(missing)?;
        if make && !self.options.read_only {
            return disk::ensure_dir(all.as_fd(), name, 0o700);
        }
        disk::open_dir(all.as_fd(), name)
            .map_err(|error| Error::io("open the scratch folder of", name, error))
    }

    /// The directory of the stores' cards; made when it is missing and `make` says so.
    pub(super) fn cards(&self, make: bool) -> Result<OwnedFd> {
        let failed = |error: Errno| Error::io("open the stores' cards", ".storefs/stores", error);
        if make {
            let ours = self.own_dir(self.root.as_fd(), OURS)?;
            return self.own_dir(ours.as_fd(), CARDS);
        }
        let ours = disk::open_dir(self.root.as_fd(), OURS).map_err(failed)?;
        disk::open_dir(ours.as_fd(), CARDS).map_err(failed)
    }

    /// Removes a store's scratch files and its marker.
    pub(super) fn forget(&self, store: &StoreName) -> Result<()> {
        if let Some(scratch) = &self.scratch {
            disk::remove_tree(scratch.as_fd(), store.as_str())?;
        }
        self.unmark(store)
    }

    /// Moves a store's scratch files and its marker to its new name, over those of a store that was there.
    pub(super) fn rename(&self, from: &StoreName, to: &StoreName) -> Result<()> {
        self.forget(to)?;
        for dir in [&self.scratch, &self.layouts].into_iter().flatten() {
            match fs::renameat(dir, from.as_str(), dir, to.as_str()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("rename the store", from.as_str(), error)),
            }
        }
        Ok(())
    }

    /// Whether a marker says that this store is plain.
    pub(super) fn is_marked_plain(&self, store: &StoreName) -> bool {
        let Some(layouts) = &self.layouts else {
            return false;
        };
        disk::open_file(layouts.as_fd(), store.as_str(), false)
            .ok()
            .and_then(|file| std::io::read_to_string(std::io::Read::take(file, 64)).ok())
            .is_some_and(|text| text.trim() == PLAIN)
    }

    /// Writes or removes the marker, as the layout wants it.
    pub(super) fn mark(&self, store: &StoreName, layout: Layout) -> Result<()> {
        if layout != Layout::Plain {
            return self.unmark(store);
        }
        let (Some(layouts), false) = (&self.layouts, self.is_marked_plain(store)) else {
            return Ok(());
        };
        let temp = self.temp()?;
        let (name, mut file) = temp.file(0o600)?;
        let written = std::io::Write::write_all(&mut file, b"plain\n")
            .map_err(|error| Error::io("mark the layout of", store.as_str(), error))
            .and_then(|()| {
                fs::renameat(temp.dir(), &name, layouts, store.as_str())
                    .map_err(|error| Error::io("mark the layout of", store.as_str(), error))
            });
        if written.is_err() {
            let _ = disk::remove(temp.dir(), &name);
        }
        written
    }

    fn unmark(&self, store: &StoreName) -> Result<()> {
        let Some(layouts) = &self.layouts else {
            return Ok(());
        };
        match fs::unlinkat(layouts, store.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove the marker of", store.as_str(), error)),
        }
    }

    /// Says once that the file system keeps no `user.*` attributes.
    pub(super) fn warn_of_attributes(&self) {
        if !self.warned_of_attributes.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the file system keeps no user.* attributes; in the plain layout content types follow from names and bytes",
                self.path.display()
            );
        }
    }

    /// Whether the file system keeps `user.*` attributes.
    pub(super) fn has_attributes(&self) -> bool {
        *self.attributes.get_or_init(|| {
            let Some((name, file)) = self.temp.as_ref().and_then(|temp| temp.file(0o600).ok())
            else {
                return true;
            };
            let set = fs::fsetxattr(&file, attrs::KEY, b"x", XattrFlags::empty());
            if let Some(temp) = &self.temp {
                let _ = disk::remove(temp.dir(), &name);
            }
            !set.is_err_and(attrs::unsupported)
        })
    }

    /// Whether the file system takes `A` and `a` for one name.
    pub(super) fn folds_case(&self) -> bool {
        *self.folds.get_or_init(|| {
            let Some(temp) = &self.temp else {
                return false;
            };
            let name = format!("{}-a", temp.name());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = fs::openat(temp.dir(), &name, flags, Mode::from_raw_mode(0o600));
            let folds = made.is_ok() && disk::stat(temp.dir(), &name.to_uppercase()).is_ok();
            let _ = disk::remove(temp.dir(), &name);
            folds
        })
    }

    /// Whether the file system has symbolic links; says once when it has none.
    pub(super) fn has_links(&self) -> bool {
        *self.links.get_or_init(|| {
            let Some(temp) = &self.temp else {
                return true;
            };
            let name = temp.name();
            let made = fs::symlinkat("x", temp.dir(), &name);
            let _ = disk::remove(temp.dir(), &name);
            let none = matches!(made, Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS));
            if none {
                tracing::warn!(
                    "{}: the file system has no symbolic links; stores are written for the JavaScript SDK only",
                    self.path.display()
                );
            }
            !none
        })
    }
}
