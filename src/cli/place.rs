//! The mountpoint before and after a mount: checked, made when missing, taken away again. It never touches a mount that
//! is not ours.

use super::mounts;
use crate::error::{Error, Kind, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const OP: &str = "mount at";
/// How long somebody else may take to mount.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory that can be mounted over.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    made: bool,
    /// Until it is mounted nobody else of ours mounts there.
    lock: Mutex<Option<OwnedFd>>,
}

impl Place {
    /// Checks that the folder can be mounted at this place, cleans a dead mount of ours away, and makes the directory
    /// when it is missing. `source` and `mountpoint` are resolved paths.
    pub(super) fn prepare(
        mountpoint: &Path,
        source: Option<&Path>,
        nonempty: bool,
    ) -> Result<Self> {
        if let Some(source) = source {
            keep_apart(mountpoint, source)?;
        }
        clear(mountpoint)?;
        let made = make(mountpoint)?;
        let place = Self {
            path: mountpoint.to_owned(),
            made,
            lock: Mutex::new(lock(mountpoint)?),
        };
        if !made && !nonempty && !is_empty(mountpoint)? {
            return Err(refused(
                mountpoint,
                Kind::NotEmpty,
                "the directory is not empty and its files would be hidden (choose an empty one, or -o nonempty)",
            ));
        }
        Ok(place)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `prepare` made the directory.
    pub(super) fn was_made(&self) -> bool {
        self.made
    }

    /// It is mounted: whoever comes now sees that.
    pub(super) fn mounted(&self) {
        drop(self.lock.lock().map(|mut lock| lock.take()));
    }

    /// Removes the directory again if `prepare` made it and nothing is in it.
    pub(super) fn leave(&self) {
        if self.made && fs::remove_dir(&self.path).is_ok() {
            tracing::debug!(mountpoint = %self.path.display(), "removed the mountpoint again");
        }
    }
}

/// The mountpoint with every link on the way to it resolved. It need not exist, but the directory above it must.
pub(super) fn resolve(mountpoint: &Path) -> Result<PathBuf> {
    match fs::canonicalize(mountpoint) {
        Ok(path) => return Ok(path),
        Err(why)
            if matches!(
                why.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTCONN | libc::ECONNABORTED)
            ) => {}
        Err(why) => return Err(Error::io(OP, mountpoint.display().to_string(), why)),
    }
    if fs::symlink_metadata(mountpoint).is_ok_and(|about| about.is_symlink()) {
        return Err(refused(
            mountpoint,
            Kind::NotFound,
            "it is a link that leads nowhere (remove it)",
        ));
    }
    let (Some(above), Some(name)) = (mountpoint.parent(), mountpoint.file_name()) else {
        return Err(refused(
            mountpoint,
            Kind::Invalid,
            "it is no path of a directory",
        ));
    };
    let above = fs::canonicalize(above).map_err(|why| {
        if why.kind() != io::ErrorKind::NotFound {
            return Error::io(OP, mountpoint.display().to_string(), why);
        }
        let shown = above.display();
        let why = format!("there is no directory {shown} to make it in (mkdir -p {shown})");
        refused(mountpoint, Kind::NotFound, why)
    })?;
    Ok(above.join(name))
}

fn refused(path: &Path, kind: Kind, why: impl Into<String>) -> Error {
    Error::because(OP, path.display().to_string(), kind, why)
}

pub(super) fn keep_apart(mountpoint: &Path, source: &Path) -> Result<()> {
    let shown = source.display();
    if mountpoint.starts_with(source) {
        let why = format!("it is inside its own source {shown} (mount it somewhere else)");
        return Err(refused(mountpoint, Kind::Invalid, why));
    }
    if source.starts_with(mountpoint) {
        let why = format!("the mount would hide its own source {shown} (mount it somewhere else)");
        return Err(refused(mountpoint, Kind::Invalid, why));
    }
    Ok(())
}

/// Makes sure that nothing is mounted there; lets go of dead mounts of ours, of which there may be a stack.
fn clear(mountpoint: &Path) -> Result<()> {
    while let Some(entry) = mounts::top_at(mountpoint)? {
        let dead = mounts::is_dead(mountpoint);
        if !entry.is_ours() {
            let state = if dead { "a dead mount" } else { "a mount" };
            let why = format!(
                "{state} of type {} is there already (choose another place, or umount {})",
                entry.fstype,
                mountpoint.display()
            );
            return Err(refused(mountpoint, Kind::Busy, why));
        }
        if !dead {
            let why = format!(
                "{} is mounted there already (storefs umount {} first)",
                entry.source,
                mountpoint.display()
            );
            return Err(refused(mountpoint, Kind::Busy, why));
        }
        mounts::unmount(mountpoint, true)?;
        tracing::info!(mountpoint = %mountpoint.display(), "cleaned up a dead mount");
    }
    Ok(())
}

