//! What is mounted here, as /proc/self/mountinfo tells it, and letting go of mounts of ours. It never touches a mount
//! of another file system.

use crate::error::{Error, Kind, Result};
use rustix::mount::UnmountFlags;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The type our mounts have in /proc/mounts.
pub(super) const FSTYPE: &str = "fuse.storefs";

/// One line of mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The mount's number, as /proc/PID/fdinfo shows it.
    pub id: u64,
    /// `major:minor` of its device, in decimal.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Its type.
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// The user who made a FUSE mount; 0 for others.
    pub owner: u32,
}

impl Entry {
    /// Whether it is one of ours.
    pub(super) fn is_ours(&self) -> bool {
        self.fstype == FSTYPE
    }
}

/// All mounts of this namespace, in the order they were made.
pub(super) fn all() -> Result<Vec<Entry>> {
    const FILE: &str = "/proc/self/mountinfo";
    let text = fs::read(FILE).map_err(|why| Error::io("read", FILE, why))?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(entry)
        .collect())
}

/// The mount that is seen at exactly this resolved path.
pub(super) fn top_at(path: &Path) -> Result<Option<Entry>> {
    Ok(all()?.into_iter().rfind(|entry| entry.mountpoint == path))
}

/// One line, as proc(5) describes it; `None` when it is none.
fn entry(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let text = |word: &[u8]| String::from_utf8_lossy(&unescaped(word)).into_owned();
    let id = text(words.next()?).parse().ok()?;
    let device = text(words.nth(1)?);
    let mountpoint = PathBuf::from(std::ffi::OsString::from_vec(unescaped(words.nth(1)?)));
    let flags = text(words.next()?);
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let fstype = text(words.next()?);
    let source = text(words.next()?);
    let more = text(words.next().unwrap_or_default());
    let is_read_only = |list: &str| list.split(',').any(|flag| flag == "ro");
    Some(Entry {
        id,
        device,
        mountpoint,
        fstype,
        source,
        read_only: is_read_only(&flags) || is_read_only(&more),
        owner: more
            .split(',')
            .find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
            .unwrap_or(0),
    })
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = match after {
            [a, b, c, ..] if byte == b'\\' => std::str::from_utf8(&[*a, *b, *c])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        match octal {
            Some(octal) => {
                plain.push(octal);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// Whether the daemon behind the mount at this path is gone.
pub(super) fn is_dead(path: &Path) -> bool {
    let error = fs::metadata(path).err().and_then(|why| why.raw_os_error());
    matches!(error, Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Lets go of a mount of ours whose daemon was killed and whose end is held up: by a thread that waits in the kernel for a
/// file, held by a request that only the daemon could answer. Aborting the connection answers all of them.
pub(super) fn abort(entry: &Entry) -> Result<()> {
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    if rustix::mount::unmount(&entry.mountpoint, flags).is_ok() {
        return Ok(());
    }
    // Not ours to unmount by force: its owner may abort it here, where fusectl is mounted.
    let minor = entry.device.split(':').nth(1).unwrap_or_default();
    let _ = fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
    unmount(&entry.mountpoint, true)
}

/// Lets go of the mount at this path, which the caller knows to be ours: by the kernel, or by fusermount3 for who may
/// not. `Kind::Busy` when it is in use and `lazy` is not set.
pub(super) fn unmount(path: &Path, lazy: bool) -> Result<()> {
    const OP: &str = "unmount";
    let subject = || path.display().to_string();
    let flags = if lazy {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::empty()
    };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::PERM) => {}
        Err(why) => return Err(Error::io(OP, subject(), why)),
    }
    let mut command = Command::new("fusermount3");
    command
        .arg("-u")
        .args(lazy.then_some("-z"))
        .arg("--")
        .arg(path);
    let output = command.stdin(Stdio::null()).output().map_err(|why| {
        if why.kind() == io::ErrorKind::NotFound {
            let advice = "fusermount3 is not installed (apt-get install fuse3)";
            return Error::because(OP, subject(), Kind::NotPermitted, advice);
        }
        Error::io(OP, subject(), why)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if said.to_lowercase().contains("busy") {
        Kind::Busy
    } else {
        Kind::NotPermitted
    };
    Err(Error::because(OP, subject(), kind, said))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = br"88 29 0:57 / /mnt/a\040b\134 ro,nosuid,nodev shared:3 master:1 - fuse.storefs /h/my\040app rw,user_id=1000,group_id=1000";
        let entry = entry(line).unwrap();
        assert_eq!(entry.mountpoint, Path::new("/mnt/a b\\"));
        assert_eq!((entry.id, entry.device.as_str()), (88, "0:57"));
        assert_eq!(
            (entry.fstype.as_str(), entry.source.as_str()),
            (FSTYPE, "/h/my app")
        );
        assert!(entry.is_ours() && entry.read_only);
        assert_eq!(entry.owner, 1000);
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        assert_eq!(entry(b""), None);
        assert_eq!(entry(b"88 29 0:57 / /m rw"), None);
        assert_eq!(unescaped(br"a\04"), br"a\04");
    }

    #[test]
    fn the_root_of_this_namespace_is_found() {
        assert!(!top_at(Path::new("/proc")).unwrap().unwrap().is_ours());
        assert_eq!(top_at(Path::new("/no/such/place")).unwrap(), None);
    }
}
