//! The system calls of a folder, each on one name of an open directory. Nothing here follows a link or leaves that
//! directory. Names are as `text_of` gives them; those of files that we make are plain text.

use super::FileStat;
use crate::error::{Error, Kind, Result};
use crate::record::file_name::{bytes_of, text_of};
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Uid,
};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Directory entries are read in pieces of this many bytes: about what one call of a listing consumes.
const ENTRIES_BYTES: usize = 32 * 1024;

/// Whether this may be the name of a file in a directory. Everything below is only called with such names.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && bytes_of(name).len() <= 255
        && !name.contains(['/', '\0'])
        && name != "."
        && name != ".."
}

/// fstatat without following a link.
pub(super) fn stat(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<FileStat> {
    fs::statat(dir, &*bytes_of(file), AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileStat::of(&stat))
}

/// fstatat; `None` when there is no such file.
pub(super) fn stat_if_there(
    dir: BorrowedFd<'_>,
    file: &str,
) -> rustix::io::Result<Option<FileStat>> {
    match stat(dir, file) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl FileStat {
    pub(super) fn of(stat: &fs::Stat) -> Self {
        let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000) + nanos;
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            accessed_ns: ns(stat.st_atime, stat.st_atime_nsec as i64),
            modified_ns: ns(stat.st_mtime, stat.st_mtime_nsec as i64),
            changed_ns: ns(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// What kind of file it is.
    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }

    /// Whether it is a symbolic link (only scratch names can be).
    pub fn is_link(&self) -> bool {
        self.file_type() == FileType::Symlink
    }
}

/// fstat of an open file.
pub(super) fn stat_open(file: impl AsFd) -> rustix::io::Result<FileStat> {
    fs::fstat(file).map(|stat| FileStat::of(&stat))
}

/// So many replacements in a row are waited out by an open.
const RACES: u32 = 64;

/// Opens one name beneath a directory. A kernel or a sandbox without openat2 is answered by openat: with a single
/// component and O_NOFOLLOW it cannot leave the directory either.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    name: &str,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = bytes_of(name);
    for _ in 0..RACES {
        match fs::openat2(dir, &*name, flags, Mode::empty(), resolve) {
            // The file was moved out of the directory while it was opened, as a version is that another one replaces. One
            // name cannot lead out of a directory by itself.
            Err(Errno::XDEV | Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => {
                return fs::openat(dir, &*name, flags, Mode::empty());
            }
            other => return other,
        }
    }
    Err(Errno::BUSY)
}

/// Whether this is a link, and not one to a file beside it as ours are.
pub(super) fn leads_elsewhere(dir: BorrowedFd<'_>, file: &str) -> bool {
    rustix::fs::readlinkat(dir, file, Vec::new())
        .is_ok_and(|target| target.as_bytes().contains(&b'/'))
}

/// Opens a regular file. A fifo cannot block this and a device is never handed out.
pub(super) fn open_file(dir: BorrowedFd<'_>, file: &str, write: bool) -> rustix::io::Result<File> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    open_as(dir, file, access).map(|(file, _)| file)
}

/// The same for reading, with what fstat says of the file.
pub(super) fn open_with_stat(
    dir: BorrowedFd<'_>,
    file: &str,
) -> rustix::io::Result<(File, FileStat)> {
    open_as(dir, file, OFlags::RDONLY)
}

fn open_as(
    dir: BorrowedFd<'_>,
    file: &str,
    access: OFlags,
) -> rustix::io::Result<(File, FileStat)> {
    let opened = open_beneath(dir, file, access | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = stat_open(&opened)?;
    match stat.file_type() {
        FileType::RegularFile => Ok((File::from(opened), stat)),
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::NXIO),
    }
}

/// Opens a directory in a directory.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    open_beneath(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Renames; with `no_replace` an existing target is EEXIST.
pub(super) fn rename(
    from_dir: BorrowedFd<'_>,
    from: &str,
    to_dir: BorrowedFd<'_>,
    to: &str,
    no_replace: bool,
) -> rustix::io::Result<()> {
    if !no_replace {
        return fs::renameat(from_dir, from, to_dir, to);
    }
    match fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
        // Some file systems know no flags. A hard link is as exclusive, and the old name goes after it.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match fs::linkat(from_dir, from, to_dir, to, AtFlags::empty()) {
                Ok(()) => fs::unlinkat(from_dir, from, AtFlags::empty()),
                Err(error) if no_hard_links(error) => match stat_if_there(to_dir, to)? {
                    Some(_) => Err(Errno::EXIST),
                    // Between the look and this, only somebody who knows nothing of our locks can make one.
                    None => fs::renameat(from_dir, from, to_dir, to),
                },
                Err(error) => Err(error),
            }
        }
        other => other,
    }
}

