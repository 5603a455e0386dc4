//! Finds a mount of ours by its path and reaches its daemon. It never asks the mount itself, which may not answer.

use super::config::Surroundings;
use super::mounts::{self, Entry};
use crate::control::Client;
use crate::error::{Error, Kind, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The mount of ours at this path, as a person wrote it. `op` is what it is wanted for.
pub(super) fn find(op: &'static str, path: &Path, here: &Surroundings) -> Result<Entry> {
    let entry = candidates(path, here)
        .into_iter()
        .find_map(|path| mounts::top_at(&path).transpose())
        .transpose()?;
    let subject = || path.display().to_string();
    match entry {
        Some(entry) if entry.is_ours() => Ok(entry),
        Some(entry) => Err(Error::because(
            op,
            subject(),
            Kind::NotPermitted,
            format!(
                "a file system of type {} is mounted there, not one of storefs (use umount for it)",
                entry.fstype
            ),
        )),
        None => Err(Error::because(
            op,
            subject(),
            Kind::NotFound,
            "nothing is mounted there (storefs status lists the mounts)",
        )),
    }
}

/// What the path may mean, most careful first: the path as written, with the links above it resolved, all resolved.
fn candidates(path: &Path, here: &Surroundings) -> Vec<PathBuf> {
    let path = here.absolute(path);
    let mut found = vec![path.clone()];
    if let (Some(above), Some(name)) = (path.parent(), path.file_name())
        && let Ok(above) = fs::canonicalize(above)
    {
        found.push(above.join(name));
    }
    if let Ok(link) = fs::read_link(&path) {
        let above = path.parent().unwrap_or(Path::new("/"));
        found.extend(fs::canonicalize(above.join(link)));
    }
    found.dedup();
    found
}

/// Connects to the mount's daemon. `Kind::Denied` when it belongs to another user, `Kind::NotFound` when there is none.
pub(super) fn connect(op: &'static str, entry: &Entry, here: &Surroundings) -> Result<Client> {
    let mut fault = None;
    for socket in here.sockets_of(&entry.mountpoint, entry.owner) {
        match Client::connect(&socket) {
            Ok(client) => return Ok(client),
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                fault = Some((
                    Kind::Denied,
                    "it was mounted by another user (run this as that user, or as root)",
                ));
            }
            Err(_) => {}
        }
    }
    let (kind, why) = fault.unwrap_or((
        Kind::NotFound,
        "its daemon does not answer (storefs umount takes a dead mount away)",
    ));
    Err(Error::because(
        op,
        entry.mountpoint.display().to_string(),
        kind,
        why,
    ))
}
