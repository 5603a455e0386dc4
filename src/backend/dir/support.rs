//! What the local volume needs of a folder beside the calls on records. It decides nothing about them.

use super::{Area, Draft, FileStat, Folder, Layout, Listed, Origin, Store, attrs, disk};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::MAX_PYTHON;
use crate::record::key::MAX_KEY;
use rustix::fs::{self, Mode, OFlags};
use std::fs::File;
use std::os::fd::AsFd;

impl Layout {
    /// Its name on the command line and in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Js => "js",
            Self::Python => "python",
            Self::Dual => "dual",
        }
    }
}

impl FileStat {
    /// fstat of an open file.
    pub fn of_file(file: impl AsFd) -> Result<Self> {
        disk::stat_open(file).map_err(|error| Error::io("stat", "", error))
    }
}

impl FileStat {
    /// What stat(2) said.
    pub fn of_disk(stat: &fs::Stat) -> Self {
        Self::of(stat)
    }
}

impl Folder {
    /// An open file of the folder, for byte-range locks between the processes that have it mounted.
    pub fn claims_file(&self) -> Result<File> {
        self.shared().may_write("claim a name")?;
        let failed = |error| Error::io("open the claims of", ".storefs", error);
        let ours = disk::open_dir(self.shared().root.as_fd(), ".storefs").map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            fs::openat(&ours, "claims", flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        Ok(File::from(file))
    }

    /// The longest name that a store which is still to be made will keep, in bytes.
    pub fn max_name(&self) -> u32 {
        match self.options().layout {
            Some(Layout::Plain) => MAX_KEY as u32,
            Some(Layout::Js | Layout::Python | Layout::Dual) | None => MAX_PYTHON as u32,
        }
    }
}

impl Store {
    /// Waits until the names of this directory are on disk. What its files hold is not waited for.
    pub fn sync_names(&self) -> Result<()> {
        fs::fsync(self.dir(Area::Store)?)
            .map_err(|error| Error::io("sync the store", self.name().as_str(), error))
    }

    /// fstatat of an entry that was just listed.
    pub fn stat_listed(&self, listed: &Listed<'_>) -> Result<FileStat> {
        disk::stat(self.dir(listed.area)?, listed.file)
            .map_err(|error| disk::failed("stat", listed.name, error))
    }

    /// Gives a draft the mode, owner, ACL and `user.*` attributes of a record that it is to replace.
    pub fn inherit(&self, draft: &Draft, name: &str) -> Result<()> {
        let (place, old) = self.find(name)?;
        if place.origin == Origin::Foreign {
            return Err(super::store::foreign("open for writing", name).with_kind(Kind::Denied));
        }
        if !old.is_file() {
            return Err(Error::because(
                "replace",
                name,
                Kind::Invalid,
                "it is a link",
            ));
        }
        let dir = self.dir(place.area)?;
        let names = attrs::names(dir, &place.file)
            .map_err(|error| disk::failed("read the attributes of", name, error))?;
        attrs::inherit(dir, &place.file, &old, &names, draft.file.as_fd())
    }
}