/// Whether this says only that the file, or the file system, can have no second name.
pub(super) fn no_hard_links(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS
    )
}

/// Sets the permission bits of a file of ours. Where the file system keeps none (FAT), it stays as that shows it.
pub(super) fn set_mode(file: impl AsFd, mode: u32) -> rustix::io::Result<()> {
    match fs::fchmod(file, Mode::from_raw_mode(mode)) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// What root makes of ours in another user's folder is that user's. Where that cannot be, it stays root's.
pub(super) fn give_to_owner(folder: BorrowedFd<'_>, made: impl AsFd) {
    if rustix::process::geteuid().is_root()
        && let Ok(owner) = stat_open(folder)
    {
        let (user, group) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        let _ = fs::fchown(made, Some(user), Some(group));
    }
}

/// Removes a file. It being gone already is as good.
pub(super) fn remove(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<()> {
    match fs::unlinkat(dir, file, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) kind: FileType,
    pub(super) inode: u64,
    /// The directory's own position after this entry.
    pub(super) after: u64,
}

thread_local! {
    static ENTRIES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Walks a directory from a position of its own (0 is the start), through a descriptor of its own. True when the end was reached.
pub(super) fn walk(
    dir: BorrowedFd<'_>,
    from: u64,
    each: &mut dyn FnMut(Entry<'_>) -> Result<bool>,
) -> Result<bool> {
    let failed = |error: Errno| Error::io("list the directory", "", error);
    let fresh = open_dir(dir, ".").map_err(failed)?;
    if from != 0 {
        fs::seek(&fresh, fs::SeekFrom::Start(from)).map_err(failed)?;
    }
    // Taken out, not borrowed: `each` may walk another directory.
    let mut bytes = ENTRIES.take();
    bytes.clear();
    bytes.reserve_exact(ENTRIES_BYTES);
    let mut entries = RawDir::new(&fresh, bytes.spare_capacity_mut());
    let ended = loop {
        match entries.next() {
            None => break Ok(true),
            Some(Err(error)) => break Err(failed(error)),
            Some(Ok(entry)) => {
                let name = &*text_of(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let mut kind = entry.file_type();
                if kind == FileType::Unknown {
                    match stat(dir, name) {
                        Ok(stat) => kind = stat.file_type(),
                        Err(_) => continue,
                    }
                }
                let entry = Entry {
                    name,
                    kind,
                    inode: entry.ino(),
                    after: entry.next_entry_cookie(),
                };
                match each(entry) {
                    Ok(true) => {}
                    Ok(false) => break Ok(false),
                    Err(error) => break Err(error),
                }
            }
        }
    };
    ENTRIES.set(bytes);
    ended
}

/// Makes a directory with exactly this mode, whatever the umask. True when it was not there; false also when somebody has
/// removed it again since.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &str, mode: u32) -> Result<bool> {
    let failed = |error: Errno| Error::io("make the directory", name, error);
    match fs::mkdirat(dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let made = match open_dir(dir, name) {
                Err(Errno::NOENT) => return Ok(false),
                other => other.map_err(failed)?,
            };
            set_mode(&made, mode).map_err(failed)?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Makes a directory when it is missing, and opens it.
pub(super) fn ensure_dir(dir: BorrowedFd<'_>, name: &str, mode: u32) -> Result<OwnedFd> {
    match open_dir(dir, name) {
        Err(Errno::NOENT) => {
            make_dir(dir, name, mode)?;
            open_dir(dir, name).map_err(|error| Error::io("open the directory", name, error))
        }
        other => other.map_err(|error| Error::io("open the directory", name, error)),
    }
}

/// Removes a directory with everything in it, following no link.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &str) -> Result<()> {
    let failed = |error: Errno| Error::io("remove the directory", name, error);
    let opened = match open_dir(dir, name) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return remove(dir, name).map_err(failed),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    walk(opened.as_fd(), 0, &mut |entry| {
        names.push((entry.name.to_owned(), entry.kind));
        Ok(true)
    })?;
    for (name, kind) in names {
        if kind == FileType::Directory {
            remove_tree(opened.as_fd(), &name)?;
        } else {
            remove(opened.as_fd(), &name).map_err(failed)?;
        }
    }
    match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The error of a call on a record's file.
pub(super) fn failed(op: &'static str, subject: &str, error: Errno) -> Error {
    let wrapped = Error::io(op, subject, error);
    match error {
        Errno::XDEV => Error::because(
            op,
            subject,
            Kind::CrossDevice,
            "the store is on another disk than the folder's .storefs; mount that store's own storage folder instead",
        ),
        // What stands there is no record, so no record is there.
        Errno::NXIO | Errno::LOOP => wrapped.with_kind(Kind::NotFound),
        _ => wrapped,
    }
}