/// Keeps others of ours from mounting there at the same moment. None where directories cannot be locked.
fn lock(mountpoint: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::open(mountpoint, flags, Mode::empty()) else {
        return Ok(None);
    };
    let start = Instant::now();
    while let Err(Errno::WOULDBLOCK) = flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        clear(mountpoint)?;
        if start.elapsed() > PATIENCE {
            let why = "somebody else is about to mount there (try again, or choose another place)";
            return Err(refused(mountpoint, Kind::Busy, why));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Whoever had the lock may have mounted.
    clear(mountpoint)?;
    Ok(Some(dir))
}

/// Makes the directory when it is missing; true when it did.
fn make(mountpoint: &Path) -> Result<bool> {
    match fs::create_dir(mountpoint) {
        Ok(()) => return Ok(true),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
        // A read-only or foreign parent is no obstacle when the directory is there.
        Err(why) if !mountpoint.exists() => {
            return Err(Error::io(OP, mountpoint.display().to_string(), why));
        }
        Err(_) => {}
    }
    let about = fs::metadata(mountpoint)
        .map_err(|why| Error::io(OP, mountpoint.display().to_string(), why))?;
    if about.is_dir() {
        Ok(false)
    } else {
        Err(refused(
            mountpoint,
            Kind::NotADirectory,
            "it is a file (name a directory)",
        ))
    }
}

fn is_empty(mountpoint: &Path) -> Result<bool> {
    match fs::read_dir(mountpoint) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(why) => Err(Error::io(OP, mountpoint.display().to_string(), why)),
    }
}

/// Whether the kernel's door can be opened by this user, and what to do when it cannot.
pub(super) fn check_device(uid: u32) -> Result<()> {
    const DEVICE: &str = "/dev/fuse";
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    let (kind, advice) = match opened {
        Ok(_) if uid != 0 && !has_fusermount() => (
            Kind::NotFound,
            "fusermount3 is missing, which users other than root mount with (apt-get install fuse3)",
        ),
        Ok(_) => return Ok(()),
        Err(why) => match why.raw_os_error() {
            Some(libc::ENOENT) => (
                Kind::NotFound,
                "there is no such device (load the module: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN)",
            ),
            Some(libc::ENODEV | libc::ENXIO) => (
                Kind::NotFound,
                "the kernel's FUSE module is not loaded (modprobe fuse)",
            ),
            Some(libc::EACCES | libc::EPERM) => (
                Kind::Denied,
                "permission denied (run as root, or let users in: chmod 666 /dev/fuse; in a container: --device /dev/fuse)",
            ),
            _ => return Err(Error::io("open", DEVICE, why)),
        },
    };
    Err(Error::because("open", DEVICE, kind, advice))
}

fn has_fusermount() -> bool {
    std::process::Command::new("fusermount3")
        .arg("-V")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn temp() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().canonicalize().unwrap();
        (temp, path)
    }

    #[test]
    fn nobody_else_prepares_a_place_before_it_is_mounted() {
        let (_temp, root) = temp();
        let at = root.join("mnt");
        let first = Place::prepare(&at, None, false).unwrap();
        let mounted = std::sync::atomic::AtomicBool::new(false);
        let ordering = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|threads| {
            let second = threads.spawn(|| {
                Place::prepare(&at, None, false).unwrap();
                mounted.load(ordering)
            });
            std::thread::sleep(Duration::from_millis(50));
            mounted.store(true, ordering);
            first.mounted();
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn a_missing_mountpoint_is_made_and_taken_away_again() {
        let (_temp, root) = temp();
        let source = root.join("storage");
        let place = Place::prepare(&root.join("mnt"), Some(&source), false).unwrap();
        assert!(place.path().is_dir());
        place.leave();
        assert!(!place.path().exists());
    }

    #[test]
    fn a_mountpoint_that_was_there_stays() {
        let (_temp, root) = temp();
        fs::create_dir(root.join("mnt")).unwrap();
        let place = Place::prepare(&root.join("mnt"), Some(&root.join("storage")), false).unwrap();
        place.leave();
        assert!(place.path().is_dir());
    }

    #[test]
    fn a_full_mountpoint_needs_nonempty() {
        let (_temp, root) = temp();
        fs::create_dir(root.join("mnt")).unwrap();
        fs::write(root.join("mnt/file"), "").unwrap();
        let refused = Place::prepare(&root.join("mnt"), Some(&root.join("s")), false).unwrap_err();
        assert_eq!(refused.kind(), Kind::NotEmpty);
        assert!(refused.to_string().contains("-o nonempty"));
        Place::prepare(&root.join("mnt"), Some(&root.join("s")), true).unwrap();
    }

    #[test]
    fn source_and_mountpoint_are_kept_apart_both_ways() {
        let (_temp, root) = temp();
        for (mountpoint, source) in [("s/m", "s"), ("s", "s"), ("m", "m/s")] {
            let error =
                Place::prepare(&root.join(mountpoint), Some(&root.join(source)), true).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
        }
        Place::prepare(
            &root.join("storage-mnt"),
            Some(&root.join("storage")),
            false,
        )
        .unwrap();
    }

    #[test]
    fn a_file_and_a_missing_parent_are_refused() {
        let (_temp, root) = temp();
        fs::write(root.join("file"), "").unwrap();
        let error = Place::prepare(&root.join("file"), Some(&root.join("s")), false).unwrap_err();
        assert_eq!(error.kind(), Kind::NotADirectory);
        let error = resolve(&root.join("no/such")).unwrap_err();
        assert!(error.to_string().contains("mkdir -p"));
        std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
        assert!(
            resolve(&root.join("link"))
                .unwrap_err()
                .to_string()
                .contains("leads nowhere")
        );
    }

    #[test]
    fn a_mount_of_another_type_is_left_alone() {
        let error =
            Place::prepare(Path::new("/proc"), Some(Path::new("/nowhere")), true).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert!(error.to_string().contains("type proc"));
    }
}
