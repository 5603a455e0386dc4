//! What runs leave behind when they are killed, and its removal: by their guard at once, or by the next run. It never touches
//! what belongs to a run that lives.

use super::config::Surroundings;
use super::mounts::{self, Entry};
use crate::actor::Left;
use crate::control::{self, Client};
use crate::error::{Error, Result};
use crate::serve::Kept;
use crate::volume::cached;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In a run's own folder: held by flock as long as the run lives.
const LOCK: &str = "lock";
/// What there is to clean up.
const LEFT: &str = "left.json";
/// Where it mounts.
const MOUNTPOINT: &str = "mnt";
/// Its control socket, where it mounts nothing.
const SOCKET: &str = "control.sock";
/// A folder that is younger may be one in which a run is just beginning.
const YOUNG: Duration = Duration::from_secs(10);

/// The folder of a run's own, which ends with the run.
pub(super) struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes it.
    pub(super) fn make(run: &str, here: &Surroundings) -> Result<Self> {
        const OP: &str = "make the run's own folder";
        let all = homes(here);
        control::private_folder(&here.runtime_dir())?;
        control::private_folder(&all)?;
        let path = all.join(run);
        let fault = |why: io::Error| Error::io(OP, path.display().to_string(), why);
        DirBuilder::new().mode(0o700).create(&path).map_err(fault)?;
        let lock = File::create(path.join(LOCK)).map_err(fault)?;
        // Another run that cleans up may hold it for a moment, to see whether this one lives.
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|why| Error::io(OP, path.display().to_string(), why))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its control socket is when nothing is mounted.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Where the run mounts when nobody says otherwise.
    pub(super) fn mountpoint(&self) -> PathBuf {
        self.path.join(MOUNTPOINT)
    }

    /// Writes down what there would be to clean up.
    pub(super) fn note(&self, left: &Left) -> Result<()> {
        let path = self.path.join(LEFT);
        let fault = |why: io::Error| Error::io("write", path.display().to_string(), why);
        let text = serde_json::to_vec(left).map_err(|why| fault(why.into()))?;
        fs::write(&path, text).map_err(fault)
    }

    /// Removes what this run had on this machine but for the word how it ended, which the next run passes on.
    pub(super) fn leave(self, left: &Left) -> Result<()> {
        self.note(left)?;
        remove_parts(left);
        Ok(())
    }
}

fn homes(here: &Surroundings) -> PathBuf {
    here.runtime_dir().join("runs")
}

/// Cleans up what killed runs left. A run whose folder is locked lives.
pub(super) fn sweep(here: &Surroundings) {
    for entry in fs::read_dir(homes(here)).into_iter().flatten().flatten() {
        let home = entry.path();
        // Kept while it is looked at: a run writes nothing down before it has the lock, and then until its end.
        let lock = take(&home);
        let is_free = lock.is_some();
        let noted = fs::read(home.join(LEFT)).ok();
        let Some(left) = noted.and_then(|text| serde_json::from_slice::<Left>(&text).ok()) else {
            if is_free && is_old(&home) {
                remove_unnoted(&home);
            }
            continue;
        };
        if *left.home == *home && is_free && left.ended.is_some() {
            pass_on(&left);
            continue;
        }
        // A killed process whose end is held up keeps its locks.
        let held_up = || left.socket.as_deref().is_some_and(Client::is_held_up);
        if *left.home == *home && (is_free || held_up()) {
            tracing::warn!("cleaned up after the run {}, which was killed", left.run);
            bury(&Left {
                group: None,
                ..left
            });
        }
    }
}

/// Takes the lock of a run's folder. None when a process holds it, or when a run is just beginning there.
fn take(home: &Path) -> Option<Option<File>> {
    match File::open(home.join(LOCK)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .is_ok()
            .then_some(Some(lock)),
        Err(why) => (why.kind() == io::ErrorKind::NotFound && is_old(home)).then_some(None),
    }
}

