//! Finds a mount of ours by its path and reaches its daemon. It never asks the mount itself, which may not answer.

use super::config::Surroundings;
use super::mounts::{self, Entry};
use crate::control::{Client, Request};
use crate::error::{Error, Kind, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon that lives takes at most to answer, and how often it is asked when it does not.
const MOMENT: Duration = Duration::from_millis(300);
const TRIES: usize = 10;
/// After so long without a word a daemon is taken for one that does not answer. One that lives says something every second.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

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

/// Whether the daemon of this mount was killed and its end is held up. Whoever asks such a mount anything waits for ever.
pub(super) fn is_held_up(entry: &Entry, here: &Surroundings) -> bool {
    let sockets = here.sockets_of(&entry.mountpoint, entry.owner);
    sockets.iter().any(|socket| Client::is_held_up(socket))
}

/// Lets go of the mounts of ours at this path whose daemons were killed and are held up, before anything touches the path.
/// A daemon that is just ending is waited for: it still listens and answers no more.
pub(super) fn let_go_of_held_up(op: &'static str, path: &Path, here: &Surroundings) -> Result<()> {
    let mut tries = 0;
    while let Ok(entry) = find(op, path, here) {
        if is_held_up(&entry, here) {
            mounts::abort(&entry)?;
            tracing::info!(mountpoint = %entry.mountpoint.display(), "cleaned up a mount whose daemon was killed");
            continue;
        }
        let answer = connect(op, &entry, here)
            .and_then(|mut client| client.ask(&Request::Status, Some(MOMENT), &mut |_| {}));
        tries += 1;
        match answer {
            Err(why) if matches!(why.kind(), Kind::TimedOut | Kind::Io) && tries < TRIES => {
                std::thread::sleep(MOMENT / 10);
            }
            // It answers, or nobody listens any more: the mount itself can be asked.
            _ => break,
        }
    }
    Ok(())
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
