//! A mount while it lives: what the control socket and the signals can ask of it. It never waits for the kernel to let
//! go; who started the mount does.

use super::place::Place;
use super::{busy, mounts};
use crate::control::{Served, Server};
use crate::error::{Error, Kind, Result};
use crate::mount::{Mounted, TOLD};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What reads a token again.
pub(super) type Reload = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// A mount and what belongs to it on this machine.
pub(super) struct Live {
    mounted: Mounted,
    place: Place,
    log: Option<PathBuf>,
    since: SystemTime,
    server: Mutex<Option<Server>>,
    /// Reads the token again, where there is one.
    reload: Option<Reload>,
    /// How long sending what waits may take at the end.
    drain: Mutex<Duration>,
    /// How many edits were left when sending ended.
    left: Mutex<Option<usize>>,
    ended: Condvar,
}

impl Live {
    /// The mount at this place. `log` is the file it logs to, when it is one.
    pub(super) fn new(
        mounted: Mounted,
        place: Place,
        log: Option<PathBuf>,
        drain: Duration,
        reload: Option<Reload>,
    ) -> Self {
        Self {
            mounted,
            place,
            log,
            since: SystemTime::now(),
            server: Mutex::new(None),
            reload,
            drain: Mutex::new(drain),
            left: Mutex::new(None),
            ended: Condvar::new(),
        }
    }

    /// Keeps the control socket as long as the mountpoint is ours.
    pub(super) fn keep(&self, server: Server) {
        *lock(&self.server) = Some(server);
    }

    /// The file it logs to, when it is one.
    pub(super) fn log(&self) -> Option<&PathBuf> {
        self.log.as_ref()
    }

    /// Reads the token again; `None` where there is none to read.
    pub(super) fn reload(&self) -> Option<Result<()>> {
        self.reload.as_ref().map(|reload| reload())
    }

    /// Waits until the kernel has let go of the mount.
    pub(super) fn wait(&self) -> Result<()> {
        self.mounted.wait()
    }

    /// Sends what waits, for a while, once nothing can be written any more. Says what is left; that stays saved.
    pub(super) fn drain(&self) -> Result<()> {
        let limit = *lock(&self.drain);
        let drained = match self.mounted.pending() {
            0 => Ok(()),
            count => {
                tracing::info!("{count} to be sent before the end, within {limit:?}");
                self.mounted.drain(limit)
            }
        };
        let left = self.mounted.pending();
        *lock(&self.left) = Some(left);
        self.ended.notify_all();
        match drained {
            Err(why) if left > 0 => Err(why),
            _ => Ok(()),
        }
    }

    /// Waits until sending has ended, and tells how it goes.
    fn wait_for_drain(&self, progress: &mut dyn FnMut(&str)) -> usize {
        let mut left = lock(&self.left);
        loop {
            if let Some(left) = *left {
                return left;
            }
            let (guard, _) = self
                .ended
                .wait_timeout(left, TOLD)
                .unwrap_or_else(PoisonError::into_inner);
            left = guard;
            match self.mounted.pending() {
                0 => {}
                count => progress(&format!("{count} to be sent")),
            }
        }
    }

    /// Lets those who wait for an answer have it before the process ends.
    pub(super) fn finish(&self) {
        if let Some(server) = &*lock(&self.server) {
            server.finish(Duration::from_secs(2));
        }
    }

    /// Gives the mountpoint back.
    pub(super) fn give_back(&self) {
        self.place.leave();
    }

    /// Gives the mountpoint and the socket back.
    pub(super) fn leave(&self) {
        drop(lock(&self.server).take());
        self.place.leave();
    }
}

impl Served for Live {
    fn sync(&self, store: Option<&str>, progress: &mut dyn FnMut(&str)) -> Result<()> {
        self.mounted.settle_and_tell(store, progress)
    }

    fn status(&self) -> Value {
        let mut status = json!({
            "mountpoint": self.place.path().display().to_string(),
            "state": "mounted",
            "pid": std::process::id(),
            "since": humantime::format_rfc3339_seconds(self.since).to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "log": self.log.as_ref().map(|path| path.display().to_string()),
        });
        if let (Some(ours), Value::Object(more)) = (status.as_object_mut(), self.mounted.status()) {
            for (name, value) in more {
                ours.entry(name).or_insert(value);
            }
        }
        status
    }

    fn unmount(
        &self,
        lazy: bool,
        drain: Option<Duration>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<usize> {
        let before = drain.map(|drain| std::mem::replace(&mut *lock(&self.drain), drain));
        let still_mounted = || {
            if let Some(before) = before {
                *lock(&self.drain) = before;
            }
        };
        // Asked before, because afterwards it is not in the list.
        let entry = mounts::top_at(self.place.path())?.filter(mounts::Entry::is_ours);
        match self.mounted.unmount(lazy) {
            Ok(()) => {
                if lazy {
                    tracing::info!("detached; it ends when the last file is closed");
                    self.leave();
                    return Ok(self.mounted.pending());
                }
                Ok(self.wait_for_drain(progress))
            }
            Err(why) if why.kind() == Kind::Busy => {
                still_mounted();
                let holders = entry
                    .map(|entry| busy::holders(&entry, None))
                    .unwrap_or_default();
                Err(Error::because(
                    "unmount",
                    self.place.path().display().to_string(),
                    Kind::Busy,
                    busy::describe(&holders),
                ))
            }
            Err(why) => {
                still_mounted();
                Err(why)
            }
        }
    }
}
