//! A mount while it lives: what the control socket and the signals can ask of it. It never waits for the kernel to let
//! go; who started the mount does.

use super::place::Place;
use super::{busy, mounts};
use crate::control::{Served, Server};
use crate::error::{Error, Kind, Result};
use crate::mount::Mounted;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// A mount and what belongs to it on this machine.
pub(super) struct Live {
    mounted: Mounted,
    place: Place,
    log: Option<PathBuf>,
    since: SystemTime,
    server: Mutex<Option<Server>>,
}

impl Live {
    /// The mount at this place. `log` is the file it logs to, when it is one.
    pub(super) fn new(mounted: Mounted, place: Place, log: Option<PathBuf>) -> Self {
        Self {
            mounted,
            place,
            log,
            since: SystemTime::now(),
            server: Mutex::new(None),
        }
    }

    /// Keeps the control socket as long as the mountpoint is ours.
    pub(super) fn keep(&self, server: Server) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    /// The file it logs to, when it is one.
    pub(super) fn log(&self) -> Option<&PathBuf> {
        self.log.as_ref()
    }

    /// Waits until the kernel has let go of the mount.
    pub(super) fn wait(&self) -> Result<()> {
        self.mounted.wait()
    }

    /// Gives the mountpoint and the socket back.
    pub(super) fn leave(&self) {
        drop(
            self.server
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        self.place.leave();
    }
}

impl Served for Live {
    fn sync(&self, store: Option<&str>, _progress: &mut dyn FnMut(&str)) -> Result<()> {
        self.mounted.settle(store)
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

    fn unmount(&self, lazy: bool) -> Result<()> {
        // Asked before, because afterwards it is not in the list.
        let entry = mounts::top_at(self.place.path())?.filter(mounts::Entry::is_ours);
        match self.mounted.unmount(lazy) {
            Ok(()) => {
                if lazy {
                    tracing::info!("detached; it ends when the last file is closed");
                    self.leave();
                }
                Ok(())
            }
            Err(why) if why.kind() == Kind::Busy => {
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
            Err(why) => Err(why),
        }
    }
}
