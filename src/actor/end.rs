//! The end of a run: its mount is let go, and what it has done is summed up. It never ends a process.

use super::asked::Living;
use super::child::Exit;
use crate::backend::dir::DirBackend;
use crate::backend::{Backend, ListQuery};
use crate::error::{Error, Kind, Result};
use crate::mount::Mounted;
use crate::record::{Key, RecordId};
use crate::serve::{Run, Status};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How long others may go on using the mount when the command has ended: with files that are open, and without any, in other
/// mount namespaces.
const LAST_FILES: Duration = Duration::from_secs(5);
const LAST_COPIES: Duration = Duration::from_secs(1);
/// How far a file's time may lie behind the clock.
const CLOCK: Duration = Duration::from_millis(20);

/// What is told of a run that has ended.
pub struct Ended {
    /// The run.
    pub run: Run,
    /// Its user's id.
    pub user: String,
    /// What the store is called in the storage folder.
    pub store: String,
    /// How many records the run has written.
    pub records: u64,
    /// The file that holds OUTPUT.
    pub output: Option<PathBuf>,
    /// The command's exit code, or the one that stands for it.
    pub code: i32,
    /// Why the command could not be started.
    pub fault: Option<Error>,
    /// What could not be ended in order.
    pub warnings: Vec<String>,
}

/// Ends the mount. Who still uses it keeps what is open for a moment.
pub(super) fn end_mount(mounted: &Mounted) -> Option<String> {
    match mounted.unmount(false) {
        Err(why) if why.kind() == Kind::Busy => {
            if let Err(why) = mounted.unmount(true) {
                return Some(why.to_string());
            }
            let ended = mounted.wait_for(Some(LAST_FILES));
            let how = if ended { "detached" } else { "cut off" };
            Some(format!("the mount was still in use and was {how}"))
        }
        // Somebody else has unmounted it.
        Err(why) if why.kind() != Kind::Invalid => Some(why.to_string()),
        _ => {
            mounted.wait_for(Some(LAST_COPIES));
            None
        }
    }
}

pub(super) async fn sum_up(
    living: &Living,
    backend: &DirBackend,
    is_new: bool,
    exit: Exit,
) -> Result<Ended> {
    let mut run = living.run.clone();
    run.finished = Some(SystemTime::now());
    run.exit_code = Some(exit.code);
    run.status = match exit.code {
        _ if exit.timed_out => Status::TimedOut,
        _ if exit.aborted => Status::Aborted,
        0 => Status::Succeeded,
        _ => Status::Failed,
    };
    // Clocks of files are coarser than those of programs.
    let since = (!is_new).then(|| run.started - CLOCK);
    let output = RecordId {
        store: living.store.clone(),
        key: Key::new("OUTPUT")?,
    };
    // A command may well remove its own store.
    let records = count(backend, living, since).await.unwrap_or(0);
    let output = backend.file(&output).await.ok();
    Ok(Ended {
        user: living.user.clone(),
        store: living.directory.clone(),
        records,
        output,
        code: exit.code,
        fault: exit.fault,
        warnings: Vec::new(),
        run,
    })
}

/// How many records of the store are no inputs, and were changed since then.
async fn count(backend: &DirBackend, living: &Living, since: Option<SystemTime>) -> Result<u64> {
    let mut found = 0;
    let mut query = ListQuery::default();
    loop {
        let page = backend.list(&living.store, query.clone()).await?;
        let written = page.records.iter().filter(|(key, meta)| {
            let is_input = key.as_str() == "INPUT" || key.as_str().starts_with("INPUT-METAMORPH-");
            let is_old = since.is_some_and(|since| meta.modified.is_some_and(|time| time < since));
            !is_input && !is_old
        });
        found += written.count() as u64;
        query.after = page.next;
        if query.after.is_none() {
            return Ok(found);
        }
    }
}