/// Whether a run has had the time to write into its folder what there would be to clean up.
fn is_old(home: &Path) -> bool {
    let changed = fs::symlink_metadata(home).and_then(|about| about.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > YOUNG))
}

/// Removes the folder of a run that was killed before it had written that. Nothing was mounted by then.
fn remove_unnoted(home: &Path) {
    tidy(&Left {
        home: home.into(),
        mountpoint: Some(home.join(MOUNTPOINT).into()),
        made: true,
        socket: Some(home.join(SOCKET).into()),
        ..Left::default()
    });
}

/// Keeps how a run ended that could not keep it itself. While the disk is still full, or the folder another user's, that is left for
/// later; whoever runs something else now need not hear of it.
fn pass_on(left: &Left) {
    let Some(run) = &left.ended else {
        return;
    };
    match Kept::below(&left.server).keep(run) {
        Err(why) if left.server.exists() => tracing::debug!("{why}"),
        // Without the folder nobody will ask for it any more.
        Ok(()) | Err(_) => tidy(left),
    }
}

/// Cleans up after a run whose process is gone.
pub(super) fn bury(left: &Left) {
    if let Some(group) = left.group.and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
        // The command may have left its group.
        if getpgid(Some(group)).is_ok_and(|now| now != group) {
            let _ = kill_process(group, Signal::KILL);
        }
    }
    let killed = left.group.is_some();
    for entry in left.mountpoint.iter().flat_map(|path| ours_at(path)) {
        // Whoever has mounted there since lives.
        if (killed || mounts::is_dead(&entry.mountpoint))
            && let Err(why) = mounts::abort(&entry)
        {
            tracing::warn!("{why}");
        }
    }
    if left.source.is_none() {
        Kept::below(&left.server).bury(&left.run);
    }
    tidy(left);
}

fn ours_at(path: &Path) -> Vec<Entry> {
    let all = mounts::all().unwrap_or_default();
    let mut found: Vec<Entry> = all
        .into_iter()
        .filter(|entry| entry.mountpoint == path && entry.is_ours())
        .collect();
    // The last one lies on top.
    found.reverse();
    found
}

/// Removes what a run had on this machine. Only empty directories, since something may be mounted on one.
pub(super) fn tidy(left: &Left) {
    remove_parts(left);
    let _ = fs::remove_file(left.home.join(LEFT));
    let _ = fs::remove_file(left.home.join(LOCK));
    let _ = fs::remove_dir(&left.home);
}

fn remove_parts(left: &Left) {
    if let Some(mountpoint) = left.mountpoint.as_ref().filter(|_| left.made) {
        let _ = fs::remove_dir(mountpoint);
    }
    if let Some(socket) = left
        .socket
        .as_ref()
        .filter(|socket| Client::connect(socket).is_err())
    {
        let _ = fs::remove_file(socket);
    }
    if let Some(source) = &left.source {
        let _ = fs::remove_dir_all(source);
    }
    if let Some((spool, cache)) = &left.spool {
        cached::remove_spent(spool, cache);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn runs_that_begin_while_others_clean_up_keep_their_folders() {
        let temp = tempfile::tempdir().unwrap();
        let below = temp.path().to_str().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let here = Surroundings::made_of(&[("XDG_RUNTIME_DIR", below)], temp.path(), uid.max(1));
        let ended = AtomicBool::new(false);
        let begin = Barrier::new(3);
        let began = std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    begin.wait();
                    while !ended.load(Ordering::Relaxed) {
                        sweep(&here);
                    }
                });
            }
            begin.wait();
            let began = (0..1000).try_for_each(|run| {
                let home = Home::make(&format!("run{run}"), &here)?;
                let left = Left {
                    home: home.path().into(),
                    server: temp.path().join("server").into(),
                    ..Left::default()
                };
                home.note(&left)?;
                std::thread::yield_now();
                home.note(&left)?;
                tidy(&left);
                Ok::<(), Error>(())
            });
            ended.store(true, Ordering::Relaxed);
            began
        });
        began.unwrap();
    }
}
