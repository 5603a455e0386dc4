//! A directory of storefs itself that may lie in somebody else's storage folder: opened once, and everything in it by name.
//! Nothing here follows a link that the owner of the folder has put there.

use super::FileStat;
use super::disk;
use super::shared::OURS;
use super::temp::random;
use crate::error::{Error, Kind, Result};
use rustix::fs::{self, Access, AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const OP: &str = "open the folder";

/// A directory of our own, and what may be done in it.
#[derive(Debug)]
pub struct OwnDir {
    dir: OwnedFd,
    path: PathBuf,
    /// The owner of the storage folder it is in, when this process is root: what is made here is theirs.
    owner: Option<(Uid, Gid)>,
}

impl OwnDir {
    /// Opens it and makes it when it is missing. From `.storefs` on, no part of the path may be a link: whoever owns the folder
    /// around it could have put one there. Fails also when nothing can be made in it.
    pub fn make(path: &Path) -> Result<Self> {
        let subject = || path.display().to_string();
        let found = Self::walk(path, true)?;
        let own = found.ok_or_else(|| Error::new(OP, subject(), Kind::NotFound))?;
        fs::accessat(&own.dir, ".", Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|why| refused(&own.path, why))?;
        Ok(own)
    }

    /// Opens it when it is there.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        Self::walk(path, false)
    }

    fn walk(path: &Path, make: bool) -> Result<Option<Self>> {
        let fault = |why: io::Error| Error::io(OP, path.display().to_string(), why);
        let ours = path
            .ancestors()
            .find(|part| part.file_name() == Some(OsStr::new(OURS)));
        let around = ours.map_or(Some(path), Path::parent).unwrap_or(path);
        let inside = path.strip_prefix(around).unwrap_or(Path::new(""));
        let around = match around.as_os_str().is_empty() {
            true => Path::new("."),
            false => around,
        };
        if make {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(around);
            made.map_err(fault)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match fs::open(around, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(why) => return Err(fault(why.into())),
        };
        let is_root = rustix::process::geteuid().is_root();
        let owner = match disk::stat_open(&dir) {
            Ok(about) if is_root && ours.is_some() => {
                Some((Uid::from_raw(about.uid), Gid::from_raw(about.gid)))
            }
            _ => None,
        };
        let mut own = Self {
            dir,
            path: around.to_owned(),
            owner,
        };
        for part in inside {
            match own.below(&part.to_string_lossy(), make)? {
                Some(next) => own = next,
                None => return Ok(None),
            }
        }
        Ok(Some(own))
    }

    fn below(&self, name: &str, make: bool) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let mut opened = disk::open_dir(self.dir.as_fd(), name);
        if make && matches!(opened, Err(Errno::NOENT)) {
            let made = disk::make_dir(self.dir.as_fd(), name, 0o700)?;
            opened = disk::open_dir(self.dir.as_fd(), name);
            if let (true, Ok(dir)) = (made, &opened) {
                self.give(dir);
            }
        }
        match opened {
            Ok(dir) => Ok(Some(Self {
                dir,
                path,
                owner: self.owner,
            })),
            Err(Errno::NOENT) if !make => Ok(None),
            Err(why) => Err(refused(&path, why)),
        }
    }

    /// Has the owner of the storage folder own this, too. Where that cannot be, it stays root's.
    fn give(&self, made: impl AsFd) {
        if let Some((user, group)) = self.owner {
            let _ = fs::fchown(made, Some(user), Some(group));
        }
    }

    /// Where it is, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, which is made when it is missing.
    pub fn make_below(&self, name: &str) -> Result<Self> {
        let missing = || {
            Error::new(
                OP,
                self.path.join(name).display().to_string(),
                Kind::NotFound,
            )
        };
        self.below(name, true)?.ok_or_else(missing)
    }

    /// A directory in it, when it is there.
    pub fn find_below(&self, name: &str) -> Result<Option<Self>> {
        self.below(name, false)
    }

    /// Opens a regular file for reading.
    pub fn read(&self, name: &str) -> io::Result<File> {
        Ok(disk::open_file(self.dir.as_fd(), name, false)?)
    }

    /// The same in a directory of it.
    pub fn read_in(&self, below: &str, name: &str) -> io::Result<File> {
        let dir = disk::open_dir(self.dir.as_fd(), below)?;
        Ok(disk::open_file(dir.as_fd(), name, false)?)
    }

    /// A file that has no name, open for reading and writing: it is gone with its last descriptor.
    pub fn unnamed(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match fs::openat(&self.dir, ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => Ok(file.into()),
            // Not every file system has such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let (name, file) = self.aside()?;
                disk::remove(self.dir.as_fd(), &name)?;
                Ok(file)
            }
            Err(why) => Err(why.into()),
        }
    }

    /// A new file under a name that nothing else has.
    fn aside(&self) -> io::Result<(String, File)> {
        let name = format!(".{:016x}", random());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(&self.dir, &name, flags, Mode::from_raw_mode(0o600))?;
        Ok((name, file.into()))
    }

    /// Writes a file aside and puts it in the place of what has this name, so that nobody reads half of it.
    pub fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (aside, mut file) = self.aside()?;
        let filled = fill(&mut file);
        self.place(&file, &aside, name, filled)
    }

    /// Gives a file of `unnamed` this name, in the place of what has it. Not every file system can.
    pub fn link(&self, file: &File, name: &str) -> io::Result<()> {
        let aside = format!(".{:016x}", random());
        // This is the way to give it one (linkat(2), AT_SYMLINK_FOLLOW).
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::linkat(CWD, open, &self.dir, &aside, AtFlags::SYMLINK_FOLLOW)?;
        self.place(file, &aside, name, Ok(()))
    }

    fn place(&self, file: &File, aside: &str, name: &str, done: io::Result<()>) -> io::Result<()> {
        self.give(file);
        let placed = done.and_then(|()| Ok(fs::renameat(&self.dir, aside, &self.dir, name)?));
        if placed.is_err() {
            let _ = disk::remove(self.dir.as_fd(), aside);
        }
        placed
    }

    /// What stat(2) says of a file in it.
    pub fn stat(&self, name: &str) -> io::Result<FileStat> {
        Ok(disk::stat(self.dir.as_fd(), name)?)
    }

    /// Removes a file. It being gone already is as good.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(disk::remove(self.dir.as_fd(), name)?)
    }

    /// The same in a directory of it.
    pub fn remove_in(&self, below: &str, name: &str) -> io::Result<()> {
        let dir = disk::open_dir(self.dir.as_fd(), below)?;
        Ok(disk::remove(dir.as_fd(), name)?)
    }

    /// Removes a directory with everything in it.
    pub fn remove_tree(&self, name: &str) -> Result<()> {
        disk::remove_tree(self.dir.as_fd(), name)
    }

    /// The names of the directories in it.
    pub fn directories(&self) -> Result<Vec<String>> {
        self.names(FileType::Directory)
    }

    /// The names of the regular files in it.
    pub fn files(&self) -> Result<Vec<String>> {
        self.names(FileType::RegularFile)
    }

    fn names(&self, kind: FileType) -> Result<Vec<String>> {
        let mut names = Vec::new();
        disk::walk(self.dir.as_fd(), 0, &mut |entry| {
            if entry.kind == kind {
                names.push(entry.name.to_owned());
            }
            Ok(true)
        })?;
        Ok(names)
    }

    /// Takes the directory's lock, which ends with what is returned; `None` when another process or thread holds it.
    pub fn try_lock(&self) -> Option<OwnedFd> {
        // A lock belongs to an opening, so that threads are kept apart as well.
        let opened = disk::open_dir(self.dir.as_fd(), ".").ok()?;
        match fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => None,
            // Network file systems may have no such locks; then there is nothing to be had.
            Ok(()) | Err(_) => Some(opened),
        }
    }
}

/// Why a directory of ours cannot be used, and what to do.
fn refused(path: &Path, why: Errno) -> Error {
    let advice = match why {
        Errno::LOOP | Errno::NOTDIR => {
            "it is a link or a file, which is never followed (remove it)"
        }
        Errno::ACCESS | Errno::PERM => {
            "permission denied (give it to this user with chown, or remove it)"
        }
        _ => return Error::io(OP, path.display().to_string(), why),
    };
    Error::because(OP, path.display().to_string(), Kind::Denied, advice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn no_part_from_our_folder_on_may_be_a_link() {
        let temp = tempfile::tempdir().unwrap();
        let elsewhere = temp.path().join("elsewhere");
        std::fs::create_dir_all(elsewhere.join("runs")).unwrap();
        for link in [".storefs", ".storefs/serve", ".storefs/serve/runs"] {
            let folder = tempfile::tempdir().unwrap();
            let link = folder.path().join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&elsewhere, &link).unwrap();
            let path = folder.path().join(".storefs/serve/runs");
            assert_eq!(OwnDir::make(&path).unwrap_err().kind(), Kind::Denied);
            assert_eq!(OwnDir::find(&path).unwrap_err().kind(), Kind::Denied);
        }
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
        // What leads to the folder may be one: whoever starts storefs has named it.
        let folder = tempfile::tempdir().unwrap();
        symlink(folder.path(), temp.path().join("link")).unwrap();
        OwnDir::make(&temp.path().join("link/.storefs/serve")).unwrap();
        assert!(folder.path().join(".storefs/serve").is_dir());
    }

    #[test]
    fn what_root_makes_in_somebodys_folder_is_theirs() {
        if !rustix::process::geteuid().is_root() {
            return; // only root gives things away
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
        let own = OwnDir::make(&folder.path().join(".storefs/serve")).unwrap();
        own.make_below("runs").unwrap();
        own.write("written", |file| file.write_all(b"x")).unwrap();
        own.link(&own.unnamed().unwrap(), "linked").unwrap();
        for made in ["", "serve", "serve/runs", "serve/written", "serve/linked"] {
            let about = std::fs::metadata(folder.path().join(".storefs").join(made)).unwrap();
            assert_eq!(about.uid(), 65534, "{made}");
            assert_eq!(about.mode() & 0o077, 0, "{made}");
        }
    }
}
